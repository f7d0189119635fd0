"""Format 1, the original layout: IV, AES-CBC ciphertext, HMAC-SHA256 tag.

``IV[16] ‖ AES-CBC(K, IV, PKCS#7(plaintext)) ‖ HMAC-SHA256(K, IV ‖ ciphertext)[32]``

It is read and written exactly as first specified (docs/format.md, "Format 1"). It has no magic and
no key id, and uses one key for cipher and tag, so it is used only if the caller asks for it and is
never guessed. The tag covers the whole file: no byte is decrypted before the last byte has been
read and the tag compared, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from securefs.errors import FormatError, IntegrityError, LimitExceededError, Reason
from securefs.primitives import BLOCK_SIZE, HMAC_SIZE, pkcs7_pad, view_of
from securefs.secrecy import HoldsSecrets, clears_frames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.primitives import Bytes, Primitives

__all__ = [
    "OVERHEAD",
    "Format1Sealer",
    "Format1Verifier",
    "ciphertext_size",
    "most_overhead",
    "sealed_length",
]

OVERHEAD: Final = BLOCK_SIZE + HMAC_SIZE  # bytes around the ciphertext


def sealed_length(size: int) -> int:
    """Return the length in bytes of a Format 1 file that holds ``size`` bytes of plaintext."""
    return OVERHEAD + (size // BLOCK_SIZE + 1) * BLOCK_SIZE


def ciphertext_size(length: int, most: int | None = None) -> int:
    """Return the bytes of ciphertext in a file of ``length`` bytes.

    :param most: the largest ``length`` that is accepted, None for any.
    :raises LimitExceededError: the file is longer than ``most``.
    :raises FormatError: no Format 1 file has this length.
    """
    if most is not None and length > most:
        raise LimitExceededError(f"a Format 1 file of {length} bytes, and at most {most} are allowed")
    size = length - OVERHEAD
    if size < BLOCK_SIZE or size % BLOCK_SIZE:
        raise FormatError(
            f"a file of {length} bytes can't be Format 1: it is cut, or not encrypted", Reason.TRUNCATED
        )
    return size


def most_overhead() -> int:
    """Return the largest number of bytes that a file has beyond its plaintext."""
    return OVERHEAD + BLOCK_SIZE


class Format1Sealer(HoldsSecrets):
    """Seals one file as a stream. Deterministic: the IV is an argument.

    :param iv: 16 random bytes, never used twice.
    :param key_id: the key's name in hex, for records: the file has no place for it.
    :ivar object_id: empty, because the file has no id of its own.
    """

    object_id = ""

    @clears_frames
    def __init__(self, key: bytes, iv: bytes, primitives: Primitives, key_id: str = "") -> None:
        self.key_id = key_id
        self._encrypt = primitives.cbc_encryptor(key, iv)
        self._mac = hmac.new(key, iv, hashlib.sha256)
        self._ready = iv  # goes out before the first ciphertext
        self._spent = False
        self._tail = b""  # less than a block of plaintext

    def stored_length(self, size: int) -> int:
        """Return the size in bytes of the whole file for ``size`` bytes of plaintext."""
        return sealed_length(size)

    @clears_frames
    def update(self, data: Bytes) -> bytes:
        """Take plaintext of any length; return the stored bytes that are ready.

        :raises ValueError: after :meth:`finalize`. :raises SourceError: the data is not bytes.
        """
        if self._spent:
            raise ValueError("this sealer is finalized: make a new one for every file")
        plaintext = self._tail + bytes(view_of(data))
        whole = len(plaintext) - len(plaintext) % BLOCK_SIZE
        self._tail = plaintext[whole:]
        return self._emit(plaintext[:whole])

    @clears_frames
    def finalize(self) -> bytes:
        """Return the last stored bytes, which include the tag. The sealer cannot be used again."""
        if self._spent:
            raise ValueError("this sealer is finalized: make a new one for every file")
        self._spent = True
        return self._emit(pkcs7_pad(self._tail)) + self._mac.digest()

    def _emit(self, blocks: bytes) -> bytes:
        ciphertext = self._encrypt(blocks)
        self._mac.update(ciphertext)
        ready, self._ready = self._ready + ciphertext, b""
        return ready


class Format1Verifier(HoldsSecrets):
    """Finds which of several named keys made a file's tag, in one pass over ``IV ‖ ciphertext``."""

    def __init__(self, keys: Mapping[bytes, bytes]) -> None:
        self._macs = [(name, hmac.new(key, digestmod=hashlib.sha256)) for name, key in keys.items()]

    def update(self, data: Bytes) -> None:
        """Take the next bytes of the file, without its last 32 (the tag)."""
        for _, mac in self._macs:
            mac.update(data)

    def find_key(self, tag: bytes) -> bytes:
        """Return the name of the key that made this tag.

        :raises IntegrityError: no key made it.
        """
        found = [name for name, mac in self._macs if hmac.compare_digest(mac.digest(), tag)]
        if not found:
            raise IntegrityError("the file's tag matches under no key of the keyring", Reason.TAG_MISMATCH)
        return found[0]
