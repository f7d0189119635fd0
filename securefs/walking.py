"""What is under some paths, before anything is opened.

Guarantees: :func:`walk` yields everything under a path: each file, link, special file, and folder
that can't be listed. Nothing is opened but folders, so nothing is waited for. A link that was found
in a folder is not followed; it is named, with whether its target is among the paths.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.disk import explain, special_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SUFFIX", "Found", "Kind", "walk"]

SUFFIX: Final = ".enc"


class Kind(Enum):
    """What something under a path is, before it is opened."""

    FILE = 1
    LINK = 2
    SPECIAL = 3
    UNREADABLE = 4


@dataclass(frozen=True, slots=True)
class Found:
    """Something under a path, as it was found. ``size`` is the stored size of a file in bytes.

    :ivar named: the caller named it, so a link in its place is followed.
    :ivar detail: what a link or a special file is, or why a folder can't be listed; in words.
    :ivar accounted: False for a link that leads out of the paths, or to nothing.
    """

    path: Path
    size: int = 0
    named: bool = False
    kind: Kind = Kind.FILE
    detail: str = ""
    accounted: bool = True

    @property
    def must_be_encrypted(self) -> bool:
        """Whether its name says that it is encrypted, or the caller does."""
        return self.named or self.path.name.endswith(SUFFIX)


def walk(names: Sequence[str]) -> Iterator[Found]:
    """Yield everything under the named files and folders, in order of the names.

    :raises OSError: a name does not exist. Nothing was yielded before.
    """
    # All of them first: a typing error is not a finding.
    statuses = [os.stat(name) for name in names]  # noqa: PTH116  # Path("") would be "."
    roots = [os.path.realpath(name) for name in names]
    for name, status in zip(names, statuses, strict=True):
        if stat.S_ISDIR(status.st_mode):
            yield from _tree(Path(name), roots)
        else:
            yield _found(Path(name), status, named=True)


def _tree(top: Path, roots: Sequence[str]) -> Iterator[Found]:
    """Yield what is in a folder, its files before its folders.

    It keeps a list and does not call itself: no tree is too deep.
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            yield _unreadable(folder, error, "cannot be listed")
            continue
        folders = []
        for entry in entries:
            path = folder / entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                yield Found(path)  # its opening tells
                continue
            except OSError as error:
                yield _unreadable(path, error, "cannot be read")
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
            elif stat.S_ISLNK(status.st_mode):
                yield _link(path, roots)
            else:
                yield _found(path, status, named=False)
        waiting += reversed(folders)


def _found(path: Path, status: os.stat_result, *, named: bool) -> Found:
    if stat.S_ISREG(status.st_mode):
        return Found(path, status.st_size, named)
    kind = special_kind(path, follow_links=named) or "a special file"
    return Found(path, 0, named, Kind.SPECIAL, f"{path} is {kind}, not a regular file")


def _unreadable(path: Path, error: OSError, what: str) -> Found:
    return Found(path, kind=Kind.UNREADABLE, detail=f"{what}: {explain(error)}")


def _link(path: Path, roots: Sequence[str]) -> Found:
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        detail = f"a symbolic link that leads to nothing that can be found: {explain(error)}"
        return Found(path, kind=Kind.LINK, detail=detail, accounted=False)
    if any(target == root or target.startswith(root.rstrip("/") + "/") for root in roots):
        return Found(path, kind=Kind.LINK, detail=f"a symbolic link to {target}")
    detail = f"a symbolic link to {target}, which is not under the named paths: name it too"
    return Found(path, kind=Kind.LINK, detail=detail, accounted=False)
