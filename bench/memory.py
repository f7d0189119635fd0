"""How much a worker grows at its peak, above what it had when idle: with one upload or download, and with sixteen at once."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from securefs import Keyring, Suite, encrypt_file

from .http_level import amount
from .measure import GIB, KIB, MIB, Row, Table
from .serve import BARE, CBC, GCM, KEY, KINDS, Client, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .serve import Server

    Work = Callable[[Client], object]

AT_ONCE = 16
# Bytes and how many at once. The bare app and the default suite stop earlier: what is seen does not
# depend on the size.
SHORT = ((MIB, 1), (64 * MIB, 1), (64 * MIB, AT_ONCE))
CASES = (*SHORT, (8 * GIB, 1), (GIB, AT_ONCE))


def _memory(pid: int, name: str) -> int:
    """Return VmRSS or VmHWM in bytes: proc(5)."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) * KIB


def growth(server: Server, first: Work, work: Work, at_once: int) -> float:
    """Return by how many MiB the worker grew while so many clients did ``work``; ``first`` imports what is imported late."""
    (worker,) = server.workers
    with Client(server.port) as client:
        first(client)
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # sets the peak to what there is now
    before = _memory(worker, "VmHWM")

    def one(_: int) -> None:
        with Client(server.port) as client:
            work(client)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(at_once)))
    return (_memory(worker, "VmHWM") - before) / MIB


def run(quick: bool) -> Iterator[Table]:
    """Yield a table of uploads, and one of downloads, for each contender; every row is measured once, with a server of its own."""
    for name, cases in ((BARE, SHORT), (CBC, SHORT), (GCM, SHORT if quick else CASES)):
        app = f"discarding({name != BARE!r})"
        rows = []
        for size, at_once in cases:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(_row(app, folder, name, size, at_once, lambda client, n: client.post(n)))
        yield Table(f"Memory for uploads, {name}: growth at the peak (once)", "MiB", rows, digits=1)
    for name, suite in ((CBC, Suite.CBC_HMAC), (GCM, Suite.GCM)):
        rows = []
        for size, at_once in SHORT if quick else (*SHORT, (GIB, 1)):
            with tempfile.TemporaryDirectory() as folder:
                for length in (KIB, size):
                    _encrypted(Path(folder), length, suite)
                app = f"serving_folder({folder!r})"
                rows.append(_row(app, folder, name, size, at_once, lambda client, n: client.get(f"/{n}")))
        yield Table(f"Memory for downloads, {name}: growth at the peak (once)", "MiB", rows, digits=1)


def _row(
    app: str, folder: str, name: str, size: int, at_once: int, ask: Callable[[Client, int], object]
) -> Row:
    options = ("--threads", str(AT_ONCE))
    with serving(app, Path(folder, "a"), environ=KINDS[name][1], options=options, cores=2) as server:
        grown = growth(server, partial(ask, n=KIB), partial(ask, n=size), at_once)
    row = Row(f"{amount(size)}, {at_once} at a time", [grown])
    row.notes["MiB for each"] = grown / at_once
    return row


def _encrypted(folder: Path, size: int, suite: Suite) -> None:
    """Write an encrypted file of so many bytes, called by their number."""
    plain = folder / "plain"
    with plain.open("wb") as file:
        file.truncate(size)
    encrypt_file(
        plain, folder / str(size), Keyring.from_env({"FILE_KEY_BASE64": KEY}), suite=suite, overwrite=True
    )
