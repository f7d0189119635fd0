"""What reaches the disk, in which order, and that no descriptor stays open for it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from sealing import RING, seal, seal_1

from securefs import decrypt_file, encrypt_file, rewrap, verify
from securefs.audit import Journal, verify_journal
from securefs.disk import flush_folder, make_private_folder, others_can_write, write_atomically
from securefs.errors import ConfigurationError, JournalError


@pytest.fixture
def flushed(tmp_path, monkeypatch):
    """What was flushed, in order: its name, and which names the folder had at that moment."""
    found = []

    def fsync(descriptor, real=os.fsync):
        found.append(
            (Path(f"/dev/fd/{descriptor}").resolve().name, {path.name for path in tmp_path.iterdir()})
        )
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    return found


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_flushed_before_it_has_its_name_and_the_folder_after(overwrite, tmp_path, flushed):
    """A power cut leaves the old file, or all of the new one."""
    if overwrite:
        (tmp_path / "target").write_bytes(b"old")
    with write_atomically(tmp_path / "target", overwrite=overwrite) as file:
        file.write(b"new")
        assert flushed == []
    (temporary, before), (folder, after) = flushed
    assert temporary.startswith(".target.")
    assert temporary in before
    assert ("target" in before) is overwrite
    assert folder == tmp_path.name
    assert "target" in after
    assert (tmp_path / "target").read_bytes() == b"new"


def test_what_was_written_is_flushed_and_not_only_what_had_left_the_buffer(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr("os.fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    with write_atomically(tmp_path / "target") as file:
        file.write(b"short")
    assert sizes[0] == 5


def encrypting(folder):
    (folder / "plain").write_bytes(b"plaintext")
    encrypt_file(folder / "plain", folder / "sealed", RING, overwrite=True)


def decrypting(folder):
    (folder / "sealed").write_bytes(seal(b"plaintext"))
    decrypt_file(folder / "sealed", folder / "plain", RING, overwrite=True)


def verifying(folder):
    (folder / "sealed").write_bytes(seal_1(b"plaintext"))
    verify(folder / "sealed", RING, format_1=True)


def rewrapping(folder):
    (folder / "sealed").write_bytes(seal(b"plaintext"))
    rewrap(folder / "sealed", RING)


def journalling(folder):
    journal = Journal(folder / "journal")
    journal.record("key.use", severity=4)
    journal.close()
    verify_journal(folder / "journal")


OPERATIONS = [encrypting, decrypting, verifying, rewrapping, journalling]


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_descriptor_stays_open(operation, tmp_path):
    before = open_descriptors()
    for _ in range(3):
        operation(tmp_path)
    assert open_descriptors() == before


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_descriptor_stays_open_where_the_disk_fails(operation, call, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "a broken disk")

    before = open_descriptors()
    monkeypatch.setattr(f"os.{call}", fail)
    for _ in range(3):
        # Each layer has a name of its own for it, and not each operation makes the call.
        with suppress(OSError, ConfigurationError, JournalError):
            operation(tmp_path)
    assert open_descriptors() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_closed_after_it_was_flushed(fails, tmp_path, monkeypatch):
    before, seen = open_descriptors(), []

    def fsync(descriptor):
        seen.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if fails:
            raise OSError(errno.EIO, "a broken disk")

    monkeypatch.setattr("os.fsync", fsync)
    for _ in range(3):
        if fails:
            with pytest.raises(OSError, match="broken"):
                flush_folder(tmp_path)
        else:
            flush_folder(tmp_path)
    assert open_descriptors() == before
    assert seen == [True] * 3


@pytest.mark.parametrize(
    ("mode", "others"),
    [(0o700, False), (0o755, False), (0o4750, False), (0o720, True), (0o702, True), (0o777, True)],
)
def test_others_are_the_group_and_everybody(mode, others, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(mode)
    assert others_can_write((tmp_path / "folder").stat()) is others


def test_a_folder_is_made_for_one_user_and_kept_as_it_is(tmp_path):
    for mode in (0o700, 0o750):
        status = make_private_folder(tmp_path / "folder")
        assert stat.S_IMODE(status.st_mode) == mode
        (tmp_path / "folder").chmod(0o750)
