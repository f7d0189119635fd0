"""Everything under a path is found, and nothing is waited for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.findings import no_context, only, put, statuses
from support.sealing import RING, seal

from securefs import Reason
from securefs.bulk import key_of, rewrap_one, verify_one
from securefs.judging import Status
from securefs.walking import _found, _link, walk


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()


def test_the_walk_is_in_order_and_leaves_nothing_out():
    for name in ("d/b", "d/a", "d/e/f/g"):
        Path(name).mkdir(parents=True)
        put(f"{name}/2", b"x")
        put(f"{name}/1", b"xy")
    os.mkfifo("d/a/0")
    Path("d/3").symlink_to("b/1")
    put("d/0", b"")
    found = [*walk(["d/b/2", "d"])]
    assert [str(one.path) for one in found] == [
        "d/b/2",
        *("d/0", "d/3"),
        *("d/a/0", "d/a/1", "d/a/2"),
        *("d/b/1", "d/b/2"),
        *("d/e/f/g/1", "d/e/f/g/2"),
    ]
    assert [one.named for one in found] == [True] + [False] * 9
    assert sum(one.size for one in found) == 1 + 0 + 3 * 3


def test_a_name_that_does_not_exist_is_told_before_anything_is_looked_at():
    put("d/1", b"x")
    with pytest.raises(FileNotFoundError):
        next(walk(["d", "missing"]))


def test_a_tree_may_be_deeper_than_calls_can_be():
    top = os.open("d", os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("x", dir_fd=top)
        below = os.open("x", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=top))
    os.close(top)
    try:
        (found,) = walk(["d"])
        assert found.path.name == "file"
    finally:
        subprocess.run(["rm", "-r", "d"], check=True)  # pytest's own removal calls itself


def test_a_folder_whose_path_is_too_long_is_a_failure_and_not_the_end():
    top = os.open("d", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=top)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    os.close(top)
    Path("d/y").mkdir()
    put("d/y/1", seal(b"x"))
    try:
        first, second = (verify_one(found, RING, no_context) for found in walk(["d"]))
    finally:
        subprocess.run(["rm", "-r", "d"], check=True)  # no other walk in Python gets through it
    assert (first.status, first.reason) == (Status.FAILED, Reason.IO_ERROR)
    assert first.message == "cannot be read: File name too long"
    assert second.status is Status.VERIFIED


def test_an_entry_that_vanishes_while_its_folder_is_listed_is_gone(monkeypatch):
    put("d/1", b"x")
    put("d/2", seal(b"x"))
    real = os.scandir

    class Listed:
        def __enter__(self):
            with real("d") as listed:
                self.entries = [*listed]
            Path("d/1").unlink()
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("os.scandir", lambda _: Listed())
    assert statuses("d") == {"d/1": "gone", "d/2": "verified"}


def test_an_entry_that_cannot_be_looked_at_is_a_failure(monkeypatch):
    """Of a folder that may be read and not searched: names alone."""
    put("d/1", b"x")
    real = os.scandir

    class Entry:
        name = "1"

        def stat(self, *, follow_symlinks):
            raise PermissionError(13, "Permission denied")

    class Listed:
        def __enter__(self):
            return iter([Entry()])

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("os.scandir", lambda path: Listed() if path == Path("d") else real(path))
    verdict = only("d")
    assert (verdict.failed, verdict.message) == (True, "cannot be read: Permission denied")


def test_a_special_file_that_is_removed_meanwhile_is_still_told():
    os.mkfifo("d/pipe")
    status = os.lstat("d/pipe")
    Path("d/pipe").unlink()
    assert (
        _found(Path("d/pipe"), status, named=False).detail == "d/pipe is a special file, not a regular file"
    )


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    ("target", "accounted"),
    [
        pytest.param("1", True, id="same folder"),
        pytest.param("e", True, id="folder inside"),
        pytest.param(".", True, id="itself"),
        pytest.param("../named/2", True, id="under another name"),
        pytest.param("../outside", False, id="outside"),
        pytest.param("../d-beside", False, id="name that begins alike"),
        pytest.param("nothing", False, id="dangling"),
        pytest.param("link", False, id="loop"),
        pytest.param("/", False, id="root"),
    ],
)
def test_a_link_is_accounted_for_where_its_target_is_walked(target, accounted, everything):
    for folder in ("d/e", "named", "outside", "d-beside"):
        Path(folder).mkdir()
    put("d/1", b"x")
    put("named/2", b"x")
    Path("d/link").symlink_to(target)
    (found,) = (found for found in walk(["d", "named"]) if found.path.name == "link")
    for judge in (verify_one, rewrap_one):
        fails = not accounted and (everything or judge is rewrap_one)
        verdict = judge(found, RING, no_context, everything=everything)
        assert verdict.status is (Status.FAILED if fails else Status.LINK)
    assert key_of(found, RING, no_context).failed is not accounted
    assert ("symbolic link" in found.detail) is True


def test_everything_below_the_root_is_inside():
    Path("d/link").symlink_to("/")
    (found,) = walk(["d"])
    assert not found.accounted
    assert _link(Path("d/link"), ["/"]).accounted
