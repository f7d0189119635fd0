"""Files that are no regular ones."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path


def bind(path: Path) -> None:
    """Put a socket at ``path``, with a name that is short enough for the system wherever the folder is."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def without_unnamed_files(monkeypatch) -> None:
    """Let no file system have files without a name, as some do not, which no test may mount."""
    real = os.open

    def refuse(path, flags, *arguments, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


def unnamed_of(process, folder: Path) -> list[int]:
    """Return the sizes in bytes of the files without a name that a process has open in a folder."""
    sizes = []
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
            if target.startswith(f"{folder}/") and target.endswith(" (deleted)"):
                sizes.append(descriptor.stat().st_size)
        except FileNotFoundError:  # closed meanwhile
            continue
    return sizes
