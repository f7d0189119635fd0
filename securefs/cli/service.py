"""The journal of a command; folders of a service are not written to as root.

A file that root makes there belongs to root, and the service, which runs as another user, can't
read or continue it: after a ``sudo securefs rewrap`` it would not start.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit import Journal
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["journal_of", "refuse_root"]

_ROOT: Final = 0  # user id


@contextmanager
def journal_of(*, wanted: bool = True) -> Iterator[Journal | None]:
    """Yield the journal in ``SECUREFS_AUDIT_DIR``, None if there is none, or if it is not wanted.

    Its lines on standard error would mix with the messages.
    """
    folder = os.environ.get("SECUREFS_AUDIT_DIR")
    if folder is None or not wanted:
        yield None
        return
    refuse_root("SECUREFS_AUDIT_DIR", folder)
    journal = Journal.from_env()
    try:
        yield journal
    finally:
        journal.close()


def refuse_root(variable: str, folder: str) -> None:
    """Raise :class:`ConfigurationError` if this is root, and ``folder`` belongs to another user.

    Of a folder that is missing, the nearest one above it counts.

    :param variable: the setting that names the folder.
    """
    if os.geteuid() != _ROOT:
        return
    path = Path(os.path.abspath(folder))  # noqa: PTH100  # links stay
    existing = next(place for place in (path, *path.parents) if place.exists())
    owner = existing.stat().st_uid
    if owner != _ROOT:
        name = _name(owner)
        raise ConfigurationError(
            f"{variable}: {existing} belongs to {name}, and this is root, whose files {name} could not use; "
            f"run the command as that user (sudo -u {name}), or without {variable}"
        )


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"  # as sudo takes it
