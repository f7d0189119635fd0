"""Containers one behind another in one file: what an app makes if it joins encrypted chunks.

A Format 2 file has no length of its own, so the next one is found by its magic (docs/format.md,
"Preamble"). Ciphertext holds these eight bytes by chance once in 2**64 places. A container that was
cut or damaged ends where the next magic is, so the others are found all the same. What Format 1
files leave behind each other can't be told: they have no magic.

Guarantees: constant memory, whatever the number of containers. Nothing binds containers to each
other: that one is missing, repeated or in another place does not show.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.errors import VERDICTS, FormatError, IntegrityError, LimitExceededError, UnknownKeyError
from securefs.files import COPY_SIZE, FileInfo
from securefs.header import MAGIC
from securefs.reader import open_encrypted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.keys import Keyring
    from securefs.reader import EncryptedFile
    from securefs.source import SeekableFile

__all__ = ["Container", "Fault", "Part", "check_in_steps", "examine", "is_joined", "parts"]

STEP: Final = 16 * 1024 * 1024  # bytes of plaintext that are verified between two reports

Fault = FormatError | IntegrityError | LimitExceededError | UnknownKeyError


class Part:
    """The bytes of a file from ``start`` to before ``stop``, as a file of its own.

    :ivar number: the part's number, from 1.
    """

    def __init__(self, file: SeekableFile, number: int, start: int, stop: int) -> None:
        self.number, self.start, self.stop = number, start, stop
        self._file = file
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all if it is negative; fewer only at the end."""
        left = max(0, self.stop - self.start - self._position)
        self._file.seek(self.start + self._position)
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position, counted from the part's start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.stop - self.start}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position, counted from the part's start."""
        return self._position


@dataclass(frozen=True, slots=True)
class Container:
    """One part of a file, after it was verified: ``info`` is known of it, or ``fault`` is wrong."""

    part: Part
    info: FileInfo | None = None
    fault: Fault | None = None

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"container {self.part.number}, at byte {self.part.start}"


def parts(file: BinaryIO) -> Iterator[Part]:
    """Yield the parts of a file: from its start, and from each further magic, to the next one."""
    for number, (start, stop) in enumerate(pairwise(_borders(file)), 1):
        yield Part(file, number, start, stop)


def is_joined(file: BinaryIO) -> bool:
    """Return whether a magic is in the file, other than at its start."""
    return next(_magics(file), None) is not None


def _borders(file: BinaryIO) -> Iterator[int]:
    yield 0
    yield from _magics(file)
    yield file.seek(0, os.SEEK_END)


def _magics(file: BinaryIO) -> Iterator[int]:
    """Yield the offset of each magic but one at the file's start."""
    tail, position = b"", 0  # what was read last, and where the next read begins
    while True:
        file.seek(position)  # others read in between
        data = file.read(COPY_SIZE)
        if not data:
            return
        window, start = tail + data, position - len(tail)
        at = window.find(MAGIC)
        while at >= 0:
            if start + at:
                yield start + at
            at = window.find(MAGIC, at + len(MAGIC))
        position += len(data)
        tail = window[-(len(MAGIC) - 1) :]


def examine(
    file: BinaryIO, keyring: Keyring, context: bytes = b"", *, on_bytes: Callable[[int], object] = int
) -> Iterator[Container]:
    """Verify every byte of each container in a file; yield what each of them is.

    :param on_bytes: is called with each number of bytes of plaintext that were verified.
    """
    for part in parts(file):
        yield _examined(part, keyring, context, on_bytes)


def _examined(part: Part, keyring: Keyring, context: bytes, on_bytes: Callable[[int], object]) -> Container:
    try:
        with open_encrypted(part, keyring, context) as opened:
            check_in_steps(opened, on_bytes)
            return Container(part, FileInfo.of(opened))
    except VERDICTS as error:
        return Container(part, fault=error)


def check_in_steps(opened: EncryptedFile, on_bytes: Callable[[int], object]) -> None:
    """Verify every byte of an open file, and report it as it goes."""
    # At least once: an empty file has a segment, too.
    for start in range(0, opened.size or 1, STEP):
        opened.check(start, min(start + STEP, opened.size) or None)
        on_bytes(min(STEP, opened.size - start))
