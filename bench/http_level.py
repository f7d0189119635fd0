"""HTTP level: one gunicorn worker on one core, the client on another; the same app bare, wrapped and with the naive scheme."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .apps import FRAMEWORKS
from .measure import GIB, KIB, MIB, Table, turn_about
from .serve import BARE, CBC, GCM, KINDS, NO_SENDFILE, Client, own_core, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serve import Server


@dataclass(frozen=True)
class Case:
    """Uploads and downloads of one size in bytes: ``count`` of them are a turn."""

    size: int
    count: int
    turns: int
    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)
    kinds: tuple[str, ...] = tuple(KINDS)


CASES = (
    Case(4 * KIB, 60, 5),
    Case(MIB, 10, 5),
    Case(64 * MIB, 1, 5, ("Werkzeug",)),
    # Without those that take longest: the naive scheme would need half a minute for each turn of 1
    # GiB.
    Case(64 * MIB, 1, 5, ("Flask", "Django"), (BARE, NO_SENDFILE, GCM, CBC)),
    Case(GIB, 1, 2, ("Werkzeug",), (BARE, NO_SENDFILE, GCM, CBC)),
)


@dataclass
class Meter:
    """One contender's requests of one sort: uploads or downloads of one size."""

    server: Server
    upload: bool
    size: int
    count: int  # in a turn
    first: list[float] = field(default_factory=list)  # seconds
    total: list[float] = field(default_factory=list)
    cpu: float = 0.0  # seconds

    def __call__(self) -> float:
        """Send a turn's requests over one connection; return the rate: MB/s, or requests/s for small ones."""
        before, took = self.server.cpu(), 0.0
        with Client(self.server.port) as client:
            for _ in range(self.count):
                first, total = client.post(self.size) if self.upload else client.get("/file")
                self.first.append(first)
                self.total.append(total)
                took += total
        self.cpu += self.server.cpu() - before
        return self.count * (self.size / 1e6 if self.size >= MIB else 1) / took

    def notes(self) -> dict[str, float]:
        """Return what else was seen, over all turns."""
        cuts = statistics.quantiles(self.total, n=100, method="inclusive")
        found = {"p50 ms": cuts[49] * 1000}
        if self.size < MIB:
            found["p99 ms"] = cuts[98] * 1000
        if not self.upload:
            found["first byte ms"] = statistics.median(self.first) * 1000
        if self.size >= MIB:
            found["CPU s/GiB"] = self.cpu / (len(self.total) * self.size / GIB)
        return found


def compare(servers: dict[str, Server], case: Case, *, upload: bool, label: str) -> Table:
    """Let contenders take turns at uploads, or at downloads of what was uploaded."""
    size, count, turns = case.size, case.count, case.turns
    meters = {
        name: Meter(server, upload, size, count)
        for name, server in servers.items()
        if name in case.kinds and not (upload and name == NO_SENDFILE)
    }
    if not upload:
        for meter in meters.values():
            with Client(meter.server.port) as client:
                client.post(size)
    rows = turn_about(meters, turns, warm=size < 128 * MIB)
    for row in rows:
        row.notes = meters[row.name].notes() if row.values else {}
    unit = "MB/s" if size >= MIB else "requests/s"
    title = f"{label}: {'upload' if upload else 'download'} {amount(size)} ({turns} turns of {count})"
    return Table(title, unit, rows, base=BARE)


def amount(size: int) -> str:
    """Return a size for a reader."""
    unit, name = next(
        (unit, name) for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")) if size >= unit
    )
    return f"{size // unit} {name}"


def start(
    stack: ExitStack, framework: str, kinds: dict[str, tuple[str, dict[str, str], tuple[str, ...]]]
) -> dict[str, Server]:
    """Start a server for each kind of a framework's app."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return {
        name: stack.enter_context(
            serving(
                f"make({framework!r}, {kind!r}, {str(folder / name)!r})",
                folder / name,
                environ=environ,
                options=options,
            )
        )
        for name, (kind, environ, options) in kinds.items()
    }


def run(quick: bool) -> Iterator[Table]:
    """Yield the tables of all frameworks and sizes."""
    with own_core():
        for framework in FRAMEWORKS:
            with ExitStack() as stack:
                servers = start(stack, framework, KINDS)
                for case in CASES[:2] if quick else CASES:
                    if framework in case.frameworks:
                        yield compare(servers, case, upload=True, label=framework)
                        yield compare(servers, case, upload=False, label=framework)
