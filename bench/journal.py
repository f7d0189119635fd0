"""The journal: records a second, as they are written and as they are verified."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
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
        *_sealing(turns, 2000 if quick else 40_000),
        Table("Journal: writing", "records/s", writing, writing[0].name),
        Table(f"Journal: verifying {records:,} records", "records/s", verifying),
    ]


def _write(journal: Journal, count: int) -> Callable[[], None]:
    def write() -> None:
        for _ in range(count):
            journal.record(Entry("file.encrypt", **RECORD))

    return write


def _sealing(turns: int, count: int) -> list[Table]:
    """Return how fast one worker writes without and with a sealer, which is a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        plain, sealed = Path(name, "plain"), Path(name, "sealed")
        journals = Journal(plain), Journal(sealed)
        _securefs("audit", "init", str(sealed)).wait()
        sealer = _securefs("audit", "seal", str(sealed), "--stdin")
        contenders = {
            "without a sealer": _write(journals[0], count),
            "with the sealer beside it": _write(journals[1], count),
        }
        writing = take_turns(contenders, turns, count)
        for journal in journals:
            journal.close()
        begun = time.monotonic()
        sealer.communicate()
        seconds = time.monotonic() - begun
        records = sum(chain.records for chain in verify_journal(sealed).chains)
        size = int((sealed / "log" / "checkpoints").read_text("utf-8").split("\n")[-6])
        if sealer.returncode or size < records:
            raise RuntimeError(f"{size} of {records} records were sealed")
    title = f"Journal: one worker, buffered, and the sealer (the last seal of {records:,}: {seconds:.1f} s)"
    return [Table(title, "records/s", writing, writing[0].name)]


def _securefs(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "securefs", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
