"""A file appears whole or not at all, whatever fails while it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from support.journals import NOBODY, ROOT, file_size_limit, open_descriptors, unprivileged
from support.sealing import RING, seal, seal_1
from support.special import bind, without_unnamed_files

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
    remove_stale,
    special_kind,
    write_atomically,
    write_new,
)
from securefs.errors import JournalError, SourceError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["unnamed", "named"])
def naming(request, monkeypatch):
    """A file has no name while it is written, or, where that can't be, a hidden one."""
    if request.param == "named":
        without_unnamed_files(monkeypatch)
    return request.param


@pytest.mark.usefixtures("naming")
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
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.usefixtures("naming")
def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch, code, overwrite):
    """Such as FAT, which no test may mount: so the system call fails here as it does there."""
    monkeypatch.setattr(os, "link", failing(code))
    content = os.urandom(600_000)
    with write_atomically(tmp_path / "target", overwrite=overwrite) as file:
        file.write(content)
    assert (tmp_path / "target").read_bytes() == content
    assert mode(tmp_path / "target") == 0o600
    assert names(tmp_path) == {"target"}


@pytest.mark.usefixtures("naming")
def test_any_other_failure_to_put_the_file_in_place_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OSError, match="broken"), write_atomically(tmp_path / "target") as file:
        file.write(b"data")
    assert names(tmp_path) == set()


def failing(code: int):
    def link(source, target, **_):
        raise OSError(code, "broken", source, None, target)

    return link


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
@pytest.mark.parametrize("overwrite", [True, False])
def test_whatever_is_raised_while_writing_leaves_all_as_it_was(tmp_path, error, overwrite, naming):
    target = tmp_path / "target"
    if overwrite:
        target.write_bytes(b"kept")
    with pytest.raises(error):
        write_half(target, error, overwrite, hidden=naming == "named")
    assert names(tmp_path) == ({"target"} if overwrite else set())
    if overwrite:
        assert target.read_bytes() == b"kept"


def write_half(target: Path, error: type[BaseException], overwrite: bool, hidden: bool) -> None:
    with write_atomically(target, overwrite=overwrite) as file:
        file.write(b"half")
        file.flush()
        assert len(names(target.parent)) == hidden + overwrite
        raise error


def test_a_file_without_a_name_is_private_and_on_the_target_s_file_system(tmp_path):
    with write_atomically(tmp_path / "target") as file:
        file.write(b"x")
        assert names(tmp_path) == set()
        status = os.fstat(file.fileno())
        assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 0)
        assert status.st_dev == tmp_path.stat().st_dev
    assert mode(tmp_path / "target") == 0o600


def test_the_temporary_file_is_private_and_beside_the_target(tmp_path, monkeypatch):
    without_unnamed_files(monkeypatch)
    with write_atomically(tmp_path / "target") as file:
        file.write(b"x")
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".target.")
        assert temporary.suffix == ".tmp"
        assert mode(temporary) == 0o600


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "😀" * 63, "\udcff" * 250])
def test_the_longest_names_are_no_trouble(tmp_path, name):
    with write_atomically(tmp_path / name) as file:
        file.write(b"x")
    assert names(tmp_path) == {name}


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("name", ["target", "t" * 200])
def test_an_error_names_the_target_and_not_the_temporary_file(tmp_path, name):
    target = tmp_path / "missing" / name
    with pytest.raises(FileNotFoundError) as caught, write_atomically(target):
        raise AssertionError("no file to write to")
    assert caught.value.filename == str(target)


@pytest.mark.usefixtures("naming")
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
def test_a_file_is_flushed_before_it_has_its_name_and_the_folder_after(overwrite, tmp_path, naming, flushed):
    """A power cut leaves the old file, or all of the new one."""
    if overwrite:
        (tmp_path / "target").write_bytes(b"old")
    with write_atomically(tmp_path / "target", overwrite=overwrite) as file:
        file.write(b"new")
        assert flushed == []
    (temporary, before), (folder, after) = flushed
    assert temporary.startswith(".target." if naming == "named" else "#")
    assert (temporary in before) is (naming == "named")
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


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_system_that_flushes_no_folders_is_no_failure(tmp_path, monkeypatch, code, overwrite):
    monkeypatch.setattr("os.fsync", failing_for_folders(code))
    with write_atomically(tmp_path / "target", overwrite=overwrite) as file:
        file.write(b"x")
    with write_new(tmp_path / "key") as file:
        file.write(b"x")
    assert names(tmp_path) == {"target", "key"}


def failing_for_folders(code):
    def fsync(descriptor, real=os.fsync):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, "broken")
        real(descriptor)

    return fsync


def test_a_folder_that_a_broken_disk_does_not_flush_is_told_with_what_was_done(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", failing_for_folders(errno.EIO))
    with pytest.raises(OSError, match="it was written, but a power cut may undo that: broken") as caught:
        encrypting(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "sealed"))
    assert names(tmp_path) == {"plain", "sealed"}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.ENOSPC])
@pytest.mark.usefixtures("naming")
def test_a_file_that_is_not_flushed_is_not_put_in_place(tmp_path, monkeypatch, code):
    """Also where the system says that it can't: the bytes may then not be on the disk."""

    def fsync(_descriptor):
        raise OSError(code, "broken")

    monkeypatch.setattr("os.fsync", fsync)
    (tmp_path / "target").write_bytes(b"kept")
    with (
        pytest.raises(OSError, match="broken") as caught,
        write_atomically(tmp_path / "target", overwrite=True) as file,
    ):
        file.write(b"x")
    assert caught.value.filename == str(tmp_path / "target")
    assert names(tmp_path) == {"target"}
    assert (tmp_path / "target").read_bytes() == b"kept"


@pytest.mark.usefixtures("naming")
def test_a_folder_that_can_only_be_written_to_will_do(open_folder, monkeypatch):
    synced = []
    monkeypatch.setattr("os.sync", lambda real=os.sync: synced.append(real()))
    inbox = open_folder / "inbox"
    inbox.mkdir()
    with unprivileged(inbox):
        inbox.chmod(0o300)
        with write_atomically(inbox / "1") as file:
            file.write(b"x")
        with write_new(inbox / "2") as file:
            file.write(b"x")
        assert remove_stale(inbox / "1") == []
        inbox.chmod(0o700)
        assert names(inbox) == {"1", "2"}
    assert len(synced) == 2


@pytest.fixture
def open_folder():
    """A folder that another user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_an_old_target_and_nothing_else(tmp_path, overwrite):
    if overwrite:
        (tmp_path / "target").write_bytes(b"kept")
    with (
        file_size_limit(100_000),
        pytest.raises(OSError, match="large"),
        write_atomically(tmp_path / "target", overwrite=overwrite) as file,
    ):
        file.write(bytes(100_001))
    assert names(tmp_path) == ({"target"} if overwrite else set())


def test_without_proc_a_file_has_a_name(tmp_path, monkeypatch):
    """As in some containers: a file without a name could not be given one."""
    real = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: "/proc/" not in str(path) and real(path))
    before = open_descriptors()
    with write_atomically(tmp_path / "target") as file:
        file.write(b"x")
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == {"target"}
    monkeypatch.undo()
    assert open_descriptors() == before


def test_a_folder_that_refuses_a_new_file_is_told_of_the_target(open_folder):
    inbox = open_folder / "inbox"
    inbox.mkdir(mode=0o500)
    with unprivileged(inbox), pytest.raises(PermissionError) as caught, write_atomically(inbox / "target"):
        raise AssertionError("no file to write to")
    assert caught.value.filename == str(inbox / "target")


KILLED = """
import os, signal, sys
from support.special import without_unnamed_files
import pytest
without_unnamed_files(pytest.MonkeyPatch())
from securefs.disk import write_atomically
with write_atomically(sys.argv[1], overwrite=True) as file:
    file.write(b"plaintext")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(target):
    """Leave what a process leaves that is killed while it writes ``target``, on a simpler file system."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", KILLED, str(target)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_found_by_the_name_of_its_target(tmp_path, monkeypatch):
    target = tmp_path / "a.b"
    killed(target)
    (left,) = tmp_path.iterdir()
    others = {
        *(".a.b.tmp", ".a.b.0123456789abcdef", ".a-b.0123456789abcdef.tmp", "a.b.0123456789abcdef.tmp"),
        *(".a.b.0123456789abcdeF.tmp", ".a.b.0123456789abcdef0.tmp", ".a.b.c.0123456789abcdef.tmp"),
    }
    for name in others:
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / ".a.b.0000000000000000.tmp")
    (tmp_path / ".a.b.0000000000000001.tmp").symlink_to(".a.b.tmp")
    before, descriptors = names(tmp_path), open_descriptors()
    assert remove_stale(target) == [left]
    assert names(tmp_path) == before - {left.name}
    assert open_descriptors() == descriptors
    without_unnamed_files(monkeypatch)
    with write_atomically(target, overwrite=True):
        assert remove_stale(target) == [], "it is being written"
    assert remove_stale(tmp_path / "missing" / "x") == []


def test_what_another_user_left_is_not_ours_to_remove(open_folder):
    inbox = open_folder / "inbox"
    inbox.mkdir()
    left = inbox / ".target.0123456789abcdef.tmp"
    left.touch(mode=0)
    with unprivileged(inbox):
        assert remove_stale(inbox / "target") == []
    assert left.exists()


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Another process may take it for one that was left: between its creation and its lock."""
    without_unnamed_files(monkeypatch)
    real, removed = fcntl.flock, []

    def flock(descriptor, operation):
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        real(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    before = open_descriptors()
    with write_atomically(tmp_path / "target") as file:
        file.write(b"x")
    assert names(tmp_path) == {"target"}
    assert open_descriptors() == before


@pytest.mark.usefixtures("naming")
def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def flock(_descriptor, _operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".target.0123456789abcdef.tmp").touch()
    with write_atomically(tmp_path / "target") as file:
        assert remove_stale(tmp_path / "target") == []
        file.write(b"x")
    assert (tmp_path / "target").read_bytes() == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("links", [True, False])
def test_what_is_replaced_may_keep_its_owner_and_its_mode(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    target = tmp_path / "target"
    for kept in (False, True):
        target.write_bytes(b"old")
        os.chown(target, NOBODY, NOBODY)
        target.chmod(0o664)
        with write_atomically(target, overwrite=True, keep_owner=kept) as file:
            file.write(b"new")
        status = target.stat()
        expected = (NOBODY, NOBODY, 0o664) if kept else (0, 0, 0o600)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == expected
    with write_atomically(tmp_path / "new", overwrite=True, keep_owner=True) as file:
        file.write(b"new")
    assert mode(tmp_path / "new") == 0o600


def test_a_mode_is_kept_by_the_owner(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "target").chmod(0o640)
    with write_atomically(tmp_path / "target", overwrite=True, keep_owner=True) as file:
        file.write(b"new")
    assert mode(tmp_path / "target") == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_owner_that_can_not_be_kept_is_refused(open_folder):
    inbox = open_folder / "inbox"
    inbox.mkdir()
    target = inbox / "target"
    target.write_bytes(b"of root")
    with (
        unprivileged(inbox),
        pytest.raises(
            ConfigurationError, match="belongs to user 0 and group 0, and this user can't keep that"
        ),
        write_atomically(target, overwrite=True, keep_owner=True) as file,
    ):
        file.write(b"new")
    assert target.read_bytes() == b"of root"
    assert names(inbox) == {"target"}


READ_ONLY = """
mount -t tmpfs -o size=1m,ro tmpfs {folder} || exit 99
exec {python} -c 'from securefs.disk import write_atomically
with write_atomically("{folder}/target") as file:
    pass'
"""


def test_a_file_system_that_is_read_only_is_told_with_the_target_s_name(tmp_path):
    """In a mount namespace of its own, so nothing is left mounted."""
    script = READ_ONLY.format(folder=tmp_path, python=sys.executable)
    command = [shutil.which("unshare") or "unshare", "--mount", "sh", "-c", script]
    try:
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if made.returncode == 99 or "unshare:" in made.stderr:
        pytest.skip("nothing may be mounted here")
    assert made.stderr.splitlines()[-1] == f"OSError: [Errno 30] Read-only file system: '{tmp_path}/target'"
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_can_not_be_removed_is_told(open_folder, monkeypatch):
    inbox = open_folder / "inbox"
    inbox.mkdir()
    without_unnamed_files(monkeypatch)

    def fail(file):
        file.write(b"some of it")
        inbox.chmod(0o500)
        raise RuntimeError("the source is gone")

    with (
        unprivileged(inbox),
        pytest.raises(PermissionError, match=r"\.target\.[0-9a-f]{16}\.tmp"),
        write_atomically(inbox / "target") as file,
    ):
        fail(file)
    assert len(names(inbox)) == 1
