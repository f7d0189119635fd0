"""The two suites of Format 2: how segments are cut, sealed and opened (docs/format.md, "Body").

A body is ``salt[24] ‖ commitment[32] ‖ segment 0 ‖ segment 1 ‖ …``. Both suites share one chunking:
every segment but the final one holds exactly ``segment_size`` bytes of plaintext, and the final
segment holds fewer, possibly none. So the end of a file is never ambiguous: a full final segment
means truncation.

- Suite 1 is the original construction (AES-256-CBC, then HMAC-SHA256) applied to each segment, with
  the segment's index and a final flag under the tag.
- Suite 2 is a Cobblestone-256 message of https://c2sp.org/chunked-encryption@v1.

The tag of a segment is verified, in constant time, before the segment is decrypted. The index and
the final flag come from the caller's own counting, never from the file. These are pure functions
over bytes: randomness is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from securefs.errors import ConfigurationError, IntegrityError, LimitExceededError, Reason
from securefs.primitives import (
    BLOCK_SIZE,
    GCM_NONCE_SIZE,
    GCM_TAG_SIZE,
    HMAC_SIZE,
    KEY_SIZE,
    hkdf_expand,
    pkcs7_pad,
    unpadded_size,
)
from securefs.secrecy import HoldsSecrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.primitives import Bytes, Gcm, Primitives

__all__ = [
    "BODY_HEAD_SIZE",
    "MAX_CONTEXT_SIZE",
    "MAX_SEGMENTS",
    "SALT_SIZE",
    "TRAILER",
    "SegmentCipher",
    "Suite",
    "body_context",
    "check_index",
    "derive",
]

SALT_SIZE: Final = 24  # bytes
COMMITMENT_SIZE: Final = 32  # bytes
BODY_HEAD_SIZE: Final = SALT_SIZE + COMMITMENT_SIZE
MAX_SEGMENTS: Final = 2**32  # 256 TiB in suite 1, 64 TiB in suite 2
MAX_CONTEXT_SIZE: Final = 65_535  # bytes
# The last byte of a file. Some multipart parsers strip a final CR or LF; this byte is neither.
TRAILER: Final = b"\x5a"

_BODY_INFO: Final = b"securefs/2 body\0"
_SUITE_1_INFO: Final = b"securefs/2+AES_256_CBC_HMAC_SHA256\0"
_SUITE_2_INFO: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"


class Suite(Enum):
    """The algorithms of a file: the value is the number in the file, :attr:`label` the name."""

    CBC_HMAC = 1
    GCM = 2

    @property
    def label(self) -> str:
        """The name in settings and logs: ``aes-256-cbc-hmac-sha256`` or ``aes-256-gcm``."""
        return _LABELS[self]

    @property
    def segment_size(self) -> int:
        """Plaintext bytes of every segment but the final one."""
        return 65_536 if self is Suite.CBC_HMAC else 16_384

    @property
    def sealed_size(self) -> int:
        """Stored bytes of every segment but the final one."""
        return self.sealed_length(self.segment_size)

    @property
    def max_size(self) -> int:
        """The most bytes of plaintext in a file: its final segment is not a full one."""
        return MAX_SEGMENTS * self.segment_size - 1

    @property
    def min_sealed(self) -> int:
        """Stored bytes of the smallest final segment, which is empty."""
        return self.sealed_length(0)

    def sealed_length(self, size: int) -> int:
        """Return the stored bytes of a segment with ``size`` bytes of plaintext."""
        if self is Suite.GCM:
            return size + GCM_TAG_SIZE
        return BLOCK_SIZE + (size // BLOCK_SIZE + 1) * BLOCK_SIZE + HMAC_SIZE

    def body_length(self, size: int) -> int:
        """Return the stored bytes of a whole body for ``size`` bytes of plaintext.

        A body is salt, commitment and segments.
        """
        full, rest = divmod(size, self.segment_size)
        return BODY_HEAD_SIZE + full * self.sealed_size + self.sealed_length(rest)

    def plaintext_bounds(self, body_length: int) -> tuple[int, int]:
        """Return the minimum and maximum bytes of plaintext in a body of this length.

        They are equal in suite 2. Suite 1 pads to whole blocks, so its length determines all but
        the last 15 bytes.
        """
        full, rest = divmod(max(0, body_length - BODY_HEAD_SIZE), self.sealed_size)
        before, rest = full * self.segment_size, max(0, rest - self.min_sealed)
        return before + rest, before + rest + (BLOCK_SIZE - 1 if self is Suite.CBC_HMAC else 0)

    def may_be_whole(self, body_length: int) -> bool:
        """Return whether a complete body can have this length.

        The final segment is never full, never smaller than an empty one, and in suite 1 a multiple
        of the block size.
        """
        last = max(0, body_length - BODY_HEAD_SIZE) % self.sealed_size
        return last >= self.min_sealed and (self is Suite.GCM or last % BLOCK_SIZE == 0)

    @classmethod
    def parse(cls, label: str) -> Suite:
        """Return the suite called ``label``; raise :class:`ConfigurationError` if there is none."""
        for suite, name in _LABELS.items():
            if label == name:
                return suite
        raise ConfigurationError(f"unknown suite {label!r}: use {' or '.join(_LABELS.values())}")


_LABELS: Final = {Suite.CBC_HMAC: "aes-256-cbc-hmac-sha256", Suite.GCM: "aes-256-gcm"}


class SegmentCipher(Protocol):
    """Seals and opens the segments of one file.

    Indices count from 0. The caller keeps them and the final flag.
    """

    suite: Suite

    def seal(self, index: int, final: bool, plaintext: Bytes) -> bytes:
        """Return the stored segment."""
        ...

    def open(self, index: int, final: bool, sealed: Bytes) -> bytes:
        """Return the plaintext of a stored segment, or raise :class:`IntegrityError`."""
        ...

    def open_into(self, index: int, final: bool, sealed: Bytes, out: memoryview) -> int:
        """Write the plaintext of a stored segment to the beginning of ``out``; return its size.

        :param out: has room for as many bytes as the stored segment.
        :raises IntegrityError: the segment fails verification; the content of ``out`` must then not
            be used.
        """
        ...

    def check(self, index: int, final: bool, sealed: Bytes) -> None:
        """Raise what :meth:`open` raises for a stored segment, at less cost if possible."""
        ...


class _Opener(HoldsSecrets):
    """The common part of both suites. Sizes are computed once, not for every segment."""

    suite: Suite
    full: int  # stored bytes of every segment but the last
    least: int  # stored bytes of the smallest last segment

    def fits(self, size: int, final: bool) -> bool:
        """Return whether a stored segment may have ``size`` bytes.

        The size must be exactly the full one, or, for the final segment, smaller.
        """
        return self.least <= size < self.full if final else size == self.full

    def open_into(self, index: int, final: bool, sealed: Bytes, out: memoryview) -> int:
        raise NotImplementedError  # pragma: no cover  # abstract

    def open(self, index: int, final: bool, sealed: Bytes) -> bytes:
        out = bytearray(len(sealed))
        size = self.open_into(index, final, sealed, memoryview(out))
        return bytes(memoryview(out)[:size])


class _CbcHmac(_Opener):
    """Suite 1. ``draw_iv`` returns a fresh IV (16 bytes) for every segment that is sealed."""

    suite = Suite.CBC_HMAC
    full, least = suite.sealed_size, suite.min_sealed

    def __init__(self, keys: bytes, primitives: Primitives, draw_iv: Callable[[], bytes]) -> None:
        self._enc_key = keys[:KEY_SIZE]
        # The key schedule of HMAC costs two hashes; a copy of the keyed state saves them for every
        # segment.
        self._mac = hmac.new(keys[KEY_SIZE:], digestmod=hashlib.sha256)
        self._primitives = primitives
        self._draw_iv = draw_iv

    def _tag(self, index: int, final: bool, iv_and_ciphertext: tuple[Bytes, ...]) -> bytes:
        mac = self._mac.copy()
        mac.update(index.to_bytes(8, "big") + (b"\1" if final else b"\0"))
        for piece in iv_and_ciphertext:
            mac.update(piece)
        return mac.digest()

    def seal(self, index: int, final: bool, plaintext: Bytes) -> bytes:
        iv = self._draw_iv()
        encrypt = self._primitives.cbc_encryptor(self._enc_key, iv)
        view = memoryview(plaintext)
        whole = len(view) - len(view) % BLOCK_SIZE
        ciphertext = encrypt(view[:whole]), encrypt(pkcs7_pad(view[whole:]))
        return b"".join((iv, *ciphertext, self._tag(index, final, (iv, *ciphertext))))

    def open_into(self, index: int, final: bool, sealed: Bytes, out: memoryview) -> int:
        ciphertext = self._authenticated(index, final, sealed)
        iv = bytes(memoryview(sealed)[:BLOCK_SIZE])
        self._primitives.cbc_decrypt_into(self._enc_key, iv, ciphertext, out)
        return self._size(index, final, sealed, out[: len(ciphertext)])

    def check(self, index: int, final: bool, sealed: Bytes) -> None:
        ciphertext = self._authenticated(index, final, sealed)
        # If the tag is valid, only the padding can be wrong, and that is in the last block. CBC
        # chains the last block to the block before it, or to the IV.
        before = bytes(memoryview(sealed)[len(ciphertext) - BLOCK_SIZE : len(ciphertext)])
        out = memoryview(bytearray(2 * BLOCK_SIZE))
        self._primitives.cbc_decrypt_into(self._enc_key, before, ciphertext[-BLOCK_SIZE:], out)
        self._size(index, final, sealed, out[:BLOCK_SIZE])

    def _authenticated(self, index: int, final: bool, sealed: Bytes) -> memoryview:
        """Return the ciphertext of a stored segment after its tag was verified."""
        size = len(sealed)
        if not self.fits(size, final) or size % BLOCK_SIZE:
            _reject("a segment has a length that no writer gives it", Reason.TRUNCATED, index, sealed)
        view = memoryview(sealed)
        expected = self._tag(index, final, (view[:-HMAC_SIZE],))
        if not hmac.compare_digest(expected, view[-HMAC_SIZE:]):
            _reject("a segment's tag does not match", Reason.TAG_MISMATCH, index, sealed)
        return view[BLOCK_SIZE:-HMAC_SIZE]

    def _size(self, index: int, final: bool, sealed: Bytes, padded: memoryview) -> int:
        """Return how many bytes of ``padded``, which ends where the segment ends, are plaintext."""
        try:
            size = unpadded_size(padded)
        except IntegrityError:
            _reject("the padding is not PKCS#7 though the tag is good", Reason.TAG_MISMATCH, index, sealed)
        if not final and len(padded) - size != BLOCK_SIZE:
            _reject("a segment holds more than the format allows", Reason.TAG_MISMATCH, index, sealed)
        return size


class _Gcm(_Opener):
    """Suite 2. The final flag is not under the tag: the final chunk is the one that is shorter."""

    suite = Suite.GCM
    full, least = suite.sealed_size, suite.min_sealed

    def __init__(self, keys: bytes, primitives: Primitives) -> None:
        self._gcm: Gcm = primitives.gcm(keys[:KEY_SIZE])
        self._base_nonce = int.from_bytes(keys[KEY_SIZE:], "big")
        self._unread = memoryview(bytearray(self.full))

    def _nonce(self, index: int) -> bytes:
        return (self._base_nonce ^ index).to_bytes(GCM_NONCE_SIZE, "big")

    def seal(self, index: int, final: bool, plaintext: Bytes) -> bytes:  # noqa: ARG002  # implied by the length
        return self._gcm.seal(self._nonce(index), plaintext)

    def open_into(self, index: int, final: bool, sealed: Bytes, out: memoryview) -> int:
        if not self.fits(len(sealed), final):
            _reject("a segment has a length that no writer gives it", Reason.TRUNCATED, index, sealed)
        try:
            return self._gcm.open_into(self._nonce(index), sealed, out)
        except IntegrityError:
            _reject("a segment's tag does not match", Reason.TAG_MISMATCH, index, sealed)

    def check(self, index: int, final: bool, sealed: Bytes) -> None:
        # GCM can't be verified without decrypting: the plaintext goes into a buffer that nothing
        # reads.
        self.open_into(index, final, sealed, self._unread)


def body_context(preamble: bytes, context: bytes) -> bytes:
    """Return the bytes that a body's keys are bound to: the preamble and the caller's ``context``.

    :param context: at most 65,535 bytes.
    """
    if not isinstance(context, (bytes, bytearray, memoryview)):
        raise ConfigurationError(f"a context is bytes, and this is {type(context).__name__}")
    if len(context) > MAX_CONTEXT_SIZE:
        raise ConfigurationError(f"a context of {len(context)} bytes; at most {MAX_CONTEXT_SIZE} are allowed")
    return _BODY_INFO + preamble + len(context).to_bytes(4, "big") + context


def derive(
    suite: Suite, dek: bytes, salt: bytes, ctx: bytes, primitives: Primitives, draw_iv: Callable[[], bytes]
) -> tuple[SegmentCipher, bytes]:
    """Return (the cipher of a file's segments, the commitment to its key).

    :param dek: 32 bytes. :param salt: 24 bytes.
    :raises ValueError: the DEK has another size: a shorter key must not pass for a 256-bit key.
    """
    if len(dek) != KEY_SIZE:
        raise ValueError(f"a data encryption key has {KEY_SIZE} bytes, not {len(dek)}")
    if suite is Suite.CBC_HMAC:
        okm = hkdf_expand("sha512", dek, _SUITE_1_INFO + salt + ctx, 2 * KEY_SIZE + COMMITMENT_SIZE)
        return _CbcHmac(okm[:-COMMITMENT_SIZE], primitives, draw_iv), okm[-COMMITMENT_SIZE:]
    okm = hkdf_expand("sha512", dek, _SUITE_2_INFO + salt + ctx, KEY_SIZE + GCM_NONCE_SIZE + COMMITMENT_SIZE)
    return _Gcm(okm[:-COMMITMENT_SIZE], primitives), okm[-COMMITMENT_SIZE:]


def check_index(index: int) -> None:
    """Raise :class:`LimitExceededError` if a file may not have a segment with this index."""
    if index >= MAX_SEGMENTS:
        raise LimitExceededError(f"a file holds at most {MAX_SEGMENTS} segments")


def _reject(message: str, reason: Reason, index: int, sealed: Bytes) -> NoReturn:
    digest = hashlib.sha256(sealed).hexdigest()
    raise IntegrityError(f"segment {index}: {message}", reason, segment=index, digest=digest) from None
