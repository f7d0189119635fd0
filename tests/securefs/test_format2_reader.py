"""Format 2 files, opened for reading: what is read is verified, and no more is read than is needed."""

from __future__ import annotations

import io
import os

import pytest
from second_decryptor import open_format_2
from support.sealing import (
    BODY_START,
    KEY,
    LIBRARIES,
    OTHER_KEY,
    PRIMITIVES,
    RING,
    SUITES,
    CountingFile,
    ExchangedFile,
    VirtualFile,
    chosen,
    pattern,
    seal,
    slot_of,
)

from securefs import (
    Decryptor,
    IntegrityError,
    Keyring,
    LimitExceededError,
    Reason,
    SecureFSError,
    Suite,
    open_encrypted,
    verify,
)
from securefs.header import slot_table
from securefs.keys import key_id
from securefs.plaintext import READ_SIZE
from securefs.stream import unlock
from securefs.suites import MAX_SEGMENTS

SIZE = 3 * 65_536 + 1234
PLAIN = pattern(SIZE)


@pytest.mark.parametrize("suite", SUITES)
def test_the_end_is_checked_before_the_first_byte_comes_out(suite):
    """A change in the final segment is found by opening, though nobody asked for that segment."""
    data = bytearray(seal(PLAIN, suite))
    data[-10] ^= 1
    with pytest.raises(IntegrityError) as caught:
        open_encrypted(io.BytesIO(data), RING)
    assert caught.value.segment == SIZE // suite.segment_size


@pytest.mark.parametrize("suite", SUITES)
def test_a_change_in_the_middle_is_found_when_it_is_read_and_by_check(suite):
    data, full = bytearray(seal(PLAIN, suite)), suite.segment_size
    data[BODY_START + suite.sealed_size + 50] ^= 1
    with open_encrypted(io.BytesIO(data), RING) as file:
        assert file.read(full) == PLAIN[:full]
        with pytest.raises(IntegrityError) as caught:
            file.read(1)
        assert (caught.value.segment, caught.value.reason) == (1, Reason.TAG_MISMATCH)
        file.seek(2 * full)
        assert file.read(10) == PLAIN[2 * full : 2 * full + 10]
    with pytest.raises(IntegrityError) as caught:
        verify(io.BytesIO(data), RING)
    assert caught.value.segment == 1


@pytest.mark.parametrize("suite", SUITES)
def test_check_may_be_told_a_part(suite):
    data, full = bytearray(seal(PLAIN, suite)), suite.segment_size
    data[BODY_START + suite.sealed_size + 50] ^= 1
    with open_encrypted(io.BytesIO(data), RING) as file:
        for start, stop in (
            (0, full),
            (2 * full, None),
            (2 * full, SIZE + 10**9),
            (5, 5),
            (0, 0),
            (SIZE, None),
        ):
            file.check(start, stop)
        for start, stop in ((0, full + 1), (full, full + 1), (2 * full - 1, None), (2 * full - 1, 2 * full)):
            with pytest.raises(IntegrityError):
                file.check(start, stop)


@pytest.mark.parametrize("suite", SUITES)
def test_a_file_exchanged_while_open_is_not_decrypted(suite):
    """The other one is good, under the same key, of the same length."""
    with ExchangedFile(seal(PLAIN, suite)) as source, open_encrypted(source, RING) as file:
        source.exchange(seal(pattern(SIZE, "other"), suite, "other"))
        with pytest.raises(IntegrityError) as caught:
            file.read(1)
        assert caught.value.segment == 0


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("left", [0, BODY_START, BODY_START + 10, BODY_START + 70_000])
def test_a_file_cut_while_open_gives_only_what_is_whole(suite, left):
    data = seal(PLAIN, suite)
    with ExchangedFile(data) as source, open_encrypted(source, RING) as file:
        source.exchange(data[:left])
        whole = max(0, left - BODY_START) // suite.sealed_size * suite.segment_size
        assert file.read(whole) == PLAIN[:whole]
        with pytest.raises(IntegrityError):
            file.read(suite.segment_size)


@pytest.mark.parametrize("suite", SUITES)
def test_a_short_read_at_the_end_touches_a_bounded_number_of_bytes(suite):
    """Of a file of 40 GiB: the header, and the final segment. The rest was never written and could not be verified."""
    source, last, tail = huge(suite, 40 * 2**30 // suite.segment_size)
    with open_encrypted(source, RING) as file:
        assert file.size == last * suite.segment_size + len(tail)
        file.seek(-1, os.SEEK_END)
        assert file.read(1) == tail[-1:]
    assert sum(source.asked) <= BODY_START + 1 + suite.sealed_size


@pytest.mark.parametrize("suite", SUITES)
def test_a_short_read_in_the_middle_touches_one_segment(suite):
    source, last, _ = huge(suite, 1_000_000, middle=500_000)
    with open_encrypted(source, RING) as file:
        source.asked.clear()
        file.seek(500_000 * suite.segment_size + 5)
        assert file.read(10) == pattern(suite.segment_size)[5:15]
    assert last == 1_000_000
    assert source.asked == [suite.sealed_size]


def huge(suite: Suite, last: int, middle: int | None = None) -> tuple[VirtualFile, int, bytes]:
    """A file of ``last`` full segments, unwritten but for ``middle``, and a final one of 100 bytes."""
    start = seal(b"", suite)[:BODY_START]
    cipher, tail = unlock(start, RING, b"", LIBRARIES[1]).cipher, pattern(100, "tail")
    final = cipher.seal(last, True, tail) + b"\x5a"
    regions = {0: start, BODY_START + last * suite.sealed_size: final}
    if middle is not None:
        regions[BODY_START + middle * suite.sealed_size] = cipher.seal(
            middle, False, pattern(suite.segment_size)
        )
    return VirtualFile(BODY_START + last * suite.sealed_size + len(final), regions), last, tail


@pytest.mark.parametrize("suite", SUITES)
def test_a_file_may_have_two_to_the_32_segments_and_not_one_more(suite):
    source, last, tail = huge(suite, MAX_SEGMENTS - 1)
    with open_encrypted(source, RING) as file:
        assert file.size == last * suite.segment_size + len(tail)
    source, _, _ = huge(suite, MAX_SEGMENTS)
    with pytest.raises(LimitExceededError):
        open_encrypted(source, RING)


@pytest.mark.parametrize("suite", SUITES)
def test_sequential_reads_fetch_many_segments_at_a_time(suite):
    plaintext = pattern(4 * 2**20)
    source = CountingFile(seal(plaintext, suite))
    with open_encrypted(source, RING) as file:
        assert b"".join(iter(lambda: file.read(65_536), b"")) == plaintext
    assert len(source.reads) <= 16 + 2 + 5
    assert max(size for _, size in source.reads) <= READ_SIZE


@pytest.mark.parametrize("suite", SUITES)
def test_a_wrong_context_is_refused_before_a_segment_is_read(suite):
    source = CountingFile(seal(PLAIN, suite, context=b"tenant 1"))
    with pytest.raises(IntegrityError) as caught:
        open_encrypted(source, RING, b"tenant 2")
    assert caught.value.reason is Reason.COMMITMENT_MISMATCH
    assert source.furthest() == BODY_START


def fault(reader, data):
    try:
        reader(data)
    except SecureFSError as error:
        return type(error), error.reason, getattr(error, "segment", None), getattr(error, "digest", None)
    return None


def stream_all(data, step=20_011):
    decryptor = Decryptor(RING)
    for at in range(0, len(data), step):
        decryptor.update(data[at : at + step])
    decryptor.finalize()


THREE = {suite: seal(pattern(3 * suite.segment_size + 100), suite) for suite in Suite}

FAULTS = {
    "extended by a byte": lambda data, size: data + b"?",
    "extended by a trailer": lambda data, size: data + b"\x5a",
    "extended by more than a segment": lambda data, size: data + bytes(size) + b"\x5a",
    "doubled": lambda data, size: data + data,
    "cut in the last segment": lambda data, size: data[:-20],
    "cut at a segment, with a trailer": lambda data, size: data[: BODY_START + 2 * size] + b"\x5a",
    "cut in a segment, with a trailer": lambda data, size: data[: BODY_START + 2 * size + 160] + b"\x5a",
    "cut to no segment": lambda data, size: data[:BODY_START],
    "cut to a trailer": lambda data, size: data[:BODY_START] + b"\x5a",
    "a byte put in": lambda data, size: data[: BODY_START + size + 9] + b"?" + data[BODY_START + size + 9 :],
    "a byte taken out": lambda data, size: data[: BODY_START + size + 9] + data[BODY_START + size + 10 :],
    "a segment taken out": lambda data, size: data[: BODY_START + size] + data[BODY_START + 2 * size :],
    "no trailer": lambda data, size: data[:-1] + b"?",
    "the last segment changed": lambda data, size: data[:-30] + b"?" + data[-29:],
}


@pytest.mark.parametrize("also", [None, 0, 1, 2], ids=lambda index: f"segment {index} changed too")
@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_a_file_and_a_stream_meet_the_same_fault(suite, change, also, primitives):
    """Not only the same verdict: the same reason at the same segment, however many things are wrong with a file."""
    data = bytearray(change(THREE[suite], suite.sealed_size))
    if also is not None and len(data) > BODY_START + also * suite.sealed_size + 50:
        data[BODY_START + also * suite.sealed_size + 50] ^= 1
    data = bytes(data)
    by_file = fault(lambda data: verify(io.BytesIO(data), RING, primitives=primitives), data)
    assert by_file is not None
    assert by_file == fault(
        lambda data: open_encrypted(io.BytesIO(data), RING, primitives=primitives).read(), data
    )
    assert by_file[:3] == fault(stream_all, data)[:3]


def test_the_fault_of_a_file_that_is_not_there_costs_no_time():
    """Whose length is a lie: the walk to its first fault ends at the first segment."""
    source, _, _ = huge(Suite.GCM, 2**31)
    source.length += 1
    source.asked.clear()
    with pytest.raises(IntegrityError) as caught:
        open_encrypted(source, RING)
    assert (caught.value.segment, caught.value.reason) == (0, Reason.TAG_MISMATCH)
    assert sum(source.asked) < 2 * READ_SIZE


PLANTED_DEK = bytes(range(200, 232))


def with_slots(data: bytes, *slots: bytes) -> bytes:
    table = slot_table(slots, max(2, len(slots)), 160)
    return data[:48] + table + data[56 + 320 :]


BOTH = Keyring(OTHER_KEY, [KEY])

BOUND = seal(PLAIN, context=b"tenant", metadata_text=b'{"name":"n"}')


@pytest.mark.parametrize("generation", [0, 1, 2, 2**32 - 1])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "data", [seal(PLAIN), seal(PLAIN, Suite.GCM), BOUND], ids=["suite 1", "suite 2", "bound"]
)
def test_a_planted_slot_shuts_nobody_out_and_is_told(data, first, generation):
    context = b"tenant" if data is BOUND else b""
    good = slot_of(OTHER_KEY, data[:48], chosen().dek)
    planted = slot_of(KEY, data[:48], PLANTED_DEK, generation)
    changed = with_slots(data, *([planted, good] if first else [good, planted]))
    tried = generation > 1 or (generation == 1 and first)
    expected = ((0 if first else 1, key_id(KEY).hex()),) if tried else ()
    with open_encrypted(io.BytesIO(changed), BOTH, context) as file:
        assert file.read() == PLAIN
        assert (file.passed_over, file.key_id) == (expected, key_id(OTHER_KEY).hex())
    assert verify(io.BytesIO(changed), BOTH, context).passed_over == expected
    decryptor = Decryptor(BOTH, context)
    assert decryptor.update(changed) + decryptor.finalize() == PLAIN
    assert tuple((slot.index, slot.key_id.hex()) for slot in decryptor.unlocked.passed_over) == expected
    assert open_format_2(changed, [OTHER_KEY, KEY], context)[0] == PLAIN


def test_where_no_slot_holds_the_first_one_s_fault_is_told():
    """The newest is what the file claims to be opened by."""
    changed = with_slots(
        BOUND, slot_of(KEY, BOUND[:48], chosen().dek, 1), slot_of(OTHER_KEY, BOUND[:48], PLANTED_DEK, 2)
    )
    with pytest.raises(IntegrityError) as caught:
        open_encrypted(io.BytesIO(changed), BOTH, b"another tenant")
    assert caught.value.reason is Reason.TAG_MISMATCH  # of its metadata
    changed = with_slots(
        BOUND, slot_of(KEY, BOUND[:48], chosen().dek, 3), slot_of(OTHER_KEY, BOUND[:48], PLANTED_DEK, 2)
    )
    with pytest.raises(IntegrityError) as caught:
        open_encrypted(io.BytesIO(changed), BOTH, b"another tenant")
    assert caught.value.reason is Reason.COMMITMENT_MISMATCH


@pytest.mark.parametrize("suite", SUITES)
def test_verify_tells_what_the_file_is(suite):
    data = seal(b"hello", suite, metadata_text=b'{"name":"plan"}')
    info = verify(io.BytesIO(data), RING)
    assert (info.format, info.suite, info.size, info.metadata) == (2, suite.label, 5, {"name": "plan"})
    assert (info.object_id, info.key_id) == (data[16:48].hex(), RING.primary_id.hex())
    assert "plan" not in repr(info)
