"""Which files a command means, and the context that each of them is bound to.

One context for all of them, what a function says (``--context-from``), or what the reference app
has recorded (``--data-dir``): its files are bound to their owners.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from securefs.bulk import SUFFIX, Status, Verdict
from securefs.errors import ConfigurationError, IntegrityError, Reason

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

__all__ = ["Recorded", "Selection", "check_format_1", "selection"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The paths of a command, and the context of each file in them.

    :ivar context_of: raises :class:`IntegrityError` for a file whose context is not known.
    :ivar recorded: the reference app's records, None without ``--data-dir``.
    :ivar complete: all of the app's files are among the paths.
    """

    paths: list[str]
    context_of: Callable[[Path], bytes]
    recorded: Recorded | None = None
    complete: bool = False


def selection(arguments: argparse.Namespace) -> Selection:
    """Return what the arguments select. ``arguments.paths`` becomes what they stand for.

    :raises ConfigurationError: no path is named, or an option is not usable.
    """
    paths: list[str] = arguments.paths
    if arguments.data_dir is not None:
        recorded = Recorded.at(Path(arguments.data_dir))
        arguments.paths = paths or [str(recorded.files)]
        return Selection(arguments.paths, recorded.context, recorded, complete=not paths)
    if not paths:
        raise ConfigurationError(
            "no PATH is named: name files or folders, or the app's folder with --data-dir"
        )
    if arguments.context_from is not None:
        return Selection(paths, _function(arguments.context_from))
    return Selection(paths, lambda _path: cast("bytes", arguments.context))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the reference app has recorded of its files: their ids and owners."""

    database: Path
    files: Path

    @classmethod
    def at(cls, folder: Path) -> Recorded:
        """Return the records of the app whose data folder this is. Nothing is created.

        :raises ConfigurationError: there are none.
        """
        from securefs.app.database import DATABASE_NAME  # noqa: PLC0415  # SQLite, only where it is needed

        database = folder / DATABASE_NAME
        if not database.is_file():
            raise ConfigurationError(f"--data-dir: there is no {DATABASE_NAME} in {folder}")
        return cls(database, folder / "files")

    def context(self, path: Path) -> bytes:
        """Return the context of the file at ``path``: its owner's."""
        from securefs.app import owner_context  # noqa: PLC0415

        owners = self._select("SELECT owner FROM files WHERE object_id = ?", path.name.removesuffix(SUFFIX))
        for owner in owners:
            return owner_context(owner)
        raise IntegrityError(
            "the app has no record of it: an upload that is under way, or that a crash ended",
            Reason.WRONG_CONTEXT,
        )

    def checked(self, verdict: Verdict) -> Verdict:
        """Return the verdict, or a failure if the file is another than the one of its name."""
        if verdict.info is None or verdict.path.name == verdict.info.object_id + SUFFIX:
            return verdict
        message = f"it is the file {verdict.info.object_id}, in the place of another"
        return Verdict(verdict.path, Status.FAILED, message, Reason.WRONG_OBJECT)

    def missing(self) -> Iterator[Verdict]:
        """Yield a failure for each file that is recorded and not there."""
        for object_id in self._select("SELECT object_id FROM files ORDER BY number"):
            path = self.files / (object_id + SUFFIX)
            if not os.path.lexists(path):
                message = "the app has a record of it, and it is missing"
                yield Verdict(path, Status.FAILED, message, Reason.IO_ERROR)

    def _select(self, query: str, *values: str) -> list[str]:
        from securefs.app.database import transaction  # noqa: PLC0415

        with transaction(self.database, write=False) as database:
            return [value for (value,) in database.execute(query, values)]


def _function(name: str) -> Callable[[Path], bytes]:
    """Return the function that ``MODULE:FUNCTION`` names, with its errors told in one line."""
    module, _, attribute = name.partition(":")
    # As `python -m` does: the app's own modules are there.
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"--context-from {name}: {error}: give MODULE:FUNCTION") from None
    finally:
        sys.path.remove(str(Path.cwd()))

    def context(path: Path) -> bytes:
        try:
            found = function(str(path))
        except LookupError:
            raise IntegrityError(f"{name} knows no context of it", Reason.WRONG_CONTEXT) from None
        except Exception as error:  # noqa: BLE001  # whatever it raises: it is not our code
            raise ConfigurationError(
                f"--context-from: {name} raised {type(error).__name__} for {path}: it must return bytes, or raise LookupError"
            ) from None
        if not isinstance(found, bytes):
            raise ConfigurationError(
                f"--context-from: {name} returned {type(found).__name__} for {path}, not bytes"
            )
        return found

    return context


def check_format_1(arguments: argparse.Namespace) -> None:
    """Refuse a context together with ``--format-1``."""
    bound = (
        arguments.context or getattr(arguments, "context_from", None) or getattr(arguments, "data_dir", None)
    )
    if arguments.format_1 and bound:
        raise ConfigurationError(
            "--format-1 has no place for --context: Format 1 binds none, and would ignore it"
        )
