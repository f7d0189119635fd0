"""What a command records: who ran it, and what it opened.

The actor of a record is the user of this process, as the system names it: the one that
``securefs audit hash --principal NAME`` finds.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from typing import TYPE_CHECKING

from securefs.audit import Entry
from securefs.errors import IntegrityError, Reason, SecureFSError, UnknownKeyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.audit import Journal

__all__ = ["keep", "record", "record_failure"]


def record(
    journal: Journal | None,
    event: str,
    outcome: str = "success",
    reason: Reason | None = None,
    about: Mapping[str, str | int | None] | None = None,
) -> None:
    """Write a record, if there is a journal; members of ``about`` that are empty are left out.

    :raises JournalError: it can't be written.
    """
    if journal is not None:
        obj = {name: value for name, value in (about or {}).items() if value not in {None, ""}}
        keep(journal, Entry(event, outcome, reason, obj))


def keep(journal: Journal, entry: Entry) -> None:
    """Write a record with the user of this process as its actor.

    :raises JournalError: it can't be written.
    """
    journal.record(replace(entry, actor=_user(os.geteuid())))


def record_failure(journal: Journal | None, error: SecureFSError | OSError, name: str) -> None:
    """Record that a stored file could not be opened, or does not verify.

    :raises JournalError: it can't be written.
    """
    broken = isinstance(error, (IntegrityError, UnknownKeyError))
    reason = error.reason if isinstance(error, SecureFSError) else None
    event = "file.integrity_failure" if broken else "file.open"
    record(journal, event, "failure", reason or Reason.IO_ERROR, {"name": name})


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"  # as sudo takes it
