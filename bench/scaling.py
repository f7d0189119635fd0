"""Scaling: more threads and a second worker, as many clients as threads. Who holds the GIL stays where it is."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .http_level import amount
from .measure import MIB, Table, seconds, turn_about
from .serve import CBC, GCM, KINDS, Client, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .serve import Server

SIZE = 16 * MIB
TURNS = 3
CONFIGURATIONS = ((1, 1), (1, 2), (1, 4), (1, 16), (2, 1), (2, 4))  # workers, threads


def run(quick: bool) -> Iterator[Table]:
    """Yield a table of uploads and one of downloads for each suite. Client and server share two cores here."""
    configurations = CONFIGURATIONS[:2] if quick else CONFIGURATIONS
    for name in (GCM, CBC):
        with ExitStack() as stack:
            servers = {pair: stack.enter_context(_serving(name, *pair)) for pair in configurations}
            for what in ("upload", "download"):
                contenders = {
                    f"{workers} by {threads}": _turn(server, workers * threads, upload=what == "upload")
                    for (workers, threads), server in servers.items()
                }
                rows = turn_about(contenders, TURNS)
                title = (
                    f"Scaling: {what} {amount(SIZE)}, {name}, workers by threads, as many clients as threads"
                )
                yield Table(f"{title} ({TURNS} turns)", "MB/s", rows, rows[0].name)


@contextmanager
def _serving(name: str, workers: int, threads: int) -> Iterator[Server]:
    kind, environ, _ = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        app = f"make('Werkzeug', {kind!r}, {folder + '/a'!r})"
        options = ("--workers", str(workers), "--threads", str(threads))
        with serving(app, Path(folder, "a"), environ=environ, options=options, cores=2) as server:
            yield server


def _turn(server: Server, clients: int, *, upload: bool) -> Callable[[], float]:
    def one(_: int) -> None:
        with Client(server.port) as client:
            client.post(SIZE) if upload else client.get("/file")

    def all_at_once() -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one, range(clients)))

    with Client(server.port) as client:
        client.post(SIZE)
    return lambda: clients * SIZE / 1e6 / seconds(all_at_once)
