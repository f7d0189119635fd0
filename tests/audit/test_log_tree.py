"""The tree of a log: tiles are a cache that is put right, or made anew."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import trees

from securefs.audit.log_folder import Disk, LogDamagedError
from securefs.audit.log_tree import LogTree, Tiles
from securefs.audit.note import Checkpoint

SIZES = (0, 1, 2, 255, 256, 257, 511, 513, 1025)


def leaves_of(count):
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def grown(folder, count, step=300):
    tree = LogTree(Tiles(folder, Disk()))
    assert tree.load(0, [])
    leaves = leaves_of(count)
    for start in range(0, count, step):
        tree.grow(leaves[start : start + step])
    return tree


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("count", SIZES)
def test_it_grows_and_is_loaded_again(tmp_path, count):
    tree = grown(tmp_path / "tiles", count)
    assert (tree.size, tree.root()) == (count, trees.mth(leaves_of(count)))
    before = contents(tmp_path / "tiles")
    assert before.get("0", b"") == b"".join(leaves_of(count))
    assert len(before.get("1", b"")) == count // 256 * 32
    for tail in range(min(3, count + 1)):
        again = LogTree(Tiles(tmp_path / "tiles", Disk()))
        assert again.load(count, leaves_of(count)[count - tail :])
        assert (again.size, again.root()) == (count, tree.root())
        assert contents(tmp_path / "tiles") == before
    if count:
        assert again.leaf(count - 1) == leaves_of(count)[-1]


@pytest.mark.parametrize("count", SIZES)
def test_a_tree_that_is_larger_than_the_log_is_cut(tmp_path, count):
    folder = tmp_path / "tiles"
    grown(folder, 1025)
    tree = LogTree(Tiles(folder, Disk()))
    assert tree.load(count, leaves_of(count)[-1:])
    assert tree.root() == trees.mth(leaves_of(count))
    tree.grow(leaves_of(1025)[count:])
    assert tree.root() == trees.mth(leaves_of(1025))
    assert contents(folder) == contents(grown(tmp_path / "other", 1025)._tiles._folder)


@pytest.mark.parametrize("damage", ["cut", "torn", "removed"])
def test_a_level_above_the_leaves_is_made_anew(tmp_path, damage):
    folder = tmp_path / "tiles"
    grown(folder, 1025)
    before = contents(folder)
    path = folder / "1"
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(before["1"][: 64 if damage == "cut" else 70])
    tree = LogTree(Tiles(folder, Disk()))
    assert tree.load(1025, leaves_of(1025)[-1:])
    assert contents(folder) == before
    assert tree.root() == trees.mth(leaves_of(1025))


def test_missing_leaves_are_told_and_the_tree_is_made_anew(tmp_path):
    folder = tmp_path / "tiles"
    grown(folder, 600)
    before = contents(folder)
    (folder / "0").write_bytes(before["0"][:500])
    tree = LogTree(Tiles(folder, Disk()))
    assert not tree.load(600, leaves_of(600)[-1:])
    tree.make_anew([leaves_of(600)[:400], leaves_of(600)[400:]])
    assert contents(folder) == before
    with pytest.raises(LogDamagedError, match="ends too early"):
        tree.leaf(600)
    (folder / "0").unlink()
    with pytest.raises(LogDamagedError, match="ends too early"):
        tree.leaf(0)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(0, 700))
def test_it_matches_each_checkpoint_of_it(tmp_path_factory, size):
    folder = tmp_path_factory.getbasetemp() / "shared-tiles"
    tree = LogTree(Tiles(folder, Disk()))
    if not tree.load(600, leaves_of(600)[-1:]):
        tree.make_anew([leaves_of(600)])
    good = Checkpoint("x", size, trees.mth(leaves_of(size)))
    assert tree.matches(good) == (size <= 600)
    assert not tree.matches(Checkpoint("x", size, bytes(32)))


@pytest.mark.parametrize("mode", [0o700, 0o2750])
def test_the_tiles_are_as_readable_as_the_log(tmp_path, mode):
    (tmp_path / "log").mkdir()
    (tmp_path / "log").chmod(mode)
    folder = tmp_path / "log" / "tiles"
    grown(folder, 300)
    assert folder.stat().st_mode & 0o777 == mode & 0o777
    assert (folder / "1").stat().st_mode & 0o777 == (0o600 if mode == 0o700 else 0o640)
