"""``manage.py securefs``: verify what the stores hold, or encrypt what is there, in place.

Keys, journal and stores are those of the project's settings. Every verdict is one line; a failure
makes the command fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import BaseCommand, CommandError

from securefs.audit import Entry
from securefs.bulk import Status, import_one, verify_one, walk
from securefs.errors import Reason, SecureFSError
from securefs.integrations.django.config import means

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

    from securefs.bulk import Verdict
    from securefs.middleware.means import Means

__all__ = ["Command"]

_QUIET: Final = frozenset({Status.VERIFIED, Status.UNCHANGED})


class Command(BaseCommand):
    """The command."""

    help = "Verify the files in the stores, or encrypt in place those that are there as plaintext."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what is to be done, and where."""
        parser.add_argument("action", choices=("verify", "import"))
        parser.add_argument(
            "paths", nargs="*", metavar="PATH", help="files or folders; the stores unless given"
        )
        parser.add_argument("--dry-run", action="store_true", help="import: change nothing")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Run it.

        :raises CommandError: a file failed, or a setting is unusable.
        """
        try:
            found = means()
            paths = options["paths"] or list(found.policy.stores)
            if not paths:
                raise CommandError("no store is declared: name a PATH, or set SECUREFS_STORES")
            if options["action"] == "verify":
                verdicts = _verified(found, paths)
            else:
                verdicts = _imported(found, paths, dry_run=options["dry_run"])
            self._report(verdicts)
        except (SecureFSError, OSError) as error:
            raise CommandError(str(error)) from None

    def _report(self, verdicts: Iterable[Verdict]) -> None:
        counts: dict[str, int] = {}
        failed = 0
        for verdict in verdicts:
            counts[verdict.status.value] = counts.get(verdict.status.value, 0) + 1
            failed += verdict.failed
            if verdict.status not in _QUIET or verdict.message:
                shown = ascii(f"{verdict.path}")[1:-1]
                self.stdout.write(
                    f"{verdict.status.value}  {shown}{verdict.message and ': '}{verdict.message}"
                )
        summary = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no files"
        if failed:
            raise CommandError(summary)
        self.stdout.write(summary)


def _verified(found: Means, paths: list[str]) -> Iterable[Verdict]:
    for one in walk(paths):
        yield verify_one(one, found.keyring, _unbound, format_1=found.reads_format_1, everything=True)


def _imported(found: Means, paths: list[str], *, dry_run: bool) -> Iterable[Verdict]:
    for one in walk(paths):
        if not dry_run:
            found.journal.check()  # before anything is changed
        verdict = import_one(one, found.keyring, _unbound, suite=found.policy.suite, dry_run=dry_run)
        if not dry_run and (verdict.status is Status.IMPORTED or verdict.failed):
            found.journal.record(_entry(verdict))
        yield verdict


def _entry(verdict: Verdict) -> Entry:
    info, name = verdict.info, verdict.path.name
    if info is None:
        return Entry("file.import", "failure", verdict.reason or Reason.IO_ERROR, {"name": name})
    about: dict[str, str | int] = {"id": info.object_id, "key_id": info.key_id, "suite": info.suite}
    return Entry(
        "file.import", "success", None, {**about, "format": info.format, "size": info.size, "name": name}
    )


def _unbound(_path: Path) -> bytes:
    return b""
