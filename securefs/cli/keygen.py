"""``securefs keygen``: print a fresh file key, or write it into a new private file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from securefs.cli.terminal import DONE, named, say
from securefs.errors import ConfigurationError
from securefs.keys import generate_key

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print a fresh key, or write it into a new file that only its owner can read."""
    key = generate_key()
    if arguments.output is None:
        say(key)
        return DONE
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(arguments.output, flags, 0o600)
    except FileExistsError:
        # There is no --force here: overwriting a key makes every file under it unreadable.
        raise ConfigurationError(f"{arguments.output} exists already: a key is never overwritten") from None
    try:
        with named(arguments.output), os.fdopen(descriptor, "wb") as file:
            file.write(key.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        # Also on an interrupt: half a key must not pass for a key.
        Path(arguments.output).unlink()
        raise
    return DONE
