"""The primitives that both formats are made of, on PyCryptodome and the standard library.

Nothing here knows a file, a key's origin or a format. :class:`Primitives` is the small interface
behind which a second implementation may stand (:mod:`securefs.accelerated`, OpenSSL); the tests
prove the two equal. HMAC-SHA256 always comes from the standard library, which is OpenSSL
underneath, and so does HKDF, which is two short loops over it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Protocol

from Crypto.Cipher import AES  # nosec B413  # PyCryptodome, which took over the name of the dead pyCrypto
from Crypto.Util.Padding import pad  # nosec B413  # the same

from securefs.errors import IntegrityError, Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BLOCK_SIZE",
    "GCM_NONCE_SIZE",
    "GCM_TAG_SIZE",
    "HMAC_SIZE",
    "KEY_SIZE",
    "Bytes",
    "Gcm",
    "Primitives",
    "PyCryptodome",
    "StreamSealer",
    "hkdf",
    "hkdf_expand",
    "pkcs7_pad",
    "unpadded_size",
    "view_of",
]

KEY_SIZE: Final = 32  # bytes; AES-256, every key that encrypts or is derived
BLOCK_SIZE: Final = 16  # bytes; AES block, CBC IV (FIPS 197, SP 800-38A)
GCM_NONCE_SIZE: Final = 12  # bytes; SP 800-38D section 5.2.1.1
GCM_TAG_SIZE: Final = 16  # bytes
HMAC_SIZE: Final = 32  # bytes; HMAC-SHA256, never cut short

Bytes = bytes | bytearray | memoryview


class Gcm(Protocol):
    """AES-256-GCM under one key, with empty associated data."""

    def seal(self, nonce: bytes, plaintext: Bytes) -> bytes:
        """Return ciphertext and its 16-byte tag. A nonce (12 bytes) must never repeat under one key."""
        ...

    def open(self, nonce: bytes, sealed: Bytes) -> bytes:
        """Return the plaintext, or raise :class:`IntegrityError` without releasing any of it."""
        ...

    def open_into(self, nonce: bytes, sealed: Bytes, out: memoryview) -> int:
        """Write the plaintext to the beginning of ``out`` and return its size in bytes.

        :raises IntegrityError: the tag does not match; what ``out`` then holds must not be used.
        """
        ...


class StreamSealer(Protocol):
    """Something that seals a stream: any number of updates, then one finalize."""

    def update(self, data: Bytes) -> bytes:
        """Take plaintext, return what ciphertext is ready."""
        ...

    def finalize(self) -> bytes:
        """Return the last of the ciphertext."""
        ...


class Primitives(Protocol):
    """What an implementation offers."""

    name: str

    def cbc_encryptor(self, key: bytes, iv: bytes) -> Callable[[Bytes], bytes]:
        """Return a function that encrypts whole blocks (multiples of 16 bytes) in sequence, AES-CBC."""
        ...

    def cbc_decrypt_into(self, key: bytes, iv: bytes, ciphertext: Bytes, out: memoryview) -> None:
        """Decrypt whole blocks to the beginning of ``out``, AES-CBC, padding left in place.

        ``out`` has room for at least 16 bytes more than the ciphertext has.
        """
        ...

    def gcm(self, key: bytes) -> Gcm:
        """Return AES-GCM under ``key`` (32 bytes)."""
        ...

    def cobblestone_sealer(self, key: bytes, context: bytes) -> StreamSealer | None:
        """Return a ready-made Cobblestone-256 writer with a salt of its own, or None if there is none."""
        ...


class _PyCryptodomeGcm:
    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, nonce: bytes, plaintext: Bytes) -> bytes:
        ciphertext, tag = AES.new(self._key, AES.MODE_GCM, nonce=nonce).encrypt_and_digest(plaintext)
        return ciphertext + tag

    def open(self, nonce: bytes, sealed: Bytes) -> bytes:
        view = memoryview(sealed)
        cipher = AES.new(self._key, AES.MODE_GCM, nonce=nonce)
        try:
            # PyCryptodome compares the tag in constant time and hands out nothing on a mismatch.
            return cipher.decrypt_and_verify(view[:-GCM_TAG_SIZE], view[-GCM_TAG_SIZE:])
        except ValueError:
            raise IntegrityError("the authentication tag does not match", Reason.TAG_MISMATCH) from None

    def open_into(self, nonce: bytes, sealed: Bytes, out: memoryview) -> int:
        plaintext = self.open(nonce, sealed)
        out[: len(plaintext)] = plaintext
        return len(plaintext)


class PyCryptodome:
    """The implementation that every installation has."""

    name = "pycryptodome"

    def cbc_encryptor(self, key: bytes, iv: bytes) -> Callable[[Bytes], bytes]:
        """See :meth:`Primitives.cbc_encryptor`."""
        return AES.new(key, AES.MODE_CBC, iv=iv).encrypt

    def cbc_decrypt_into(self, key: bytes, iv: bytes, ciphertext: Bytes, out: memoryview) -> None:
        """See :meth:`Primitives.cbc_decrypt_into`."""
        AES.new(key, AES.MODE_CBC, iv=iv).decrypt(ciphertext, output=out[: len(ciphertext)])

    def gcm(self, key: bytes) -> Gcm:
        """See :meth:`Primitives.gcm`."""
        return _PyCryptodomeGcm(key)

    def cobblestone_sealer(self, key: bytes, context: bytes) -> StreamSealer | None:  # noqa: ARG002  # the interface's
        """There is none here: suite 2 is then written segment by segment."""
        return None


def view_of(data: object) -> memoryview:
    """Return the bytes of ``data`` as a flat view; raise :class:`SourceError` for text, None and all else."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # what it is, is the question
        return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    except (TypeError, ValueError, BufferError):
        # Of another kind, or let go of: a closed map, a released view.
        raise SourceError(f"bytes are needed, and this is {type(data).__name__}") from None


def hkdf_expand(digest: str, prk: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-Expand (RFC 5869 section 2.3) with hash ``digest`` (a hashlib name)."""
    size = hashlib.new(digest).digest_size
    if length > 255 * size:
        raise ValueError(f"HKDF can give at most {255 * size} bytes, not {length}")
    block = output = b""
    for counter in range(1, -(-length // size) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), digest)
        output += block
    return output[:length]


def hkdf(digest: str, ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF, Extract then Expand (RFC 5869). An empty salt is a block of zeros."""
    return hkdf_expand(digest, hmac.digest(salt, ikm, digest), info, length)


def pkcs7_pad(tail: Bytes) -> bytes:
    """Return ``tail`` (0 to 15 bytes) filled to one block (RFC 5652 section 6.3)."""
    return pad(bytes(tail), BLOCK_SIZE, style="pkcs7")


def unpadded_size(padded: Bytes) -> int:
    """Return the bytes of ``padded`` before its PKCS#7 padding; raise :class:`IntegrityError` where it has none.

    Only ever called on what a tag has proven to be ours, so neither the error nor its timing tells
    an attacker anything about bytes of their choosing: there is no padding oracle behind a verified
    tag.
    """
    count = padded[-1] if padded else 0
    if not 1 <= count <= BLOCK_SIZE or padded[-count:] != bytes([count]) * count:
        raise IntegrityError("the padding is not PKCS#7 though the tag is good", Reason.TAG_MISMATCH)
    return len(padded) - count
