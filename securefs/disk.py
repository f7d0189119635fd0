"""Writes files and folders to disk; the lowest layer.

:func:`write_atomically` writes a temporary file beside the target, with mode 0600, flushes it to
disk, and then puts it in place in one step. Any failure before that step (a full disk, a failed
verification, Ctrl-C) removes the temporary file and leaves the target as it was.
:func:`flush_folder` makes a new name durable. :func:`make_private_folder` creates a folder that
only its owner can access.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StrPath", "flush_folder", "make_private_folder", "others_can_write", "write_atomically"]

PRIVATE_FOLDER: Final = 0o700
# Bytes of the target's name that the temporary name repeats. The whole name stays under NAME_MAX
# (255 bytes).
TEMPORARY_NAME: Final = 128

StrPath = str | os.PathLike[str]


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


@contextmanager
def write_atomically(target: StrPath, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes ``target`` if the block ends without an error.

    After an error, the file is removed.

    :param overwrite: replace an existing target. Without it, an existing target is a
        :class:`ConfigurationError`, also if another process creates it in the meantime.
    """
    path = Path(target)
    if path.exists() and not overwrite:
        raise _exists(path)
    start = os.fsdecode(os.fsencode(path.name)[:TEMPORARY_NAME])
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{start}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _put_in_place(temporary, path, overwrite=overwrite)
        flush_folder(path.parent)
    finally:
        # After success the temporary name is gone already. KeyboardInterrupt passes here too.
        with suppress(FileNotFoundError):
            temporary.unlink()


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
