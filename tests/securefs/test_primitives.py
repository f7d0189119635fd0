from __future__ import annotations

import hashlib
import hmac

import pytest
from support.sealing import PRIMITIVES

from securefs import IntegrityError
from securefs.primitives import hkdf, hkdf_expand, pkcs7_pad, unpadded_size

KEY = bytes(range(32))


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("bit", range(0, 8 * 21, 5))
def test_gcm_refuses_a_flipped_bit(primitives, bit):
    sealed = bytearray(primitives.gcm(KEY).seal(bytes(12), b"hello"))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        primitives.gcm(KEY).open(bytes(12), sealed)
    with pytest.raises(IntegrityError):
        primitives.gcm(KEY).open_into(bytes(12), sealed, memoryview(bytearray(len(sealed))))


def test_hkdf_with_an_empty_salt_uses_a_block_of_zeros():
    assert hkdf("sha256", b"key", b"", b"info", 40) == hkdf("sha256", b"key", bytes(32), b"info", 40)


def test_hkdf_is_extract_then_expand():
    prk = hmac.digest(b"salt", b"key", "sha512")
    assert hkdf("sha512", b"key", b"salt", b"info", 100) == hkdf_expand("sha512", prk, b"info", 100)


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_hkdf_gives_up_to_255_blocks_and_no_more(digest):
    most = 255 * hashlib.new(digest).digest_size
    assert len(hkdf_expand(digest, KEY, b"", most)) == most
    with pytest.raises(ValueError, match=f"at most {most} bytes"):
        hkdf_expand(digest, KEY, b"", most + 1)


@pytest.mark.parametrize("size", range(16))
def test_padding_fills_one_block_and_comes_off_again(size):
    padded = pkcs7_pad(bytes(size))
    assert padded == bytes(size) + bytes([16 - size]) * (16 - size)
    assert unpadded_size(padded) == size
    assert unpadded_size(memoryview(padded)) == size


@pytest.mark.parametrize(
    "padded",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(16), id="zero"),
        pytest.param(b"\x11" * 32, id="more than a block"),
        pytest.param(bytes(14) + b"\x01\x02", id="mixed"),
        pytest.param(b"\x02", id="longer than the text"),
        pytest.param(bytes(15) + b"\xff", id="255"),
    ],
)
def test_what_is_not_padding_is_refused(padded):
    with pytest.raises(IntegrityError, match="PKCS#7"):
        unpadded_size(padded)
