"""``securefs audit compress`` and ``securefs audit retain``: the files of a journal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit.compress import compress_journal
from securefs.audit.log_folder import LogDamagedError, LogFolder
from securefs.audit.note import NoteError
from securefs.audit.retention import (
    REQUEST,
    fresh,
    is_retired,
    plan,
    remove_files,
    write_request,
)
from securefs.audit.sealer import Sealer
from securefs.audit.sink import ChainBrokenError
from securefs.cli.audit import journal_log
from securefs.cli.terminal import DONE, FINDING, complain, say
from securefs.disk import explain
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from securefs.audit.retention import Retired

__all__ = ["compress", "retain"]

PATIENCE: Final = 60.0  # seconds that a running sealer has for a request
_EVERY: Final = 0.2  # seconds between two looks
_DAY: Final = 24 * 60 * 60  # seconds


def compress(arguments: argparse.Namespace) -> int:
    """Compress the closed files of a journal; 1 if one of them could not be."""
    failed = 0
    for packed in compress_journal(arguments.directory, dry_run=arguments.dry_run):
        if packed.trouble:
            failed += 1
            complain(f"{packed.file}: not compressed: {packed.trouble}")
        elif arguments.dry_run:
            say(f"would be compressed: {packed.file}: {packed.size} bytes")
        else:
            say(f"compressed: {packed.file}: {packed.size} bytes, now {packed.packed}")
    return FINDING if failed else DONE


def retain(arguments: argparse.Namespace) -> int:
    """Remove the oldest files of a journal, after the log said so; 1 if the log does not hold."""
    journal, log = Path(arguments.directory), journal_log(arguments)
    try:
        wanted, kept = plan(journal, log, time.time() - arguments.keep * _DAY)
        for text in kept:
            complain(text)
        if arguments.dry_run or not wanted:
            _say(wanted, "would be removed" if arguments.dry_run else "removed")
            return DONE
        if asked := fresh(log, wanted):
            _ask(journal, log, asked)
        remove_files(journal, wanted)
    except (LogDamagedError, NoteError) as error:
        complain(f"TAMPERING: {error}; nothing was removed")
        return FINDING
    except (OSError, ChainBrokenError) as error:
        text = explain(error) if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"cannot retire files of {str(journal)!a}: {text}") from None
    _say(wanted, "removed")
    return DONE


def _say(wanted: list[Retired], what: str) -> None:
    for one in wanted:
        for path in one.paths:
            say(f"{what}: {path.name}")
    say(f"{what}: {sum(len(one.paths) for one in wanted)} files")


def _ask(journal: Path, log: Path, asked: list[Retired]) -> None:
    """Have the sealer seal that this is retired: one that runs, or one that begins here."""
    folder = LogFolder(log)
    if not folder.is_held() and os.geteuid() != log.stat().st_uid:
        raise ConfigurationError(
            f"no sealer runs, and the log {log} is another user's: start it, or be that user"
        )
    write_request(log, asked)
    deadline = time.monotonic() + PATIENCE
    if folder.is_held():
        while not is_retired(log, asked) and time.monotonic() < deadline:
            time.sleep(_EVERY)
    else:
        folder.lock()
        try:
            sealer = Sealer(journal, folder, complain)
            more = True
            while more:
                more = sealer.step()
            sealer.stop()
        finally:
            folder.unlock()
    if not is_retired(log, asked):
        folder.answer(REQUEST)
        raise ConfigurationError("the sealer did not seal that these files are retired: nothing was removed")
