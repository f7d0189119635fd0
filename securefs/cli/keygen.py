"""``securefs keygen``: print a fresh file key, or write it into a new private file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from securefs.cli.terminal import DONE, named, say
from securefs.disk import write_new
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
    path = Path(arguments.output)
    try:
        with named(arguments.output), write_new(path) as file:
            file.write(key.encode("ascii") + b"\n")
    except FileExistsError:
        # There is no --force here: overwriting a key makes every file under it unreadable.
        raise ConfigurationError(f"{arguments.output} exists already: a key is never overwritten") from None
    return DONE
