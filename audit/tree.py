"""The Merkle tree of the log: roots, proofs and tiles, over leaf hashes of 32 bytes.

Guarantees: the hashes and proofs of RFC 6962 with SHA-256, so other programs can check them.
:class:`CompactRange` appends in memory that grows with the logarithm of the size. A proof that does
not lead to the expected root is refused with :class:`ProofError`, and so is one that is too long or
too short. Proofs are made from the hashes of complete subtrees, which a caller supplies by level
and index: :func:`tile_span` says where they are in the tiles of C2SP tlog-tiles. Pure.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    # The hash of the complete subtree over leaves [index * 2**level, (index + 1) * 2**level).
    Subtrees = Callable[[int, int], bytes]

__all__ = [
    "EMPTY_ROOT",
    "HASH_SIZE",
    "MAX_PROOF",
    "TILE_WIDTH",
    "CompactRange",
    "ProofError",
    "TileBuilder",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_of",
    "subtrees_from_tiles",
    "tile_span",
    "verify_consistency",
    "verify_inclusion",
]

HASH_SIZE: Final = 32  # bytes, SHA-256
MAX_PROOF: Final = 63  # hashes: a tree of at most 2**63 - 1 leaves (C2SP tlog-witness)
TILE_LEVELS: Final = 8  # levels of the tree between two levels of tiles (C2SP tlog-tiles)
TILE_WIDTH: Final = 1 << TILE_LEVELS  # hashes in a full tile
EMPTY_ROOT: Final = hashlib.sha256().digest()  # of a tree without leaves, RFC 6962 section 2.1


class ProofError(ValueError):
    """The proof does not show what it should show."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the leaf hash of an entry (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two hashes (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over these hashes as leaves."""
    tree = CompactRange()
    for value in hashes:
        tree.append(value)
    return tree.root()


class CompactRange:
    """A tree that only grows: its size and the roots of its complete subtrees, the largest first.

    :param size: the number of leaves.
    :param peaks: one hash for each bit that is set in ``size``.
    :raises ValueError: their number does not match.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != HASH_SIZE for peak in peaks):
            raise ValueError("a compact range has one hash for each bit that is set in its size")
        self._size = size
        self._peaks = list(peaks)

    @classmethod
    def from_subtrees(cls, read: Subtrees, size: int) -> CompactRange:
        """Return the range of the first ``size`` leaves of a tree whose subtrees ``read`` gives."""
        return cls(size, [read(level, index) for level, index in _cover(0, size)])

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, the largest first: enough to continue from here."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        size = self._size
        while size & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            size >>= 1
        self._peaks.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        return _join(self._peaks)


def _join(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    *rest, root = peaks
    for peak in reversed(rest):
        root = node_hash(peak, root)
    return root


def _cover(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (level, index) of the complete subtrees of a subtree that begins at ``start``."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _range_root(read: Subtrees, start: int, end: int) -> bytes:
    return _join([read(level, index) for level, index in _cover(start, end)])


def _split(size: int) -> int:
    """Return the largest power of two below ``size``: the leaves of the left subtree."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(read: Subtrees, index: int, size: int) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of ``size`` leaves, leaf end first.

    RFC 6962, section 2.1.1.

    :raises ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    proof, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_root(read, middle, end))
            end = middle
        else:
            proof.append(_range_root(read, start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(read: Subtrees, old: int, size: int) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves is the beginning of the one of ``size``.

    RFC 6962, section 2.1.2. It is empty if ``old`` is 0 or ``size``.

    :raises ValueError: ``old`` is larger than ``size``.
    """
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {old} is not the beginning of one of {size}")
    if old in {0, size}:
        return []
    proof, start, end = [], 0, size
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range_root(read, middle, end))
            end = middle
        else:
            proof.append(_range_root(read, start, middle))
            start = middle
    if start:
        # Where the old tree is one complete subtree, whoever verifies has its hash: it is the root.
        proof.append(_range_root(read, start, end))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` is leaf ``index`` of the tree with this size and root.

    RFC 9162, section 2.1.3.2.

    :raises ProofError: the proof does not lead to this root.
    """
    _check_hashes(proof)
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    node, last, found = index, size - 1, leaf
    for value in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            found = node_hash(value, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, value)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if found != root:
        raise ProofError("the inclusion proof leads to another root")


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree ``old`` is the beginning of the tree ``size``.

    RFC 9162, section 2.1.4.2. Every tree continues the empty one, and needs no proof for it.

    :raises ProofError: the proof does not show it.
    """
    _check_hashes(proof)
    if not 0 <= old <= size:
        raise ProofError(f"a tree of {old} is not the beginning of one of {size}")
    if old in {0, size}:
        if proof:
            raise ProofError("the consistency proof is too long")
        if old_root != (root if old == size else EMPTY_ROOT):
            raise ProofError("two trees of one size have different roots")
        return
    if (found := _both_roots(old, old_root, size, proof)) != (old_root, root):
        which = "old" if found[0] != old_root else "new"
        raise ProofError(f"the consistency proof leads to another {which} root")


def _both_roots(old: int, old_root: bytes, size: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the two roots that a consistency proof leads to; ``0 < old < size``."""
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise ProofError("the consistency proof is too short")
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = hashes[0]
    for value in hashes[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            first, second = node_hash(value, first), node_hash(value, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, value)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    return first, second


def _check_hashes(proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF or any(len(value) != HASH_SIZE for value in proof):
        raise ProofError(f"a proof has at most {MAX_PROOF} hashes of {HASH_SIZE} bytes")


def tile_span(level: int, index: int) -> tuple[int, int, int]:
    """Return where the tiles hold a complete subtree: (tile level, first hash, number of hashes).

    The hashes are counted from the start of that level. They are in one tile, and
    :func:`root_of` them is the subtree's hash.
    """
    tile_level, height = divmod(level, TILE_LEVELS)
    return tile_level, index << height, 1 << height


def subtrees_from_tiles(read: Callable[[int, int, int], bytes]) -> Subtrees:
    """Return the subtrees of a tree whose tiles are read with ``read(level, first, count)``.

    It returns ``count`` hashes of this level, joined. Raise what you like for a missing one.
    """

    def subtree(level: int, index: int) -> bytes:
        tile_level, first, count = tile_span(level, index)
        data = read(tile_level, first, count)
        return root_of([data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)])

    return subtree


class TileBuilder:
    """Says which hashes to append to which level of tiles as leaves are appended.

    :param read: as for :func:`subtrees_from_tiles`; it is asked for the last tile of each level.
    :param size: the number of leaves that are in the tiles already.
    """

    __slots__ = ("_partial",)

    def __init__(self, read: Callable[[int, int, int], bytes], size: int = 0) -> None:
        self._partial: list[list[bytes]] = []
        level = 0
        while size:
            width = size % TILE_WIDTH
            data = read(level, size - width, width) if width else b""
            self._partial.append([data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)])
            size, level = size // TILE_WIDTH, level + 1

    def append(self, leaf: bytes) -> Iterator[tuple[int, bytes]]:
        """Add one leaf hash; yield (level, hash) in the order in which they are appended."""
        level, value = 0, leaf
        while True:
            if level == len(self._partial):
                self._partial.append([])
            tile = self._partial[level]
            tile.append(value)
            yield level, value
            if len(tile) < TILE_WIDTH:
                return
            value = root_of(tile)
            tile.clear()
            level += 1
