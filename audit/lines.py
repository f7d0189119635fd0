"""Reads the lines of chains, one at a time, whatever else is in their folder.

Guarantees: memory does not grow with a file; no link is followed; a file that was compressed is
read as what was compressed. It verifies nothing.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.folder import open_regular
from securefs.audit.segments import CHAIN_FILE, PACKED, Unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["chain_files", "read_lines"]


def chain_files(folder: Path) -> list[tuple[str, int, Path]]:
    """Return the id, the number and the path of each file of a chain in ``folder``, sorted.

    Of a file and its compressed copy, it is the file.

    :raises OSError: the folder can't be read.
    """
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries), reverse=True)  # the compressed copy first
    found = {
        (match[1], int(match[2])): folder / match[0] for match in map(CHAIN_FILE.fullmatch, names) if match
    }
    return sorted((chain, number, path) for (chain, number), path in found.items())


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines of a file from ``offset`` on, each with the offset of its end.

    They come without their line ends. A line that is longer than any record comes in pieces; what
    follows the last line end does not come. What is no regular file has no lines.

    :param offset: 0 for a file that was compressed.
    :raises OSError: it can't be read, or not be unpacked.
    """
    file = open_regular(path)
    if file is None:
        return
    unpacked = Unpacked(file) if path.name.endswith(PACKED) else None
    with io.BufferedReader(unpacked or file) as reader:
        if offset:
            reader.seek(offset)
        while line := reader.readline(LONGEST_LINE + 1):
            offset += len(line)
            if line.endswith(b"\n") or len(line) > LONGEST_LINE:
                yield offset, line.removesuffix(b"\n")
        if unpacked is not None and unpacked.damage:
            raise OSError(errno.EINVAL, unpacked.damage, str(path))
