"""The primitives of both formats, from PyCryptodome and the standard library.

This module knows no file, no origin of a key and no format. :class:`Primitives` is a small
interface that a second implementation can provide (:mod:`securefs.accelerated`, OpenSSL); tests
show that the two are equal. HMAC-SHA256 always comes from the standard library, which uses OpenSSL.
HKDF is two short loops over it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Protocol

# This is PyCryptodome, which took over the package name of the abandoned pyCrypto.
from Crypto.Cipher import AES  # nosec B413
from Crypto.Util.Padding import pad  # nosec B413

from securefs.errors import IntegrityError, Reason, SourceError
from securefs.secrecy import HoldsSecrets

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
        """Return ciphertext and its 16-byte tag.

        A nonce (12 bytes) must never repeat under one key.
        """
        ...

    def open(self, nonce: bytes, sealed: Bytes) -> bytes:
        """Return the plaintext, or raise :class:`IntegrityError` without releasing any of it."""
        ...

    def open_into(self, nonce: bytes, sealed: Bytes, out: memoryview) -> int:
        """Write the plaintext to the beginning of ``out``; return its size in bytes.

        :raises IntegrityError: the tag does not match; the content of ``out`` must then not be
            used.
        """
        ...


class StreamSealer(Protocol):
    """Seals a stream: any number of updates, then one finalize."""

    def update(self, data: Bytes) -> bytes:
        """Take plaintext; return the ciphertext that is ready."""
        ...

    def finalize(self) -> bytes:
        """Return the last of the ciphertext."""
        ...


class Primitives(Protocol):
    """The interface of an implementation."""

    name: str

    def cbc_encryptor(self, key: bytes, iv: bytes) -> Callable[[Bytes], bytes]:
        """Return a function that encrypts whole 16-byte blocks in sequence with AES-CBC."""
        ...

    def cbc_decrypt_into(self, key: bytes, iv: bytes, ciphertext: Bytes, out: memoryview) -> None:
        """Decrypt whole blocks to the beginning of ``out`` with AES-CBC; do not remove the padding.

        ``out`` has room for at least 16 bytes more than the ciphertext.
        """
        ...

    def gcm(self, key: bytes) -> Gcm:
        """Return AES-GCM under ``key`` (32 bytes)."""
        ...

    def cobblestone_sealer(self, key: bytes, context: bytes) -> StreamSealer | None:
        """Return a Cobblestone-256 writer that draws its own salt; None if there is none."""
        ...


class _PyCryptodomeGcm(HoldsSecrets):
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

    # The arguments are the interface's.
    def cobblestone_sealer(self, key: bytes, context: bytes) -> StreamSealer | None:  # noqa: ARG002
        """Return None: suite 2 is then written segment by segment."""
        return None


def view_of(data: object) -> memoryview:
    """Return the bytes of ``data`` as a flat view.

    :raises SourceError: ``data`` is text, None or anything else that is not bytes.
    """
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # any object may come
        return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    except (TypeError, ValueError, BufferError):
        # Of another type, or released: a closed map, a released view.
        raise SourceError(f"bytes are needed, and this is {type(data).__name__}") from None


def hkdf_expand(digest: str, prk: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-Expand (RFC 5869 section 2.3).

    :param digest: the hash, by its name in :mod:`hashlib`.
    """
    size = hashlib.new(digest).digest_size
    if length > 255 * size:
        raise ValueError(f"HKDF can give at most {255 * size} bytes, not {length}")
    block = output = b""
    for counter in range(1, -(-length // size) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), digest)
        output += block
    return output[:length]


def hkdf(digest: str, ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF, Extract then Expand (RFC 5869).

    An empty salt stands for a block of zeros.
    """
    return hkdf_expand(digest, hmac.digest(salt, ikm, digest), info, length)


def pkcs7_pad(tail: Bytes) -> bytes:
    """Return ``tail`` (0 to 15 bytes) padded to one block (RFC 5652 section 6.3)."""
    return pad(bytes(tail), BLOCK_SIZE, style="pkcs7")


def unpadded_size(padded: Bytes) -> int:
    """Return the bytes of ``padded`` before its PKCS#7 padding.

    It is called only on bytes whose tag was verified. So neither the error nor its timing tells an
    attacker anything about bytes of their choice: there is no padding oracle.

    :raises IntegrityError: the padding is not PKCS#7.
    """
    count = padded[-1] if padded else 0
    if not 1 <= count <= BLOCK_SIZE or padded[-count:] != bytes([count]) * count:
        raise IntegrityError("the padding is not PKCS#7 though the tag is good", Reason.TAG_MISMATCH)
    return len(padded) - count
