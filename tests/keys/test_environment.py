from __future__ import annotations

import base64
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.journals import NOBODY, unprivileged
from support.keys import KEY, PREVIOUS, PRIMARY, RETIRED, b64, traces_of
from support.sealing import keys_of

from securefs import ConfigurationError, Keyring
from securefs.keys import MAX_KEY_FILE, generate_key, key_id


def chain(error: BaseException | None):
    """An error and all that led to it, shown or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_tells_no_key(error: BaseException, *secrets: str) -> None:
    for link in chain(error):
        text = f"{link!s} {link!r} {link.args!r} {vars(link)!r}"
        for secret in secrets:
            assert secret not in text


GOOD = b64(KEY)
BAD_PRIMARY = [
    pytest.param("", id="empty"),
    pytest.param("   ", id="blank"),
    pytest.param(b64(KEY[:31]), id="31 bytes"),
    pytest.param(b64(KEY + b"\0"), id="33 bytes"),
    pytest.param(b64(KEY[:16]), id="16 bytes"),
    pytest.param(b64(KEY[:24]), id="24 bytes"),
    pytest.param("correct horse battery staple", id="passphrase"),
    pytest.param(GOOD[:20] + "!" + GOOD[21:], id="wrong character"),
    pytest.param(GOOD[:20] + "\n" + GOOD[20:], id="line break inside"),
    pytest.param(GOOD[:20] + "é" + GOOD[21:], id="not ASCII"),
    pytest.param(GOOD[:-3], id="cut"),
    pytest.param(GOOD + "=", id="too much padding"),
    pytest.param(b64(bytes(32)), id="all zero"),
    pytest.param(b64(b"\x5a" * 32), id="one byte repeated"),
    pytest.param(KEY.hex(), id="hex"),
    pytest.param(f"{GOOD},{GOOD}", id="two keys"),
]


@pytest.mark.parametrize("text", BAD_PRIMARY)
def test_a_bad_primary_key_is_one_line_that_names_variable_and_remedy(text):
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env({PRIMARY: text})
    message = str(caught.value)
    assert PRIMARY in message
    assert "securefs keygen" in message
    assert len(message.splitlines()) == 1
    if len(text) > 20:
        assert_tells_no_key(caught.value, text, text[:20], *traces_of(KEY))


@pytest.mark.parametrize(
    "text",
    [item for item in BAD_PRIMARY if item.id not in {"16 bytes", "24 bytes", "empty", "blank", "two keys"}],
)
def test_a_bad_retired_key_is_one_line_that_says_which_it_is(text):
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env({PRIMARY: b64(RETIRED), PREVIOUS: f"{GOOD},{text}"})
    message = str(caught.value)
    assert f"{PREVIOUS} (key 2)" in message
    assert "securefs keygen" in message
    assert len(message.splitlines()) == 1
    assert_tells_no_key(caught.value, *traces_of(KEY), *traces_of(RETIRED))


def test_no_key_at_all_is_an_error_and_not_plaintext():
    with pytest.raises(
        ConfigurationError, match=r"^FILE_KEY_BASE64 is not set: make a good one with: securefs keygen$"
    ):
        Keyring.from_env({})


@pytest.mark.parametrize("name", [PRIMARY, PREVIOUS])
def test_a_variable_and_its_file_together_are_an_error(name):
    with pytest.raises(ConfigurationError, match=f"^both {name} and {name}_FILE are set: unset one of them$"):
        Keyring.from_env({PRIMARY: GOOD, name: GOOD, f"{name}_FILE": "/run/key"})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD, id="standard"),
        pytest.param(base64.urlsafe_b64encode(bytes([251, 255] * 16)).decode(), id="url-safe"),
        pytest.param(GOOD.rstrip("="), id="no padding"),
        pytest.param(f"  {GOOD}\n", id="white space around"),
    ],
)
def test_base64_is_taken_in_its_usual_shapes(text):
    assert len(keys_of(Keyring.from_env({PRIMARY: text}))[0]) == 32


def test_the_default_environment_is_the_process(monkeypatch):
    monkeypatch.setenv(PRIMARY, GOOD)
    monkeypatch.delenv(PREVIOUS, raising=False)
    assert keys_of(Keyring.from_env()) == [KEY]


def test_retired_keys_are_read_in_order_and_empty_ones_left_out():
    ring = Keyring.from_env({PRIMARY: GOOD, PREVIOUS: f" {b64(RETIRED)}, ,{b64(KEY[:16])},"})
    assert keys_of(ring) == [KEY, RETIRED, KEY[:16]]


def write_key(path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def test_keys_are_read_from_files(tmp_path):
    primary = write_key(tmp_path / "primary", GOOD.encode() + b"\n")
    previous = write_key(tmp_path / "previous", f"{b64(RETIRED)},{b64(KEY[:24])}\n".encode(), 0o640)
    ring = Keyring.from_env({f"{PRIMARY}_FILE": primary, f"{PREVIOUS}_FILE": previous})
    assert keys_of(ring) == [KEY, RETIRED, KEY[:24]]


def file_error(path: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env({f"{PRIMARY}_FILE": path})
    message = str(caught.value)
    assert f"{PRIMARY}_FILE" in message
    assert len(message.splitlines()) == 1
    assert_tells_no_key(caught.value, *traces_of(KEY))
    return message


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_key_file_that_others_can_access_is_refused(tmp_path, mode):
    assert "chmod 600" in file_error(write_key(tmp_path / "key", GOOD.encode(), mode))


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


def test_a_missing_key_file_is_named(tmp_path):
    message = file_error(str(tmp_path / "no-such-file"))
    assert "no-such-file" in message
    assert "No such file" in message
    assert "securefs keygen" in message


def test_a_path_with_a_line_break_stays_in_one_line(tmp_path):
    assert "\\n" in file_error(str(tmp_path / "a\nb"))


def test_a_path_with_a_nul_byte_is_refused():
    assert "NUL" in file_error("/run/\0key")


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(GOOD, id="base64"),
        pytest.param(b64(bytes([255]) + KEY[1:-1] + b"\xff"), id="with slashes"),
        pytest.param(base64.urlsafe_b64encode(KEY[:16]).decode(), id="short"),
    ],
)
def test_a_key_where_a_path_is_due_is_not_repeated_in_the_message(secret):
    with pytest.raises(ConfigurationError, match="looks like a key") as caught:
        Keyring.from_env({f"{PRIMARY}_FILE": secret})
    assert_tells_no_key(caught.value, secret, secret.rstrip("="))


def test_a_folder_a_device_and_a_fifo_are_no_key_files(tmp_path):
    assert "Is a directory" in file_error(str(tmp_path))
    assert "not a regular file" in file_error("/dev/null")
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in file_error(str(tmp_path / "fifo"))


def test_a_huge_key_file_is_not_read(tmp_path):
    assert f"larger than {MAX_KEY_FILE} bytes" in file_error(
        write_key(tmp_path / "key", bytes(MAX_KEY_FILE + 1))
    )


def test_a_binary_key_file_is_refused_without_showing_it(tmp_path):
    binary = bytes(range(200, 232))
    with pytest.raises(ConfigurationError, match="is not base64 text") as caught:
        Keyring.from_env({f"{PRIMARY}_FILE": write_key(tmp_path / "key", binary)})
    assert_tells_no_key(caught.value, *traces_of(binary))


def test_a_bad_key_in_a_file_names_the_plain_variable(tmp_path):
    with pytest.raises(ConfigurationError, match=f"^{PRIMARY} has 3 bytes where 32 are needed"):
        Keyring.from_env({f"{PRIMARY}_FILE": write_key(tmp_path / "key", b"AAAB")})


def test_a_generated_key_is_a_good_one_and_new_each_time():
    first, second = generate_key(), generate_key()
    assert first != second
    assert len(keys_of(Keyring.from_env({PRIMARY: first}))[0]) == 32


def test_a_key_file_may_have_65536_bytes_and_not_one_more(tmp_path):
    text = GOOD.encode() + b"\n"
    path = write_key(tmp_path / "key", text.ljust(65_536, b"\n"))
    assert Keyring.from_env({f"{PRIMARY}_FILE": path}).primary_id == key_id(KEY)
    assert "larger than 65536 bytes" in file_error(write_key(tmp_path / "more", text.ljust(65_537, b"\n")))
