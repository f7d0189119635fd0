"""Opens, writes and replaces files on a disk; the lowest layer.

A new file is private (mode 0600) and never replaces another (:func:`create_private`).
:func:`write_new` and :func:`write_atomically` flush a file and its name to disk. Any failure before
that (a full disk, a failed verification, a signal) removes the incomplete file and leaves an
existing target as it was. What :func:`write_atomically` writes has no name before it is complete,
where the file system allows that, so that not even SIGKILL leaves a part of it. Elsewhere it has a
hidden name, and :func:`remove_stale` finds what a killed process left.

:func:`open_regular` opens regular files only. Whoever can write to a folder can put a pipe, a
device or a link in a file's place: a pipe blocks the reader until somebody writes to it, a device
may never end, and a link leads to another file. Such a file is refused without waiting for it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "StrPath",
    "check_still_there",
    "create_private",
    "explain",
    "flush_folder",
    "is_full",
    "keep_attributes",
    "locked",
    "make_private_folder",
    "open_regular",
    "others_can_write",
    "read_regular",
    "remove_stale",
    "share_with_group",
    "special_kind",
    "temporary_of",
    "write_atomically",
    "write_new",
]

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600
# Bytes of the target's name that the temporary name repeats. The whole name stays under NAME_MAX
# (255 bytes).
TEMPORARY_NAME: Final = 128
_TEMPORARY: Final = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.ASCII | re.DOTALL)
# A file that exceeds the size limit of the process or the file system is the same as a full disk.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a system call says that a file system does not have.
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_LINKS: Final = _UNSUPPORTED | {errno.EPERM, errno.EMLINK}
# Kernels and file systems without unnamed files open the folder itself, or refuse.
_NO_UNNAMED: Final = _UNSUPPORTED | {errno.EISDIR, errno.ENOENT}
_COPY_SIZE: Final = 256 * 1024  # bytes

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}

StrPath = str | os.PathLike[str]


def explain(error: OSError | ValueError) -> str:
    """Return the system's reason for an error, in words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def is_full(error: OSError) -> bool:
    """Return whether a write failed because a disk, a quota or a size limit is full."""
    return error.errno in _FULL


def open_regular(path: StrPath, flags: int = os.O_RDONLY, *, follow_links: bool) -> int:
    """Open a regular file; return its descriptor. It never waits for what it opens.

    :param flags: O_RDONLY or O_RDWR, also with O_CREAT: a new file then has mode 0600.
    :param follow_links: open the target of a link. False where the file was found in a folder that
        others may write to; True for a path that the caller chose.
    :raises SourceError: it is a folder, a pipe, a socket, a device, or a link that is not followed.
    :raises OSError: it can't be opened.
    """
    # The descriptor stays non-blocking: some files of /proc are regular and would block a read.
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
    except OSError:
        # The system refuses some kinds itself, with errors that do not name the kind.
        if (kind := special_kind(path, follow_links=follow_links)) is None:
            raise
        raise _not_regular(path, kind) from None
    # The opened file is checked, not the path, so that it can't be exchanged in between.
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_regular(path, _kind(mode))
    return descriptor


def read_regular(path: StrPath, *, follow_links: bool) -> BinaryIO:
    """Return the regular file at ``path``, open for reading: see :func:`open_regular`."""
    return open(path, "rb", opener=lambda name, flags: open_regular(name, flags, follow_links=follow_links))


@contextmanager
def locked(path: StrPath, flags: int, *, follow_links: bool) -> Iterator[int]:
    """Yield a descriptor of the regular file at ``path``, locked against others that do the same.

    It waits for them. See :func:`open_regular`.

    :raises OSError: it can't be opened or locked, or another file took its place meanwhile.
    """
    descriptor = open_regular(path, flags, follow_links=follow_links)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        check_still_there(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def check_still_there(descriptor: int, path: StrPath) -> None:
    """Raise OSError (ESTALE) if another file took the place of the open one at ``path``."""
    if not os.path.samestat(os.fstat(descriptor), os.stat(path)):  # noqa: PTH116  # any kind of path
        raise OSError(errno.ESTALE, "the file was replaced meanwhile: do it again", os.fsdecode(path))


def keep_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Give an open file the owner, group, mode, extended attributes and times of another.

    :param status: the other one's status, from before it was read.
    :raises OSError: one of them can't be kept.
    """
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        names = []
    for name in names:
        value = os.getxattr(source, name)
        # What the system has set itself, such as a security label, may not be ours to set.
        if name not in os.listxattr(target) or os.getxattr(target, name) != value:
            os.setxattr(target, name, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def special_kind(path: StrPath, *, follow_links: bool = True) -> str | None:
    """Return what is at ``path``, in words, unless it is a regular file or nothing.

    It is for messages only: what is at ``path`` may be another file a moment later.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow_links).st_mode  # noqa: PTH116  # any kind of path
    except OSError:
        return None
    return None if stat.S_ISREG(mode) else _kind(mode)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def _not_regular(path: StrPath, kind: str) -> SourceError:
    return SourceError(f"{os.fsdecode(path)} is {kind}, not a regular file")


def make_private_folder(path: Path) -> os.stat_result:
    """Create the folder ``path`` with mode 0700 if it is missing; return its status in any case.

    :raises OSError: it can't be created, or there is something else in its place.
    """
    path.mkdir(PRIVATE_FOLDER, exist_ok=True)
    return path.stat()


def others_can_write(status: os.stat_result) -> bool:
    """Return whether users other than the owner can write to a file or folder."""
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def flush_folder(directory: Path) -> None:
    """Flush the names in a folder to disk.

    Without it, a power cut may remove the name of a new file, or bring an old name back. Some file
    systems can't flush a folder: there it does nothing.

    :raises PermissionError: this user can't read the folder.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def create_private(path: StrPath, flags: int = os.O_WRONLY) -> int:
    """Create the file ``path`` with mode 0600; return its descriptor.

    :param flags: flags besides O_CREAT, O_EXCL, O_NOFOLLOW and O_CLOEXEC.
    :raises FileExistsError: there is something at ``path``, even a dangling link.
    """
    always = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags | always, PRIVATE_FILE)


def share_with_group(descriptor: int, folder: Path) -> None:
    """Let the group of an open private file read it, if the group may list its folder."""
    if folder.stat().st_mode & stat.S_IRGRP:
        os.fchmod(descriptor, PRIVATE_FILE | stat.S_IRGRP)


@contextmanager
def write_new(path: Path) -> Iterator[BinaryIO]:
    """Yield a new private file; flush it and its name to disk when the block ends.

    After an error, the file is removed.

    :raises FileExistsError: there is something at ``path``.
    """
    descriptor = create_private(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _flush_names(path.parent)
    except BaseException:
        # On any exception, an interrupt too: half a file must not pass for one.
        with suppress(FileNotFoundError):
            path.unlink()
        raise


@contextmanager
def write_atomically(
    target: StrPath, *, overwrite: bool = False, keep_owner: bool = False
) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes ``target`` if the block ends without an error.

    After an error, the file is removed.

    :param overwrite: replace an existing target. Without it, an existing target is a
        :class:`ConfigurationError`, also if another process creates it in the meantime. So is a
        target that is not a regular file, in any case. A link is replaced, not what it leads to.
    :param keep_owner: a target that is replaced keeps its owner, group and mode.
    :raises OSError: it can't be written; the error names ``target``, not the temporary file.
    """
    path = Path(target)
    if path.exists() and not overwrite:
        raise _exists(path)
    if (kind := special_kind(path)) is not None:
        # A rename over /dev/null or a named pipe would replace it for everybody.
        raise ConfigurationError(f"{path} is {kind}, not a regular file, and will not be replaced")
    temporary = path.with_name(f"{_temporary_start(path)}{token_hex(8)}.tmp")
    try:
        # Inside the block: a signal between the creation of the file and the block would leave it
        # behind.
        with _told_of(path):
            descriptor = _unnamed(path.parent)
            unnamed = descriptor is not None
            file = os.fdopen(_new_locked(temporary) if descriptor is None else descriptor, "w+b")
        with file:
            yield file
            with _told_of(path):
                file.flush()
                if keep_owner:
                    _keep_owner(path, file.fileno())
                os.fsync(file.fileno())
                _put_in_place(file, temporary, path, unnamed=unnamed, overwrite=overwrite)
        _flush_name(path)
    finally:
        # After success the temporary name is gone already. KeyboardInterrupt passes here too.
        _remove_if_there(temporary)


def _remove_if_there(path: Path) -> None:
    """Remove a file. Where there is none, no reason counts why there can't be one.

    So an error that led here is not hidden, of a file system that is read-only for example.
    """
    try:
        path.unlink()
    except OSError:
        if os.path.lexists(path):
            raise


def remove_stale(target: StrPath) -> list[Path]:
    """Remove what killed processes left that were writing ``target``; return what it was.

    What a living process still writes is locked, and stays. In a folder that can't be listed
    nothing is found.
    """
    path = Path(target)
    ours = re.compile(re.escape(_temporary_start(path)) + r"[0-9a-f]{16}\.tmp", re.ASCII)
    try:
        found = [other for other in path.parent.iterdir() if ours.fullmatch(other.name)]
    except OSError:
        return []
    return [other for other in found if _is_removed(other)]


def temporary_of(path: Path) -> Path | None:
    """Return the file that ``path`` was to become, by its name; None if it is no temporary name."""
    found = _TEMPORARY.fullmatch(path.name)
    return None if found is None else path.with_name(found[1])


def _is_removed(path: Path) -> bool:
    try:
        descriptor = open_regular(path, os.O_RDWR, follow_links=False)
    except (OSError, SourceError):  # it is not ours
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _temporary_start(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:TEMPORARY_NAME])}."


def _unnamed(folder: Path) -> int | None:
    """Return a new file without a name in ``folder``; None where there are no such files."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        return None  # if the folder is missing, the named file says so
    if not os.path.exists(f"/proc/self/fd/{descriptor}"):  # noqa: PTH110  # without it, it gets no name
        os.close(descriptor)
        return None
    _lock(descriptor)
    return descriptor


def _new_locked(path: Path) -> int:
    """Return the new file ``path``, locked so that :func:`remove_stale` does not take it."""
    while True:
        descriptor = create_private(path, os.O_RDWR)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # removed before it was locked


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # no locks here; then there are none for remove_stale either
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _keep_owner(path: Path, descriptor: int) -> None:
    """Give the open file the owner, group and mode of the file at ``path``, if there is one."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        except PermissionError:
            raise ConfigurationError(
                f"{path} belongs to user {status.st_uid} and group {status.st_gid}, and this user can't keep that: "
                "run the command as its owner or as root, or write another file"
            ) from None
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Let an error be about the file that the user knows, not a temporary name or the folder."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, explain(error), os.fspath(path)) from None


def _put_in_place(file: BinaryIO, temporary: Path, path: Path, *, unnamed: bool, overwrite: bool) -> None:
    """Give the complete file its name."""
    own = Path(f"/proc/self/fd/{file.fileno()}")
    try:
        # link() fails if the target exists, in one step with the check; rename() would replace the
        # target.
        if not overwrite and _link(own if unnamed else temporary, path, file):
            return
    except FileExistsError:
        raise _exists(path) from None
    # A rename needs a name to begin with. Without hard links, the check that was made before the
    # file was written has to suffice.
    if unnamed and not _link(own, temporary, file):
        _copy(file, temporary)
    temporary.replace(path)


def _link(source: Path, target: Path, file: BinaryIO) -> bool:
    """Link a file to another name; return False where the file system has no hard links."""
    try:
        # Python follows the link in /proc only if it is given a descriptor, which an absolute path
        # makes meaningless: any will do.
        os.link(source.absolute(), target, src_dir_fd=file.fileno(), follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _copy(file: BinaryIO, target: Path) -> None:
    """Copy a file without a name into the new file ``target``, with all of its attributes."""
    status = os.fstat(file.fileno())
    with os.fdopen(_new_locked(target), "wb") as copy:
        file.seek(0)
        while data := file.read(_COPY_SIZE):
            copy.write(data)
        copy.flush()
        keep_attributes(file.fileno(), copy.fileno(), status)
        os.fsync(copy.fileno())


def _flush_name(path: Path) -> None:
    try:
        _flush_names(path.parent)
    except OSError as error:
        # It has its name: an error that says nothing of that would be false.
        text = f"it was written, but a power cut may undo that: {explain(error)}"
        raise OSError(error.errno, text, os.fspath(path)) from None


def _flush_names(folder: Path) -> None:
    try:
        flush_folder(folder)
    except PermissionError:
        # This user may write to the folder and not read it. Then only everything can be flushed.
        os.sync()


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} exists already: choose another name, or allow it to be replaced (overwrite=True, --force)"
    )
