"""File level, on disk: one large file encrypted into another, and back, beside command lines that do the same.

Every contender's output is flushed to the disk before its time ends, as securefs does by itself
before it renames. The naive scheme is not here: it would take 6 GiB of memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from securefs import Keyring, Suite, decrypt_file, encrypt_file

from . import peers
from .measure import GIB, MIB, Table, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[
        Callable[[Path, Path], object], Callable[[Path, Path], object]
    ]  # encrypt(from, to), decrypt(from, to)

TURNS = 2  # of half a minute each: more would not leave the others their part of ten minutes
LIMIT = "the limit: a copy"


def ours(suite: Suite) -> Pair:
    """Return securefs as its users call it."""
    ring = Keyring(os.urandom(32))
    return (
        lambda source, target: encrypt_file(source, target, ring, suite=suite, overwrite=True),
        lambda source, target: decrypt_file(source, target, ring, overwrite=True),
    )


def age(folder: Path) -> Pair:
    """Return age's command line."""
    identity = folder / "identity"
    _run("age-keygen", "-o", str(identity))
    recipients = folder / "recipients"
    recipients.write_bytes(
        subprocess.run(["age-keygen", "-y", identity], capture_output=True, check=True).stdout
    )
    return (
        lambda source, target: _run("age", "-R", str(recipients), "-o", str(target), str(source)),
        lambda source, target: _run("age", "-d", "-i", str(identity), "-o", str(target), str(source)),
    )


def rclone(folder: Path) -> Pair:
    """Return rclone's crypt remote, over a folder."""
    password = subprocess.run(
        ["rclone", "obscure", "-"], input=os.urandom(16).hex().encode(), capture_output=True, check=True
    )
    environ = {
        **os.environ,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_SEALED_TYPE": "crypt",
        "RCLONE_CONFIG_SEALED_REMOTE": str(folder),
        "RCLONE_CONFIG_SEALED_PASSWORD": password.stdout.decode().strip(),
        "RCLONE_CONFIG_SEALED_FILENAME_ENCRYPTION": "off",
    }
    return (
        lambda source, target: _run("rclone", "copyto", str(source), f"sealed:{target.stem}", env=environ),
        lambda source, target: _run("rclone", "copyto", f"sealed:{source.stem}", str(target), env=environ),
    )


def copy() -> Pair:
    """Return what only reads and writes."""

    def copy_file(source: Path, target: Path) -> None:
        with source.open("rb") as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing, MIB)

    return copy_file, copy_file


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=env, check=True, capture_output=True)


def run(quick: bool) -> list[Table]:
    """Return the tables for encrypting and decrypting a file."""
    size = (64 * MIB) if quick else 2 * GIB
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers: dict[str, Callable[[], Pair]] = {
            "age": partial(age, folder),
            "rclone crypt": partial(rclone, folder),
            "securefs aes-256-gcm": partial(ours, Suite.GCM),
            "securefs aes-256-cbc-hmac-sha256": partial(ours, Suite.CBC_HMAC),
            LIMIT: copy,
        }
        plain = folder / "plain"
        _fill(plain, size)
        made = {name: _made(make) for name, make in makers.items()}
        # The name that rclone gives its files where it leaves names alone.
        sealed = {name: folder / f"sealed-{at}.bin" for at, name in enumerate(made)}
        encrypting = {name: partial(_once, pair[0], plain, sealed[name]) for name, pair in made.items()}
        decrypting = {
            name: partial(_once, pair[1], sealed[name], folder / "opened") for name, pair in made.items()
        }
        tables = []
        for what, runs in (("Encrypt", encrypting), ("Decrypt", decrypting)):
            rows = take_turns(runs, TURNS, size / 1e6, warm=False)
            tables.append(Table(f"{what} {size // MIB} MiB on disk ({TURNS} turns)", "MB/s", rows, LIMIT))
        return tables


def _fill(path: Path, size: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)


def _once(work: Callable[[Path, Path], object], source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    work(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _made(make: Callable[[], Pair]) -> Pair:
    try:
        return make()
    except (OSError, subprocess.SubprocessError) as error:
        return peers.missing(error)
