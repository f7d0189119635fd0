"""The files of a log, read once and within bounds."""

from __future__ import annotations

import hashlib

import pytest

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.log_files import (
    MAX_OPEN,
    Leaves,
    open_file,
    read_hashes,
    read_lines,
    read_notes,
    size_of,
)
from securefs.audit.note import MAX_NOTE
from securefs.audit.verify_state import Place


def leaf(line):
    return hashlib.sha256(b"\x00" + line).digest()


def test_leaves_of_many_chains_are_taken_in_any_order(tmp_path):
    paths = {}
    for number in range(MAX_OPEN * 2):
        paths[str(number)] = tmp_path / str(number)
        paths[str(number)].write_bytes(b"".join(b"%d %d\n" % (number, line) for line in range(4)))
    leaves = Leaves(paths, {"0": Place(1, 4)})
    for count in (1, 2):
        for number in range(MAX_OPEN * 2):
            first = leaves.place(str(number)).count
            taken = list(leaves.take(str(number), count))
            assert taken == [leaf(b"%d %d" % (number, line)) for line in range(first, first + count)]
    place = leaves.place("1")
    assert (place.count, place.offset, place.head, place.before) == (
        3,
        12,
        leaf(b"1 2").hex(),
        leaf(b"1 1").hex(),
    )
    leaves.close()


@pytest.mark.parametrize(
    ("content", "there"),
    [(b"", 0), (b"a", 0), (b"a\n", 1), (b"a\nb", 1), (b"x" * (LONGEST_LINE + 9) + b"\n", 0)],
)
def test_fewer_leaves_than_asked_for(tmp_path, content, there):
    path = tmp_path / "chain"
    path.write_bytes(content)
    leaves = Leaves({"c": path}, {})
    assert len(list(leaves.take("c", 5))) == there
    # What is added later is read from there on.
    with path.open("ab") as file:
        file.write(b"c\n")
    more = list(leaves.take("c", 5))
    assert len(more) == (there + 1 if len(content) < 9 else 0) - there or len(content) > 9
    leaves.close()


def test_no_leaves_of_what_is_no_file(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    leaves = Leaves({"link": tmp_path / "link", "missing": tmp_path / "missing"}, {})
    assert [list(leaves.take(chain, 3)) for chain in ("link", "missing", "unknown")] == [[], [], []]


def test_lines_between_two_offsets(tmp_path):
    path = tmp_path / "chain"
    path.write_bytes(b"ab\ncd\nef\ngh")
    assert list(read_lines(path, 3, 100)) == [(3, b"cd"), (6, b"ef")]
    assert list(read_lines(path, 0, 5)) == [(0, b"ab")]
    assert list(read_lines(path, 0, 6)) == [(0, b"ab"), (3, b"cd")]
    assert list(read_lines(tmp_path / "missing", 0, 100)) == []


def test_a_line_that_is_too_long_is_passed_over(tmp_path):
    path = tmp_path / "chain"
    path.write_bytes(b"a" * (3 * LONGEST_LINE) + b"\nnext\n")
    assert list(read_lines(path, 0, path.stat().st_size))[-1] == (3 * LONGEST_LINE + 1, b"next")


NOTE = b"text\n\n- line\n"


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(NOTE + b"\n", [(0, NOTE, True)], id="one"),
        pytest.param((NOTE + b"\n") * 2, [(0, NOTE, True), (14, NOTE, True)], id="two"),
        pytest.param(NOTE, [(0, NOTE, False)], id="no-end"),
        pytest.param(NOTE + b"\nte", [(0, NOTE, True), (14, b"te", False)], id="torn"),
        pytest.param(b"te", [(0, b"te", False)], id="torn-first"),
    ],
)
def test_notes(tmp_path, content, notes):
    path = tmp_path / "notes"
    path.write_bytes(content)
    assert list(read_notes(path, 0, len(content))) == notes
    assert list(read_notes(path, len(content) + 5, len(content))) == []


def test_a_note_without_end_is_not_kept_in_memory(tmp_path):
    path = tmp_path / "notes"
    path.write_bytes(NOTE + b"\n" + b"x" * (MAX_NOTE * 40))
    (_, second) = read_notes(path, 0, path.stat().st_size)
    assert second[2] is False
    assert len(second[1]) < MAX_NOTE * 3


def test_no_notes_and_no_hashes_where_there_is_no_file(tmp_path):
    assert list(read_notes(tmp_path / "missing", 0, 100)) == []
    assert read_hashes(tmp_path / "missing", 0, 100) == []
    assert open_file(tmp_path) is None
    assert size_of(tmp_path / "missing") == 0


@pytest.mark.parametrize(("first", "count", "there"), [(0, 2, 2), (1, 2, 2), (2, 5, 1), (3, 5, 0), (9, 5, 0)])
def test_hashes(tmp_path, first, count, there):
    path = tmp_path / "0"
    path.write_bytes(bytes(32) + b"1" * 32 + b"2" * 32 + b"torn")
    assert len(read_hashes(path, first, count)) == there
