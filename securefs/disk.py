"""Opens, writes and replaces files on a disk; the lowest layer.

A new file is private (mode 0600) and never replaces another (:func:`create_private`).
:func:`write_new` and :func:`write_atomically` flush a file and its name to disk. Any failure before
that (a full disk, a failed verification, a signal) removes the incomplete file and leaves an
existing target as it was.

:func:`open_regular` opens regular files only. Whoever can write to a folder can put a pipe, a
device or a link in a file's place: a pipe blocks the reader until somebody writes to it, a device
may never end, and a link leads to another file. Such a file is refused without waiting for it.
"""

from __future__ import annotations

import errno
import os
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
    "create_private",
    "explain",
    "flush_folder",
    "is_full",
    "make_private_folder",
    "open_regular",
    "others_can_write",
    "read_regular",
    "special_kind",
    "write_atomically",
    "write_new",
]

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600
# Bytes of the target's name that the temporary name repeats. The whole name stays under NAME_MAX
# (255 bytes).
TEMPORARY_NAME: Final = 128
# A file that exceeds the size limit of the process or the file system is the same as a full disk.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

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

    Without it, a power cut may remove the name of a new file, or bring an old name back.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_private(path: StrPath, flags: int = os.O_WRONLY) -> int:
    """Create the file ``path`` with mode 0600; return its descriptor.

    :param flags: flags besides O_CREAT, O_EXCL, O_NOFOLLOW and O_CLOEXEC.
    :raises FileExistsError: there is something at ``path``, even a dangling link.
    """
    always = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags | always, PRIVATE_FILE)


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
        flush_folder(path.parent)
    except BaseException:
        # On any exception, an interrupt too: half a file must not pass for one.
        with suppress(FileNotFoundError):
            path.unlink()
        raise


@contextmanager
def write_atomically(target: StrPath, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes ``target`` if the block ends without an error.

    After an error, the file is removed.

    :param overwrite: replace an existing target. Without it, an existing target is a
        :class:`ConfigurationError`, also if another process creates it in the meantime. So is a
        target that is not a regular file, in any case.
    :raises OSError: it can't be written; the error names ``target``, not the temporary file.
    """
    path = Path(target)
    if path.exists() and not overwrite:
        raise _exists(path)
    if (kind := special_kind(path)) is not None:
        # A rename over /dev/null or a named pipe would replace it for everybody.
        raise ConfigurationError(f"{path} is {kind}, not a regular file, and will not be replaced")
    start = os.fsdecode(os.fsencode(path.name)[:TEMPORARY_NAME])
    temporary = path.with_name(f".{start}.{token_hex(8)}.tmp")
    try:
        # Inside the block: a signal between the creation of the file and the block would leave it
        # behind.
        with _named(temporary, path), os.fdopen(create_private(temporary), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _named(temporary, path):
            _put_in_place(temporary, path, overwrite=overwrite)
            flush_folder(path.parent)
    finally:
        # After success the temporary name is gone already. KeyboardInterrupt passes here too.
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


@contextmanager
def _named(temporary: Path, path: Path) -> Iterator[None]:
    """Put the name that the user knows into an error about the temporary file."""
    try:
        yield
    except OSError as error:
        if error.filename == os.fspath(temporary):
            raise OSError(error.errno, explain(error), os.fspath(path)) from None
        raise


def _put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            # link() fails if the target exists, in one step with the check; rename() would replace
            # the target.
            os.link(temporary, path)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
                raise
            # This file system has no hard links: the check above has to suffice.
        else:
            return
    temporary.replace(path)


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} exists already: choose another name, or allow it to be replaced (overwrite=True, --force)"
    )
