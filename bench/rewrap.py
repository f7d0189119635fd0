"""Rewrap: what it takes to bring a file under a new key, beside decrypting it and encrypting it again, in one stream."""

from __future__ import annotations

import os
import tempfile
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from securefs import Encryptor, Keyring, Suite, encrypt_file, open_encrypted, rewrap
from securefs.disk import write_atomically
from securefs.files import copy_sealed

from .measure import KIB, MIB, Table, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN = "decrypt and encrypt again"


def run(quick: bool) -> list[Table]:
    """Return a table for files of each size. All are flushed to the disk."""
    turns = 3 if quick else 5
    first, second = os.urandom(32), os.urandom(32)
    rings = Keyring(second, [first]), Keyring(first, [second])
    tables = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, label, times in ((4 * KIB, "4 KiB", 20), (64 * MIB, "64 MiB", 1)):
            plain = folder / "plain"
            plain.write_bytes(os.urandom(size))
            contenders = {}
            for suite in Suite:
                sealed = folder / suite.label
                encrypt_file(plain, sealed, rings[1], suite=suite, overwrite=True)
                contenders[f"{AGAIN}, {suite.label}"] = _again(folder / "again", sealed, rings, suite, times)
                contenders[f"rewrap, {suite.label}"] = _rewrap(sealed, rings, times)
            rows = take_turns(contenders, turns, times)
            tables.append(Table(f"Rewrap: files of {label}", "files/s", rows, rows[0].name, digits=1))
    return tables


def _rewrap(path: Path, rings: tuple[Keyring, Keyring], times: int) -> Callable[[], None]:
    turn = cycle(rings)  # to and fro, so that each one has something to do

    def work() -> None:
        for _ in range(times):
            assert rewrap(path, next(turn)).changed

    return work


def _again(
    target: Path, source: Path, rings: tuple[Keyring, Keyring], suite: Suite, times: int
) -> Callable[[], None]:
    def work() -> None:
        for _ in range(times):
            with open_encrypted(source, rings[0]) as plain, write_atomically(target, overwrite=True) as file:
                copy_sealed(plain, file, Encryptor(rings[0], suite))

    return work
