"""Only root and the user that runs the program may be able to change or exchange a key file.

Each test runs as root, for whom modes count nothing elsewhere, and as a user.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.journals import NOBODY, unprivileged
from support.keys import KEY, PREVIOUS, PRIMARY, assert_tells_no_key, b64, traces_of, write_key

from securefs import ConfigurationError, Keyring
from securefs.keys import key_id

GOOD = b64(KEY)


@pytest.fixture(
    params=[
        pytest.param(False, id="as root", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
        pytest.param(True, id="as a user"),
    ]
)
def mine(request):
    """A private folder of the user that runs the test: once root, once a user for whom modes count."""
    folder = Path(tempfile.mkdtemp(prefix="a.folder."))  # such a path does not look like a key
    try:
        if request.param:
            with unprivileged(folder):
                yield folder
        else:
            yield folder
    finally:
        shutil.rmtree(folder)


def accepted(path: Path | str) -> bool:
    return Keyring.from_env({f"{PRIMARY}_FILE": str(path)}).primary_id == key_id(KEY)


def refused(path: Path | str, what: str, remedy: str, name: str = PRIMARY) -> None:
    """The message names the variable, what is wrong and what to do, in one line."""
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env(
            {PRIMARY: GOOD} | {f"{name}_FILE": str(path)} if name != PRIMARY else {f"{name}_FILE": str(path)}
        )
    message = str(caught.value)
    assert message.startswith(f"{name}_FILE: ")
    assert what in message
    assert remedy in message
    assert len(message.splitlines()) == 1
    assert_tells_no_key(caught.value, *traces_of(KEY))


def key_in(folder: Path, mode: int = 0o700) -> str:
    """The path of a good key file in a new folder."""
    folder.mkdir()
    path = write_key(folder / "key", GOOD.encode())
    folder.chmod(mode)
    return path


def as_root(action) -> None:
    """Do what only root can, also in a test that runs as another user; skip the test without root."""
    user = os.geteuid()
    try:
        os.seteuid(0)
    except PermissionError:
        pytest.skip("needs root")
    try:
        action()
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", [PRIMARY, PREVIOUS])
@pytest.mark.parametrize("mode", [0o620, 0o660, 0o770, 0o420])
def test_a_key_file_that_its_group_can_write_to_is_refused(mine, mode, name):
    path = write_key(mine / "key", GOOD.encode(), mode)
    refused(path, "can be changed by its group", "run chmod g-w on it", name)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640, 0o700, 0o750])
def test_a_key_file_may_be_read_by_its_group(mine, mode):
    assert accepted(write_key(mine / "key", GOOD.encode(), mode))


def test_a_key_file_of_another_user_is_refused(mine):
    path, stranger = write_key(mine / "key", GOOD.encode(), 0o640), NOBODY - 1
    # Its group may read it, as it may read a mounted secret.
    as_root(lambda: os.chown(path, stranger, os.getegid()))
    refused(path, f"belongs to user {stranger}, and this is user {os.geteuid()}", f"chown {os.geteuid()}")


def test_a_key_file_of_root_serves_another_user(mine):
    path = write_key(mine / "key", GOOD.encode(), 0o440)
    as_root(lambda: os.chown(path, 0, os.getgid()))
    assert accepted(path)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o720, 0o2770])
def test_a_folder_that_others_can_write_to_is_refused_wherever_it_is_on_the_way(mine, mode):
    inner = mine / "outer" / "inner"
    inner.mkdir(parents=True)
    path = write_key(inner / "key", GOOD.encode())
    assert accepted(path)
    for folder in (inner, inner.parent):
        folder.chmod(mode)
        refused(path, f"{str(folder)!r}, on the way to {path!r}, can be changed by other users", "chmod go-w")
        folder.chmod(0o755)
    assert accepted(path)


def test_a_folder_of_another_user_is_refused(mine):
    path = key_in(mine / "theirs", 0o755)
    stranger = NOBODY - 1
    as_root(lambda: os.chown(mine / "theirs", stranger, -1))
    refused(path, f"belongs to user {stranger}, and this is user {os.geteuid()}", f"chown {os.geteuid()}")


def test_in_a_sticky_folder_a_folder_of_ours_passes_and_a_file_does_not(mine):
    shared = mine / "shared"
    shared.mkdir()
    path = key_in(shared / "ours")
    lone = write_key(shared / "key", GOOD.encode())
    shared.chmod(0o1777)
    assert accepted(path)
    refused(lone, f"{str(shared)!r}, on the way to {lone!r}, is shared with other users", "mkdir -m 700")
    shared.chmod(0o1755)
    assert accepted(lone)


def test_in_a_sticky_folder_nothing_of_another_user_passes(mine):
    shared, stranger = mine / "shared", NOBODY - 1
    shared.mkdir()
    path = key_in(shared / "theirs", 0o755)
    (shared / "link").symlink_to("ours")
    key_in(shared / "ours")
    shared.chmod(0o1777)
    assert accepted(shared / "link" / "key")
    as_root(lambda: os.chown(shared / "theirs", stranger, -1))
    as_root(lambda: os.chown(shared / "link", stranger, -1, follow_symlinks=False))
    refused(path, "is shared with other users", "mkdir -m 700")
    refused(shared / "link" / "key", "is shared with other users", "mkdir -m 700")
    as_root(lambda: os.chown(shared, stranger, -1))
    refused(shared / "ours" / "key", f"belongs to user {stranger}", "chown")


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_secrets_as_kubernetes_mounts_them_are_read(mine, mode):
    mount = mine / "secrets"
    mount.mkdir()
    key_in(mount / "..2026_11_26_12_00_00.1", 0o755)
    (mount / "..data").symlink_to("..2026_11_26_12_00_00.1")
    (mount / "key").symlink_to("..data/key")
    mount.chmod(mode)
    assert accepted(mount / "key")


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_every_folder_on_the_way_of_a_link_counts(mine, absolute):
    target = Path(key_in(mine / "weak"))
    (mine / "safe").mkdir()
    hop = mine / "safe" / "hop"
    hop.symlink_to(target if absolute else "../weak/key")
    link = mine / "safe" / "link"
    link.symlink_to("hop")
    assert accepted(link)
    target.parent.chmod(0o770)
    refused(link, f"{str(mine / 'weak')!r}, on the way to {str(link)!r}", "chmod go-w")


def test_the_folder_that_holds_a_link_counts(mine):
    target = key_in(mine / "safe")
    (mine / "weak").mkdir()
    (mine / "weak" / "link").symlink_to(target)
    (mine / "weak" / "folder").symlink_to(mine / "safe")
    (mine / "weak").chmod(0o770)
    for path in (mine / "weak" / "link", mine / "weak" / "folder" / "key", f"{mine}/weak/folder/../safe/key"):
        refused(path, f"{str(mine / 'weak')!r}, on the way to", "chmod go-w")
    # What is left again before anything is looked up in it decides nothing.
    assert accepted(f"{mine}/weak/../safe/./key")


def test_a_relative_path_starts_at_the_working_folder(mine, monkeypatch):
    key_in(mine / "here")
    monkeypatch.chdir(mine / "here")
    assert accepted("key")
    mine.chmod(0o777)
    refused("key", f"{str(mine)!r}, on the way to 'key'", "chmod go-w")


def test_links_in_a_circle_are_an_error(mine):
    (mine / "a").symlink_to("b")
    (mine / "b").symlink_to("a")
    refused(mine / "a", "Too many levels of symbolic links", "securefs keygen")


def test_forty_links_are_followed(mine):
    write_key(mine / "0", GOOD.encode())
    for number in range(41):
        (mine / f"{number + 1}").symlink_to(f"{number}")
    assert accepted(mine / "40")
    refused(mine / "41", "Too many levels of symbolic links", "securefs keygen")


@pytest.mark.parametrize(
    ("change", "mode", "good"),
    [
        pytest.param({}, 0o770, True, id="a private group"),
        pytest.param({"gr_mem": ["me"]}, 0o770, True, id="with its user as a member"),
        pytest.param({"gr_mem": ["me", "you"]}, 0o770, False, id="with another member"),
        pytest.param({"gr_name": "staff"}, 0o770, False, id="of another name"),
        pytest.param({"gr_gid": -1}, 0o770, False, id="not the user's first group"),
        pytest.param({}, 0o777, False, id="and everybody can write"),
        pytest.param(None, 0o770, False, id="that nobody knows"),
    ],
)
def test_the_private_group_of_a_user_but_for_root_may_write_to_its_folders(
    mine, monkeypatch, change, mode, good
):
    path = write_key(mine / "key", GOOD.encode())
    mine.chmod(mode)
    gid = mine.stat().st_gid

    def known(_):
        if change is None:
            raise KeyError(gid)
        return SimpleNamespace(**{"gr_name": "me", "gr_gid": gid, "gr_mem": [], **change})

    monkeypatch.setattr("grp.getgrgid", known)
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_name="me", pw_gid=gid))
    if good and os.geteuid() != 0:
        assert accepted(path)
    else:
        refused(path, "can be changed by other users", "run chmod go-w on it")
