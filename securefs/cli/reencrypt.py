"""``securefs reencrypt``: give files new data keys, because a file key leaked.

It ends with 0 only if no file under the paths has a data key that another key had. A second run
continues where the first one ended. With a journal, nothing is changed that it can't record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.audit import Entry
from securefs.bulk import Status, reencrypt_one, walk
from securefs.cli.contexts import selection
from securefs.cli.importing import refuse_own_files
from securefs.cli.operator import keep
from securefs.cli.report import Report
from securefs.cli.service import journal_of
from securefs.cli.terminal import Progress
from securefs.errors import ConfigurationError, Reason
from securefs.keys import Keyring
from securefs.suites import Suite

if TYPE_CHECKING:
    import argparse

    from securefs.bulk import Verdict
    from securefs.reencryption import Before

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Write the named files, and the encrypted files in the named folders, anew."""
    keyring = Keyring.from_env()
    chosen = selection(arguments)
    if chosen.recorded is not None and not (arguments.keep_ids or arguments.dry_run):
        raise ConfigurationError(
            "the reference app finds its files by their object ids, which change: give --keep-ids"
        )
    refuse_own_files(chosen.paths)
    done = Status.DUE if arguments.dry_run else Status.REENCRYPTED
    seen = 0
    with (
        journal_of(wanted=not arguments.dry_run) as journal,
        Progress.over(lambda: sum(found.size for found in walk(chosen.paths)), arguments) as progress,
    ):
        report = Report(arguments, (done, Status.UNCHANGED, Status.FAILED), 12, progress)
        for found in walk(chosen.paths):
            if journal is not None:
                journal.check()  # before anything is changed
            verdict = reencrypt_one(
                found,
                keyring,
                chosen.context_of,
                everything=arguments.all,
                again=arguments.again,
                dry_run=arguments.dry_run,
                suite=Suite.parse(arguments.suite) if arguments.suite else None,
                keep_id=arguments.keep_ids,
                break_links=arguments.break_links,
                on_bytes=progress.add,
            )
            if journal is not None and (verdict.status is Status.REENCRYPTED or verdict.failed):
                keep(journal, _record(verdict))
            report.add(verdict, _about(verdict))
            seen += found.size
            progress.reach(seen)
    return report.end(note=_note(arguments, report))


def _note(arguments: argparse.Namespace, report: Report) -> str:
    if arguments.dry_run:
        return "; --dry-run: nothing was changed"
    if report.counts[Status.REENCRYPTED] and not arguments.keep_ids:
        return "; object ids changed: tell an app that recorded them (--json has the old and the new ones)"
    return ""


def _record(verdict: Verdict) -> Entry:
    about: dict[str, str | int] = {"name": verdict.path.name}
    if (info := verdict.info) is None or (before := verdict.before) is None:
        return Entry("key.reencrypt", "failure", verdict.reason or Reason.IO_ERROR, about)
    about |= {"id": info.object_id, "key_id": info.key_id}
    return Entry(
        "key.reencrypt",
        "success",
        None,
        {**about, "old_id": before.object_id, "old_key_id": before.key_id},
    )


def _about(verdict: Verdict) -> dict[str, object]:
    if (before := verdict.before) is None:
        return {}
    if (info := verdict.info) is None:
        return {"object_id": before.object_id, "key_id": before.key_id, **_others(before)}
    return {
        "object_id": info.object_id,
        "key_id": info.key_id,
        "size": info.size,
        "old_object_id": before.object_id,
        "old_key_id": before.key_id,
        **_others(before),
    }


def _others(before: Before) -> dict[str, object]:
    return {"other_keys": list(before.other_keys)} if before.other_keys else {}
