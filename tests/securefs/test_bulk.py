"""What is done to each file under a path, and that each is accounted for."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from support.findings import damaged, no_context, only, put, statuses
from support.journals import open_descriptors
from support.sealing import KEY, OTHER_KEY, RING, SUITES, pattern, seal, seal_1

from securefs import IntegrityError, Keyring, Reason
from securefs.bulk import (
    Found,
    Status,
    import_one,
    key_of,
    reencrypt_one,
    rewrap_one,
    verify_one,
    walk,
)
from securefs.header import MAGIC
from securefs.keys import key_id

ROTATING = Keyring(OTHER_KEY, [KEY])


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()


def test_format_1_under_a_previous_key_still_needs_it():
    put("d/1", seal_1(b"old"))
    verdict = only("d", rewrap_one, ROTATING)
    assert (verdict.failed, verdict.key_id) == (True, key_id(KEY).hex())
    assert verdict.reason is Reason.NOT_ENCRYPTED
    assert f"under key {key_id(KEY).hex()}" in verdict.message
    assert only("d", rewrap_one, RING).status is Status.FORMAT_1
    verdict = only("d", key_of, ROTATING)
    assert (verdict.status, verdict.key_id) == (Status.OPENS, key_id(KEY).hex())


def test_the_key_that_a_file_needs_is_the_primary_if_that_opens_it():
    put("d/1", seal(b"x"))
    old, new = key_id(KEY).hex(), key_id(OTHER_KEY).hex()
    verdict = only("d", key_of, ROTATING)
    assert (verdict.status, verdict.key_id, verdict.message) == (Status.OPENS, old, f"key {old}")
    assert only("d", rewrap_one, ROTATING).rewrapped.removed == (old,)
    verdict = only("d", key_of, ROTATING)
    assert (verdict.key_id, verdict.message) == (new, "")
    assert only("d", rewrap_one, ROTATING).status is Status.UNCHANGED


def test_what_was_verified_is_told_as_it_goes():
    for size in (0, 1, 16 * 1024 * 1024, 16 * 1024 * 1024 + 1):
        put("d/1", seal(bytes(size)))
        told = []
        assert only("d", on_bytes=told.append).info.size == size
        assert sum(told) == size
        assert len(told) == (2 if size > 16 * 1024 * 1024 else 1)


def test_a_change_in_the_last_step_is_found():
    data = bytearray(seal(bytes(16 * 1024 * 1024 + 70_000)))
    data[-80_000] ^= 1
    put("d/1", data)
    assert only("d").reason is Reason.TAG_MISMATCH


@pytest.mark.parametrize("judge", [verify_one, rewrap_one, key_of])
def test_no_descriptor_stays_open(judge):
    put("d/1", seal(b"x"))
    put("d/2", seal(b"x")[:200])
    put("d/3", b"plain")
    put("d/4", seal_1(b"x"))
    before = open_descriptors()
    for _ in range(3):
        statuses("d", judge=judge)
    assert open_descriptors() == before


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_imported_is_what_is_not_encrypted(dry_run):
    done = Status.PLANNED if dry_run else Status.IMPORTED
    for name, data, status in (
        ("plain", b"plaintext", done),
        ("plain.enc", b"plaintext", done),
        ("empty", b"", done),
        ("format-1", seal_1(b"old"), done),
        ("encrypted", seal(b"x"), Status.UNCHANGED),
        ("damaged", damaged(1), Status.FAILED),
        ("key-id", bytes(300) + key_id(KEY), Status.FAILED),
    ):
        path = put("d/1", data)
        path = path.rename(f"d/{name}")
        verdict = only("d", import_one, dry_run=dry_run)
        assert verdict.status is status, name
        changed = status is Status.IMPORTED
        assert (path.read_bytes() != data) is changed
        assert (verdict.info is not None) is changed
        if changed:
            assert only("d").status is Status.VERIFIED
        path.unlink()


@pytest.mark.parametrize("suite", SUITES)
def test_an_import_tells_what_is_no_whole_file_of_format_2(suite):
    whole = seal(b"contents", suite=suite)
    put("d/1", whole)
    assert only("d", import_one).status is Status.UNCHANGED
    for size in range(len(MAGIC), len(whole)):
        put("d/1", whole[:size])
        verdict = only("d", import_one)
        # Another length may be whole, too: then the last byte tells.
        assert (verdict.status, verdict.reason) == (Status.FAILED, Reason.TRUNCATED), size
        assert only("d", import_one, dry_run=True).status is Status.FAILED
    for data, reason in (
        (whole + b"\0", Reason.TRUNCATED),
        (whole[:-1] + bytes([whole[-1] ^ 1]), Reason.TRUNCATED),
        (whole[:8] + b"\x03" + whole[9:], Reason.BAD_HEADER),
        (whole[:9] + b"\x7f" + whole[10:], Reason.BAD_HEADER),
    ):
        put("d/1", data)
        assert only("d", import_one).reason is reason
        assert Path("d/1").read_bytes() == data


@pytest.mark.parametrize("break_links", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
def test_names_that_would_keep_the_plaintext_are_told(dry_run, break_links):
    os.link(put("d/1", b"plaintext"), "other")
    verdict = only("d", import_one, dry_run=dry_run, break_links=break_links)
    assert verdict.failed is not break_links
    assert ("hard links" in verdict.message) is not break_links
    assert Path("other").read_bytes() == b"plaintext"


def test_an_import_needs_to_know_the_context_before_it_begins():
    put("d/1", b"plaintext")
    (found,) = walk(["d"])

    def unknown(_path):
        raise IntegrityError("nothing is known", Reason.WRONG_CONTEXT)

    for dry_run in (False, True):
        assert import_one(found, RING, unknown, dry_run=dry_run).reason is Reason.WRONG_CONTEXT
    assert Path("d/1").read_bytes() == b"plaintext"


def test_a_file_that_cannot_be_replaced_is_told_in_words_of_its_own(monkeypatch):
    put("d/1", b"plaintext")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    verdict = only("d", import_one)
    assert verdict.message == "cannot be encrypted: No space left on device"
    put("d/1", seal(b"x"))
    assert only("d", rewrap_one, ROTATING).message == "cannot be rewrapped: No space left on device"


def test_several_containers_are_one_finding_of_every_judge():
    both = seal(b"1", label="1") + seal(b"2", label="2")
    for data, count in ((both, 2), (b"\x88" + both[1:], 2), (both + both[:100], 3)):
        put("d/1", data)
        for judge in (verify_one, rewrap_one, key_of, reencrypt_one):
            verdict = only("d", judge)
            assert (verdict.status, verdict.failed, verdict.reason) == (
                Status.JOINED,
                True,
                Reason.CHUNKED_UPLOAD,
            )
            assert verdict.containers[0] == count
        assert Path("d/1").read_bytes() == data
    put("d/1", both)
    (found,) = walk(["d"])
    assert rewrap_one(found, RING, lambda _: None).status is Status.JOINED
    assert key_of(found, RING, lambda _: None).status is Status.JOINED
    # An import does not search for containers, but no writer makes a file of this length.
    assert import_one(found, RING, no_context).status is Status.JOINED
    # What is damaged and one container is told as before, and so is what a file that is not
    # encrypted holds.
    put("d/1", seal(pattern(3000))[:-1])
    assert only("d").reason is Reason.TRUNCATED
    put("d/1", bytes(40_000) + both)
    assert only("d").status is Status.PLAIN


def test_what_a_killed_run_left_is_removed():
    for judge, keyring in ((import_one, RING), (reencrypt_one, ROTATING)):
        for name in ("1", "2\n3"):
            put(f"d/{name}", seal(b"x"))
            left = put(f"d/.{name}.0123456789abcdef.tmp", b"half")
            found = Found(left)
            assert judge(found, keyring, no_context, dry_run=True).status is not Status.REMOVED
            assert left.exists()
            assert judge(found, keyring, no_context).status is Status.REMOVED
            assert not left.exists()
    # Its own file is gone, or it is not named as one.
    for name in (".gone.0123456789abcdef.tmp", ".1.0123456789ABCDEF.tmp", "1.0123456789abcdef.tmp"):
        assert import_one(Found(put(f"d/{name}", b"x")), RING, no_context).status is Status.IMPORTED


def test_what_a_living_run_writes_is_not_removed():
    put("d/1", b"x")
    left = put("d/.1.0123456789abcdef.tmp", seal(b"half"))
    with left.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert import_one(Found(left), RING, no_context).status is Status.UNCHANGED
    assert left.exists()
