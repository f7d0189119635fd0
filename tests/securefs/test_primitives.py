from __future__ import annotations

import hashlib
import hmac

import pytest
from support.sealing import OTHER_KEY, PRIMITIVES, RING

from securefs import Decryptor, Encryptor, IntegrityError, Keyring, decrypt_file, encrypt_file, rewrap, verify
from securefs.primitives import PyCryptodome, hkdf, hkdf_expand, pkcs7_pad, unpadded_size

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


class Noting(PyCryptodome):
    """A library of the user's own: it tells what it was used for."""

    name = "noting"

    def __init__(self) -> None:
        self.used: set[str] = set()

    def cbc_encryptor(self, key, iv):
        self.used.add("encrypt")
        return super().cbc_encryptor(key, iv)

    def cbc_decrypt_into(self, key, iv, ciphertext, out):
        self.used.add("decrypt")
        super().cbc_decrypt_into(key, iv, ciphertext, out)

    def gcm(self, key):
        self.used.add("gcm")
        return super().gcm(key)


def test_the_library_that_is_given_is_the_one_that_is_used(tmp_path):
    """By each way in: a faster one is installed, and must not take its place."""
    plain, sealed, sealed_1 = tmp_path / "plain", tmp_path / "sealed", tmp_path / "sealed_1"
    plain.write_bytes(b"plaintext")

    def uses(act, wanted):
        library = Noting()
        result = act(library)
        assert library.used == wanted
        return result

    meta = {"name": "a"}
    uses(
        lambda library: encrypt_file(plain, sealed, RING, metadata=meta, primitives=library),
        {"encrypt", "gcm"},
    )
    uses(lambda library: encrypt_file(plain, sealed_1, RING, format_1=True, primitives=library), {"encrypt"})
    for file, format_1, wanted in ((sealed, False, {"decrypt", "gcm"}), (sealed_1, True, {"decrypt"})):
        options = {"format_1": format_1, "overwrite": True}
        uses(lambda library: decrypt_file(file, plain, RING, primitives=library, **options), wanted)  # noqa: B023
        uses(lambda library: verify(file, RING, format_1=format_1, primitives=library), wanted)  # noqa: B023
    encryptor = uses(lambda library: Encryptor(RING, metadata=meta, primitives=library), {"gcm"})
    data = encryptor.update(b"plaintext") + encryptor.finalize()

    def stream(library):
        decryptor = Decryptor(RING, primitives=library)
        return decryptor.update(data) + decryptor.finalize()

    assert uses(stream, {"decrypt", "gcm"}) == b"plaintext"
    uses(RING.format_1_sealer, {"encrypt"})
    uses(lambda library: Encryptor(Keyring(KEY, primitives=library)), {"gcm"})
    uses(lambda library: rewrap(sealed, Keyring(OTHER_KEY, [KEY]), primitives=library), {"gcm"})
