"""``securefs import``: encrypt files in place that are there already.

A second run continues where the first one ended, because what is encrypted is left alone. With a
journal, nothing is changed that it can't record.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit import Entry
from securefs.bulk import Status, import_one, walk
from securefs.cli.contexts import selection
from securefs.cli.operator import keep
from securefs.cli.report import Report
from securefs.cli.service import journal_of
from securefs.cli.terminal import Progress
from securefs.errors import ConfigurationError, Reason
from securefs.keys import PRIMARY_VARIABLE, Keyring
from securefs.suites import Suite

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from securefs.bulk import Verdict
    from securefs.files import FileInfo

__all__ = ["imported", "refuse_own_files", "run"]

# Settings that name what must stay readable for the service itself.
_KEPT: Final = (f"{PRIMARY_VARIABLE}_FILE", f"{PRIMARY_VARIABLE}_PREVIOUS_FILE", "SECUREFS_AUDIT_DIR")


def run(arguments: argparse.Namespace) -> int:
    """Encrypt the named files, and the files in the named folders, in place."""
    keyring = Keyring.from_env()
    chosen = selection(arguments)
    refuse_own_files(chosen.paths)
    suite = Suite.parse(arguments.suite or Suite.CBC_HMAC.label)
    done = Status.PLANNED if arguments.dry_run else Status.IMPORTED
    seen = 0
    with (
        journal_of(wanted=not arguments.dry_run) as journal,
        Progress.over(lambda: sum(found.size for found in walk(chosen.paths)), arguments) as progress,
    ):
        report = Report(arguments, (done, Status.UNCHANGED, Status.FAILED), 11, progress)
        for found in walk(chosen.paths):
            if journal is not None:
                journal.check()  # before anything is changed
            verdict = import_one(
                found,
                keyring,
                chosen.context_of,
                suite=suite,
                dry_run=arguments.dry_run,
                break_links=arguments.break_links,
                on_bytes=progress.add,
            )
            if journal is not None and (verdict.status is Status.IMPORTED or verdict.failed):
                keep(journal, imported(verdict.path, verdict.info, verdict.reason))
            report.add(verdict, _about(verdict))
            seen += found.size
            progress.reach(seen)
    return report.end(note="; --dry-run: nothing was changed" if arguments.dry_run else "")


def refuse_own_files(names: Sequence[str]) -> None:
    """Raise :class:`ConfigurationError` if a key file or the journal is under one of the paths."""
    roots = [Path(name).resolve() for name in names]
    for variable in _KEPT:
        if (text := os.environ.get(variable, "").strip()) and any(
            path in roots for path in (Path(text).resolve(), *Path(text).resolve().parents)
        ):
            raise ConfigurationError(
                f"{text}, which {variable} names, is under the paths: name the folder of the app's files alone"
            )


def imported(path: Path, info: FileInfo | None, reason: Reason | None) -> Entry:
    """Return the record of a file that was encrypted, or could not be (``info`` is None)."""
    name = path.name
    if info is None:
        return Entry("file.import", "failure", reason or Reason.IO_ERROR, {"name": name})
    about: dict[str, str | int] = {"id": info.object_id, "key_id": info.key_id, "suite": info.suite}
    return Entry(
        "file.import", "success", None, {**about, "format": info.format, "size": info.size, "name": name}
    )


def _about(verdict: Verdict) -> dict[str, object]:
    info = verdict.info
    return {} if info is None else {"object_id": info.object_id, "key_id": info.key_id, "size": info.size}
