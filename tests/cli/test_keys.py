"""``securefs keys in-use``: the proof that a previous key is not needed any more."""

from __future__ import annotations

import json
from pathlib import Path

from support.commands import KEY, OTHER_KEY, sealed

from securefs.keys import key_id

OLD, NEW = key_id(KEY).hex(), key_id(OTHER_KEY).hex()


def in_use(run, *arguments):
    return run("keys", "in-use", *arguments)


def test_each_key_is_told_with_the_number_of_files_that_need_it(run, rotating):
    Path("d").mkdir()
    for number in range(3):
        sealed(name=f"d/old{number}.enc")
    sealed(name="d/new.enc", key=OTHER_KEY)
    sealed(name="d/format1", format_1=True)
    Path("d/plain").write_bytes(b"plain")
    result = in_use(run, "d")
    assert (result.code, result.err) == (1, "")
    assert result.out.decode().splitlines() == [
        f"needs    d/format1: key {OLD}, Format 1",
        *(f"needs    d/old{number}.enc: key {OLD}" for number in range(3)),
        "plain    d/plain",
        f"key {NEW} (primary): 1 files",
        f"key {OLD} (previous): 4 files",
        "5 encrypted, 0 failed, 1 not encrypted, 4 under a previous key",
    ]
    document = json.loads(in_use(run, "d", "--json").out)
    assert document["keys"] == {NEW: 1, OLD: 4}
    assert (document["opens"], document["failed"], document["plain"], document["previous"]) == (5, 0, 1, 4)
    assert {file.get("key_id") for file in document["files"]} == {OLD, NEW, None}


def test_only_what_is_proven_ends_with_0(run, rotating):
    """A rewrap, and then: none of the ways in which a file may still need the old key is overlooked."""
    Path("d").mkdir()
    sealed(name="d/1.enc")
    assert in_use(run, "d").code == 1
    assert run("rewrap", "d").code == 0
    result = in_use(run, "d")
    assert (result.code, result.out.decode().splitlines()) == (
        0,
        [f"key {NEW} (primary): 1 files", f"key {OLD} (previous): 0 files", "1 encrypted, 0 failed"],
    )
    Path("elsewhere").mkdir()
    sealed(name="elsewhere/2.enc")
    Path("d/link").symlink_to("../elsewhere")
    assert in_use(run, "d").code == 1
    assert run("rewrap", "d").code == 1
    assert run("rewrap", "d", "elsewhere").code == 0
    assert in_use(run, "d", "elsewhere").code == 0
    sealed(name="d/format1", format_1=True)
    assert in_use(run, "d", "elsewhere").code == 1
    assert run("rewrap", "d", "elsewhere").code == 1
    Path("d/format1").unlink()
    data = bytearray(sealed(name="d/damaged").read_bytes())
    data[:8] = bytes(8)
    Path("d/damaged").write_bytes(data)
    assert in_use(run, "d", "elsewhere").code == 1


def test_what_a_ring_without_the_old_key_finds_is_a_failure_and_not_its_absence(run):
    sealed(name="1.enc", key=OTHER_KEY)
    result = in_use(run, "1.enc")
    assert result.code == 1
    assert OTHER_KEY not in result.out
    assert f"it names {NEW}".encode() in result.out


def test_files_with_a_context_need_it_unless_that_is_said(run, rotating):
    sealed(name="1.enc", context=b"owner:ann", key=OTHER_KEY)
    assert in_use(run, "1.enc").code == 1
    assert in_use(run, "1.enc", "--context", "owner:ann").code == 0
    result = in_use(run, "1.enc", "--any-context")
    assert result.code == 0
    assert result.out.endswith(b"1 encrypted, 0 failed; --any-context: commitments were not verified\n")


def test_nothing_is_written(run, rotating):
    path = sealed(name="1.enc")
    before, status = path.read_bytes(), path.stat()
    in_use(run, "1.enc")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, status.st_mtime_ns)
