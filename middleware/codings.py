"""Content-Encoding (RFC 9110 section 8.4): the first bytes of a body inside its codings.

Ciphertext that something compressed on its way to the client is still ciphertext. gzip and deflate
are decoded here. br and zstd need a library: one that the process has loaded is used, because
whoever compresses in this process has loaded it. Nothing is imported for it. No I/O.
"""

from __future__ import annotations

import re
import sys
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Decode = Callable[[bytes, int], bytes]

__all__ = ["LOOKED_AT", "Inside", "decoder_of"]

# Bytes of a body that are looked at: zstd gives nothing of a block before all of it is there, and a
# block has up to 128 KiB.
LOOKED_AT: Final = 144 * 1024
# Names of RFC 9110, RFC 7932 and RFC 8878, and others that servers and tools write for them.
_CODINGS: Final = {
    **dict.fromkeys(("gzip", "x-gzip", "gz", "deflate", "x-deflate", "zlib"), "gzip"),
    **dict.fromkeys(("br", "x-br", "brotli"), "br"),
    **dict.fromkeys(("zstd", "x-zstd", "zst"), "zstd"),
}
# What stands between two of them: commas, and what does not belong there.
_BETWEEN: Final = re.compile(r'[,;"\s]+')
_MEMBERS: Final = 64  # of gzip that are looked into
_STEP: Final = 16  # bytes given to brotli at a time: it has no limit for what it returns
_BROTLI: Final = ("brotli", "brotlicffi")
_ZSTD: Final = ("compression.zstd", "backports.zstd", "pyzstd")  # one interface: that of Python 3.14


class Inside:
    """The start of a body inside its codings.

    :param decode: see :func:`decoder_of`. :param size: how many decoded bytes are wanted.
    :ivar head: the first ``size`` decoded bytes, or fewer.
    """

    def __init__(self, decode: Decode, size: int) -> None:
        self.head = b""
        self._decode, self._size = decode, size
        self._start = b""
        self._looked_at = 0

    def add(self, data: bytes) -> None:
        """Add bytes of the body; decode them if there are many more than the last time."""
        self._start += data[: LOOKED_AT - len(self._start)]
        # Each time, all of it is decoded.
        if len(self._start) >= min(2 * self._looked_at, LOOKED_AT):
            self.look()

    def look(self) -> None:
        """Decode what was added."""
        if len(self.head) < self._size and self._looked_at < len(self._start):
            self._looked_at = len(self._start)
            self.head = self._decode(self._start, self._size)

    @property
    def is_full(self) -> bool:
        """Whether no more of the body will be looked at."""
        return self._looked_at == LOOKED_AT


def decoder_of(encoding: str | None) -> Decode | None:
    """Return a function that decodes the start of a body; None if a library is missing for it.

    The function takes up to :data:`LOOKED_AT` bytes and returns up to the requested number of
    decoded ones. A start that a library refuses is not coded, whatever the header says, and is
    returned as it is. Other names than those of these codings count as none.
    """
    names = _BETWEEN.split((encoding or "").lower())
    # The last one was applied last.
    steps = [_decoder(_CODINGS[name]) for name in reversed(names) if name in _CODINGS]
    known = [step for step in steps if step is not None]

    def decode(start: bytes, size: int) -> bytes:
        # Each library has its own errors.
        with suppress(Exception):
            for number, step in enumerate(known, 1):
                start = step(start, size if number == len(known) else LOOKED_AT)
        return start[:size]

    return decode if len(known) == len(steps) else None


def _decoder(name: str) -> Decode | None:
    if name == "br":
        return _unbrotli if _loaded(_BROTLI) else None
    if name == "zstd":
        return _unzstd if _loaded((*_ZSTD, "zstandard")) else None
    return _inflate


def _loaded(names: tuple[str, ...]) -> Any:
    return next((sys.modules[name] for name in names if sys.modules.get(name)), None)


def _inflate(data: bytes, size: int) -> bytes:
    decoded = b""
    # The data tells gzip from zlib, and gzip may have several members (RFC 1952), also empty ones.
    for number in range(_MEMBERS):
        member = zlib.decompressobj(32 + zlib.MAX_WBITS)
        try:
            decoded += member.decompress(data, size - len(decoded))
        except zlib.error:
            if number:
                break  # what follows a member is none
            # Some send deflate without the header of zlib that it should have.
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
        data = member.unused_data
        if not data or len(decoded) >= size:
            break
    return decoded


def _unbrotli(data: bytes, size: int) -> bytes:
    decompressor = _loaded(_BROTLI).Decompressor()
    decoded = b""
    for at in range(0, len(data), _STEP):
        decoded += decompressor.process(data[at : at + _STEP])
        if len(decoded) >= size:
            break
    return decoded


def _unzstd(data: bytes, size: int) -> bytes:
    if module := _loaded(_ZSTD):
        decoded: bytes = module.ZstdDecompressor().decompress(data, size)
    else:
        with _loaded(("zstandard",)).ZstdDecompressor().stream_reader(data) as reader:
            decoded = reader.read(size)
    return decoded
