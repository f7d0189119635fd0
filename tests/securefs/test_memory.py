"""Memory does not depend on the size of a file: peaks of what Python allocates, for files of 256 MiB."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager

import pytest
from support.sealing import RING, SUITES

from securefs import Decryptor, Encryptor, decrypt_file, encrypt_file, open_encrypted, verify
from securefs.plaintext import READ_SIZE

MIB = 1024 * 1024
SIZE = 256 * MIB


@contextmanager
def peak_below(limit: int):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.fixture
def zeros(tmp_path):
    """A file of 256 MiB that takes no space."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.mark.parametrize("suite", SUITES)
def test_files_of_format_2(zeros, tmp_path, suite):
    with peak_below(8 * MIB):
        encrypt_file(zeros, tmp_path / "sealed", RING, suite=suite)
        zeros.unlink()
        assert verify(tmp_path / "sealed", RING).size == SIZE
        decrypt_file(tmp_path / "sealed", zeros, RING)
    assert zeros.stat().st_size == SIZE


def test_files_of_format_1(zeros, tmp_path):
    with peak_below(8 * MIB):
        encrypt_file(zeros, tmp_path / "sealed", RING, format_1=True)
        zeros.unlink()
        decrypt_file(tmp_path / "sealed", zeros, RING, format_1=True)
    assert zeros.stat().st_size == SIZE


@pytest.mark.parametrize("suite", SUITES)
def test_streams(suite):
    piece, total = bytes(65_536), 0
    with peak_below(4 * MIB):
        encryptor, decryptor = Encryptor(RING, suite), Decryptor(RING)
        for _ in range(SIZE // len(piece)):
            total += len(decryptor.update(encryptor.update(piece)))
        total += len(decryptor.update(encryptor.finalize())) + len(decryptor.finalize())
    assert total == SIZE


@pytest.mark.parametrize("suite", SUITES)
def test_lines_take_two_buffers_and_two_blocks(tmp_path, suite):
    """One of stored segments, one of their plaintext; the last block, and the one that lines come from."""
    (tmp_path / "lines").write_bytes(b"a line of text\n" * (8 * MIB // 15))
    encrypt_file(tmp_path / "lines", tmp_path / "sealed", RING, suite=suite)
    lines, others = 0, 65_536
    with (
        peak_below(2 * READ_SIZE + 2 * suite.segment_size + others),
        open_encrypted(tmp_path / "sealed", RING) as file,
    ):
        for _ in file:
            lines += 1
    assert lines == 8 * MIB // 15
