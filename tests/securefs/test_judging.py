"""What a file is, and that no fault of one hides the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.findings import damaged, no_context, only, put
from support.sealing import KEY, OTHER_KEY, RING, seal, seal_1
from support.special import bind

from securefs import ConfigurationError, IntegrityError, Keyring, Reason
from securefs.bulk import key_of, rewrap_one, verify_one
from securefs.header import MAGIC
from securefs.judging import Status
from securefs.keys import key_id
from securefs.walking import Found, walk

ROTATING = Keyring(OTHER_KEY, [KEY])


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()


@pytest.mark.parametrize("judge", [verify_one, rewrap_one, key_of])
def test_a_file_that_is_removed_meanwhile_counts_against_what_must_be_complete(judge):
    """It may have another name by now, and it needed the previous key there as well."""
    found = Found(Path("d/1.enc"))
    verdict = judge(found, RING, no_context)
    assert verdict.status is (Status.GONE if judge is verify_one else Status.FAILED)
    assert judge(Found(Path("d/1"), named=True), RING, no_context).failed


def test_a_link_that_is_named_is_followed_and_one_that_is_found_is_not():
    put("file", seal(b"x", ring=Keyring(KEY)))
    Path("d/link.enc").symlink_to("../file")
    assert only("d/link.enc").status is Status.VERIFIED
    assert only("d").failed
    before = Path("file").read_bytes()
    (found,) = walk(["d"])
    assert rewrap_one(found, ROTATING, no_context).failed
    assert Path("file").read_bytes() == before
    assert only("d/link.enc", rewrap_one, ROTATING).status is Status.REWRAPPED


@pytest.mark.timeout(30)
@pytest.mark.parametrize("judge", [verify_one, rewrap_one, key_of])
@pytest.mark.parametrize(
    ("exchange", "kind"),
    [
        pytest.param(os.mkfifo, "a pipe", id="pipe"),
        pytest.param(bind, "a socket", id="socket"),
        pytest.param(lambda path: path.symlink_to("../elsewhere"), "a symbolic link", id="link"),
    ],
)
def test_a_file_that_is_exchanged_after_it_was_found_is_neither_followed_nor_waited_for(
    judge, exchange, kind
):
    put("elsewhere", seal(b"x"))
    path = put("d/1", seal(b"x"))
    before = Path("elsewhere").read_bytes()
    (found,) = walk(["d"])
    path.unlink()
    exchange(path)
    verdict = judge(found, ROTATING, no_context)
    assert (verdict.failed, verdict.reason) == (True, Reason.IO_ERROR)
    assert verdict.message == f"d/1 is {kind}, not a regular file"
    assert Path("elsewhere").read_bytes() == before


@pytest.mark.parametrize("judge", [verify_one, rewrap_one, key_of])
@pytest.mark.parametrize("count", range(9))
def test_a_damaged_magic_is_a_failure_also_where_nothing_of_it_is_left(judge, count):
    """What is left of the file still names the key in its slot."""
    put("d/1", damaged(count))
    verdict = only("d", judge)
    assert verdict.failed is (count > 0)
    assert (verdict.reason is Reason.BAD_HEADER) is (count > 0)


@pytest.mark.parametrize("count", range(9))
def test_half_of_the_magic_is_enough_to_know_a_damaged_file(count):
    """Under another key, so that no slot names one of the ring's."""
    put("d/1", damaged(count))
    verdict = only("d", keyring=Keyring(OTHER_KEY))
    assert verdict.status is (Status.PLAIN if count > 4 else Status.FAILED)
    assert verdict.reason is ((Reason.BAD_HEADER if count else Reason.UNKNOWN_KEY) if count < 5 else None)


def test_a_key_id_at_the_last_place_of_a_slot_table_is_found():
    identity = key_id(KEY)
    last = 56 + 8 * 4096
    put("d/1", b"\0" * (last - 16) + identity + bytes(100))
    assert only("d").failed
    put("d/1", b"\0" * (last + len(MAGIC)) + identity + bytes(100))
    assert only("d").status is Status.PLAIN


@pytest.mark.parametrize("size", [1, 7, 8, 15, 63, 64, 65, 4096])
def test_what_is_not_encrypted_is_counted_or_refused(size):
    put("d/1", bytes(size))
    assert only("d").status is Status.PLAIN
    assert only("d", rewrap_one).status is Status.PLAIN
    assert only("d", key_of).status is Status.PLAIN
    assert only("d", everything=True).failed
    assert only("d", rewrap_one, everything=True).failed
    assert only("d/1").reason is Reason.NOT_ENCRYPTED
    put("d/1", b"")
    assert only("d").status is Status.EMPTY
    assert only("d/1").reason is Reason.TRUNCATED
    assert only("d", everything=True).failed


def test_format_1_is_known_by_its_tag():
    put("d/1", seal_1(b"old"))
    verdict = only("d")
    assert (verdict.status, verdict.key_id) == (Status.FORMAT_1, key_id(KEY).hex())
    assert only("d", format_1=True).info.format == 1
    assert only("d", everything=True).failed
    assert only("d", everything=True, format_1=True).status is Status.VERIFIED
    assert only("d/1").message == "a Format 1 file, which is read with --format-1 only"
    assert only("d", keyring=Keyring(OTHER_KEY)).status is Status.PLAIN
    put("d/1", seal_1(b"old")[:-1] + b"?")
    assert only("d", format_1=True).status is Status.PLAIN
    assert only("d/1", format_1=True).failed


def test_a_ring_without_file_keys_knows_no_format_1():
    put("d/1", seal_1(b"old"))
    assert only("d", keyring=Keyring.of(None)).status is Status.PLAIN


def test_a_context_that_is_not_known_is_a_failure_and_one_that_can_not_be_asked_the_end():
    put("d/1", seal(b"x"))
    (found,) = walk(["d"])

    def unknown(path):
        raise IntegrityError(f"nothing is known of {path}", Reason.WRONG_CONTEXT)

    def broken(_path):
        raise ConfigurationError("no such database")

    for judge in (verify_one, rewrap_one, key_of):
        verdict = judge(found, RING, unknown)
        assert (verdict.failed, verdict.reason) == (True, Reason.WRONG_CONTEXT)
        assert verdict.message == "nothing is known of d/1"
        with pytest.raises(ConfigurationError, match="no such database"):
            judge(found, RING, broken)
