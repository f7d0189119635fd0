"""The common part of the commands on files: which files they process, and their findings.

A path that the user names may be a link. A file that is found in a folder must be a regular file,
because whoever can write to the folder chooses what is there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.disk import explain, read_regular
from securefs.errors import ConfigurationError, Reason, SecureFSError, SourceError
from securefs.header import MAGIC

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["SUFFIX", "check_format_1", "encrypted_files", "finding", "planted_slot", "require_some"]

SUFFIX: Final = ".enc"


def encrypted_files(names: list[str], *, format_1: bool) -> Iterator[tuple[Path, bool]]:
    """Yield the files to process: named files whatever their name, and encrypted ones in folders.

    In a folder, a file counts as encrypted by its name or its first bytes. With each file comes
    whether a link in its place is followed.
    """
    for name in names:
        # Raises for a name that does not exist: a typing error is not a finding.
        mode = os.stat(name).st_mode  # noqa: PTH116  # Path.stat would turn "" into "."
        if not stat.S_ISDIR(mode):
            yield Path(name), True
            continue
        for folder, folders, files in os.walk(name, onerror=_raise):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                if not path.is_symlink() and path.is_file() and _looks_encrypted(path, format_1=format_1):
                    yield path, False


def _raise(error: OSError) -> None:
    raise error


def _looks_encrypted(path: Path, *, format_1: bool) -> bool:
    if path.name.endswith(SUFFIX):
        return True
    if format_1:
        return False  # Format 1 has no magic by which to know it
    try:
        with read_regular(path, follow_links=False) as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, SourceError):
        return True  # its verification reports why it can't be read


def finding(path: Path, error: SecureFSError | OSError, what: str) -> dict[str, object]:
    """Return the report on a file that failed.

    :param what: what an OSError prevented.
    """
    if isinstance(error, OSError):
        return {
            "path": str(path),
            "error": f"{what}: {explain(error)}",
            "reason": Reason.IO_ERROR.value,
        }
    return {"path": str(path), "error": str(error), "reason": error.reason and error.reason.value}


def planted_slot(slot: int, key_id: str, opened_by: str) -> str:
    """Return the message that a key's slot and the contents do not fit."""
    return f"slot {slot} (key {key_id}) and the contents (key {opened_by}) do not fit: somebody else has one of these keys"


def require_some(results: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """Raise :class:`ConfigurationError` if no file was found."""
    if not results:
        # Nothing failed and nothing was done: most likely the folder is wrong.
        raise ConfigurationError(f"no encrypted file found in {', '.join(arguments.paths)}")


def check_format_1(arguments: argparse.Namespace) -> None:
    """Refuse a context together with ``--format-1``."""
    if arguments.format_1 and arguments.context:
        raise ConfigurationError(
            "--format-1 has no place for --context: Format 1 binds none, and would ignore it"
        )
