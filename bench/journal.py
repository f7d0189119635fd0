"""The journal: records a second, as they are written and as they are verified."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from securefs.audit import Entry, Journal, verify_journal

from .measure import Table, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = {
    "outcome": "success",
    "obj": {"id": "0" * 64, "key_id": "0" * 32, "suite": "aes-256-gcm", "size": 4096, "name": "a name.pdf"},
    "request_id": "0" * 32,
    "address": "127.0.0.1",
    "http": {"method": "POST", "path": "/upload", "status": 200},
}


def run(quick: bool) -> list[Table]:
    """Return the tables for writing and for verifying."""
    turns, count = (3, 300) if quick else (5, 3000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        buffered = Journal(folder / "buffered")
        flushed = Journal(folder / "flushed", sync="record")
        clear = Journal(folder / "clear", names="clear")
        contenders = {
            "buffered (default)": _write(buffered, count),
            "buffered, names in clear": _write(clear, count),
            "every record flushed to the disk": _write(flushed, count),
        }
        writing = take_turns(contenders, turns, count)
        for journal in (buffered, flushed, clear):
            journal.close()
        records = sum(chain.records for chain in verify_journal(folder / "buffered").chains)
        verifying = take_turns(
            {"securefs audit verify": lambda: verify_journal(folder / "buffered")}, turns, records
        )
    return [
        Table("Journal: writing", "records/s", writing, writing[0].name),
        Table(f"Journal: verifying {records:,} records", "records/s", verifying),
    ]


def _write(journal: Journal, count: int) -> Callable[[], None]:
    def write() -> None:
        for _ in range(count):
            journal.record(Entry("file.encrypt", **RECORD))

    return write
