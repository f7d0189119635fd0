"""Reads the files of a log, and the chains that it is a log of, in the order of its leaves.

Guarantees: each file is read once and forwards; at most :data:`MAX_OPEN` are open at a time; memory
does not grow with their length. Only whole lines count. It follows no link. Refuses nothing: a file
that is missing, shorter than it should be or not a file at all gives fewer lines or notes, and the
verifier says so.

Implements the section on the folder of ``docs/log.md``.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.folder import open_regular
from securefs.audit.note import MAX_NOTE
from securefs.audit.segments import ChainFiles
from securefs.audit.tree import HASH_SIZE
from securefs.audit.verify_state import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "CHECKPOINTS",
    "COSIGNATURES",
    "LOG_FOLDER",
    "LOG_NAMES",
    "MAX_OPEN",
    "ORIGIN",
    "TILES",
    "VKEY",
    "Leaves",
    "open_file",
    "read_hashes",
    "read_lines",
    "read_notes",
    "size_of",
]

LOG_FOLDER: Final = "log"  # the log's folder in the journal's folder
CHECKPOINTS: Final = "checkpoints"
COSIGNATURES: Final = "cosignatures"
ORIGIN: Final = "origin"
TILES: Final = "tiles"
VKEY: Final = "vkey"
# What stands in a log's folder beside chains.
LOG_NAMES: Final = frozenset(
    {
        CHECKPOINTS,
        COSIGNATURES,
        ORIGIN,
        TILES,
        VKEY,
        "next.key",
        "first.key",
        "stable.key",
        "lock",
        "positions",
        "retire",
        ".retire.tmp",
    }
)
MAX_OPEN: Final = 64  # files

_BLOCK: Final = 64 * 1024  # bytes read at a time
_END: Final = b"\n\n"  # ends the text of a note, and in these files its signatures


class Leaves:
    """The leaf hashes of many chains, each read from where it was left.

    :param paths: the files of each chain. :param places: where to begin, for those begun before; it
        is kept up to date.
    """

    def __init__(self, paths: Mapping[str, ChainFiles], places: dict[str, Place]) -> None:
        self._paths = paths
        self._open: OrderedDict[str, io.BufferedReader] = OrderedDict()
        self.places = places

    def place(self, chain: str) -> Place:
        """Return how far this chain was read."""
        return self.places.setdefault(chain, Place())

    def take(self, chain: str, count: int) -> Iterator[bytes]:
        """Yield the next ``count`` leaf hashes of a chain; fewer if its file has no more lines."""
        place = self.place(chain)
        # A file is opened where its first leaf is taken: before that, its place may change.
        file = self._file(chain, place.offset) if count > 0 else None
        if file is None:
            return
        for _ in range(count):
            line = file.readline(LONGEST_LINE + 1)
            if not line.endswith(b"\n"):
                file.seek(place.offset)
                return
            leaf = hashlib.sha256(b"\x00" + line[:-1]).digest()
            place.count += 1
            place.offset += len(line)
            place.before, place.head = place.head, leaf.hex()
            yield leaf

    def close(self) -> None:
        """Close all files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _file(self, chain: str, offset: int) -> io.BufferedReader | None:
        file = self._open.pop(chain, None)
        if file is None:
            if chain not in self._paths or (file := open_file(self._paths[chain])) is None:
                return None
            file.seek(offset)
        self._open[chain] = file
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return file


def open_file(path: Path | ChainFiles) -> io.BufferedReader | None:
    """Open a regular file, or those of a chain; None if there is none that can be read."""
    if isinstance(path, ChainFiles):
        return path.open()
    try:
        file = open_regular(path)
    except OSError:
        return None
    return None if file is None else io.BufferedReader(file, _BLOCK)


def read_lines(path: Path | ChainFiles, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line without its line end) of the whole lines between two offsets.

    Of a chain whose oldest files are not there any more, from the first that is there on.
    """
    if isinstance(path, ChainFiles):
        start = max(start, path.begin.offset)
    file = open_file(path)
    if file is None:
        return
    with file:
        offset = file.seek(start)
        while offset < end:
            line = file.readline(min(LONGEST_LINE + 1, end - offset))
            if not line:
                return
            if line.endswith(b"\n"):
                yield offset, line[:-1]
            offset += len(line)


def read_notes(path: Path, start: int, end: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (offset, bytes, whole) of each note between two offsets of a file of notes.

    A note there is followed by one empty line. Only the last one may not be whole: bytes that a
    crash left. A note that is longer than any ends the reading, as one that is not whole.
    """
    file = open_file(path)
    if file is None:
        return
    with file:
        offset, data = file.seek(start), b""
        while block := file.read(max(0, min(_BLOCK, end - offset - len(data)))):
            data += block
            while (note := _first_note(data)) is not None:
                yield offset, note, True
                offset += len(note) + 1
                data = data[len(note) + 1 :]
            if len(data) > MAX_NOTE:
                break
        if data:
            yield offset, data, False


def _first_note(data: bytes) -> bytes | None:
    gap = data.find(_END)
    end = data.find(_END, gap + len(_END)) if gap >= 0 else -1
    return data[: end + 1] if end >= 0 else None


def read_hashes(path: Path, first: int, count: int) -> list[bytes]:
    """Return ``count`` hashes of a level of tiles from number ``first``, or as many as it has."""
    file = open_file(path)
    if file is None:
        return []
    with file:
        there = max(0, size_of(path) // HASH_SIZE - first)
        file.seek(first * HASH_SIZE)
        data = file.read(min(count, there) * HASH_SIZE)
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def size_of(path: Path | ChainFiles) -> int:
    """Return the size in bytes of a file, or of a chain, 0 if there is none of that name."""
    if isinstance(path, ChainFiles):
        return path.size()
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
