"""What the Python programs have in common: the job is read, and each case's outcome is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One upload: ``files`` are (field, path, file name), ``fields`` (name, value, type or nothing)."""

    mode: str
    url: str
    files: list[tuple[str, str, str]]
    fields: list[tuple[str, str, str]]


def run(version: str, send: Callable[[Case], int | None], fetch: Callable[[str], tuple[int, bytes]]) -> None:
    """Print the client's version, and of each case the statuses. ``send`` returns None for what the client does not have."""
    print(version, flush=True)
    for line in Path(sys.argv[-1]).read_text("utf-8").splitlines():
        mode, url, download, save, *parts = line.split("\t")
        groups = [parts[at : at + 4] for at in range(0, len(parts), 4)]
        files = [tuple(group[1:]) for group in groups if group[0] == "file"]
        fields = [tuple(group[1:]) for group in groups if group[0] == "field"]
        try:
            status = send(Case(mode, url, files, fields))
            if status is None:
                print("-")
                continue
            got, content = fetch(download)
            Path(save).write_bytes(content)
            print(status, got)
        except Exception as error:  # noqa: BLE001  # whatever a client raises is told
            print(f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
