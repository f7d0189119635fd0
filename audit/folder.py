"""The journal's folder: only its user may write to it, and only regular files are read.

Guarantees: a folder that is created here has mode 0700. Refuses: a path that is not a folder, a
folder that its group or everybody can write to, and a folder that belongs to another user, because
anyone who can write there can replace the evidence. Reading follows no link and does not wait for a
pipe.

Implements the section on the folder of ``docs/journal.md``.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Final

from securefs import disk
from securefs.disk import explain, make_private_folder, others_can_write
from securefs.errors import ConfigurationError, SourceError

__all__ = ["open_regular", "prepare_folder"]

_ROOT: Final = 0  # user id


def prepare_folder(directory: str | os.PathLike[str], what: str = "the journal's folder") -> Path:
    """Return the absolute path of the journal's folder; create it if only it is missing.

    :param what: what the folder is, for messages.
    :raises ConfigurationError: it cannot be created, is not a folder, or others can write to it.
    """
    try:
        # Absolute, because a server may change its working folder after this.
        # Not resolve(), which would follow links for good.
        path = Path(os.path.abspath(os.fspath(directory)))  # noqa: PTH100
        status = path.stat() if path.exists() else make_private_folder(path)
    except (OSError, ValueError) as error:
        text = explain(error)
        raise ConfigurationError(
            f"cannot use {what} {os.fspath(directory)!r}: {text}; "
            "name a folder that exists, or whose parent exists and is writable for this user"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{what} {path} is not a folder; name another")
    if others_can_write(status):
        raise ConfigurationError(f"others can write to {what} {path}; run: chmod go-w {path}")
    _refuse_stranger(path, status.st_uid, os.geteuid(), what)
    return path


def open_regular(path: Path) -> io.FileIO | None:
    """Open a regular file for reading, unbuffered; return None for anything else, such as a link.

    :raises OSError: it does not exist, or this user cannot read it.
    """
    try:
        return io.FileIO(disk.open_regular(path, follow_links=False), "rb")
    except SourceError:
        return None


def _refuse_stranger(path: Path, owner: int, user: int, what: str = "the journal's folder") -> None:
    # Root may use a server's folder: it starts servers that then become that user.
    if user not in {owner, _ROOT} and owner != _ROOT:
        raise ConfigurationError(
            f"{what} {path} belongs to user {owner}, this is user {user}; name a folder of its own"
        )
