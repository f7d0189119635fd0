"""The floor: how anything here is put on a disk.

:func:`write_atomically` writes a file: a temporary one beside the target, mode 0600, flushed to
    disk, then put in its place in one
step. Whatever goes wrong in between (a full disk, a failed verification, Ctrl-C) removes the
temporary file and leaves the target as it was. :func:`flush_folder` makes a new name last,
:func:`make_private_folder` makes a folder of one user's.
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
TEMPORARY_NAME: Final = (
    128  # bytes of the target's name in the temporary one's: together under NAME_MAX (255)
)

StrPath = str | os.PathLike[str]


def make_private_folder(path: Path) -> os.stat_result:
    """Make the folder ``path``, mode 0700, where there is none; return its status, whoever made it.

    :raises OSError: it can't be made, or there is something else in its place.
    """
    path.mkdir(PRIVATE_FOLDER, exist_ok=True)
    return path.stat()


def others_can_write(status: os.stat_result) -> bool:
    """Tell whether users other than its owner can write to a file or folder."""
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def flush_folder(directory: Path) -> None:
    """Flush a folder's names to disk: without it a power cut may take a new file's name, or bring an old one back."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_atomically(target: StrPath, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes ``target`` when the block ends without an error, and else vanishes.

    :param overwrite: replace an existing target; without it that is a :class:`ConfigurationError`,
        also where another process creates the target in the meantime.
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
        # Gone already where all went well; KeyboardInterrupt passes here too.
        with suppress(FileNotFoundError):
            temporary.unlink()


def _put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            # link() fails where the target exists, in one step with the check; rename() would
            # replace it.
            os.link(temporary, path)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
                raise
            # This file system has no hard links: the check above must do.
        else:
            return
    temporary.replace(path)


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} exists already: choose another name, or say that it may be replaced")
