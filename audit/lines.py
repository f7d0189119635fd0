"""Reads the lines of chains, one at a time, whatever else is in their folder.

Guarantees: memory does not grow with a file; no link is followed. It verifies nothing.
"""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, Final

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.folder import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["chain_files", "read_lines"]

_CHAIN_FILE: Final = re.compile(r"([0-9a-f]{32})-([0-9]{1,9})\.jsonl")


def chain_files(folder: Path) -> list[tuple[str, int, Path]]:
    """Return the id, the number and the path of each file of a chain in ``folder``, sorted.

    :raises OSError: the folder can't be read.
    """
    with os.scandir(folder) as entries:
        found = [(entry.name, match) for entry in entries if (match := _CHAIN_FILE.fullmatch(entry.name))]
    return sorted((match[1], int(match[2]), folder / name) for name, match in found)


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines of a file from ``offset`` on, each with the offset of its end.

    They come without their line ends. A line that is longer than any record comes in pieces; what
    follows the last line end does not come. What is no regular file has no lines.

    :raises OSError: it can't be read.
    """
    file = open_regular(path)
    if file is None:
        return
    with io.BufferedReader(file) as reader:
        reader.seek(offset)
        while line := reader.readline(LONGEST_LINE + 1):
            offset += len(line)
            if line.endswith(b"\n") or len(line) > LONGEST_LINE:
                yield offset, line.removesuffix(b"\n")
