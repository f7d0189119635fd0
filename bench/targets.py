"""The pairs that we hold ourselves to, each measured in one run, with what was wanted beside what was seen."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from . import file_level, page
from .http_level import Case, compare, start
from .measure import KIB, MIB, Table, turn_about
from .serve import BARE, CBC, GCM, KINDS, NO_SENDFILE, PYCRYPTODOME, Client, own_core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serve import Server

# Kept by glibc instead of given back to the kernel after each chunk: docs/performance.md.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "67108864"}
KEEPING = ", glibc keeps memory"
TUNED = {name + KEEPING: (KINDS[name][0], KINDS[name][1] | KEEP_MEMORY, ()) for name in (BARE, GCM)}


@dataclass(frozen=True)
class Target:
    """What ``name``'s number in a table should be: so many times ``base``'s, or not much more than it."""

    table: str
    name: str
    base: str
    at_least: float = 0.0  # times the base's
    at_most_more: float = 0.0  # in the table's unit, than the base's

    def line(self, table: Table) -> str:
        """Return one line of the last table."""
        mine, theirs = table.row(self.name), table.row(self.base)
        if mine.missing or theirs.missing:
            return f"| {self.table}: {self.name} | not measured | | |"
        if self.at_least:
            low, middle, high = mine.ratio(theirs)
            wanted, seen = (
                f"at least {self.at_least:.2f} times {self.base}",
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
            )
            met = middle >= self.at_least
        else:
            more = sorted(a - b for a, b in zip(mine.values, theirs.values, strict=True))
            middle = statistics.median(more)
            wanted = f"at most {self.at_most_more:g} {table.unit} more than {self.base}"
            seen = f"{middle:.3f} ({more[0]:.3f} to {more[-1]:.3f})"
            met = middle <= self.at_most_more
        return f"| {self.table}: {self.name} | {wanted} | {seen} | {'yes' if met else 'no'} |"


UPLOAD, DOWNLOAD, SMALL_UPLOAD, SMALL_DOWNLOAD = "upload", "download", "upload 4 KiB", "download 4 KiB"
ENCRYPT, DECRYPT, UNTOUCHED = "encrypt", "decrypt", "a page"
OUR_GCM, OUR_CBC = "securefs aes-256-gcm, openssl", "securefs aes-256-cbc-hmac-sha256, openssl"
TARGETS = (
    Target(UPLOAD, GCM, BARE, at_least=1.5),
    Target(UPLOAD, CBC, BARE, at_least=1.0),
    Target(UPLOAD, PYCRYPTODOME, BARE, at_least=0.8),
    Target(DOWNLOAD, GCM, BARE, at_least=0.7),
    Target(DOWNLOAD, CBC, BARE, at_least=0.35),
    Target(DOWNLOAD, GCM, NO_SENDFILE, at_least=0.9),
    Target(ENCRYPT, OUR_GCM, file_level.BARE_GCM, at_least=0.6),
    Target(DECRYPT, OUR_GCM, file_level.BARE_GCM, at_least=0.6),
    Target(ENCRYPT, OUR_CBC, file_level.BARE_CBC, at_least=0.9),
    Target(DECRYPT, OUR_CBC, file_level.BARE_CBC, at_least=0.9),
    Target(SMALL_UPLOAD, GCM, BARE, at_most_more=0.5),
    Target(SMALL_UPLOAD, CBC, BARE, at_most_more=0.5),
    Target(SMALL_DOWNLOAD, GCM, BARE, at_most_more=0.5),
    Target(SMALL_DOWNLOAD, CBC, BARE, at_most_more=0.5),
    Target(UNTOUCHED, page.WRAPPED, BARE, at_most_more=20),
)


class Verdicts(Table):
    """The table of targets, made of other tables."""

    def __init__(self, tables: dict[str, Table]) -> None:
        super().__init__("Targets", "", [])
        self._lines = [target.line(tables[target.table]) for target in TARGETS]

    def markdown(self) -> str:
        """Return the table for a reader."""
        head = [
            "### Targets",
            "",
            "| pair | wanted | measured (lowest to highest) | met |",
            "| --- | --- | ---: | --- |",
        ]
        return "\n".join([*head, *self._lines, ""])

    def json(self) -> dict[str, object]:
        """Return the same for a program."""
        return {"title": self.title, "lines": self._lines}


def latency(servers: dict[str, Server], *, upload: bool, turns: int, count: int) -> Table:
    """Compare the median times of small requests, a turn over one connection."""

    def turn(server: Server) -> float:
        with Client(server.port) as client:
            client.post(4 * KIB)
            times = [client.post(4 * KIB)[1] if upload else client.get("/file")[1] for _ in range(count)]
        return statistics.median(times) * 1000

    rows = turn_about(
        {name: partial(turn, server) for name, server in servers.items() if name != NO_SENDFILE}, turns
    )
    what = "Upload" if upload else "Download"
    return Table(f"{what} 4 KiB, median ({turns} turns of {count})", "ms", rows, base=BARE, digits=3)


def run(quick: bool) -> Iterator[Table]:
    """Yield the tables of the pairs, then that of the targets."""
    size, turns = (256 * MIB, 3) if quick else (512 * MIB, 5)
    wanted = (BARE, NO_SENDFILE, GCM, CBC, PYCRYPTODOME)
    kinds = {name: KINDS[name] for name in wanted}
    tables: dict[str, Table] = {}
    with own_core(), ExitStack() as stack:
        servers = start(stack, "Werkzeug", kinds if quick else kinds | TUNED)
        plain = {name: server for name, server in servers.items() if name in kinds}
        case = Case(size, 1, turns, kinds=tuple(servers))
        tables[UPLOAD] = compare(servers, case, upload=True, label="Werkzeug")
        yield tables[UPLOAD]
        case = Case(size, 1, turns, kinds=(BARE, NO_SENDFILE, GCM, CBC))
        tables[DOWNLOAD] = compare(plain, case, upload=False, label="Werkzeug")
        yield tables[DOWNLOAD]
        for name, upload in ((SMALL_UPLOAD, True), (SMALL_DOWNLOAD, False)):
            tables[name] = latency(plain, upload=upload, turns=2 * turns, count=50 if quick else 100)
            yield tables[name]
    tables[UNTOUCHED] = page.table(turns, 300 if quick else 3000)
    yield tables[UNTOUCHED]
    tables[ENCRYPT], tables[DECRYPT] = file_level.tables((32 if quick else 128) * MIB, turns, file_level.FAST)
    yield tables[ENCRYPT]
    yield tables[DECRYPT]
    yield Verdicts(tables)
