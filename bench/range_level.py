"""A mebibyte from the end of files of very different sizes: what it costs must not depend on how much comes before it.

The files are sparse: their last segments are real, and what comes before them is a hole that nobody
may read.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from securefs import Keyring, Suite, open_encrypted
from securefs.accelerated import OpenSSL
from securefs.stream import TRAILER, Randomness, seal_with, unlock

from .http_level import amount
from .measure import GIB, MIB, Table, seconds, turn_about
from .serve import CBC, GCM, KEY, KINDS, Client, own_core, serving

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (4 * MIB, 64 * MIB, GIB, 4 * GIB, 16 * GIB)
PART = MIB
TURNS = 7
TIMES = 20  # in a turn


def write_sparse(path: Path, size: int, suite: Suite, ring: Keyring) -> None:
    """Write an encrypted file of ``size`` bytes of plaintext, of which only the last ones are there."""
    primitives = OpenSSL()
    empty = seal_with(Randomness.draw(), b"", ring, suite, primitives)
    start = empty[: -(suite.min_sealed + len(TRAILER))]
    cipher = unlock(start, ring, b"", primitives).cipher
    last, rest = divmod(size, suite.segment_size)
    first = max(0, (size - 2 * PART) // suite.segment_size)
    with path.open("wb") as file:
        file.write(start)
        file.seek(len(start) + first * suite.sealed_size)
        for index in range(first, last):
            file.write(cipher.seal(index, False, os.urandom(suite.segment_size)))
        file.write(cipher.seal(last, True, os.urandom(rest)) + TRAILER)


def _read_end(path: Path, size: int, ring: Keyring) -> float:
    """Open the file, read its last mebibyte; return microseconds."""

    def read() -> None:
        with open_encrypted(path, ring) as file:
            file.seek(size - PART)
            if len(file.read(PART)) != PART:
                raise OSError("a short read")

    return min(seconds(read) for _ in range(TIMES)) * 1e6


def _get_end(client: Client, size: int) -> float:
    """Ask for the last mebibyte of a file; return microseconds."""
    # Numbers, as players and resumed downloads send them: a suffix would do as well.
    header = f"Range: bytes={size - PART}-{size - 1}\r\n"
    return min(client.get(f"/{size}", header)[1] for _ in range(TIMES)) * 1e6


def run(quick: bool) -> list[Table]:
    """Return a table for each suite, at file level and over HTTP."""
    sizes = tuple(size for size in SIZES if not quick or size in {4 * MIB, 4 * GIB})
    tables = []
    for suite, kind in ((Suite.GCM, GCM), (Suite.CBC_HMAC, CBC)):
        with tempfile.TemporaryDirectory() as name, own_core(), ExitStack() as stack:
            folder, ring = Path(name), Keyring.from_env({"FILE_KEY_BASE64": KEY})
            files = {size: folder / str(size) for size in sizes}
            for size, path in files.items():
                write_sparse(path, size, suite, ring)
            app = f"serving_folder({name!r})"
            server = stack.enter_context(serving(app, folder / "server", environ=KINDS[kind][1]))
            client = stack.enter_context(Client(server.port))
            reading = {amount(size): partial(_read_end, path, size, ring) for size, path in files.items()}
            getting = {amount(size): partial(_get_end, client, size) for size in sizes}
            tables += [
                _table(f"{suite.label}, open and read", reading),
                _table(f"{suite.label}, HTTP", getting),
            ]
    return tables


def _table(title: str, contenders: dict[str, Callable[[], float]]) -> Table:
    rows = turn_about(contenders, TURNS)
    return Table(
        f"The last MiB of a file: {title} (best of {TIMES}, {TURNS} turns)", "µs", rows, rows[0].name
    )
