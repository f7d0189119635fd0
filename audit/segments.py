"""The files of a chain, read as one: a chain goes on from one file to the next.

Guarantees: bytes are numbered over all files of a chain, also if the oldest are not there any more:
the first record of each further file says at which byte it begins. A file that was compressed
(``.gz``) reads as what was compressed, and no further than any file may be long; memory does not
grow with it. Where a file is missing, damaged or says something else, reading ends, and the
verifier says so. Nothing here writes, and no link is followed.

Implements the section on files of ``docs/journal.md``.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.audit.fields import LONGEST_LINE, RecordError
from securefs.audit.folder import open_regular
from securefs.audit.record import NO_LINE, parse_line
from securefs.audit.sink import chain_file_name

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

__all__ = [
    "CHAIN_FILE",
    "LONGEST_FILE",
    "PACKED",
    "Begin",
    "ChainFiles",
    "Segment",
    "Unpacked",
    "begin_of",
    "find_chains",
]

CHAIN_FILE: Final = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,8})\.jsonl(\.gz)?")
PACKED: Final = ".gz"
LONGEST_FILE: Final = 64 * 1024 * 1024  # bytes of a file that another one follows
_BLOCK: Final = 64 * 1024  # bytes read at a time


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a file begins in its chain: records, bytes and the line (hex hash) before it."""

    count: int = 0
    offset: int = 0
    head: str = NO_LINE


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a chain. :ivar number: 0, 1, 2 … :ivar packed: whether it is compressed."""

    path: Path
    number: int
    packed: bool

    def following(self) -> Path:
        """Return the path that the next file has."""
        chain = self.path.name.partition("-")[0]
        return self.path.with_name(chain_file_name(chain, self.number + 1))

    def open(self) -> io.FileIO | Unpacked | None:
        """Open it for reading, unpacked; return None if it is not a regular file.

        :raises OSError: it does not exist, or this user cannot read it.
        """
        file = open_regular(self.path)
        return Unpacked(file) if file is not None and self.packed else file

    def size(self) -> int:
        """Return its size in bytes, unpacked; 0 if it can't be read."""
        if self.packed:
            return sum(map(len, _blocks(self, 0)))
        try:
            return os.lstat(self.path).st_size
        except OSError:
            return 0


class Unpacked(io.RawIOBase):
    """Reads what was compressed, up to the size that a file of a chain can have.

    :ivar damage: why it ends before its end, in words; "" if it does not.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        # Without buffers of its own, its memory is that of one read.
        self._gzip = gzip.GzipFile(fileobj=io.BufferedReader(file, _BLOCK), mode="rb")
        self._left = LONGEST_FILE + 1
        self.damage = ""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read into ``buffer``; return how many bytes, 0 at the end."""
        try:
            data = b"" if self.damage else self._gzip.read(min(len(buffer), self._left))
        except (OSError, EOFError, zlib.error) as error:
            self.damage = f"it can't be unpacked: {error}"
            return 0
        self._left -= len(data)
        if not self._left:
            self.damage = f"it has more than {LONGEST_FILE} bytes when it is unpacked"
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._gzip.close()
        self._file.close()
        super().close()


class ChainFiles:
    """The files of one chain in one folder.

    :ivar segments: in order, at least one. :ivar begin: where the first of them begins.
    :ivar begins: where each begins, but for those that do not say it.
    """

    def __init__(self, chain: str, folder: Path, segments: Iterable[Segment]) -> None:
        self.chain = chain
        self.folder = folder
        self.segments = sorted(segments, key=lambda segment: segment.number)
        begins = [begin_of(segment) for segment in self.segments]
        self.begin = begins[0] or Begin()
        self.begins = [begin for begin in begins if begin is not None]
        # What a file says that does not lead on is not believed: then the chain ends before it.
        self._starts = [self.begin.offset]
        for begin in begins[1:]:
            if begin is None or begin.offset < self._starts[-1]:
                break
            self._starts.append(begin.offset)

    @property
    def name(self) -> str:
        """The name of the last file."""
        return self.segments[-1].path.name

    def after(self, offset: int) -> Iterator[tuple[Segment, int]]:
        """Yield the files with bytes from ``offset`` on, each with the byte in it to begin at."""
        for number, (segment, start) in enumerate(zip(self.segments, self._starts, strict=False)):
            following = self._starts[number + 1 : number + 2]
            if not following or following[0] > offset:
                yield segment, max(0, offset - start)
        for segment in self.segments[len(self._starts) :]:
            yield segment, 0

    def size(self) -> int:
        """Return the number of the byte after the last one."""
        return self._starts[-1] + self.segments[len(self._starts) - 1].size()

    def open(self) -> io.BufferedReader:
        """Open all files as one; seek to where you want to begin."""
        return io.BufferedReader(_Joined(self), _BLOCK)


class _Joined(io.RawIOBase):
    """Reads the files of a chain as one."""

    def __init__(self, files: ChainFiles) -> None:
        self._files = files
        self._offset = files.begin.offset
        self._held = memoryview(b"")
        self._rest = self._parts()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a chain is read from a byte that is known")
        self._rest.close()
        self._offset, self._rest, self._held = offset, self._parts(), memoryview(b"")
        return offset

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        held = self._held or memoryview(next(self._rest, b""))
        part, self._held = held[: len(buffer)], held[len(buffer) :]
        buffer[: len(part)] = part
        self._offset += len(part)
        return len(part)

    def close(self) -> None:
        self._rest.close()
        super().close()

    def _parts(self) -> Generator[bytes, None, None]:
        for segment, skip in self._files.after(self._offset):
            yield from _blocks(segment, skip)


def _blocks(segment: Segment, skip: int) -> Iterator[bytes]:
    try:
        file = segment.open()
    except OSError:
        return
    if file is None:
        return
    with file:
        if not segment.packed:
            file.seek(skip)
            skip = 0
        while block := file.read(_BLOCK):
            if skip:
                block, skip = block[skip:], max(0, skip - len(block))
            if block:
                yield block


def begin_of(segment: Segment) -> Begin | None:
    """Return where a file begins, as its first record says; None if it does not say it."""
    if not segment.number:
        return Begin()
    line, end, _ = b"".join(_first(segment)).partition(b"\n")
    try:
        record = parse_line(line) if end else {}
    except RecordError:
        return None
    obj = record.get("obj")
    if record.get("event") != "audit.segment" or not isinstance(obj, dict):
        return None
    if obj.get("segment") != segment.number or "start" not in obj:
        return None
    return Begin(int(str(record["seq"])), obj["start"], str(record["prev"]))


def _first(segment: Segment) -> Iterator[bytes]:
    size = 0
    for block in _blocks(segment, 0):
        yield block
        size += len(block)
        if b"\n" in block or size > LONGEST_LINE:
            return


def find_chains(folder: Path, names: Iterable[str] | None = None) -> dict[str, ChainFiles]:
    """Return the chains that have files in ``folder``, by id, sorted.

    :param names: the names in it, if they were listed before. Of a file and its compressed copy,
        the file counts.
    :raises OSError: the folder can't be listed.
    """
    found: dict[str, dict[int, Segment]] = {}
    for name in sorted(os.listdir(folder)) if names is None else names:  # noqa: PTH208
        if (match := CHAIN_FILE.fullmatch(name)) is None:
            continue
        chain, number, packed = match[1], int(match[2]), match[3] is not None
        files = found.setdefault(chain, {})
        if not (packed and number in files):
            files[number] = Segment(folder / name, number, packed)
    return {chain: ChainFiles(chain, folder, files.values()) for chain, files in sorted(found.items())}
