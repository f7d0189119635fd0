from __future__ import annotations

import hashlib
import hmac
import io

import pytest
from second_decryptor import open_format_1
from support.sealing import (
    KEY,
    LIBRARIES,
    OTHER_KEY,
    PRIMITIVES,
    RING,
    pattern,
    seal,
    seal_1,
)

from securefs import FormatError, IntegrityError, Keyring, Reason, open_encrypted
from securefs.format1 import Format1Sealer, ciphertext_size, sealed_length
from securefs.format1_reader import FORMAT_1_BLOCK

MIB = FORMAT_1_BLOCK
SIZES = [0, 1, 15, 16, 17, 4096, MIB - 17, MIB - 16, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1]


def open_1(data, ring=RING, **options):
    return open_encrypted(io.BytesIO(data), ring, format_1=True, **options)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size, primitives):
    plaintext = pattern(size)
    data = seal_1(plaintext, primitives=primitives)
    assert len(data) == sealed_length(size)
    with open_1(data, primitives=primitives) as file:
        assert (file.size, file.format, file.suite, file.object_id, file.metadata) == (
            size,
            1,
            "format-1",
            "",
            {},
        )
        assert file.read() == plaintext
        file.check()
    assert open_format_1(data, [KEY]) == plaintext


@pytest.mark.parametrize("step", [1, 7, 15, 16, 17, 4096, 10_000])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 10_000])
def test_pieces_of_any_size_give_the_same_bytes(size, step):
    plaintext = pattern(size)
    for library in LIBRARIES:
        sealer = Format1Sealer(KEY, pattern(16, "iv"), library)
        pieces = [sealer.update(plaintext[at : at + step]) for at in range(0, size, step)]
        assert b"".join(pieces) + sealer.finalize() == seal_1(plaintext)


@pytest.mark.parametrize("size", [16, 24, 32])
def test_keys_of_all_three_sizes_seal_and_open(size):
    key = KEY[:size]
    sealer = Keyring(key).format_1_sealer()
    data = sealer.update(b"hello") + sealer.finalize()
    with open_1(data, Keyring(OTHER_KEY, [KEY, key, KEY[:16]])) as file:
        assert file.read() == b"hello"
        assert file.key_id == Keyring(key).primary_id.hex()


def test_the_iv_is_new_for_every_file():
    sealers = [RING.format_1_sealer() for _ in range(2)]
    first, second = (sealer.update(b"hello") + sealer.finalize() for sealer in sealers)
    assert first[:16] != second[:16]
    assert first[16:] != second[16:]


@pytest.mark.parametrize("length", [*range(64), 65, 72, 79, 81])
def test_a_length_that_no_writer_makes_is_refused_before_anything_else(length):
    with pytest.raises(FormatError, match="can't be Format 1") as caught:
        open_1(bytes(length))
    assert caught.value.reason is Reason.TRUNCATED
    with pytest.raises(FormatError):
        ciphertext_size(length)


def test_every_cut_and_every_extension_is_refused():
    data = seal_1(pattern(50))
    for length in range(len(data)):
        with pytest.raises((FormatError, IntegrityError)):
            open_1(data[:length])
    for more in (b"\0", bytes(16), bytes(32), data):
        with pytest.raises((FormatError, IntegrityError)):
            open_1(data + more)


@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_every_flipped_bit_is_refused(primitives):
    data = seal_1(pattern(40))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError) as caught:
            open_1(changed, primitives=primitives)
        assert caught.value.reason is Reason.TAG_MISMATCH


def test_format_1_is_never_guessed():
    with pytest.raises(FormatError) as caught:
        open_encrypted(io.BytesIO(seal_1(b"hello")), RING)
    assert caught.value.reason is Reason.NOT_ENCRYPTED


def test_format_2_is_read_where_format_1_was_expected():
    with open_1(seal(b"hello")) as file:
        assert (file.format, file.read()) == (2, b"hello")


def test_a_broken_format_2_file_is_not_tried_as_format_1():
    data = bytearray(seal(b"hello"))
    data[500 - 30] ^= 1
    with pytest.raises(IntegrityError) as caught:
        open_1(data)
    assert caught.value.segment == 0


def test_the_layout_is_the_one_first_specified():
    data = seal_1(b"")
    assert data[:16] == pattern(16, "iv")
    assert data[-32:] == hmac.new(KEY, data[:-32], hashlib.sha256).digest()
