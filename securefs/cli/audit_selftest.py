"""``securefs audit selftest``: attacks on a copy of a journal, and which layer caught each.

The journal is only read. It ends with 0 if each attack met the outcome that docs/verifying.md
demands, and with 1 if one was not caught.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from securefs.audit.log_files import LOG_FOLDER
from securefs.audit.selftest import Outcome, self_test
from securefs.cli.audit import log_folder, pinned
from securefs.cli.terminal import DONE, FINDING, say, say_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from securefs.audit.selftest import Result

__all__ = ["run", "show"]


def run(arguments: argparse.Namespace) -> int:
    """Attack a copy of the journal; end with 1 if an attack was missed."""
    journal, named = Path(arguments.directory), log_folder(arguments)
    log = Path(named) if named else journal / LOG_FOLDER
    there = bool(named) or os.path.lexists(log)
    results = self_test(journal, log if there else None, pinned(arguments.pin), time.time())
    return show(results, log=there, as_json=arguments.json)


def show(results: Sequence[Result], *, log: bool, as_json: bool) -> int:
    """Print what became of each attack; return the exit code."""
    code = FINDING if any(one.outcome is Outcome.MISSED for one in results) else DONE
    if as_json:
        say_json({"log": log, "attacks": [one.to_json() for one in results], "exit_code": code})
        return code
    for one in results:
        say(_line(one))
    counts = {kind: sum(one.outcome is kind for one in results) for kind in Outcome}
    say(", ".join(f"{kind.value}: {count}" for kind, count in counts.items()))
    return code


def _line(one: Result) -> str:
    why = ", ".join(one.layers) or one.note
    return f"{one.outcome.value:12}  {one.name}: {one.done}{f' ({why})' if why else ''}"
