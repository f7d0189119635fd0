"""``securefs audit``: verify and search the audit journal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from securefs.audit import hash_name, verify_journal
from securefs.cli.terminal import DONE, say, say_json
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

__all__ = ["pseudonym", "verify"]


def verify(arguments: argparse.Namespace) -> int:
    """Verify a journal; the exit code distinguishes its two verdicts."""
    report = verify_journal(arguments.directory)
    if arguments.json:
        say_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    return report.exit_code


def pseudonym(arguments: argparse.Namespace) -> int:
    """Print the pseudonym of a file name or a principal in the journal."""
    directory = arguments.dir or os.environ.get("SECUREFS_AUDIT_DIR")
    if not directory:
        raise ConfigurationError("name the journal's folder with --dir, or set SECUREFS_AUDIT_DIR")
    say(hash_name(directory, arguments.name, "principal" if arguments.principal else "name"))
    return DONE
