from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import (
    BODY_START,
    HEADER_SIZE,
    LIBRARIES,
    PRIMITIVES,
    RING,
    SUITES,
    chosen,
    pattern,
    read_all,
    seal,
    stream_all,
)

from securefs import (
    Decryptor,
    Encryptor,
    FormatError,
    IntegrityError,
    LimitExceededError,
    Reason,
    Suite,
    UnknownKeyError,
)
from securefs.header import MAGIC
from securefs.stream import TRAILER, Randomness, _SegmentSealer, growth, most_overhead
from securefs.suites import MAX_SEGMENTS


def edges(suite: Suite) -> list[int]:
    full = suite.segment_size
    return [0, 1, 15, 16, 17, full - 1, full, full + 1, 2 * full - 1, 2 * full, 2 * full + 1]


def steps(suite: Suite, size: int) -> list[int]:
    full = suite.segment_size
    return [*([1] if size <= 17 else []), 7, 4096, full - 1, full, full + 1, max(1, size)]


GRID = [
    pytest.param(suite, size, step, id=f"suite-{suite.value}-{size}-by-{step}")
    for suite in Suite
    for size in edges(suite)
    for step in steps(suite, size)
]


def encrypt(plaintext: bytes, suite: Suite, step: int, **options) -> bytes:
    encryptor = Encryptor(RING, suite, **options)
    pieces = [encryptor.update(plaintext[at : at + step]) for at in range(0, len(plaintext), step)]
    return b"".join(pieces) + encryptor.finalize()


@pytest.mark.parametrize(("suite", "size", "step"), GRID)
def test_round_trip_at_every_edge_in_pieces_of_every_size(suite, size, step):
    """What one library wrote in pieces, the other reads: seekable, and as a stream in pieces of the same size."""
    plaintext = pattern(size)
    for writer, reader in (LIBRARIES, LIBRARIES[::-1]):
        data = encrypt(plaintext, suite, step, primitives=writer)
        assert len(data) == HEADER_SIZE + suite.body_length(size) + 1
        assert read_all(data, primitives=reader) == plaintext
        assert stream_all(data, step=max(step, 7 if size > 17 else 1), primitives=reader) == plaintext


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_one_byte_at_a_time_is_one_piece(suite, primitives):
    """With the same random values, so that the stored bytes must be the same."""
    plaintext = pattern(suite.segment_size + 20)
    random = chosen()
    sealer = _SegmentSealer(suite, random, b"ctx", primitives)
    pieces = [sealer.update(plaintext[at : at + 1]) for at in range(len(plaintext))]
    whole = _SegmentSealer(suite, chosen(), b"ctx", primitives)
    assert b"".join(pieces) + sealer.finalize() == whole.update(plaintext) + whole.finalize()


@pytest.mark.parametrize("suite", SUITES)
def test_both_libraries_write_the_same_bytes(suite):
    for size in edges(suite):
        assert seal(pattern(size), suite, primitives=LIBRARIES[0]) == seal(
            pattern(size), suite, primitives=LIBRARIES[1]
        )


@examples(40)
@given(st.data(), st.sampled_from(list(Suite)))
def test_pieces_of_any_sizes_on_both_sides(data, suite):
    full = suite.segment_size
    sizes = st.lists(
        st.one_of(st.integers(0, 40), st.integers(full - 2, full + 2), st.integers(0, 3 * full)), max_size=6
    )
    writes = data.draw(sizes)
    plaintext = pattern(sum(writes))
    encryptor, at, sealed = Encryptor(RING, suite), 0, b""
    for size in writes:
        sealed += encryptor.update(memoryview(plaintext)[at : at + size])
        at += size
    sealed += encryptor.finalize()
    decryptor, opened, rest = Decryptor(RING), b"", sealed
    for size in data.draw(sizes):
        opened += decryptor.update(rest[:size])
        rest = rest[size:]
    opened += decryptor.update(rest) + decryptor.finalize()
    assert opened == plaintext


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_taken(suite, kind):
    encryptor, decryptor = Encryptor(RING, suite), Decryptor(RING)
    data = encryptor.update(kind(b"hello")) + encryptor.finalize()
    assert decryptor.update(kind(data)) + decryptor.finalize() == b"hello"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_an_encryptor_serves_one_file(suite, primitives):
    encryptor = Encryptor(RING, suite, primitives=primitives)
    encryptor.finalize()
    for action in (lambda: encryptor.update(b"more"), encryptor.finalize):
        with pytest.raises(ValueError, match="is finalized"):
            action()


@pytest.mark.parametrize("suite", SUITES)
def test_every_file_has_random_values_of_its_own(suite):
    files = [encrypt(b"hello", suite, 5, primitives=LIBRARIES[0]) for _ in range(20)]
    for start, end in ((16, 48), (80, 112), (112, 160), (HEADER_SIZE, HEADER_SIZE + 24), (BODY_START, None)):
        assert len({data[start:end] for data in files}) == len(files)


def test_every_draw_is_new():
    first, second = Randomness.draw(), Randomness.draw()
    for name, size in (("file_id", 32), ("dek", 32), ("wrap_salt", 32), ("body_salt", 24)):
        assert len(getattr(first, name)) == size
        assert getattr(first, name) != getattr(second, name)
    assert first.draw_iv() != first.draw_iv()
    assert len(first.draw_iv()) == 16


def test_no_two_segments_of_suite_1_share_an_iv():
    data = encrypt(bytes(4 * 65_536), Suite.CBC_HMAC, 65_536)
    ivs = [data[at : at + 16] for at in range(BODY_START, len(data) - 1, 65_600)]
    assert len(set(ivs)) == len(ivs) == 5


@pytest.mark.parametrize("suite", SUITES)
def test_a_file_ends_in_the_trailer(suite):
    assert encrypt(b"", suite, 1)[-1:] == TRAILER == b"\x5a"


@pytest.mark.parametrize("start", [b"X", b"\x89SFX", MAGIC[:7] + b"X", b"\x89SFS2\n"])
def test_junk_is_refused_at_its_first_wrong_byte(start):
    decryptor = Decryptor(RING)
    for at in range(len(start) - 1):
        assert decryptor.update(start[at : at + 1]) == b""
    with pytest.raises(FormatError) as caught:
        decryptor.update(start[-1:])
    assert caught.value.reason is Reason.NOT_ENCRYPTED


def test_a_bad_header_is_refused_as_soon_as_its_fixed_part_is_there():
    data = bytearray(seal(b"hello"))
    data[48] = 0
    decryptor = Decryptor(RING)
    assert decryptor.update(data[:55]) == b""
    with pytest.raises(FormatError, match="slot table"):
        decryptor.update(data[55:56])


def test_the_header_is_known_before_the_first_segment_is():
    data = seal(b"hello", metadata_text=b'{"name":"a"}')
    start = HEADER_SIZE + int.from_bytes(data[12:16], "big") + 56
    decryptor = Decryptor(RING)
    assert decryptor.update(data[: start - 1]) == b""
    assert decryptor.unlocked is None
    decryptor.update(data[start - 1 : start])
    assert decryptor.unlocked is not None
    assert decryptor.unlocked.metadata == {"name": "a"}
    assert decryptor.unlocked.header.object_id == data[16:48].hex()


@pytest.mark.parametrize("suite", SUITES)
def test_plaintext_comes_as_soon_as_its_segment_cannot_be_the_last(suite):
    """A full segment and one byte more: only then is it known not to be the final one."""
    full, plaintext = suite.sealed_size, pattern(2 * suite.segment_size)
    data, decryptor = seal(plaintext, suite), Decryptor(RING)
    assert decryptor.update(data[: BODY_START + full]) == b""
    assert (
        decryptor.update(data[BODY_START + full : BODY_START + full + 1]) == plaintext[: suite.segment_size]
    )


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_of_a_changed_segment_comes_out_and_what_was_before_it_does(suite):
    full, plaintext = suite.segment_size, pattern(3 * suite.segment_size)
    data = bytearray(seal(plaintext, suite))
    data[BODY_START + suite.sealed_size + 100] ^= 1
    decryptor, released = Decryptor(RING), []
    pieces = (data[at : at + 1000] for at in range(0, len(data), 1000))
    with pytest.raises(IntegrityError) as caught:
        released.extend(map(decryptor.update, pieces))
    assert b"".join(released) == plaintext[:full]
    assert caught.value.segment == 1


def test_what_follows_a_refused_header_stays_shut():
    """A caller that feeds on after the error must not get the good file that an attacker put behind a bad header."""
    bad = bytearray(seal(b"hello")[:BODY_START])
    bad[100] ^= 1
    decryptor = Decryptor(RING)
    with pytest.raises(IntegrityError):
        decryptor.update(bytes(bad) + seal(b"other", label="other"))
    for action in (lambda: decryptor.update(b""), decryptor.finalize):
        with pytest.raises(IntegrityError):
            action()


@pytest.mark.parametrize("suite", SUITES)
def test_what_follows_a_refused_segment_stays_shut(suite):
    data = bytearray(seal(pattern(3 * suite.segment_size), suite))
    data[BODY_START + 100] ^= 1
    decryptor = Decryptor(RING)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            decryptor.update(data)
    with pytest.raises(IntegrityError):
        decryptor.finalize()


def test_an_unknown_key_is_told_by_the_stream_too():
    with pytest.raises(UnknownKeyError):
        stream_all(b"".join((seal(b"hello")[:64], bytes(16), seal(b"hello")[80:])))


@pytest.mark.parametrize("suite", SUITES)
def test_no_segment_is_written_or_read_beyond_the_last_there_may_be(suite):
    """The counters are set forward: nobody has 64 TiB at hand."""
    full = bytes(suite.segment_size)
    encryptor = Encryptor(RING, suite, primitives=LIBRARIES[0])
    encryptor._sealer._index = MAX_SEGMENTS - 1
    encryptor.update(full)
    with pytest.raises(LimitExceededError):
        encryptor.finalize()
    for position in (0, 1):
        decryptor = Decryptor(RING)
        decryptor.update(seal(full, suite)[:BODY_START])
        decryptor._index = MAX_SEGMENTS
        rest = seal(full if position == 0 else b"", suite)[BODY_START:]
        with pytest.raises(LimitExceededError):
            finish(decryptor, rest)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_neither_library_s_writer_takes_more_than_a_file_holds(suite, primitives):
    """OpenSSL's writer of suite 2 counts for itself, and further."""
    assert suite.max_size == 2**32 * suite.segment_size - 1
    encryptor = Encryptor(RING, suite, primitives=primitives)
    encryptor._taken = suite.max_size - 3
    encryptor.update(b"abc")
    with pytest.raises(LimitExceededError, match=f"at most {suite.max_size} bytes"):
        encryptor.update(b"d")


def finish(decryptor: Decryptor, rest: bytes) -> bytes:
    return decryptor.update(rest) + decryptor.finalize()


SIZES = [
    segments * size + rest
    for size in (16_384, 65_536)
    for segments in (0, 1, 2, 3, 17)
    for rest in (0, 1, 15, 16, 17, 4096, size - 16, size - 1)
]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("metadata", [{}, {"n": ""}, {"n": "x" * 500}], ids=["none", "short", "long"])
def test_no_file_is_longer_than_its_bound(suite, metadata):
    """An upload's length is announced by it: a file one byte longer would be cut where its form ends."""
    encryptor = Encryptor(RING, suite, b"", metadata)
    text = len(json.dumps(metadata, separators=(",", ":"))) if metadata else 0
    for size in SIZES:
        bound = size + growth(size) + most_overhead(RING, text)
        assert encryptor.stored_length(size) <= bound
