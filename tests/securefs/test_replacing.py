"""What import, re-encryption and recovery have in common: test_importing.py tests it at length."""

from __future__ import annotations

import io
import os

import pytest
from support.sealing import RING, seal

from securefs import IntegrityError, Reason, SourceError
from securefs.replacing import replacement, seal_pieces, verified_copy
from securefs.sealer import NewFiles


def test_the_new_file_must_hold_what_was_read():
    with pytest.raises(IntegrityError, match="does not hold what was read") as caught:
        verified_copy(io.BytesIO(seal(b"content")), RING, b"", bytes(32))
    assert caught.value.reason is Reason.IO_ERROR


def test_pieces_become_one_file(tmp_path):
    file, told = io.BytesIO(), []
    digest = seal_pieces([b"one", b"", b"two"], file, NewFiles(RING).sealer(b"context"), told.append)
    assert verified_copy(file, RING, b"context", digest).size == 6
    assert told == [3, 0, 3]


def test_a_block_that_raises_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with replacement(path) as new:
            new.file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    with replacement(path) as new:
        assert os.pread(new.descriptor, 3, 0) == b"old"
        new.file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_that_changes_meanwhile_is_kept(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(SourceError, match="file was changed meanwhile"), replacement(path):
        path.write_bytes(b"other")
    assert path.read_bytes() == b"other"
