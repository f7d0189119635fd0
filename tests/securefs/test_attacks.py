"""Every row of "What attacks meet" in docs/format.md, as an attacker would do it: with whole files, cut and put together."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from second_decryptor import Rejected, open_format_2
from support.fuzzing import examples
from support.sealing import (
    BODY_START,
    HEADER_SIZE,
    KEY,
    LIBRARIES,
    OTHER_KEY,
    RING,
    SUITES,
    CountingFile,
    chosen,
    keys_of,
    pattern,
    read_all,
    seal,
    stream_all,
)

from securefs import (
    FormatError,
    IntegrityError,
    Keyring,
    Reason,
    SecureFSError,
    Suite,
    UnknownKeyError,
    open_encrypted,
    verify,
)
from securefs.stream import unlock
from securefs.suites import body_context, derive

REFUSALS = (FormatError, IntegrityError, UnknownKeyError)


def refused(data: bytes, ring: Keyring = RING, context: bytes = b"", **options) -> SecureFSError:
    """All readers refuse ``data``; return the seekable reader's error."""
    with pytest.raises(REFUSALS):
        stream_all(data, ring, context)
    with pytest.raises(Rejected):
        open_format_2(data, keys_of(ring), context)
    with pytest.raises(REFUSALS) as caught:
        verify(io.BytesIO(data), ring, context, **options)
    return caught.value


def segments(data: bytes, suite: Suite) -> list[bytes]:
    """The stored segments of a file with a header of the usual size."""
    size = suite.sealed_size
    return [data[at : min(at + size, len(data) - 1)] for at in range(BODY_START, len(data) - 1, size)]


def joined(data: bytes, pieces: list[bytes]) -> bytes:
    return data[:BODY_START] + b"".join(pieces) + b"\x5a"


SMALL = [
    pytest.param(suite, text, size, id=f"suite-{suite.value}-{name}-{size}")
    for suite in Suite
    for name, text in (("plain", b""), ("metadata", b'{"name":"a","type":"b/c"}'))
    for size in (0, 20)
]


@pytest.mark.parametrize(("suite", "text", "size"), SMALL)
def test_any_flipped_bit_is_refused(suite, text, size):
    """Those of the empty slot too: it must be zero."""
    data = seal(pattern(size), suite, metadata_text=text)
    accepted = []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        for reader in (read_all, stream_all):
            try:
                reader(bytes(changed))
            except REFUSALS:
                continue
            accepted.append((bit // 8, bit % 8, reader.__name__))
    assert accepted == []


@pytest.mark.parametrize(("suite", "text", "size"), SMALL)
def test_any_flipped_bit_is_refused_by_the_second_decryptor(suite, text, size):
    data = seal(pattern(size), suite, metadata_text=text)
    accepted = []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            open_format_2(bytes(changed), [KEY])
        except Rejected:
            continue
        accepted.append((bit // 8, bit % 8))
    assert accepted == []


@pytest.mark.parametrize(("suite", "text", "size"), SMALL)
def test_a_cut_at_any_length_is_refused(suite, text, size):
    data = seal(pattern(size), suite, metadata_text=text)
    for length in range(len(data)):
        refused(data[:length])


def around(*positions: int) -> list[int]:
    return [
        position + shift for position in positions for shift in (-17, -16, -2, -1, 0, 1, 2, 15, 16, 17, 64)
    ]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("trailer", [b"", b"\x5a"])
def test_a_cut_at_a_segment_s_edge_is_refused(suite, trailer):
    """With the trailer put back as well, so that not only its absence gives the cut away."""
    data = seal(pattern(3 * suite.segment_size), suite)
    first = BODY_START + suite.sealed_size
    for length in around(BODY_START, first, first + suite.sealed_size, first + 2 * suite.sealed_size):
        if length < len(data) and data[:length] + trailer != data:
            refused(data[:length] + trailer)


@pytest.mark.parametrize("suite", SUITES)
@examples(60)
@given(data=st.data())
def test_a_cut_anywhere_in_a_long_file_is_refused(suite, data):
    whole = LONG[suite]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))] + data.draw(st.sampled_from([b"", b"\x5a"]))
    assume(cut != whole)
    refused(cut)


LONG = {suite: seal(pattern(2 * suite.segment_size + 100), suite) for suite in Suite}


@pytest.mark.parametrize("suite", SUITES)
@examples(100)
@given(data=st.data())
def test_any_changed_bytes_are_refused(suite, data):
    whole = bytearray(LONG[suite])
    at = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(min_size=1, max_size=40))
    assume(bytes(whole[at : at + len(new)]) != new)
    whole[at : at + len(new)] = new
    assume(bytes(whole) != LONG[suite])
    refused(bytes(whole))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 20])
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"\0", id="zero"),
        pytest.param(b"\x5a", id="trailer"),
        pytest.param(b"\r\n", id="CRLF"),
        pytest.param(bytes(15) + b"\x5a", id="block and trailer"),
        pytest.param(bytes(16) + b"\x5a", id="17"),
        pytest.param(bytes(63) + b"\x5a", id="64"),
        pytest.param(bytes(16_399) + b"\x5a", id="segment of suite 2"),
        pytest.param(bytes(65_599) + b"\x5a", id="segment of suite 1"),
    ],
)
def test_an_extended_file_is_refused(suite, size, more):
    data = seal(pattern(size), suite)
    refused(data + more)
    refused(data + data)
    if more != b"\x5a":
        refused(data[:-1] + more)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("rest", [0, 1, 100])
class TestSegments:
    """Three full segments and a final one of ``rest`` bytes, in every wrong order."""

    def parts(self, suite, rest):
        data = seal(pattern(3 * suite.segment_size + rest), suite)
        pieces = segments(data, suite)
        assert len(pieces) == 4
        assert joined(data, pieces) == data
        return data, pieces

    @pytest.mark.parametrize("dropped", range(4))
    def test_a_dropped_segment_is_refused(self, suite, rest, dropped):
        data, pieces = self.parts(suite, rest)
        error = refused(joined(data, pieces[:dropped] + pieces[dropped + 1 :]))
        assert error.reason is (Reason.TRUNCATED if dropped == 3 else Reason.TAG_MISMATCH)

    @pytest.mark.parametrize("doubled", range(4))
    def test_a_doubled_segment_is_refused(self, suite, rest, doubled):
        data, pieces = self.parts(suite, rest)
        refused(joined(data, pieces[: doubled + 1] + pieces[doubled:]))

    @pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2), (0, 3), (2, 3)])
    def test_exchanged_segments_are_refused(self, suite, rest, one, other):
        data, pieces = self.parts(suite, rest)
        pieces[one], pieces[other] = pieces[other], pieces[one]
        refused(joined(data, pieces))

    @pytest.mark.parametrize("at", range(4))
    def test_a_segment_in_place_of_another_is_refused(self, suite, rest, at):
        data, pieces = self.parts(suite, rest)
        for other in range(4):
            if other != at:
                refused(joined(data, [*pieces[:at], pieces[other], *pieces[at + 1 :]]))

    def test_two_finals_are_refused(self, suite, rest):
        data, pieces = self.parts(suite, rest)
        refused(joined(data, [*pieces, pieces[3]]))
        refused(joined(data, [pieces[0], pieces[1], pieces[3], pieces[3]]))

    @pytest.mark.parametrize("at", range(4))
    def test_a_segment_of_another_file_under_the_same_key_is_refused(self, suite, rest, at):
        data, pieces = self.parts(suite, rest)
        pieces[at] = segments(seal(pattern(3 * suite.segment_size + rest), suite, "other"), suite)[at]
        assert refused(joined(data, pieces)).reason is Reason.TAG_MISMATCH

    @pytest.mark.parametrize("at", range(4))
    def test_a_segment_of_a_file_with_the_same_dek_and_another_salt_is_refused(self, suite, rest, at):
        data, pieces = self.parts(suite, rest)
        other = chosen(body_salt=bytes(24))
        pieces[at] = segments(seal(pattern(3 * suite.segment_size + rest), suite, random=other), suite)[at]
        assert refused(joined(data, pieces)).reason is Reason.TAG_MISMATCH


def test_the_final_flag_of_suite_1_is_under_the_tag():
    """A full segment can't pass for the final one by its length alone; with the DEK one can be sealed that would."""
    data = seal(b"", Suite.CBC_HMAC)
    cipher = unlock(data, RING, b"", LIBRARIES[0]).cipher
    assert read_all(joined(data, [cipher.seal(0, True, b"end")])) == b"end"
    assert refused(joined(data, [cipher.seal(0, False, b"end")])).reason is Reason.TAG_MISMATCH
    full = joined(data, [cipher.seal(0, True, bytes(65_536)), cipher.seal(1, True, b"")])
    assert refused(full).reason is Reason.TAG_MISMATCH


@pytest.mark.parametrize("suite", SUITES)
def test_the_body_of_another_file_under_the_same_key_is_refused(suite):
    one, other = seal(pattern(20), suite), seal(pattern(20, "b"), suite, "other")
    assert refused(one[:HEADER_SIZE] + other[HEADER_SIZE:]).reason is Reason.COMMITMENT_MISMATCH


@pytest.mark.parametrize("suite", SUITES)
def test_the_slot_of_another_file_under_the_same_key_is_refused(suite):
    one, other = seal(pattern(20), suite), seal(pattern(20, "b"), suite, "other")
    assert refused(one[:56] + other[56:216] + one[216:]).reason is Reason.TAG_MISMATCH


@pytest.mark.parametrize("suite", SUITES)
def test_the_slot_table_and_body_of_another_file_are_refused_under_this_file_s_id(suite):
    """Swapping all but the name: the object id in the preamble is bound to everything behind it."""
    one, other = seal(pattern(20), suite), seal(pattern(20, "b"), suite, "other")
    assert refused(one[:48] + other[48:]).reason is Reason.TAG_MISMATCH


@pytest.mark.parametrize("suite", SUITES)
def test_the_metadata_of_another_file_under_the_same_key_is_refused(suite):
    one = seal(b"x", suite, metadata_text=b'{"name":"a"}')
    other = seal(b"x", suite, "other", metadata_text=b'{"name":"b"}')
    end = HEADER_SIZE + int.from_bytes(one[12:16], "big")
    assert refused(one[:HEADER_SIZE] + other[HEADER_SIZE:end] + one[end:]).reason is Reason.TAG_MISMATCH
    without = one[:12] + bytes(4) + one[16:HEADER_SIZE] + one[end:]
    assert refused(without).reason is Reason.TAG_MISMATCH


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("value", range(256))
def test_a_changed_suite_byte_is_refused(suite, value):
    if value != suite.value:
        data = seal(pattern(20), suite)
        refused(data[:9] + bytes([value]) + data[10:])


@pytest.mark.parametrize("value", [0, 1, 3, 255])
def test_a_changed_version_byte_is_refused(value):
    data = seal(pattern(20))
    assert refused(data[:8] + bytes([value]) + data[9:]).reason is Reason.BAD_HEADER


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("cut", [8, 48, 56, HEADER_SIZE, HEADER_SIZE + 24, BODY_START])
def test_a_header_stripped_to_pass_as_format_1_is_refused(suite, cut):
    """The last cut leaves one segment, which in suite 1 has the very shape of a Format 1 file."""
    data = seal(pattern(24), suite)
    for rest in (data[cut:], data[cut:-1]):
        with pytest.raises((FormatError, IntegrityError)):
            verify(io.BytesIO(rest), RING, format_1=True)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param(b"tenant 1", b"tenant 2", id="another"),
        pytest.param(b"tenant 1", b"", id="none"),
        pytest.param(b"", b"tenant 1", id="one too many"),
        pytest.param(b"a", b"a\0", id="with a zero"),
        pytest.param(b"tenant 1", b"tenant 11", id="longer"),
    ],
)
def test_the_right_file_in_the_wrong_context_is_refused_before_any_segment_is_opened(suite, written, read):
    data = seal(pattern(20), suite, context=written)
    assert read_all(data, context=written) == pattern(20)
    assert refused(data, context=read).reason is Reason.COMMITMENT_MISMATCH
    source = CountingFile(data)
    with pytest.raises(IntegrityError):
        open_encrypted(source, RING, read)
    assert source.furthest() == BODY_START


# One body under two keys. GHASH is linear, so whoever knows both keys can choose a block that makes
# both tags come out alike (bit 0 of SP 800-38D's field elements is the highest bit of the first
# byte).


def times(one: int, other: int) -> int:
    """Multiply in the field of GHASH (SP 800-38D section 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if other >> bit & 1:
            product ^= one
        one = one >> 1 ^ (0xE1 << 120 if one & 1 else 0)
    return product


def inverse(element: int) -> int:
    """Raise to the power of 2^128 - 2."""
    result, square = 1 << 127, element
    for _ in range(127):
        square = times(square, square)
        result = times(result, square)
    return result


def two_key_ciphertext(gcm_keys: list[bytes], nonces: list[bytes]) -> bytes:
    """Two blocks and a tag that open under both (key, nonce) pairs."""
    cbc = LIBRARIES[0].cbc_encryptor
    hash_keys = [int.from_bytes(cbc(key, bytes(16))(bytes(16)), "big") for key in gcm_keys]
    pads = [
        int.from_bytes(cbc(key, bytes(16))(nonce + b"\0\0\0\1"), "big")
        for key, nonce in zip(gcm_keys, nonces, strict=True)
    ]
    first, lengths = int.from_bytes(b"chosen by attack", "big"), 256
    # tag = first·H³ + second·H² + lengths·H + pad, and must be equal under both H: solve for the
    # second block.
    known = factor = 0
    for hash_key, pad in zip(hash_keys, pads, strict=True):
        square = times(hash_key, hash_key)
        known ^= times(first, times(square, hash_key)) ^ times(lengths, hash_key) ^ pad
        factor ^= square
    second = times(known, inverse(factor))
    square = times(hash_keys[0], hash_keys[0])
    tag = (
        times(first, times(square, hash_keys[0]))
        ^ times(second, square)
        ^ times(lengths, hash_keys[0])
        ^ pads[0]
    )
    return b"".join(value.to_bytes(16, "big") for value in (first, second, tag))


def test_one_body_that_opens_under_two_deks_is_refused_under_one_of_them():
    """A real one: this segment has a good tag under the keys of both DEKs, and each of two readers has a slot for one."""
    random = {KEY: chosen(), OTHER_KEY: chosen(dek=bytes(range(32, 64)))}
    files = {key: seal(b"", Suite.GCM, ring=Keyring(key), random=values) for key, values in random.items()}
    ctx = body_context(files[KEY][:48], b"")
    ciphers = [
        derive(Suite.GCM, values.dek, values.body_salt, ctx, LIBRARIES[0], bytes)[0]
        for values in random.values()
    ]
    segment = two_key_ciphertext(
        [cipher._gcm._key for cipher in ciphers], [cipher._nonce(0) for cipher in ciphers]
    )
    first, second = (cipher.open(0, True, segment) for cipher in ciphers)
    assert len(first) == len(second) == 32
    assert first != second

    table = files[KEY][48:216] + files[OTHER_KEY][56:216]
    data = files[KEY][:48] + table + files[KEY][HEADER_SIZE:BODY_START] + segment + b"\x5a"
    assert read_all(data) == first
    assert refused(data, Keyring(OTHER_KEY)).reason is Reason.COMMITMENT_MISMATCH


def rewrapped(data: bytes) -> bytes:
    """``data`` opened for OTHER_KEY instead of KEY, as a rewrap leaves it: new slot, old one zero."""
    twin = seal(pattern(20), ring=Keyring(OTHER_KEY), random=chosen(wrap_salt=pattern(32, "fresh")))
    return data[:56] + bytes(160) + twin[56:216] + data[HEADER_SIZE:]


def test_an_old_slot_put_back_after_a_rewrap_is_not_visible_in_the_file():
    """What the format can't show, and docs/format.md says so: the object id in the caller's record and the journal must."""
    old = seal(pattern(20))
    new = rewrapped(old)
    assert len(new) == len(old)
    assert read_all(new, Keyring(OTHER_KEY)) == pattern(20)
    with pytest.raises(UnknownKeyError):
        read_all(new)
    put_back = new[:56] + old[56:216] + new[216:]
    for ring in (RING, Keyring(OTHER_KEY)):
        assert read_all(put_back, ring) == pattern(20)
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    assert "an old slot put back after a rewrap" in page
    assert "not visible in the file" in page


def test_an_older_file_put_back_differs_in_its_object_id_only():
    old, new = seal(b"balance: 100", label="monday"), seal(b"balance: 7", label="tuesday")
    ids = []
    for data in (old, new):
        with open_encrypted(io.BytesIO(data), RING) as file:
            ids.append(file.object_id)
    assert ids[0] != ids[1]
