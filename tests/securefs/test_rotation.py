from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import (
    BODY_START,
    KEY,
    LIBRARIES,
    OTHER_KEY,
    PRIMITIVES,
    RING,
    SUITES,
    chosen,
    pattern,
    seal,
    seal_1,
    slot_of,
)

from securefs import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    Keyring,
    Reason,
    SecureFSError,
    SourceError,
    UnknownKeyError,
    open_encrypted,
    rewrap,
    verify,
)
from securefs.header import parse_header, slot_table
from securefs.keys import key_id

NEW = Keyring(OTHER_KEY)
ROTATING = Keyring(OTHER_KEY, [KEY])
THIRD_KEY = bytes(range(50, 82))
CONTENT = pattern(70_000)
OLD_ID, NEW_ID = key_id(KEY).hex(), key_id(OTHER_KEY).hex()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.enc"


def stored(path: Path, data: bytes | None = None) -> Path:
    path.write_bytes(seal(CONTENT) if data is None else data)
    return path


def content(path: Path, ring: Keyring = NEW, context: bytes = b"") -> bytes:
    with open_encrypted(path, ring, context) as file:
        return file.read()


def slots(path: Path):
    return parse_header(path.read_bytes()).slots


def with_table(data: bytes, table: list[bytes], count: int = 2, slot_size: int = 160) -> bytes:
    """``data`` with another slot table, as another writer might have chosen it."""
    header = parse_header(data)
    return header.preamble + slot_table(table, count, slot_size) + data[56 + 320 :]


def slot_for(key: bytes, data: bytes | None = None, generation: int = 1, dek: bytes | None = None) -> bytes:
    """A slot through which ``key`` opens ``data``, made by :func:`seal` under KEY."""
    return slot_of(key, (data or seal(CONTENT))[:48], dek or pattern(32, "file dek"), generation)


HPKE = (
    bytes([3, 0])
    + (1168).to_bytes(2, "big")
    + (1).to_bytes(4, "big")
    + pattern(16, "recipient")
    + pattern(1168)
)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
def test_the_new_key_opens_and_the_old_one_no_longer(path, suite, primitives):
    before = seal(CONTENT, suite, context=b"tenant", metadata_text='{"name":"ä.txt"}'.encode())
    stored(path, before)
    result = rewrap(path, ROTATING, b"tenant", primitives=primitives)
    after = path.read_bytes()
    header = parse_header(after)
    assert (result.object_id, result.key_id) == (header.object_id, NEW_ID)
    assert (result.removed, result.changed) == ((OLD_ID,), True)
    assert content(path, NEW, b"tenant") == CONTENT
    with pytest.raises(UnknownKeyError):
        content(path, RING, b"tenant")
    assert len(after) == len(before)
    assert (after[:56], after[376:]) == (before[:56], before[376:])
    assert [(slot.index, slot.generation) for slot in header.slots] == [(1, 2)]
    assert verify(path, NEW, b"tenant").metadata == {"name": "ä.txt"}


def test_the_second_time_nothing_is_written(path):
    stored(path)
    rewrap(path, ROTATING)
    before, status = path.read_bytes(), path.stat()
    result = rewrap(path, ROTATING)
    assert (result.removed, result.changed) == ((), False)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def test_a_file_may_be_rotated_any_number_of_times(path):
    stored(path)
    keys = [KEY, *(pattern(32, f"key {number}") for number in range(9))]
    salts = set()
    for number, (old, new) in enumerate(itertools.pairwise(keys), 2):
        assert rewrap(str(path), Keyring(new, [old])).changed
        (slot,) = slots(path)
        assert slot.generation == number
        salts.add(slot.payload[:32])
        assert content(path, Keyring(new)) == CONTENT
    assert len(salts) == 9


def test_backups_see_that_the_file_changed(path):
    stored(path)
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    rewrap(path, ROTATING)
    assert path.stat().st_mtime > 1
    assert path.stat().st_ino == inode


class Disk:
    """What reaches the disk: each write and, between two of them, whether it was flushed."""

    def __init__(self, monkeypatch):
        self.writes: list[tuple[int, bytes]] = []
        self.flushed = True
        self._pwrite, self._fsync = os.pwrite, os.fsync
        monkeypatch.setattr("os.pwrite", self.pwrite)
        monkeypatch.setattr("os.fsync", self.fsync)

    def pwrite(self, descriptor, data, offset):
        assert self.flushed, "a write before the one before it was flushed"
        self.flushed = False
        self.writes.append((offset, bytes(data)))
        return self._pwrite(descriptor, data, offset)

    def fsync(self, descriptor):
        self.flushed = True
        self._fsync(descriptor)


TABLES = {
    "new": [slot_for(KEY)],
    "second slot": [bytes(160), slot_for(KEY)],
    "left by a crash": [slot_for(KEY), slot_for(OTHER_KEY, generation=2)],
    "left half made": [slot_for(KEY), slot_for(OTHER_KEY, generation=2)[:4] + bytes(100)],
    "left half removed": [slot_for(KEY)[:4] + bytes(100), slot_for(OTHER_KEY, generation=2)],
    "new one broken": [slot_for(OTHER_KEY, generation=2, dek=bytes(32))[:-1] + b"?", slot_for(KEY)],
    "two old ones": [slot_for(KEY, generation=2), slot_for(KEY)],
    "two new ones": [slot_for(OTHER_KEY, generation=2), slot_for(OTHER_KEY, generation=1)],
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_wherever_the_power_fails_the_file_opens_and_can_be_completed(path, table, monkeypatch):
    """After every write, and with any part of the next one on the disk: bytes may come there in any order and number."""
    before = with_table(seal(CONTENT), table)
    stored(path, before)
    disk = Disk(monkeypatch)
    result = rewrap(path, ROTATING)
    monkeypatch.undo()
    assert result.changed
    assert set(result.removed) <= {OLD_ID}
    assert disk.flushed
    assert content(path) == CONTENT
    (slot,) = slots(path)
    assert slot.key_id.hex() == NEW_ID
    assert rewrap(path, ROTATING).changed is False
    # Which bytes of a write: all beginnings, all ends, every second one. Four aligned bytes are
    # written whole or not at all.
    for number, (offset, data) in enumerate(disk.writes):
        state = bytearray(before)
        for start, earlier in disk.writes[:number]:
            state[start : start + len(earlier)] = earlier
        assert len(data) != 4 or offset % 4 == 0
        cuts = [range(0), range(len(data))]
        if len(data) > 4:
            cuts += [range(cut) for cut in range(1, len(data))]
            cuts += [range(cut, len(data)) for cut in range(1, len(data))]
            cuts += [range(0, len(data), 2), range(1, len(data), 2)]
        for cut in cuts:
            torn = bytearray(state)
            for index in cut:
                torn[offset + index] = data[index]
            stored(path, bytes(torn))
            assert content(path, ROTATING) == CONTENT
    # What is there between two writes can be completed.
    for number in range(len(disk.writes)):
        state = bytearray(before)
        for start, earlier in disk.writes[:number]:
            state[start : start + len(earlier)] = earlier
        stored(path, bytes(state))
        rewrap(path, ROTATING)
        assert [slot.key_id.hex() for slot in slots(path)] == [NEW_ID]
        assert content(path) == CONTENT


def test_what_a_crash_left_goes_and_the_new_slot_stays_where_it_is(path):
    new = slot_for(OTHER_KEY, generation=2)
    stored(path, with_table(seal(CONTENT), [slot_for(KEY), new]))
    assert rewrap(path, ROTATING).removed == (OLD_ID,)
    assert path.read_bytes()[56 : 56 + 320] == bytes(160) + new + bytes(160 - len(new))


@examples(200)
@given(data=st.data())
def test_any_bytes_of_a_new_slot_on_the_disk_leave_a_file_that_opens(tmp_path, data):
    file = seal(b"content")
    new = slot_for(OTHER_KEY, file, 2)
    torn = bytearray(with_table(file, [slot_for(KEY, file), new[:4]]))
    for index in data.draw(st.sets(st.integers(4, 103))):
        torn[56 + 160 + index] = new[index]
    path = stored(tmp_path / "torn", bytes(torn))
    assert content(path, ROTATING) == b"content"
    assert rewrap(path, ROTATING).changed
    assert content(path, NEW) == b"content"


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("number", range(4))
def test_a_disk_that_fails_leaves_a_file_that_opens(path, monkeypatch, call, number):
    stored(path)
    real, calls = getattr(os, call), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > number:
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(OSError, match="Input/output error"):
            rewrap(path, ROTATING)
    assert content(path, ROTATING) == CONTENT
    assert content(path, RING if number < 2 else ROTATING) == CONTENT
    rewrap(path, ROTATING)
    assert content(path, NEW) == CONTENT


def test_writes_of_few_bytes_are_gone_on_with(path, monkeypatch):
    stored(path)
    real = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda descriptor, data, offset: real(descriptor, data[:3], offset))
    rewrap(path, ROTATING)
    assert content(path) == CONTENT


class FaultyMemory:
    """Seals another key than it was given: a bit of memory that does not hold."""

    def gcm(self, key):
        inner = LIBRARIES[0].gcm(key)

        class Gcm:
            open = inner.open

            def seal(self, nonce, plaintext):
                return inner.seal(nonce, bytes([plaintext[0] ^ 1]) + plaintext[1:])

        return Gcm()


@pytest.mark.parametrize("count", [2, 1])
def test_the_old_slot_stays_where_the_new_one_does_not_open_the_file(path, count):
    stored(path, with_table(seal(CONTENT), [slot_for(KEY)], count))
    with pytest.raises(IntegrityError) as raised:
        rewrap(path, Keyring(OTHER_KEY, [KEY], primitives=FaultyMemory()))
    assert raised.value.reason is Reason.IO_ERROR
    assert content(path, RING) == CONTENT


@pytest.mark.parametrize("identity", [key_id(KEY), key_id(OTHER_KEY), bytes(16)])
def test_a_recipient_stays_whatever_its_id(path, identity):
    recipient = HPKE[:8] + identity + HPKE[24:]
    stored(path, with_table(seal(CONTENT), [slot_for(KEY), recipient], 3, 1192))
    rewrap(path, ROTATING)
    assert path.read_bytes()[56 + 1192 : 56 + 2 * 1192] == recipient
    assert content(path, NEW) == CONTENT


def test_slots_of_others_stay(path):
    """A key that the keyring does not hold, and a recipient: neither is shut out, nor takes part."""
    third = slot_for(THIRD_KEY, generation=7)
    stored(path, with_table(seal(CONTENT), [third, slot_for(KEY), HPKE], 4, 1200))
    size = path.stat().st_size
    rewrap(path, ROTATING)
    assert path.stat().st_size == size
    for ring in (NEW, Keyring(THIRD_KEY)):
        assert content(path, ring) == CONTENT
    assert [(slot.index, slot.kind, slot.generation) for slot in slots(path)] == [
        (0, 1, 7),
        (2, 3, 1),
        (3, 1, 8),
    ]
    assert path.read_bytes()[56 + 2 * 1200 :][: len(HPKE)] == HPKE


@pytest.mark.parametrize(
    ("table", "count", "slot_size", "expected"),
    [
        pytest.param([slot_for(KEY)], 1, 160, (2, 160), id="one slot"),
        pytest.param([slot_for(KEY)], 1, 104, (2, 104), id="one of the smallest slots"),
        pytest.param([slot_for(KEY)], 2, 105, (2, 108), id="slots that are not aligned"),
        pytest.param([slot_for(KEY)], 4, 105, (4, 108), id="four slots that are not aligned"),
        pytest.param(
            [slot_for(KEY, generation=2), slot_for(KEY)], 2, 106, (2, 108), id="stale and not aligned"
        ),
        pytest.param([slot_for(KEY)], 2, 4095, (2, 4096), id="large slots that are not aligned"),
        pytest.param([slot_for(THIRD_KEY), slot_for(KEY)], 2, 160, (3, 160), id="somebody else's key"),
        pytest.param([slot_for(KEY), HPKE], 2, 1192, (3, 1192), id="a recipient"),
        pytest.param(
            [*(slot_for(pattern(32, str(number))) for number in range(7)), slot_for(KEY)],
            8,
            160,
            (8, 160),
            id="full",
        ),
    ],
)
@pytest.mark.parametrize("suite", SUITES)
def test_a_table_without_room_is_exchanged_with_the_file(path, suite, table, count, slot_size, expected):
    original = seal(CONTENT, suite, metadata_text=b'{"name":"n"}')
    table = [slot if slot[0] == 3 else slot_for_id(slot, original) for slot in table]
    stored(path, with_table(original, table, count, slot_size))
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 1234, 4321)
    owner = path.stat().st_uid, path.stat().st_gid
    body = path.read_bytes()[56 + count * slot_size :]
    inode = path.stat().st_ino
    assert rewrap(path, ROTATING).changed
    header = parse_header(path.read_bytes())
    assert (header.slot_count, header.slot_size) == expected
    assert path.read_bytes()[56 + header.slot_count * header.slot_size :] == body
    assert content(path) == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.stat().st_uid, path.stat().st_gid) == owner
    assert path.stat().st_ino != inode
    others = [slot for slot in table if slot[8:24] != key_id(KEY)]
    assert [slot.head + slot.payload for slot in header.slots[:-1]] == others
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UnknownKeyError):
        content(path, RING)


def slot_for_id(slot: bytes, data: bytes) -> bytes:
    """The same slot for another file."""
    keys = [KEY, THIRD_KEY, *(pattern(32, str(number)) for number in range(7))]
    return slot_for(next(key for key in keys if key_id(key) == slot[8:24]), data)


def test_what_a_crash_left_in_slots_that_are_not_aligned_is_removed_by_copy(path):
    table = [slot_for(KEY), slot_for(THIRD_KEY), slot_for(OTHER_KEY, generation=2)]
    stored(path, with_table(seal(CONTENT), table, 3, 105))
    inode = path.stat().st_ino
    result = rewrap(path, ROTATING)
    assert (result.changed, result.removed) == (True, (OLD_ID,))
    assert path.stat().st_ino != inode
    assert [slot.head + slot.payload for slot in slots(path)] == table[1:]
    assert content(path) == CONTENT
    assert not rewrap(path, ROTATING).changed


def test_slots_that_are_not_aligned_stay_so_where_nothing_is_to_be_done(path):
    stored(path, with_table(seal(CONTENT), [slot_for(OTHER_KEY)], 2, 105))
    inode = path.stat().st_ino
    assert not rewrap(path, ROTATING).changed
    assert path.stat().st_ino == inode


def full_table() -> bytes:
    return with_table(seal(CONTENT), [slot_for(KEY)], 1)


def test_a_link_stays_a_link(path, tmp_path):
    target = stored(tmp_path / "target", full_table())
    path.symlink_to(target.name)
    rewrap(path, ROTATING)
    assert path.is_symlink()
    assert content(target) == CONTENT


def test_a_file_that_was_replaced_meanwhile_is_left_alone(path, monkeypatch):
    stored(path, full_table())
    newer = seal(b"newer", label="newer")
    real = os.fchmod

    def replace(descriptor, mode):
        real(descriptor, mode)
        stored(path.with_name("other"), newer).replace(path)

    monkeypatch.setattr("os.fchmod", replace)
    with pytest.raises(OSError, match="the file was replaced meanwhile"):
        rewrap(path, ROTATING)
    assert path.read_bytes() == newer
    assert list(path.parent.iterdir()) == [path]


def test_a_generation_at_its_limit_stays_there(path):
    stored(path, with_table(seal(CONTENT), [slot_for(KEY, generation=2**32 - 1)]))
    rewrap(path, ROTATING)
    assert [slot.generation for slot in slots(path)] == [2**32 - 1]
    assert content(path) == CONTENT


REFUSED = {
    "format 1": (seal_1(b"content"), FormatError),
    "plain": (b"plain text", FormatError),
    "empty": (b"", FormatError),
    "cut in the preamble": (seal(CONTENT)[:50], FormatError),
    "cut in the table": (seal(CONTENT)[:300], FormatError),
    "cut before the body": (seal(CONTENT)[:376], FormatError),
    "cut in the commitment": (seal(CONTENT)[:431], FormatError),
    "another key's": (seal(CONTENT, ring=Keyring(THIRD_KEY)), UnknownKeyError),
    "preamble changed": (seal(CONTENT)[:20] + b"?" + seal(CONTENT)[21:], IntegrityError),
    "slot changed": (seal(CONTENT)[:100] + b"?" + seal(CONTENT)[101:], IntegrityError),
}


@pytest.mark.parametrize(("data", "error"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_open_is_not_touched(path, data, error):
    stored(path, data)
    os.utime(path, (1, 1))
    with pytest.raises(error):
        rewrap(path, ROTATING)
    assert path.read_bytes() == data
    assert path.stat().st_mtime == 1


PLANTED_DEK = bytes(range(200, 232))
NAMED = seal(CONTENT, metadata_text=b'{"name":"n"}')


def planted(key: bytes, data: bytes | None = None, generation: int = 2**32 - 1) -> bytes:
    """What a holder of ``key`` can put into any file: a slot with a DEK of their own."""
    return slot_for(key, data, generation, dek=PLANTED_DEK)


GENUINE = [slot_for(OTHER_KEY), slot_for(KEY), slot_for(THIRD_KEY)]
PLANTS = {
    "newer, behind": ([slot_for(OTHER_KEY), planted(KEY)], "slot 1 "),
    "newer, in front": ([planted(KEY), slot_for(OTHER_KEY)], "slot 0 "),
    "as old, behind": ([slot_for(OTHER_KEY), planted(KEY, generation=1)], "slot 1 "),
    "as old, in front": ([planted(KEY, generation=1), slot_for(OTHER_KEY)], "slot 0 "),
    "older": ([slot_for(OTHER_KEY, generation=3), planted(KEY, generation=2)], "slot 1 "),
    "beside the only good one": ([slot_for(KEY), planted(KEY)], "slot 1 "),
    "for the new key": ([slot_for(KEY), planted(OTHER_KEY)], "slot 1 "),
    "twice": ([planted(KEY), slot_for(KEY), planted(OTHER_KEY, generation=7)], "slot 0 .*slot 2 "),
    "beside somebody else's": ([slot_for(THIRD_KEY), slot_for(OTHER_KEY), planted(KEY)], "slot 2 "),
    "in a full table": (
        [*GENUINE, *[planted(KEY, generation=number) for number in range(2, 7)]],
        "slot 7 .*slot 3 ",
    ),
}


@pytest.mark.parametrize(("table", "named"), PLANTS.values(), ids=PLANTS)
@pytest.mark.parametrize("context", [b"", None])
@pytest.mark.parametrize("slot_size", [160, 105])
def test_a_planted_slot_is_named_and_nothing_is_written(path, table, named, context, slot_size):
    """Of a file whose context is not known the DEKs are only compared: they are told, but not which one is planted."""
    stored(path, with_table(seal(CONTENT), table, len(table), slot_size))
    before = path.read_bytes()
    os.utime(path, (1, 1))
    with pytest.raises(IntegrityError, match="nothing was written") as caught:
        rewrap(path, ROTATING, context)
    assert caught.value.reason is Reason.COMMITMENT_MISMATCH
    if context is not None:
        assert re.match(named + r".* was planted", str(caught.value))
    assert path.read_bytes() == before
    assert path.stat().st_mtime == 1
    # It opens as before, and the slot that did not is told.
    with open_encrypted(path, ROTATING) as file:
        assert file.read() == CONTENT


def test_a_forgery_beside_the_genuine_slot_does_not_put_the_blame_on_that_one(path):
    """Who holds a retired key keeps the new key's slot and writes contents that fit a slot of their own."""
    genuine = seal(CONTENT, ring=NEW)
    forged = seal(b"forged", ring=RING, random=chosen(dek=PLANTED_DEK))
    data = with_table(forged, [genuine[56:160], forged[56:160]])
    stored(path, data)
    with open_encrypted(path, ROTATING) as file:
        assert (file.read(), file.key_id, file.passed_over) == (b"forged", OLD_ID, ((0, NEW_ID),))
    for context in (b"", None):
        with pytest.raises(IntegrityError) as caught:
            rewrap(path, ROTATING, context)
        assert OLD_ID in str(caught.value)
        assert NEW_ID in str(caught.value)
        assert "or the contents were" in str(caught.value) or "can't be told" in str(caught.value)
    assert path.read_bytes() == data


@pytest.mark.parametrize("when", ["while it waits", "while it writes"])
def test_a_file_that_another_one_replaces_is_not_called_rotated(path, monkeypatch, when):
    """Nobody may drop the old key for a file that is not the one at the path."""
    stored(path)
    newer = seal(b"newer", label="newer")
    name = "flock" if when == "while it waits" else "pwrite"
    module = fcntl if when == "while it waits" else os
    real = getattr(module, name)

    def replace(*arguments):
        monkeypatch.undo()
        stored(path.with_name("other"), newer).replace(path)
        return real(*arguments)

    monkeypatch.setattr(module, name, replace)
    with pytest.raises(OSError, match="the file was replaced meanwhile: do it again"):
        rewrap(path, ROTATING)
    assert path.read_bytes() == newer
    assert rewrap(path, ROTATING).changed


def test_metadata_tells_which_slot_is_planted_where_the_context_is_not_known(path):
    stored(path, with_table(NAMED, [slot_for(OTHER_KEY, NAMED), planted(KEY, NAMED)]))
    with pytest.raises(IntegrityError, match=r"^slot 1 .* was planted"):
        rewrap(path, ROTATING, None)


def test_without_the_key_that_planted_it_the_file_is_rotated_and_opens(path):
    """What the message says to do: the slot stays, as one of a key that nobody holds."""
    stored(path, with_table(seal(CONTENT), [slot_for(OTHER_KEY), planted(KEY)]))
    assert rewrap(path, NEW).changed is False
    assert content(path, NEW) == CONTENT
    newest = Keyring(THIRD_KEY, [OTHER_KEY])
    assert rewrap(path, newest).removed == (NEW_ID,)
    assert content(path, Keyring(THIRD_KEY)) == CONTENT
    assert [slot.key_id.hex() for slot in slots(path)] == [OLD_ID, key_id(THIRD_KEY).hex()]


def test_a_file_whose_only_slot_is_planted_is_not_called_rotated(path):
    stored(path, with_table(seal(CONTENT), [planted(KEY)]))
    before = path.read_bytes()
    with pytest.raises(
        IntegrityError, match=r"slot 0 \(key .*the commitment does not match.*nothing was written"
    ):
        rewrap(path, ROTATING)
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", [[slot_for(KEY)], [slot_for(OTHER_KEY, generation=2), slot_for(KEY)]])
def test_a_body_of_another_dek_is_not_rotated(path, table):
    """The body and the slots do not belong together: which of them was changed is not known."""
    other = seal(CONTENT, random=chosen(dek=PLANTED_DEK))
    data = with_table(seal(CONTENT), table)[:376] + other[376:]
    stored(path, data)
    with pytest.raises(IntegrityError) as caught:
        rewrap(path, ROTATING)
    assert caught.value.reason is Reason.COMMITMENT_MISMATCH
    assert path.read_bytes() == data


@pytest.mark.parametrize("context", [b"", None])
def test_changed_metadata_is_not_rotated(path, context):
    changed = bytearray(NAMED)
    changed[380] ^= 1
    stored(path, bytes(changed))
    with pytest.raises(IntegrityError, match="nothing was written") as caught:
        rewrap(path, ROTATING, context)
    assert caught.value.reason is Reason.TAG_MISMATCH
    assert path.read_bytes() == changed


def test_a_bound_file_is_rotated_in_its_context_or_where_it_is_said_not_to_be_known(path):
    stored(path, seal(CONTENT, context=b"tenant"))
    for context in (b"", b"other", b"tenant "):
        with pytest.raises(IntegrityError, match="another context") as caught:
            rewrap(path, ROTATING, context)
        assert caught.value.reason is Reason.COMMITMENT_MISMATCH
        assert content(path, RING, b"tenant") == CONTENT
    assert rewrap(path, ROTATING, b"tenant").changed
    assert rewrap(path, Keyring(THIRD_KEY, [OTHER_KEY]), None).changed
    assert content(path, Keyring(THIRD_KEY), b"tenant") == CONTENT


@examples(150)
@given(
    table=st.lists(
        st.tuples(
            st.sampled_from([KEY, OTHER_KEY, THIRD_KEY]),
            st.sampled_from([0, 1, 2, 2**32 - 1]),
            st.sampled_from(["genuine", "planted", "broken", "empty", "nobody"]),
        ),
        min_size=1,
        max_size=5,
    ),
    slot_size=st.sampled_from([104, 105, 160]),
    context=st.sampled_from([b"", None]),
)
def test_rewrap_never_takes_a_file_from_anybody(tmp_path, table, slot_size, context):
    """Whatever stands in the table: who could open the file before, other than by a key that was to go, can do so after."""
    file = seal(b"content")
    made = []
    for key, generation, kind in table:
        slot = slot_for(key, file, generation, dek=PLANTED_DEK if kind == "planted" else chosen().dek)
        made.append(
            {
                "broken": slot[:-1] + bytes([slot[-1] ^ 1]),
                "empty": bytes(len(slot)),
                "nobody": slot[:8] + bytes(16) + slot[24:],
            }.get(kind, slot)
        )
    path = stored(tmp_path / "file", with_table(file, made, len(made), slot_size))
    before = path.read_bytes()

    def opens(*keys):
        try:
            return content(path, Keyring(*keys[:1], keys[1:])) == b"content"
        except SecureFSError:
            return False

    rings = [(OTHER_KEY,), (THIRD_KEY,), (OTHER_KEY, KEY), (KEY,)]
    could = {ring: opens(*ring) for ring in rings}
    try:
        rewrap(path, ROTATING, context)
    except SecureFSError:
        assert path.read_bytes() == before
        assert not could[OTHER_KEY, KEY] or any(kind == "planted" for _, _, kind in table)
        return
    can = {ring: opens(*ring) for ring in rings}
    assert can[OTHER_KEY,] == can[OTHER_KEY, KEY] == could[OTHER_KEY, KEY]
    assert can[THIRD_KEY,] == could[THIRD_KEY,]
    assert not can[KEY,]


def test_what_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="fifo is a pipe, not a regular file"):
        rewrap(tmp_path / "fifo", ROTATING)
    with pytest.raises(SourceError, match="is a folder, not a regular file"):
        rewrap(tmp_path, ROTATING)
    with pytest.raises(FileNotFoundError):
        rewrap(tmp_path / "missing", ROTATING)


def test_a_short_primary_key_is_told_before_the_file_is_opened(tmp_path):
    with pytest.raises(ConfigurationError, match="Format 1 only"):
        rewrap(tmp_path / "missing", Keyring(KEY[:16], [KEY]))


def test_no_descriptor_stays_open(path):
    stored(path, b"plain")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(FormatError):
            rewrap(path, ROTATING)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_of_many_at_a_time_one_does_it(path):
    stored(path)
    results, start = [], threading.Barrier(8)

    def work():
        start.wait()
        results.append(rewrap(path, ROTATING))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.changed for result in results) == [False] * 7 + [True]
    assert content(path) == CONTENT


def test_readers_are_not_disturbed(path):
    """The key changes to and fro a hundred times while others read the file all the time."""
    stored(path)
    both, ended, read = Keyring(OTHER_KEY, [KEY]), threading.Event(), []

    def reader():
        while not ended.is_set():
            read.append(content(path, both) == CONTENT)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(100):
            assert rewrap(path, both if number % 2 == 0 else Keyring(KEY, [OTHER_KEY])).changed
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(read) >= 2
    assert all(read)
    assert len(path.read_bytes()) > BODY_START
