"""``securefs keys``: which keys the stored files need.

``securefs keys in-use`` ends with 0 only if it is proven that no file under the paths needs a
previous key: then that key may be removed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from securefs.bulk import Status, key_of, walk
from securefs.cli.contexts import selection
from securefs.cli.report import Report
from securefs.cli.terminal import Progress, say
from securefs.keys import Keyring

if TYPE_CHECKING:
    import argparse

__all__ = ["in_use"]


def in_use(arguments: argparse.Namespace) -> int:
    """Count the files that need each key of the keyring; tell which ones need a previous key."""
    keyring = Keyring.from_env()
    primary = keyring.primary_id.hex()
    chosen = selection(arguments)
    needed: Counter[str] = Counter({key.hex(): 0 for key in keyring.key_ids})
    shown = (Status.OPENS, Status.FAILED)
    with Progress.over(lambda: sum(1 for _ in walk(chosen.paths)), arguments, unit="files") as progress:
        report = Report(arguments, shown, 9, progress)
        for found in walk(chosen.paths):
            verdict = key_of(found, keyring, chosen.context_of)
            if verdict.key_id:
                needed[verdict.key_id] += 1
            about = {"key_id": verdict.key_id} if verdict.key_id else {}
            report.add(verdict, about, silent=verdict.key_id == primary)
            progress.add(1)
    if not arguments.json:
        for key, count in needed.items():
            say(f"key {key} ({'primary' if key == primary else 'previous'}): {count} files")
    previous = sum(count for key, count in needed.items() if key != primary)
    note = "; --any-context: commitments were not verified" if arguments.context is None else ""
    return report.end({"previous": previous}, note=note, about={"keys": dict(needed)})
