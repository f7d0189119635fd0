"""A file appears whole or not at all, whatever fails while it is written."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from support.journals import open_descriptors
from support.sealing import RING, seal, seal_1
from support.special import bind

from securefs import (
    ConfigurationError,
    decrypt_file,
    encrypt_file,
    rewrap,
    verify,
)
from securefs.audit import Entry, Journal, verify_journal
from securefs.disk import (
    explain,
    flush_folder,
    is_full,
    make_private_folder,
    open_regular,
    others_can_write,
    read_regular,
    special_kind,
    write_atomically,
    write_new,
)
from securefs.errors import JournalError, SourceError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_target_created_in_the_meantime_is_kept(tmp_path):
    target = tmp_path / "target"
    writing = write_atomically(target)
    writing.__enter__().write(b"ours")
    target.write_bytes(b"theirs")
    with pytest.raises(ConfigurationError, match="exists already"):
        writing.__exit__(None, None, None)
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == {"target"}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch, code):
    """Such as FAT, which no test may mount: so the system call fails here as it does there."""
    monkeypatch.setattr(os, "link", failing(code))
    with write_atomically(tmp_path / "target") as file:
        file.write(b"data")
    assert (tmp_path / "target").read_bytes() == b"data"
    assert names(tmp_path) == {"target"}


def test_any_other_failure_to_put_the_file_in_place_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OSError, match="broken"), write_atomically(tmp_path / "target") as file:
        file.write(b"data")
    assert names(tmp_path) == set()


def failing(code: int):
    def link(source, target):
        raise OSError(code, "broken")

    return link


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
@pytest.mark.parametrize("overwrite", [True, False])
def test_whatever_is_raised_while_writing_leaves_all_as_it_was(tmp_path, error, overwrite):
    target = tmp_path / "target"
    if overwrite:
        target.write_bytes(b"kept")
    with pytest.raises(error):
        write_half(target, error, overwrite)
    assert names(tmp_path) == ({"target"} if overwrite else set())
    if overwrite:
        assert target.read_bytes() == b"kept"


def write_half(target: Path, error: type[BaseException], overwrite: bool) -> None:
    with write_atomically(target, overwrite=overwrite) as file:
        file.write(b"half")
        file.flush()
        assert len(names(target.parent)) == 1 + overwrite
        raise error


def test_the_temporary_file_is_private_and_beside_the_target(tmp_path):
    with write_atomically(tmp_path / "target") as file:
        file.write(b"x")
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".target.")
        assert temporary.suffix == ".tmp"
        assert mode(temporary) == 0o600


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "😀" * 63, "\udcff" * 250])
def test_the_longest_names_are_no_trouble(tmp_path, name):
    with write_atomically(tmp_path / name) as file:
        file.write(b"x")
    assert names(tmp_path) == {name}


@pytest.mark.parametrize("name", ["target", "t" * 200])
def test_an_error_names_the_target_and_not_the_temporary_file(tmp_path, name):
    target = tmp_path / "missing" / name
    with pytest.raises(FileNotFoundError) as caught, write_atomically(target):
        raise AssertionError("no file to write to")
    assert caught.value.filename == str(target)


def test_an_interrupt_at_the_moment_when_the_file_is_made_leaves_nothing(tmp_path, monkeypatch):
    """A signal handler's exception comes between any two steps: here right behind the system call."""
    real = os.open

    def interrupted(*arguments):
        os.close(real(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), write_atomically(tmp_path / "target"):
        raise AssertionError("interrupted before")
    monkeypatch.undo()
    assert names(tmp_path) == set()


def test_a_new_file_is_private_and_on_the_disk_with_its_name(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(stat.S_IFMT(os.fstat(fd).st_mode)) or real(fd))
    with write_new(tmp_path / "key") as file:
        file.write(b"secret")
    assert (mode(tmp_path / "key"), (tmp_path / "key").read_bytes()) == (0o600, b"secret")
    assert flushed == [stat.S_IFREG, stat.S_IFDIR], "first the bytes, then the name"


def test_a_new_file_replaces_nothing_and_vanishes_where_it_fails(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"theirs")
    for name in ("link", "file"):
        with pytest.raises(FileExistsError), write_new(tmp_path / name):
            raise AssertionError("no file to write to")
    assert (tmp_path / "file").read_bytes() == b"theirs"
    with pytest.raises(ZeroDivisionError), write_new(tmp_path / "key") as file:
        file.write(bytes(1 // 0))
    assert names(tmp_path) == {"link", "file"}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        pytest.param(os.mkfifo, "a pipe", id="pipe"),
        pytest.param(bind, "a socket", id="socket"),
        pytest.param(os.mkdir, "a folder", id="folder"),
        pytest.param(lambda path: path.symlink_to("file"), "a symbolic link", id="link"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "a symbolic link", id="dangling link"),
    ],
)
def test_what_is_no_regular_file_is_not_opened(tmp_path, make, kind, flags):
    path = tmp_path / "special"
    (tmp_path / "file").write_bytes(b"of another")
    make(path)
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(SourceError) as caught:
        open_regular(path, flags, follow_links=False)
    assert str(caught.value) == f"{path} is {kind}, not a regular file"
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert names(tmp_path) == {"special", "file"}


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/ptmx"])
def test_a_device_is_not_opened(device):
    with pytest.raises((SourceError, OSError), match=f"{device} is a device|No such device"):
        open_regular(device, follow_links=True)


def test_the_opened_file_decides_and_not_the_path(tmp_path, monkeypatch):
    """Whoever exchanges a file for a pipe between a look at the path and its opening gets nothing."""
    path, pipe = tmp_path / "file", tmp_path / "pipe"
    path.write_bytes(b"content")
    os.mkfifo(pipe)
    real = os.open
    monkeypatch.setattr(os, "open", lambda name, *rest: real(pipe if name == path else name, *rest))
    assert special_kind(path) is None
    with pytest.raises(SourceError, match="file is a pipe, not a regular file"):
        open_regular(path, follow_links=False)


def test_a_regular_file_is_opened_with_its_name_and_as_asked(tmp_path):
    path = tmp_path / "file"
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, follow_links=False)
    try:
        assert (os.write(descriptor, b"content"), mode(path)) == (7, 0o600)
        assert not os.get_inheritable(descriptor)
        # Some regular files of /proc block a read.
        assert not os.get_blocking(descriptor)
    finally:
        os.close(descriptor)
    (tmp_path / "link").symlink_to("file")
    with read_regular(tmp_path / "link", follow_links=True) as file:
        assert (file.read(), file.name) == (b"content", str(tmp_path / "link"))
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing", follow_links=False)
    assert special_kind(tmp_path / "missing") is None
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match="symbolic links"):
        read_regular(tmp_path / "link", follow_links=True)


def test_whatever_the_system_says_is_told_in_words():
    assert explain(OSError(errno.ENOENT, "No such file")) == "No such file"
    assert explain(OSError("boom")) == "boom"
    assert explain(OSError()) == "OSError"
    assert [is_full(OSError(code, "")) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)] == [
        True,
        True,
        True,
        False,
    ]


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
    journal.record(Entry("file.integrity_failure", "failure"))
    journal.close()
    verify_journal(folder / "journal")


OPERATIONS = [encrypting, decrypting, verifying, rewrapping, journalling]


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
