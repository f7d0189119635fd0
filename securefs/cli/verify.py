"""``securefs verify``: verify every byte of files; tell what everything else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.bulk import Status, verify_one, walk
from securefs.cli.contexts import check_format_1, selection
from securefs.cli.report import Report, planted_slot
from securefs.cli.terminal import Progress
from securefs.keys import Keyring

if TYPE_CHECKING:
    import argparse

    from securefs.bulk import Verdict

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Verify every byte of the named files, and of the files in the named folders."""
    check_format_1(arguments)
    keyring = Keyring.from_env()
    chosen = selection(arguments)
    planted = seen = 0
    with Progress.over(lambda: sum(found.size for found in walk(chosen.paths)), arguments) as progress:
        report = Report(arguments, (Status.VERIFIED, Status.FAILED), 8, progress)
        for found in walk(chosen.paths):
            verdict = verify_one(
                found,
                keyring,
                chosen.context_of,
                format_1=arguments.format_1,
                everything=arguments.all,
                on_bytes=progress.add,
            )
            if chosen.recorded is not None:
                verdict = chosen.recorded.checked(verdict)
            report.add(verdict, _about(verdict))
            planted += _tell_planted(verdict, report, arguments)
            seen += found.size
            progress.reach(seen)  # headers and tags count, too, and what failed
        if chosen.recorded is not None and chosen.complete:
            for verdict in chosen.recorded.missing():
                report.add(verdict, {})
    return report.end({"planted": planted})


def _tell_planted(verdict: Verdict, report: Report, arguments: argparse.Namespace) -> bool:
    """Tell of each slot that does not fit; return whether there is one."""
    if verdict.info is None:
        return False
    if not arguments.json:
        for slot, key_id in verdict.info.passed_over:
            report.line("PLANTED", verdict, planted_slot(slot, key_id, verdict.info.key_id))
    return bool(verdict.info.passed_over)


def _about(verdict: Verdict) -> dict[str, object]:
    info = verdict.info
    if info is None:
        return {}
    about: dict[str, object] = {
        "format": info.format,
        "suite": info.suite,
        "object_id": info.object_id,
        "key_id": info.key_id,
        "size": info.size,
    }
    if info.passed_over:
        about["planted"] = [{"slot": index, "key_id": key_id} for index, key_id in info.passed_over]
    return about
