"""``securefs rewrap``: let the primary key, and no previous one, open files.

It processes the named files, and the encrypted files in the named folders.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from securefs.audit import Entry, Journal
from securefs.cli.paths import encrypted_files, finding, require_some
from securefs.cli.terminal import DONE, FINDING, say, say_json
from securefs.errors import Reason, SecureFSError
from securefs.keys import Keyring
from securefs.rotation import rewrap

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from securefs.rotation import Rewrapped

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Rewrap the named files, and the encrypted files in the named folders."""
    keyring = Keyring.from_env()
    results: list[dict[str, object]] = []
    with _journal() as journal:
        for path, follow_links in encrypted_files(arguments.paths, format_1=False):
            change = partial(rewrap, path, keyring, arguments.context, follow_links=follow_links)
            result = _rewrap_one(path, change, journal)
            results.append(result)
            if not arguments.json:
                word = "rewrapped" if result.get("changed") else "unchanged"
                say(f"FAILED     {path}: {result['error']}" if "error" in result else f"{word}  {path}")
    require_some(results, arguments)
    failed = sum("error" in result for result in results)
    changed = sum(bool(result.get("changed")) for result in results)
    unchanged = len(results) - changed - failed
    if arguments.json:
        say_json({"rewrapped": changed, "unchanged": unchanged, "failed": failed, "files": results})
    else:
        text = f"{changed} rewrapped, {unchanged} unchanged, {failed} failed"
        say(
            text if arguments.context is not None else f"{text}; --any-context: commitments were not verified"
        )
    return FINDING if failed else DONE


@contextlib.contextmanager
def _journal() -> Iterator[Journal | None]:
    """Yield the journal if there is a folder for it.

    Its lines on standard error would mix with the messages.
    """
    if "SECUREFS_AUDIT_DIR" not in os.environ:
        yield None
        return
    journal = Journal.from_env()
    try:
        yield journal
    finally:
        journal.close()


def _rewrap_one(path: Path, change: Callable[[], Rewrapped], journal: Journal | None) -> dict[str, object]:
    if journal is not None:
        journal.check()  # before anything is changed
    reason = None
    about: dict[str, str | int] = {"name": path.name}
    try:
        done = change()
    except (SecureFSError, OSError) as error:
        result = finding(path, error, "cannot be rewrapped")
        reason = Reason(result["reason"] or Reason.IO_ERROR)
    else:
        about |= {"id": done.object_id, "key_id": done.key_id}
        result = {
            "path": str(path),
            "object_id": done.object_id,
            "key_id": done.key_id,
            "removed": list(done.removed),
            "changed": done.changed,
        }
    if journal is not None and (reason or result["changed"]):
        journal.record(Entry("key.rewrap", "failure" if reason else "success", reason, about))
    return result
