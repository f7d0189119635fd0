"""Roots, proofs and tiles, against RFC 6962 written down in support/trees.py and its published example tree."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import trees

from securefs.audit.tree import (
    EMPTY_ROOT,
    HASH_SIZE,
    MAX_PROOF,
    TILE_WIDTH,
    CompactRange,
    ProofError,
    TileBuilder,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    subtrees_from_tiles,
    tile_span,
    verify_consistency,
    verify_inclusion,
)

# The example leaves and roots that implementations of RFC 6962 share (certificate-transparency's merkle tests).
EXAMPLE_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
EXAMPLE_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LARGEST = 600  # leaves: more than two full tiles
LEAVES = [leaf_hash(str(number).encode()) for number in range(LARGEST)]
sizes = st.integers(1, 130)


def subtrees(leaves):
    def read(level, index):
        part = leaves[index << level : (index + 1) << level]
        assert len(part) == 1 << level, "only complete subtrees are asked for"
        return trees.mth(part)

    return read


@pytest.mark.parametrize("size", range(9))
def test_the_published_example_tree(size):
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in EXAMPLE_LEAVES[:size]]
    assert root_of(leaves).hex() == trees.mth(leaves).hex() == EXAMPLE_ROOTS[size]


def test_every_size_has_the_root_of_the_rfc():
    tree = CompactRange()
    assert tree.root() == EMPTY_ROOT
    for size in range(1, 130):
        tree.append(LEAVES[size - 1])
        assert tree.size == size
        assert tree.root() == trees.mth(LEAVES[:size])
        assert CompactRange.from_subtrees(subtrees(LEAVES), size).peaks == tree.peaks


@given(first=sizes, second=sizes)
def test_a_compact_range_continues_from_its_peaks(first, second):
    tree = CompactRange()
    for leaf in LEAVES[:first]:
        tree.append(leaf)
    later = CompactRange(tree.size, tree.peaks)
    for leaf in LEAVES[first : first + second]:
        later.append(leaf)
    assert later.root() == trees.mth(LEAVES[: first + second])
    assert tree.size == first


@pytest.mark.parametrize(
    ("size", "peaks"), [(1, []), (0, [b"x" * 32]), (3, [b"x" * 32]), (1, [b"x"]), (-1, [b"x" * 32])]
)
def test_a_compact_range_of_another_size_is_refused(size, peaks):
    with pytest.raises(ValueError, match="one hash for each bit"):
        CompactRange(size, peaks)


@pytest.mark.parametrize("size", range(1, 34))
def test_inclusion_of_each_leaf(size):
    root = trees.mth(LEAVES[:size])
    for index in range(size):
        proof = inclusion_proof(subtrees(LEAVES), index, size)
        assert proof == trees.path(index, LEAVES[:size])
        verify_inclusion(LEAVES[index], index, size, proof, root)
        for other in {0, index - 1, index + 1, size - 1} - {index, -1}:
            with pytest.raises(ProofError):
                verify_inclusion(LEAVES[index], other, size, proof, root)


@pytest.mark.parametrize("size", range(1, 34))
def test_consistency_with_each_older_tree(size):
    root = trees.mth(LEAVES[:size])
    for old in range(1, size + 1):
        old_root = trees.mth(LEAVES[:old])
        proof = consistency_proof(subtrees(LEAVES), old, size)
        assert proof == trees.proof(old, LEAVES[:size])
        verify_consistency(old, old_root, size, root, proof)
        for wrong in (bytes(32), root if old != size else bytes(32)):
            with pytest.raises(ProofError):
                verify_consistency(old, wrong, size, root, proof)
        with pytest.raises(ProofError):
            verify_consistency(old, old_root, size, bytes(32), proof)
    assert consistency_proof(subtrees(LEAVES), 0, size) == []
    verify_consistency(0, EMPTY_ROOT, size, root, [])


@given(data=st.data(), size=sizes)
def test_a_changed_proof_is_refused(data, size):
    root = trees.mth(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    inclusion, consistency = trees.path(index, LEAVES[:size]), trees.proof(old, LEAVES[:size])
    change = data.draw(st.sampled_from([_flip, _drop, _double, _extend, _swap]))
    if (changed := change(data, inclusion)) != inclusion:
        with pytest.raises(ProofError):
            verify_inclusion(LEAVES[index], index, size, changed, root)
    if (changed := change(data, consistency)) != consistency:
        with pytest.raises(ProofError):
            verify_consistency(old, trees.mth(LEAVES[:old]), size, root, changed)


def _at(data, proof):
    return data.draw(st.integers(0, len(proof) - 1))


def _flip(data, proof):
    if not proof:
        return proof
    at = _at(data, proof)
    bit = 1 << data.draw(st.integers(0, 255))
    return [*proof[:at], (int.from_bytes(proof[at], "big") ^ bit).to_bytes(32, "big"), *proof[at + 1 :]]


def _drop(data, proof):
    if not proof:
        return proof
    at = _at(data, proof)
    return proof[:at] + proof[at + 1 :]


def _double(data, proof):
    if not proof:
        return proof
    at = _at(data, proof)
    return [*proof[:at], proof[at], *proof[at:]]


def _extend(data, proof):
    return [*proof, data.draw(st.binary(min_size=32, max_size=32))]


def _swap(data, proof):
    if len(proof) < 2:
        return proof
    at = data.draw(st.integers(0, len(proof) - 2))
    return [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]


@given(data=st.data(), size=st.integers(2, 130))
def test_an_inner_node_is_no_leaf(data, size):
    """The two prefixes of RFC 6962: a proof with its lower end taken off shows nothing."""
    index = data.draw(st.integers(0, size - 1))
    proof = trees.path(index, LEAVES[:size])
    sibling = proof[0]
    entry = LEAVES[index] + sibling if index % 2 == 0 else sibling + LEAVES[index]
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(entry), index // 2, (size + 1) // 2, proof[1:], trees.mth(LEAVES[:size]))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda: inclusion_proof(subtrees(LEAVES), 5, 5), "no leaf 5", id="make-inclusion"),
        pytest.param(lambda: inclusion_proof(subtrees(LEAVES), -1, 5), "no leaf -1", id="make-negative"),
        pytest.param(
            lambda: consistency_proof(subtrees(LEAVES), 6, 5), "not the beginning", id="make-consistency"
        ),
        pytest.param(
            lambda: verify_inclusion(LEAVES[0], 5, 5, [], EMPTY_ROOT), "no leaf 5", id="leaf-beyond"
        ),
        pytest.param(
            lambda: verify_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT), "no leaf 0", id="leaf-of-none"
        ),
        pytest.param(lambda: verify_inclusion(LEAVES[0], 0, 2, [], EMPTY_ROOT), "too short", id="short"),
        pytest.param(
            lambda: verify_inclusion(LEAVES[0], 0, 1, [bytes(32)], EMPTY_ROOT), "too long", id="long"
        ),
        pytest.param(
            lambda: verify_inclusion(LEAVES[0], 0, 1, [], EMPTY_ROOT), "another root", id="other-root"
        ),
        pytest.param(
            lambda: verify_inclusion(LEAVES[0], 0, 2, [b"x"], EMPTY_ROOT), "32 bytes", id="short-hash"
        ),
        pytest.param(
            lambda: verify_inclusion(LEAVES[0], 0, 2, [bytes(32)] * (MAX_PROOF + 1), EMPTY_ROOT),
            "at most",
            id="many",
        ),
        pytest.param(
            lambda: verify_consistency(3, bytes(32), 2, bytes(32), []), "not the beginning", id="older-larger"
        ),
        pytest.param(
            lambda: verify_consistency(-1, bytes(32), 2, bytes(32), []), "not the beginning", id="negative"
        ),
        pytest.param(
            lambda: verify_consistency(0, bytes(32), 2, bytes(32), []), "different roots", id="empty-root"
        ),
        pytest.param(
            lambda: verify_consistency(2, bytes(32), 2, EMPTY_ROOT, []), "different roots", id="same-size"
        ),
        pytest.param(
            lambda: verify_consistency(2, bytes(32), 2, bytes(32), [bytes(32)]),
            "too long",
            id="same-size-with-proof",
        ),
        pytest.param(lambda: verify_consistency(3, bytes(32), 4, bytes(32), []), "too short", id="no-proof"),
        pytest.param(
            lambda: verify_consistency(2, bytes(32), 4, bytes(32), []), "too short", id="no-proof-power"
        ),
        pytest.param(
            lambda: verify_consistency(2, bytes(32), 4, bytes(32), [bytes(32)] * 3),
            "too long",
            id="long-consistency",
        ),
        pytest.param(
            lambda: verify_consistency(3, bytes(32), 4, bytes(32), [bytes(32)] * 3),
            "another old root",
            id="old-root",
        ),
        pytest.param(
            lambda: verify_consistency(1, LEAVES[0], 2, bytes(32), [LEAVES[1]]),
            "another new root",
            id="new-root",
        ),
    ],
)
def test_what_does_not_fit_is_told(call, error):
    with pytest.raises(ValueError, match=error):
        call()


class Tiles:
    """Levels of tiles in memory."""

    def __init__(self):
        self.levels = []

    def write(self, level, value):
        self.levels += [bytearray()] * (level == len(self.levels))
        self.levels[level] += value

    def read(self, level, first, count):
        data = bytes(self.levels[level][first * HASH_SIZE : (first + count) * HASH_SIZE])
        assert len(data) == count * HASH_SIZE
        return data


@given(stops=st.lists(st.integers(0, 300), max_size=3), index=st.integers(0, LARGEST - 1))
def test_tiles_give_every_proof_however_often_the_builder_starts_anew(stops, index):
    tiles, size = Tiles(), 0
    for stop in [*sorted(stops), LARGEST]:
        builder = TileBuilder(tiles.read, size)
        for leaf in LEAVES[size : max(size, stop)]:
            for level, value in builder.append(leaf):
                tiles.write(level, value)
        size = max(size, stop)
    assert [len(level) // HASH_SIZE for level in tiles.levels] == [LARGEST, LARGEST // TILE_WIDTH]
    read = subtrees_from_tiles(tiles.read)
    assert CompactRange.from_subtrees(read, LARGEST).root() == trees.mth(LEAVES)
    assert inclusion_proof(read, index, LARGEST) == trees.path(index, LEAVES)
    assert consistency_proof(read, index + 1, LARGEST) == trees.proof(index + 1, LEAVES)


def test_tiles_of_three_levels():
    """70,000 leaves: the example of C2SP tlog-tiles."""
    tiles, tree = Tiles(), CompactRange()
    builder = TileBuilder(tiles.read)
    for number in range(70_000):
        leaf = hashlib.sha256(number.to_bytes(4, "big")).digest()
        tree.append(leaf)
        for level, value in builder.append(leaf):
            tiles.write(level, value)
    assert [len(level) // HASH_SIZE for level in tiles.levels] == [70_000, 273, 1]
    read = subtrees_from_tiles(tiles.read)
    assert CompactRange.from_subtrees(read, 70_000).root() == tree.root()
    leaf = hashlib.sha256((12_345).to_bytes(4, "big")).digest()
    verify_inclusion(leaf, 12_345, 70_000, inclusion_proof(read, 12_345, 70_000), tree.root())
    again = TileBuilder(tiles.read, 70_000)
    assert list(again.append(leaf)) == [(0, leaf)]


@pytest.mark.parametrize(
    ("level", "index", "span"), [(0, 5, (0, 5, 1)), (3, 2, (0, 16, 8)), (8, 3, (1, 3, 1)), (17, 1, (2, 2, 2))]
)
def test_where_a_subtree_is(level, index, span):
    assert tile_span(level, index) == span
