"""Compresses the files of chains that are never written again.

Guarantees: a file is removed only after its compressed copy is on the disk and was read back, byte
for byte, with the same owner, mode and times. A file that a writer holds, or that ends within a
line, stays as it is. Whenever it is interrupted, the records are there: a file whose copy is there
already is compared with it. What was compressed is read and verified as it is.

Implements the section on files of ``docs/journal.md``.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.arguments import require_path
from securefs.audit.segments import LONGEST_FILE, PACKED, Segment, find_chains
from securefs.disk import explain, flush_folder, keep_attributes, read_regular, write_atomically
from securefs.errors import ConfigurationError, SecureFSError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Packed", "compress_journal"]

_BLOCK: Final = 256 * 1024  # bytes
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of one file: its sizes in bytes, or why it stays.

    :ivar trouble: why it could not be compressed; "" if it was, or would be.
    """

    file: str
    size: int
    packed: int = 0
    trouble: str = ""


def compress_journal(directory: str | os.PathLike[str], *, dry_run: bool = False) -> Iterator[Packed]:
    """Compress each file of a journal that is closed; yield what became of it.

    :param dry_run: change nothing; yield the files that would be compressed.
    :raises ConfigurationError: it is not a folder that can be read.
    """
    require_path("directory", directory)
    folder = Path(directory)
    try:
        chains = find_chains(folder)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the journal {str(folder)!a}: {explain(error)}; name its folder"
        ) from error
    for files in chains.values():
        for segment in files.segments:
            if segment.packed:
                continue
            try:
                found = _compress(segment, dry_run=dry_run)
            except (OSError, SecureFSError) as error:
                text = explain(error) if isinstance(error, OSError) else str(error)
                found = Packed(segment.path.name, 0, trouble=text)
            if found is not None:
                yield found


def _compress(segment: Segment, *, dry_run: bool) -> Packed | None:
    """Compress one file; return None if its chain may still be written to."""
    path = segment.path
    target = path.with_name(path.name + PACKED)
    with read_regular(path, follow_links=False) as file:
        status = os.fstat(file.fileno())
        # A writer holds its file, and is in the next one before it lets go. An empty file may be
        # about to be locked.
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if not status.st_size:
            return None
        if trouble := _unfit(file, status.st_size):
            return Packed(path.name, status.st_size, trouble=trouble)
        if dry_run:
            return Packed(path.name, status.st_size)
        if not os.path.lexists(target):
            _write(file, target, status)
        if not _same(file, Segment(target, segment.number, packed=True)):
            return Packed(
                path.name, status.st_size, trouble=f"{target.name} is there, and is not a copy of it"
            )
        path.unlink()
    flush_folder(path.parent)
    return Packed(path.name, status.st_size, target.stat().st_size)


def _unfit(file: BinaryIO, size: int) -> str:
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        return "it ends within a line: it stays as evidence"
    return f"it has more than {LONGEST_FILE} bytes" if size > LONGEST_FILE else ""


def _write(file: BinaryIO, target: Path, status: os.stat_result) -> None:
    file.seek(0)
    with write_atomically(target) as made:
        with gzip.GzipFile("", "wb", _LEVEL, made, mtime=0) as packed:
            shutil.copyfileobj(file, packed, _BLOCK)
        made.flush()
        keep_attributes(file.fileno(), made.fileno(), status)


def _same(file: BinaryIO, copy: Segment) -> bool:
    """Return whether a compressed copy reads as the file."""
    file.seek(0)
    packed = copy.open()
    if packed is None:
        return False
    with packed:
        while block := packed.read(_BLOCK):
            if file.read(len(block)) != block:
                return False
    return not file.read(1)
