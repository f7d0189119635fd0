"""The tree of a log: its compact range in memory, its hashes in tiles on the disk.

Guarantees: the tiles are a cache. Those of a tree that is larger than the log, or too short above
the leaves, are put right; if leaves are missing, or the tree is not the one that was signed, the
tiles are made anew from the chains. Refuses: to go on if that does not lead to what was signed.

Implements the section on the log's folder of ``docs/log.md``.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from securefs.audit.log_folder import LogDamagedError
from securefs.audit.tree import (
    HASH_SIZE,
    TILE_WIDTH,
    CompactRange,
    TileBuilder,
    root_of,
    subtrees_from_tiles,
)
from securefs.disk import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from securefs.audit.log_folder import Disk
    from securefs.audit.note import Checkpoint

__all__ = ["LogTree", "Tiles"]


class Tiles:
    """The hashes of the tree, level by level, in files that are only appended to."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def read(self, level: int, first: int, count: int) -> bytes:
        """Return ``count`` hashes of a level, joined.

        :raises LogDamagedError: they are not there.
        """
        data = b""
        with contextlib.suppress(FileNotFoundError):
            descriptor = open_regular(self._path(level), follow_links=False)
            try:
                data = os.pread(descriptor, count * HASH_SIZE, first * HASH_SIZE)
            finally:
                os.close(descriptor)
        if len(data) != count * HASH_SIZE:
            raise LogDamagedError(f"{self._path(level)} ends too early")
        return data

    def append(self, hashes: Mapping[int, bytes]) -> None:
        """Append the hashes of each level."""
        for level, data in hashes.items():
            self._disk.append(self._path(level), data)

    def settle(self, size: int) -> bool:
        """Make every level that of a tree of ``size`` leaves; return False if leaves are missing.

        A level above the leaves that is too short is made anew.
        """
        if not self._folder.exists():
            self._folder.mkdir(0o700)
            # Whoever may read the log's folder may read this one.
            self._folder.chmod(self._folder.parent.stat().st_mode)
        if not self._settle_level(0, size):
            return False
        level = 0
        while size or self._path(level).exists():
            level, size = level + 1, size // TILE_WIDTH
            if not self._settle_level(level, size):
                self._complete(level, size)
        return True

    def _settle_level(self, level: int, count: int) -> bool:
        path, size = self._path(level), count * HASH_SIZE
        there = path.stat().st_size if path.exists() else 0
        if there > size:
            self._disk.cut(path, size)
        return there >= size

    def _complete(self, level: int, count: int) -> None:
        path = self._path(level)
        have = path.stat().st_size // HASH_SIZE if path.exists() else 0
        if path.exists():
            self._disk.cut(path, have * HASH_SIZE)
        for index in range(have, count):
            below = self.read(level - 1, index * TILE_WIDTH, TILE_WIDTH)
            self._disk.append(path, root_of(_split(below)))

    def _path(self, level: int) -> Path:
        return self._folder / str(level)


class LogTree:
    """The tree of a log, which only grows."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self._range = CompactRange()
        self._builder = TileBuilder(tiles.read)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._range.size

    def root(self) -> bytes:
        """Return the root."""
        return self._range.root()

    def leaf(self, index: int) -> bytes:
        """Return a leaf hash."""
        return self._tiles.read(0, index, 1)

    def load(self, size: int, tail: list[bytes]) -> bool:
        """Load a tree of ``size`` leaves from the tiles; return False if they do not have it.

        :param tail: the last leaves, which may not have reached the tiles.
        """
        whole = size - len(tail)
        if not self._tiles.settle(whole):
            return False
        self._range = CompactRange.from_subtrees(subtrees_from_tiles(self._tiles.read), whole)
        self._builder = TileBuilder(self._tiles.read, whole)
        self.grow(tail)
        return True

    def make_anew(self, leaves: Iterable[list[bytes]]) -> None:
        """Make the tiles anew."""
        self._tiles.settle(0)
        self._range, self._builder = CompactRange(), TileBuilder(self._tiles.read)
        for some in leaves:
            self.grow(some)

    def grow(self, leaves: list[bytes]) -> None:
        """Append leaves; the tiles have them on the disk when it returns."""
        levels: dict[int, bytearray] = {}
        for leaf in leaves:
            self._range.append(leaf)
            for level, value in self._builder.append(leaf):
                levels.setdefault(level, bytearray()).extend(value)
        self._tiles.append({level: bytes(data) for level, data in levels.items()})

    def matches(self, checkpoint: Checkpoint) -> bool:
        """Return whether this is the tree of a checkpoint, or one that continues it."""
        if checkpoint.size > self.size:
            return False
        read = subtrees_from_tiles(self._tiles.read)
        return CompactRange.from_subtrees(read, checkpoint.size).root() == checkpoint.root


def _split(data: bytes) -> list[bytes]:
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
