from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealing import (
    BODY_START,
    LIBRARIES,
    PRIMITIVES,
    RING,
    SUITES,
    CountingFile,
    ExchangedFile,
    VirtualFile,
    pattern,
    seal,
    seal_1,
)

from securefs import FormatError, IntegrityError, LimitExceededError, Reason, Suite, open_encrypted, verify
from securefs.reader import READ_SIZE
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
        st.tuples(st.just("readline"), st.integers(0, 300)),
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
    if action == "readinto":
        buffer = bytearray(value)
        return file.readinto(buffer), bytes(buffer)
    return getattr(file, action)(value)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_it_reads_as_an_ordinary_file_of_the_plaintext_would(name, steps):
    with opened(name) as file, io.BytesIO(PLAIN) as plain:
        for action, value in steps:
            got, wanted = apply(file, action, value), apply(plain, action, value)
            if action == "read1":
                # BytesIO gives all at once; a file may give less, though never nothing before the end.
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
        assert isinstance(file, io.BufferedIOBase)
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        for action in (lambda: file.write(b"x"), lambda: file.truncate(0), file.fileno, file.detach):
            with pytest.raises(io.UnsupportedOperation):
                action()
        with pytest.raises(ValueError, match="negative seek position"):
            file.seek(-1)
        with pytest.raises(ValueError, match="invalid whence"):
            file.seek(0, 9)
        assert file.read(0) == b""
        assert file.read1() == PLAIN[: file.block_size]


@pytest.mark.parametrize("name", KINDS)
def test_closing_closes_it_and_not_what_it_was_given(name):
    data, format_1 = FILES[name]
    with io.BytesIO(data) as source:
        file = open_encrypted(source, RING, format_1=format_1)
        file.close()
        file.close()
        assert not source.closed
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
