"""The journal's folder: that only those who run the journal can write to it, and that what is read there is a file.

Guarantees: a folder that is made here is made with mode 0700. Refuses: a path that is not a folder,
a folder that its group or everybody can write to, and one that belongs to another user: whoever can
write there can replace the evidence. Reading follows no link and waits for no pipe.

Implements the section on the folder of ``docs/journal.md``.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Final

from securefs.disk import explain, make_private_folder, others_can_write
from securefs.errors import ConfigurationError

__all__ = ["open_regular", "prepare_folder"]

_ROOT: Final = 0  # user id


def prepare_folder(directory: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the journal's folder, made if it was missing and its parent was not.

    :raises ConfigurationError: it cannot be made, is not a folder, or others can write to it.
    """
    try:
        # Absolute, because a server may change its working folder after this.
        path = Path(os.path.abspath(os.fspath(directory)))  # noqa: PTH100  (resolve() would follow links for good)
        status = path.stat() if path.exists() else make_private_folder(path)
    except (OSError, ValueError) as error:
        text = explain(error)
        raise ConfigurationError(
            f"cannot use the journal's folder {os.fspath(directory)!r}: {text}; "
            "name a folder that exists, or whose parent exists and is writable for this user"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"the journal's folder {path} is not a folder; name another")
    if others_can_write(status):
        raise ConfigurationError(f"others can write to the journal's folder {path}; run: chmod go-w {path}")
    _refuse_stranger(path, status.st_uid, os.geteuid())
    return path


def open_regular(path: Path) -> io.FileIO | None:
    """Open a file for reading, unbuffered. None when there is something else under this name, such as a link.

    :raises OSError: it is not there, or this user cannot read it.
    """
    # Without O_NOFOLLOW a link could lead to another file; without O_NONBLOCK a pipe would hold us
    # for ever.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if path.is_symlink():
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return io.FileIO(descriptor, "rb")


def _refuse_stranger(path: Path, owner: int, user: int) -> None:
    # Root may use a server's folder: it starts servers that then become that user.
    if user not in {owner, _ROOT} and owner != _ROOT:
        raise ConfigurationError(
            f"the journal's folder {path} belongs to user {owner}, this is user {user}; name a folder of its own"
        )
