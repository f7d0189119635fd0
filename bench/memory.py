"""How much a worker grows at its peak, above what it had when idle: with one upload, and with sixteen at once."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from .http_level import amount
from .measure import GIB, KIB, MIB, Row, Table
from .serve import BARE, CBC, GCM, KINDS, Client, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serve import Server

AT_ONCE = 16
# Bytes and how many at once. The bare app and the default suite stop earlier: what is seen does not depend on the size.
SHORT = ((MIB, 1), (64 * MIB, 1), (64 * MIB, AT_ONCE))
CASES = (*SHORT, (8 * GIB, 1), (GIB, AT_ONCE))


def _memory(pid: int, name: str) -> int:
    """Return VmRSS or VmHWM in bytes: proc(5)."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) * KIB


def growth(server: Server, size: int, at_once: int) -> float:
    """Return by how many MiB the worker grew while so many clients were served."""
    (worker,) = server.workers
    with Client(server.port) as client:
        client.post(KIB)  # imports what is imported late
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # sets the peak to what there is now
    before = _memory(worker, "VmHWM")

    def one(_: int) -> None:
        with Client(server.port) as client:
            client.post(size)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(at_once)))
    return (_memory(worker, "VmHWM") - before) / MIB


def run(quick: bool) -> Iterator[Table]:
    """Yield a table of uploads for each contender; every row is measured once, with a server of its own."""
    for name, cases in ((BARE, SHORT), (CBC, SHORT), (GCM, SHORT if quick else CASES)):
        rows = []
        for size, at_once in cases:
            with tempfile.TemporaryDirectory() as folder:
                app = f"discarding({name != BARE!r})"
                options = ("--threads", str(AT_ONCE))
                with serving(
                    app, Path(folder, "a"), environ=KINDS[name][1], options=options, cores=2
                ) as server:
                    grown = growth(server, size, at_once)
            row = Row(f"{amount(size)}, {at_once} at a time", [grown])
            row.notes["MiB for each"] = grown / at_once
            rows.append(row)
        yield Table(f"Memory for uploads, {name}: growth at the peak (once)", "MiB", rows, digits=1)
