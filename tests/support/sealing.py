"""Files for the tests of the core: sealed with chosen "random" values, and sources that tell what was read of them."""

from __future__ import annotations

import hashlib
import io
import itertools

import pytest

from securefs import Keyring, Suite, open_encrypted
from securefs.accelerated import OpenSSL
from securefs.format1 import Format1Sealer
from securefs.keys.material import KeyMaterial
from securefs.keys.slots import FileKey, new_slot
from securefs.primitives import PyCryptodome
from securefs.stream import Decryptor, Randomness, seal_with

LIBRARIES = (PyCryptodome(), OpenSSL())
PRIMITIVES = [pytest.param(library, id=library.name) for library in LIBRARIES]
SUITES = [pytest.param(suite, id=suite.label) for suite in Suite]
KEY = bytes(range(32))
OTHER_KEY = bytes(range(100, 132))
RING = Keyring(KEY)
HEADER_SIZE = 376  # bytes; of a new file without metadata
BODY_START = HEADER_SIZE + 56  # where its first segment starts


def pattern(size: int, label: str = "plaintext") -> bytes:
    """Bytes in which no two positions look alike."""
    return hashlib.shake_128(label.encode()).digest(size)


def chosen(label: str = "file", **replaced) -> Randomness:
    """Random values expanded from ``label``, some of them replaced."""
    counter = itertools.count()
    values = {
        "file_id": pattern(32, f"{label} file id"),
        "dek": pattern(32, f"{label} dek"),
        "wrap_salt": pattern(32, f"{label} wrap salt"),
        "body_salt": pattern(24, f"{label} body salt"),
        "draw_iv": lambda: pattern(16, f"{label} iv {next(counter)}"),
    }
    return Randomness(**{**values, **replaced})


def seal(
    plaintext: bytes,
    suite: Suite = Suite.CBC_HMAC,
    label: str = "file",
    *,
    ring=RING,
    primitives=LIBRARIES[1],
    **options,
):
    """A whole Format 2 file; the same arguments give the same bytes."""
    random = options.pop("random", None) or chosen(label)
    return seal_with(random, plaintext, ring, suite, primitives, **options)


def tampered(stored: bytes) -> bytes:
    """A large file with a bit changed behind its first two MiB."""
    changed = bytearray(stored)
    changed[2 * 1024 * 1024] ^= 1
    return bytes(changed)


def keys_of(ring: Keyring) -> list[bytes]:
    """The file keys of a ring as bytes, which only tests get to see."""
    return [key.reveal() for key in ring._file_keys.values()]


def slot_of(key: bytes, preamble: bytes, dek: bytes, generation: int = 1, salt: bytes | None = None) -> bytes:
    """A slot, without the zeros behind it, through which ``key`` gives ``dek``."""
    salt = salt or pattern(32, f"salt {key.hex()} {generation}")
    return new_slot(FileKey(KeyMaterial(key), LIBRARIES[0]), dek, preamble, generation, lambda _: salt)


def cbc_decrypt(library, key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """What CBC decryption gives, the padding left in place."""
    out = memoryview(bytearray(len(ciphertext) + 16))
    library.cbc_decrypt_into(key, iv, ciphertext, out)
    return bytes(out[: len(ciphertext)])


def seal_1(plaintext: bytes, key: bytes = KEY, *, primitives=LIBRARIES[1]) -> bytes:
    """A whole Format 1 file."""
    sealer = Format1Sealer(key, pattern(16, "iv"), primitives)
    return sealer.update(plaintext) + sealer.finalize()


def read_all(data: bytes, ring=RING, context: bytes = b"", **options) -> bytes:
    """The plaintext by way of the seekable reader."""
    with open_encrypted(io.BytesIO(data), ring, context, **options) as file:
        return file.read()


def stream_all(data: bytes, ring=RING, context: bytes = b"", *, step: int = 10_007, primitives=None) -> bytes:
    """The plaintext by way of the streaming decryptor."""
    decryptor = Decryptor(ring, context, primitives=primitives)
    pieces = [decryptor.update(data[at : at + step]) for at in range(0, len(data), step)]
    return b"".join(pieces) + decryptor.finalize()


class CountingFile(io.BytesIO):
    """Remembers each read as (offset, size asked for)."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, size=-1, /):
        self.reads.append((self.tell(), size))
        return super().read(size)

    def furthest(self) -> int:
        return max((offset + size for offset, size in self.reads), default=0)


class ExchangedFile(io.BytesIO):
    """A file whose content someone exchanges while it is open."""

    def exchange(self, data: bytes) -> None:
        self.seek(0)
        self.truncate()
        self.write(data)


class VirtualFile:
    """A file of any length that is zeros but for some regions, so that terabytes fit into a test."""

    def __init__(self, length: int, regions: dict[int, bytes]) -> None:
        self.length, self.regions, self.position = length, regions, 0
        self.asked: list[int] = []

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.position = offset + {0: 0, 1: self.position, 2: self.length}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1, /) -> bytes:
        assert 0 <= size <= 2**24, "the reader asked for more than anyone needs"
        self.asked.append(size)
        start, end = self.position, min(self.position + size, self.length)
        data = bytearray(max(0, end - start))
        for offset, region in self.regions.items():
            low, high = max(start, offset), min(end, offset + len(region))
            if low < high:
                data[low - start : high - start] = region[low - offset : high - offset]
        self.position = start + len(data)
        return bytes(data)
