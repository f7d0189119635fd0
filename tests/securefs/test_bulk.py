"""Everything under a path is accounted for, and nothing is waited for."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest
from support.journals import open_descriptors
from support.sealing import KEY, OTHER_KEY, RING, SUITES, pattern, seal, seal_1
from support.special import bind

from securefs import ConfigurationError, IntegrityError, Keyring, Reason
from securefs.bulk import (
    Found,
    Status,
    _found,
    _link,
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


def no_context(_path):
    return b""


def put(name, data):
    Path(name).write_bytes(data)
    return Path(name)


def statuses(*names, judge=verify_one, keyring=RING, **options):
    """Return {path: status} of everything under the names."""
    return {
        str(found.path): judge(found, keyring, no_context, **options).status.value for found in walk(names)
    }


def only(name, judge=verify_one, keyring=RING, **options):
    """Return the verdict on the only thing under a name."""
    (found,) = walk([name])
    return judge(found, keyring, no_context, **options)


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


@pytest.mark.parametrize("judge", [verify_one, rewrap_one, key_of])
def test_a_file_that_is_removed_meanwhile_counts_against_what_must_be_complete(judge):
    """It may have another name by now, and it needed the previous key there as well."""
    found = Found(Path("d/1.enc"))
    verdict = judge(found, RING, no_context)
    assert verdict.status is (Status.GONE if judge is verify_one else Status.FAILED)
    assert judge(Found(Path("d/1"), named=True), RING, no_context).failed


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


def damaged(count):
    """Return an encrypted file of which ``count`` bytes of the magic are damaged."""
    data = bytearray(seal(pattern(3000)))
    data[:count] = bytes(byte ^ 0xFF for byte in data[:count])
    return bytes(data)


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


def test_format_1_under_a_previous_key_still_needs_it():
    put("d/1", seal_1(b"old"))
    verdict = only("d", rewrap_one, ROTATING)
    assert (verdict.failed, verdict.key_id) == (True, key_id(KEY).hex())
    assert verdict.reason is Reason.NOT_ENCRYPTED
    assert f"under key {key_id(KEY).hex()}" in verdict.message
    assert only("d", rewrap_one, RING).status is Status.FORMAT_1
    verdict = only("d", key_of, ROTATING)
    assert (verdict.status, verdict.key_id) == (Status.OPENS, key_id(KEY).hex())


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
