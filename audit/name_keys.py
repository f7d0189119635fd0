"""Keys of pseudonyms that stand outside the journal's folder, one for each month.

Guarantees: a name has one pseudonym in a month (UTC), and another one in every other month. Whoever
destroys the key of a month makes its pseudonyms those of nobody: no one can check a guess at them
any more, and the journal verifies as before. A key is made when it is first needed, by one of the
processes that need it. Refuses: a folder in the journal's own folder, because a copy of the journal
would hold the keys; a folder that others can write to; and a key that others can read.

Implements the section on names of ``docs/journal.md``.
"""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.arguments import require, require_path
from securefs.audit.folder import prepare_folder
from securefs.audit.pseudonym import KEY_FILE, load_key, load_or_create
from securefs.disk import explain
from securefs.errors import ConfigurationError
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.audit.pseudonym import Kind, Pseudonyms

__all__ = ["NameKeys", "hash_name", "hash_names", "period_of", "prepare_keys"]

_PERIOD: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_KEY: Final = re.compile(rf"({_PERIOD.pattern})\.key")
_SECOND: Final = 1_000_000_000  # nanoseconds
_WHAT: Final = "the folder of the pseudonyms' keys"


class NameKeys:
    """The pseudonyms of the present month, under a key that is made if there is none.

    :raises ConfigurationError: the folder can't be used, or the key of this month.
    """

    @clears_frames
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._period = range(0)  # nanoseconds
        self.at(time.time_ns())

    def at(self, now: int) -> Pseudonyms:
        """Return the pseudonyms of the month of ``now``, in nanoseconds since 1970-01-01 UTC.

        :raises ConfigurationError: the key can't be created, or is not fit for use.
        """
        if not self._period.start <= now < self._period.stop:
            name, period = period_of(now)
            self._pseudonyms = load_or_create(self._folder, _file(name), _WHAT)
            self._period = period
        return self._pseudonyms


def prepare_keys(folder: str | os.PathLike[str], journal: Path | None) -> Path:
    """Return the absolute path of the folder of keys; create it if only it is missing.

    :param journal: the journal's folder, if it has one.
    :raises ConfigurationError: it can't be used.
    """
    require_path("names_key", folder)
    path = prepare_folder(folder, _WHAT)
    if journal is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(journal)):
        raise ConfigurationError(
            f"{_WHAT} {path} is in the journal's folder: a copy of the journal would hold them; name another"
        )
    return path


@clears_frames
def hash_name(
    directory: str | os.PathLike[str] | None,
    text: str,
    kind: Kind = "name",
    *,
    names_key: str | os.PathLike[str] | None = None,
    period: str | None = None,
) -> str:
    """Return the pseudonym of ``text`` in a journal (``securefs audit hash``).

    :param directory: the journal's folder: its own key is used unless ``names_key`` is given.
    :param names_key: the folder of keys outside it. :param period: a month such as ``2026-11``, of
        which ``names_key`` has the key; None: this month.
    :raises ConfigurationError: there is no such key that can be used. None is created.
    """
    require("text", text, str, "a str")
    if names_key is None:
        if period is not None:
            raise ConfigurationError(
                "a period is for keys by period: name their folder (names_key, --names-key)"
            )
        require_path("directory", directory)
        return load_key(Path(directory or "") / KEY_FILE).of(kind, text)
    require_path("names_key", names_key)
    period = period_of(time.time_ns())[0] if period is None else period
    require("period", period, str, "a str")
    if not _PERIOD.fullmatch(period):
        raise ConfigurationError(f"the period {ascii(period)[:40]} is not a month such as 2026-11")
    path = Path(names_key) / _file(period)
    if not os.path.lexists(path):
        raise ConfigurationError(
            f"there is no key {path}: nothing was recorded in that month, or its key was destroyed"
        )
    return load_key(path).of(kind, text)


@clears_frames
def hash_names(
    directory: str | os.PathLike[str] | None,
    text: str,
    kind: Kind = "name",
    *,
    names_key: str | os.PathLike[str] | None = None,
) -> Mapping[str, str]:
    """Return the pseudonyms of ``text`` under every key that there is: period and pseudonym.

    The key in the journal's folder, if there is one, is the first, with an empty period.

    :raises ConfigurationError: a key, or the folder of keys, can't be used.
    """
    found: dict[str, str] = {}
    if directory is not None and os.path.lexists(Path(directory) / KEY_FILE):
        found[""] = hash_name(directory, text, kind)
    for period in [] if names_key is None else _periods(Path(names_key)):
        found[period] = hash_name(None, text, kind, names_key=names_key, period=period)
    return found


def period_of(now: int) -> tuple[str, range]:
    """Return the month of ``now`` as ``2026-11``, and the nanoseconds of it. UTC."""
    moment = datetime.fromtimestamp(now // _SECOND, timezone.utc)
    start = datetime(moment.year, moment.month, 1, tzinfo=timezone.utc)
    end = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=timezone.utc)
    return f"{start:%Y-%m}", range(int(start.timestamp()) * _SECOND, int(end.timestamp()) * _SECOND)


def _file(period: str) -> str:
    return f"{period}.key"


def _periods(folder: Path) -> list[str]:
    try:
        return sorted(match[1] for path in folder.iterdir() if (match := _KEY.fullmatch(path.name)))
    except OSError as error:
        raise ConfigurationError(f"cannot read {_WHAT} {folder}: {explain(error)}") from error
