"""``securefs rewrap``: let the primary key, and no previous one, open files.

It ends with 0 only if no file under the paths still needs a previous key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.audit import Entry
from securefs.bulk import Status, rewrap_one, walk
from securefs.cli.contexts import selection
from securefs.cli.operator import keep
from securefs.cli.report import Report
from securefs.cli.service import journal_of
from securefs.cli.terminal import Progress
from securefs.errors import Reason
from securefs.keys import Keyring

if TYPE_CHECKING:
    import argparse

    from securefs.bulk import Verdict

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Rewrap the named files, and the encrypted files in the named folders."""
    keyring = Keyring.from_env()
    chosen = selection(arguments)
    shown = (Status.REWRAPPED, Status.UNCHANGED, Status.FAILED)
    with (
        journal_of() as journal,
        Progress.over(lambda: sum(1 for _ in walk(chosen.paths)), arguments, unit="files") as progress,
    ):
        report = Report(arguments, shown, 11, progress)
        for found in walk(chosen.paths):
            if journal is not None:
                journal.check()  # before anything is changed
            verdict = rewrap_one(found, keyring, chosen.context_of, everything=arguments.all)
            if journal is not None and (verdict.status is Status.REWRAPPED or verdict.failed):
                keep(journal, _record(verdict))
            report.add(verdict, _about(verdict))
            progress.add(1)
    unverified = arguments.context is None
    return report.end(note="; --any-context: commitments were not verified" if unverified else "")


def _record(verdict: Verdict) -> Entry:
    about: dict[str, str | int] = {"name": verdict.path.name}
    if (done := verdict.rewrapped) is None:
        return Entry("key.rewrap", "failure", verdict.reason or Reason.IO_ERROR, about)
    return Entry("key.rewrap", "success", None, {**about, "id": done.object_id, "key_id": done.key_id})


def _about(verdict: Verdict) -> dict[str, object]:
    if (done := verdict.rewrapped) is None:
        return {}
    return {
        "object_id": done.object_id,
        "key_id": done.key_id,
        "removed": list(done.removed),
        "changed": done.changed,
    }
