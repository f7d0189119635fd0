from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import shutil
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import openpyxl
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from second_decryptor import open_format_2
from support.fuzzing import examples
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
    seal_1,
    slot_of,
)

from securefs import (
    ConfigurationError,
    Decryptor,
    FormatError,
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
from securefs.reader import BUFFER_SIZE, READ_SIZE
from securefs.stream import unlock
from securefs.suites import MAX_SEGMENTS

SIZE = 3 * 65_536 + 1234
PLAIN = pattern(SIZE)
FILES = {
    "suite-1": (seal(PLAIN, Suite.CBC_HMAC), False),
    "suite-2": (seal(PLAIN, Suite.GCM), False),
    "format-1": (seal_1(PLAIN), True),
}
KINDS = [pytest.param(name, id=name) for name in FILES]


def opened(name: str, source=io.BytesIO, **options):
    data, format_1 = FILES[name]
    return open_encrypted(source(data), RING, format_1=format_1, **options)


OFFSETS = st.one_of(
    st.integers(0, SIZE + 10),
    st.builds(lambda block, shift: max(0, block * 16_384 + shift), st.integers(0, 13), st.integers(-2, 2)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), OFFSETS),
        st.tuples(st.just("forward"), st.integers(0, 70_000)),
        st.tuples(st.just("from end"), st.integers(0, SIZE)),
        st.tuples(st.just("read"), st.one_of(st.integers(-1, 200_000), st.none())),
        st.tuples(st.just("read1"), st.integers(1, 100_000)),
        st.tuples(st.just("readinto"), st.integers(0, 100_000)),
        st.tuples(st.just("readline"), st.integers(-1, 300)),
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("peek"), st.integers(0, 100_000)),
    ),
    max_size=12,
)


def apply(file, action: str, value):
    if action == "seek":
        return file.seek(value)
    if action == "forward":
        return file.seek(value, os.SEEK_CUR)
    if action == "from end":
        return file.seek(-value, os.SEEK_END)
    if action == "next":
        return next(file, b"")
    if action == "readinto":
        buffer = bytearray(value)
        return file.readinto(buffer), bytes(buffer)
    return getattr(file, action)(value)


@pytest.mark.parametrize("name", KINDS)
@examples(60)
@given(steps=STEPS)
def test_it_reads_as_an_ordinary_file_of_the_plaintext_would(name, steps):
    with opened(name) as file, io.BytesIO(PLAIN) as plain:
        for action, value in steps:
            if action == "peek":
                at = plain.tell()
                got = file.peek(value)
                assert got == PLAIN[at : at + len(got)]
                assert bool(got) == (at < SIZE)
                continue
            got, wanted = apply(file, action, value), apply(plain, action, value)
            if action == "read1":
                # BytesIO gives all at once; a file may give less, though never nothing before the
                # end.
                assert wanted.startswith(got)
                assert bool(got) == bool(wanted)
                plain.seek(file.tell())
            else:
                assert got == wanted
            assert file.tell() == plain.tell()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_the_whole_is_read_in_any_pieces(name, primitives):
    for size in (4096, 65_536, 100_000, SIZE, SIZE + 1):
        with opened(name, primitives=primitives) as file:
            assert b"".join(iter(partial(file.read, size), b"")) == PLAIN
            assert file.read() == b""


@pytest.mark.parametrize("name", KINDS)
def test_it_is_a_buffered_read_only_seekable_file(name):
    with opened(name) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        for action in (lambda: file.write(b"x"), lambda: file.truncate(0), file.fileno, file.detach):
            with pytest.raises(io.UnsupportedOperation):
                action()
        with pytest.raises(ValueError, match="negative seek position"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
        with pytest.raises(ValueError, match="invalid whence"):
            file.raw.seek(0, 9)
        assert file.read(0) == b""
        assert file.read1() == PLAIN[: min(file.block_size, BUFFER_SIZE)]


@pytest.mark.parametrize("name", KINDS)
def test_closing_closes_it_and_not_what_it_was_given(name):
    data, format_1 = FILES[name]
    with io.BytesIO(data) as source:
        file = open_encrypted(source, RING, format_1=format_1)
        assert (file.closed, file.raw.closed) == (False, False)
        file.close()
        file.close()
        assert (file.closed, file.raw.closed, source.closed) == (True, True, False)
        for action in (file.read, file.tell, lambda: file.seek(0), lambda: file.read1(1)):
            with pytest.raises(ValueError, match="closed file"):
                action()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_is_opened_and_closed(name, kind, tmp_path):
    data, format_1 = FILES[name]
    (tmp_path / "file").write_bytes(data)
    before = open_files()
    with open_encrypted(kind(tmp_path / "file"), RING, format_1=format_1) as file:
        assert file.read() == PLAIN
    assert open_files() == before


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_nobody_closes_is_closed_when_it_is_gone(name, tmp_path):
    data, format_1 = FILES[name]
    (tmp_path / "file").write_bytes(data)
    before = open_files()
    file = open_encrypted(tmp_path / "file", RING, format_1=format_1)
    assert open_files() == before + 1
    del file
    assert open_files() == before


def test_a_path_that_does_not_open_leaves_no_file_open(tmp_path):
    (tmp_path / "file").write_bytes(b"not encrypted")
    before = open_files()
    with pytest.raises(FormatError):
        open_encrypted(tmp_path / "file", RING)
    assert open_files() == before


def test_a_missing_path_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_encrypted(tmp_path / "none", RING)


class Trickle(io.BytesIO):
    """A source whose reads are short, as those of raw files and sockets may be."""

    def read(self, size=-1, /):
        return super().read(min(size, 700) if size >= 0 else 700)


@pytest.mark.parametrize("name", KINDS)
def test_short_reads_of_the_source_are_filled_up(name):
    with opened(name, Trickle) as file:
        assert file.read() == PLAIN
        file.check()


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


def test_a_file_without_planted_slots_has_none_to_tell_of():
    for name in FILES:
        assert opened(name).passed_over == ()


@pytest.mark.parametrize("magic", [False, True])
def test_a_context_is_refused_where_it_would_be_ignored(magic):
    """Whatever the file turns out to be: the answer does not depend on who wrote it."""
    data = seal(PLAIN, context=b"tenant") if magic else seal_1(PLAIN)
    for action in (open_encrypted, verify):
        with pytest.raises(ConfigurationError, match="bound to no context"):
            action(io.BytesIO(data), RING, b"tenant", format_1=True)
    with open_encrypted(io.BytesIO(data), RING, b"tenant", format_1=True, unbound_format_1=True) as file:
        assert file.read() == PLAIN


def test_reading_starts_at_the_beginning_wherever_the_source_stands():
    with io.BytesIO(FILES["suite-1"][0]) as source:
        source.seek(1000)
        assert open_encrypted(source, RING).read(10) == PLAIN[:10]


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_source_shorter_than_the_magic_is_not_encrypted(length):
    with pytest.raises(FormatError) as caught:
        open_encrypted(io.BytesIO(FILES["suite-1"][0][:length]), RING)
    assert caught.value.reason is Reason.NOT_ENCRYPTED


@pytest.mark.parametrize("suite", SUITES)
def test_verify_tells_what_the_file_is(suite):
    data = seal(b"hello", suite, metadata_text=b'{"name":"plan"}')
    info = verify(io.BytesIO(data), RING)
    assert (info.format, info.suite, info.size, info.metadata) == (2, suite.label, 5, {"name": "plan"})
    assert (info.object_id, info.key_id) == (data[16:48].hex(), RING.primary_id.hex())
    assert "plan" not in repr(info)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 1000, 2**20, 2**30, -1])
def test_read1_gives_up_to_a_block_and_nothing_where_nothing_was_asked_for(name, size):
    data, format_1 = FILES[name]
    with open_encrypted(io.BytesIO(data), RING, format_1=format_1) as file:
        for start in (0, 7):
            file.seek(start)
            got = file.read1(size)
            most = file.block_size if size < 0 else min(size, file.block_size)
            assert min(most, 1) <= len(got) <= most
            assert got == PLAIN[start : start + len(got)]
            assert file.tell() == start + len(got)
        file.seek(0, os.SEEK_END)
        assert file.read1(size) == b""


TEXT = b"a,b\n" + b"".join(b"row%07d,%d\r\n" % (number, number) for number in range(50_000))
LONG = b"a" * 200_000 + b"\n" + b"\n" * 70_000 + b"b" * 65_536 + b"\nthe last line has no end"
TEXTS = {
    f"{name} {what}": (seal_(text), format_1, text)
    for what, text in (("rows", TEXT), ("long lines", LONG), ("empty", b""))
    for name, seal_, format_1 in (
        ("suite-1", seal, False),
        ("suite-2", partial(seal, suite=Suite.GCM), False),
        ("format-1", seal_1, True),
    )
}


@pytest.mark.parametrize(("data", "format_1", "text"), TEXTS.values(), ids=TEXTS)
def test_lines_are_those_of_a_plain_file(data, format_1, text):
    lines = list(io.BytesIO(text))
    with open_encrypted(io.BytesIO(data), RING, format_1=format_1) as file:
        assert list(file) == lines
        file.seek(0)
        assert file.readlines() == lines
        file.seek(0)
        assert iter(file) is file
        # A loop that is left can be gone on with, in the same place and in another way.
        first = next(iter(file), b"")
        assert file.tell() == len(first)
        assert [line for line in (first, file.readline(), *file) if line] == lines


def calls_of(action) -> int:
    """How many functions of the reader Python calls while ``action`` runs."""
    calls = 0

    def count(frame, event, _):
        nonlocal calls
        calls += event == "call" and frame.f_globals["__name__"] == "securefs.reader"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith("rows")])
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda file: sum(1 for _ in file), id="iteration"),
        pytest.param(lambda file: len(file.readlines()), id="readlines"),
        pytest.param(lambda file: len(list(iter(file.readline, b""))), id="readline"),
        pytest.param(lambda file: sum(1 for _ in io.TextIOWrapper(file, newline="")), id="TextIOWrapper"),
    ],
)
def test_a_line_costs_no_call_of_ours(name, read):
    """Python's own buffer has the lines: what is called depends on the bytes, not on the lines."""
    data, format_1, text = TEXTS[name]
    file = open_encrypted(io.BytesIO(data), RING, format_1=format_1)
    calls = calls_of(lambda: read(file))
    assert 0 < calls < 10 * (len(text) // 8192 + 2)
    assert calls < text.count(b"\n") / 20


@pytest.mark.parametrize("name", KINDS)
def test_a_size_that_no_file_has_is_the_rest(name):
    with opened(name) as file:
        assert file.read(2**62) == PLAIN
        file.seek(5)
        assert file.read(2**62) == PLAIN[5:]
        assert file.read(2**62) == b""
        file.seek(SIZE + 5)
        assert file.read(2**62) == file.read() == file.raw.readall() == b""
        file.raw.seek(7)
        assert file.raw.readall() == PLAIN[7:]


@pytest.mark.parametrize("name", KINDS)
def test_it_has_no_name_by_which_the_ciphertext_would_be_read(name, tmp_path):
    data, format_1 = FILES[name]
    (tmp_path / "file").write_bytes(data)
    with open_encrypted(tmp_path / "file", RING, format_1=format_1) as file:
        assert not hasattr(file, "name")
        assert str(tmp_path) not in repr(file)
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [100, 65_536, 3 * 65_536], ids=lambda size: f"{size} bytes")
def test_what_fails_writes_nothing_into_the_callers_buffer(suite, primitives, size):
    """AES-GCM decrypts before it has verified; a buffer of the caller's is not where it does."""
    data = bytearray(seal(PLAIN, suite))
    data[BODY_START + 20 : BODY_START + suite.sealed_size : 200] = bytes(
        len(range(20, suite.sealed_size, 200))
    )
    with open_encrypted(io.BytesIO(data), RING, primitives=primitives) as file:
        for reader in (file.readinto, file.readinto1, file.raw.readinto):
            buffer = bytearray(size)
            with pytest.raises(IntegrityError):
                reader(buffer)
            assert buffer == bytes(size)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("raw", [False, True], ids=["buffered", "raw"])
def test_a_block_that_was_read_before_one_that_fails_is_read_again(suite, primitives, raw):
    """Blocks share a buffer: what a failure left in it is not taken for the block before."""
    data, full = bytearray(seal(PLAIN, suite)), suite.segment_size
    data[BODY_START + suite.sealed_size + 50] ^= 1
    with open_encrypted(io.BytesIO(data), RING, primitives=primitives) as opened_file:
        file = opened_file.raw if raw else opened_file
        assert file.read(10) == PLAIN[:10]
        file.seek(full + 20)
        with pytest.raises(IntegrityError):
            file.read(10)
        for start in (15, 2 * full + 3, 0):
            file.seek(start)
            assert file.read(10) == PLAIN[start : start + 10]


def zipped() -> bytes:
    with io.BytesIO() as target:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("rows.csv", TEXT)
        return target.getvalue()


def tarred() -> bytes:
    with io.BytesIO() as target:
        with tarfile.open(fileobj=target, mode="w:gz") as archive:
            member = tarfile.TarInfo("rows.csv")
            member.size = len(TEXT)
            archive.addfile(member, io.BytesIO(TEXT))
        return target.getvalue()


def picture() -> bytes:
    with io.BytesIO() as target:
        Image.effect_noise((400, 300), 50).save(target, "PNG")
        return target.getvalue()


def workbook() -> bytes:
    with io.BytesIO() as target:
        book = openpyxl.Workbook()
        book.active.append(["a", 2])
        book.save(target)
        return target.getvalue()


def pdf() -> bytes:
    with io.BytesIO() as target:
        writer = pypdf.PdfWriter()
        writer.add_blank_page(200, 100)
        writer.write(target)
        return target.getvalue()


def copied(file) -> bytes:
    target = io.BytesIO()
    shutil.copyfileobj(file, target)
    return target.getvalue()


# What reads a file: (the bytes of one, how it is read). The plaintext gives the same.
READERS = {
    "TextIOWrapper": (TEXT, lambda file: io.TextIOWrapper(file, "utf-8").read()),
    "BufferedReader": (TEXT, lambda file: io.BufferedReader(file).read()),
    "csv": (TEXT, lambda file: list(csv.reader(io.TextIOWrapper(file, "utf-8", newline="")))),
    "codecs": (TEXT, lambda file: list(codecs.iterdecode(file, "utf-8"))),
    "shutil": (TEXT, copied),
    "zipfile": (zipped(), lambda file: zipfile.ZipFile(file).read("rows.csv")),
    "tarfile": (tarred(), lambda file: tarfile.TarFile.gzopen("", "r", file).extractfile("rows.csv").read()),
    "gzip": (gzip.compress(TEXT), lambda file: gzip.GzipFile(fileobj=file).read()),
    "Pillow": (picture(), lambda file: Image.open(file).resize((40, 30)).tobytes()),
    "openpyxl": (workbook(), lambda file: [*openpyxl.load_workbook(file).active.values]),
    "pypdf": (pdf(), lambda file: [page.mediabox[2:] for page in pypdf.PdfReader(file).pages]),
}


@pytest.mark.parametrize(("data", "read"), READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("seal_", "format_1"),
    [
        pytest.param(seal, False, id="suite-1"),
        pytest.param(partial(seal, suite=Suite.GCM), False, id="suite-2"),
        pytest.param(seal_1, True, id="format-1"),
    ],
)
def test_what_reads_a_binary_file_reads_it(data, read, seal_, format_1):
    wanted = read(io.BytesIO(data))
    assert wanted
    assert read(open_encrypted(io.BytesIO(seal_(data)), RING, format_1=format_1)) == wanted
