"""Seals files of both formats as docs/format.md says, on request with faults under good tags.

Every random value is an argument. Nothing of securefs is imported: a mistake in its writer can't
hide one in its reader. A test compares the output of both.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = bytes.fromhex("8953465332 0D0A1A")
TRAILER = b"\x5a"
PLAIN = {1: 65_536, 2: 16_384}  # bytes of plaintext in a full segment of each suite
STORED = {1: 65_600, 2: 16_400}  # bytes of a full segment as stored
LABELS = {1: b"securefs/2+AES_256_CBC_HMAC_SHA256\0", 2: b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"}
LAST_GENERATION = 2**32 - 1


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def expand(digest: str, prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869."""
    block = output = b""
    for counter in range(1, 256):
        block = hmac.digest(prk, block + info + bytes([counter]), digest)
        output += block
        if len(output) >= length:
            break
    return output[:length]


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return expand("sha256", hmac.digest(salt or bytes(32), key, "sha256"), info, length)


@lru_cache(maxsize=4096)
def key_id(key: bytes) -> bytes:
    return hkdf(key, b"", b"securefs/2 key-id\0", 16)


def gcm(key_and_nonce: bytes, text: bytes) -> bytes:
    return AESGCM(key_and_nonce[:32]).encrypt(key_and_nonce[32:], text, None)


def cbc(key: bytes, iv: bytes, blocks: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(blocks) + encryptor.finalize()


def padded(text: bytes) -> bytes:
    count = 16 - len(text) % 16
    return text + bytes([count]) * count


def preamble(suite: int, file_id: bytes, meta_len: int) -> bytes:
    return MAGIC + bytes([2, suite, 0, 0]) + meta_len.to_bytes(4, "big") + file_id


def slot_head(kind: int, payload_len: int, generation: int, identity: bytes) -> bytes:
    return bytes([kind, 0]) + payload_len.to_bytes(2, "big") + generation.to_bytes(4, "big") + identity


def wrap(key: bytes, dek: bytes, salt: bytes, generation: int, start: bytes, identity: bytes = b"") -> bytes:
    """Return a slot of kind 1 (104 bytes) for a file whose preamble is ``start``.

    :param identity: a key id that stands in the slot instead of the one of ``key``.
    """
    return wrap_below(slot_head(1, 80, generation, identity or key_id(key)), key, dek, salt, start)


def wrap_below(head: bytes, key: bytes, dek: bytes, salt: bytes, start: bytes) -> bytes:
    """Return a slot with this head and the payload of kind 1."""
    return head + salt + gcm(hkdf(key, salt, b"securefs/2 wrap\0" + start + head, 44), dek)


def table(slots: list[bytes], size: int) -> bytes:
    head = bytes([len(slots), 0]) + size.to_bytes(2, "big") + bytes(4)
    return head + b"".join(slot.ljust(size, b"\0") for slot in slots)


def seal_metadata(dek: bytes, start: bytes, text: bytes) -> bytes:
    return gcm(hkdf(dek, start[16:48], b"securefs/2 meta\0" + start, 44), text)


@dataclass(frozen=True)
class Segment:
    """One segment to seal. With the defaults it has no fault."""

    text: bytes
    index: int | None = None
    final: bool | None = None
    blocks: bytes | None = None  # suite 1: what is encrypted instead of the padded text
    tail: bytes = b""  # suite 1: bytes behind the ciphertext, under the tag
    bare: bool = False  # suite 1: an IV and a tag, no ciphertext


def cut(text: bytes, suite: int) -> list[Segment]:
    """Return the segments of a plaintext: full ones and a shorter, final one."""
    return [Segment(text[at : at + PLAIN[suite]]) for at in range(0, len(text) + 1, PLAIN[suite])]


class Body:
    """Seals the segments of one body."""

    def __init__(self, suite: int, dek: bytes, salt: bytes, start: bytes, context: bytes) -> None:
        self.suite = suite
        ctx = b"securefs/2 body\0" + start + len(context).to_bytes(4, "big") + context
        self.keys = expand("sha512", dek, LABELS[suite] + salt + ctx, {1: 96, 2: 76}[suite])
        self.head = salt + self.keys[-32:]

    def seal(self, at: int, last: bool, segment: Segment, iv: bytes) -> bytes:
        """Return the stored segment at place ``at``. Suite 2 does not use ``iv``."""
        index = at if segment.index is None else segment.index
        if self.suite == 2:
            return gcm(self.keys[:32] + (number(self.keys[32:44]) ^ index).to_bytes(12, "big"), segment.text)
        final = last if segment.final is None else segment.final
        blocks = padded(segment.text) if segment.blocks is None else segment.blocks
        covered = iv + (b"" if segment.bare else cbc(self.keys[:32], iv, blocks)) + segment.tail
        tag = hmac.digest(self.keys[32:64], index.to_bytes(8, "big") + bytes([final]) + covered, "sha256")
        return covered + tag

    def seal_all(self, segments: list[Segment], draw_iv) -> bytes:
        last = len(segments) - 1
        pieces = (self.seal(at, at == last, segment, draw_iv(16)) for at, segment in enumerate(segments))
        return b"".join((self.head, *pieces))


def seal_format_1(key: bytes, iv: bytes, blocks: bytes, tail: bytes = b"") -> bytes:
    """Return a Format 1 file.

    :param blocks: the padded plaintext, whole blocks.
    :param tail: bytes behind the ciphertext, under the tag.
    """
    covered = iv + (cbc(key, iv, blocks) if blocks else b"") + tail
    return covered + hmac.digest(key, covered, "sha256")
