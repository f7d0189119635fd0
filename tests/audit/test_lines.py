"""The lines of chains."""

from __future__ import annotations

import gzip
import os

import pytest

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.lines import chain_files, read_lines

A, B = "a" * 32, "b" * 32


def test_files_of_chains_are_found_in_order(tmp_path):
    for name in (
        f"{B}-0.jsonl",
        f"{A}-10.jsonl",
        f"{A}-2.jsonl",
        f"{A}-0.jsonl.gz",
        f"{A}-2.jsonl.gz",
        "pseudonym.key",
        f"x{A}-0.jsonl",
    ):
        (tmp_path / name).touch()
    assert [(chain, number, path.name) for chain, number, path in chain_files(tmp_path)] == [
        (A, 0, f"{A}-0.jsonl.gz"),
        (A, 2, f"{A}-2.jsonl"),
        (A, 10, f"{A}-10.jsonl"),
        (B, 0, f"{B}-0.jsonl"),
    ]


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        chain_files(tmp_path / "missing")


def test_whole_lines_come_with_the_offsets_of_their_ends(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one\n\ntwo\ntorn")
    assert list(read_lines(file)) == [(4, b"one"), (5, b""), (9, b"two")]
    assert list(read_lines(file, 4)) == [(5, b""), (9, b"two")]
    assert list(read_lines(file, 9)) == []
    assert list(read_lines(file, 1000)) == []


def test_a_line_that_is_too_long_comes_in_pieces(tmp_path):
    file = tmp_path / "file"
    long = b"x" * (LONGEST_LINE + 10)
    file.write_bytes(long + b"\nlast\n")
    assert [line for _, line in read_lines(file)] == [b"x" * (LONGEST_LINE + 1), b"x" * 9, b"last"]


def test_what_is_no_regular_file_has_no_lines(tmp_path):
    (tmp_path / "file").write_bytes(b"line\n")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        assert list(read_lines(tmp_path / name)) == []


def test_a_compressed_file_reads_as_what_was_compressed(tmp_path):
    file = tmp_path / "file.gz"
    file.write_bytes(gzip.compress(b"one\ntwo\ntorn"))
    assert list(read_lines(file)) == [(4, b"one"), (8, b"two")]


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"one\ntwo\n")[:-9]])
def test_a_compressed_file_that_is_damaged_is_an_error(tmp_path, data):
    file = tmp_path / "file.gz"
    file.write_bytes(data)
    with pytest.raises(OSError, match="unpacked"):
        list(read_lines(file))
