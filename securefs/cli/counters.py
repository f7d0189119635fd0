"""The files in which worker processes count: those of ended workers are added up into one.

prometheus-client keeps a file for each process and kind of metric in ``PROMETHEUS_MULTIPROC_DIR``.
Workers are replaced every few thousand requests, so without this there would be ever more of them.
The server's master only marks a worker as ended (:func:`mark_ended`); the one process that serves
the metrics adds up (:func:`fold`) and reads, so nothing is counted twice.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fold", "mark_ended"]

KINDS: Final = ("counter", "histogram", "summary")  # whose values are sums
_MARK: Final = "ended_"
_TOTAL: Final = "total"  # where other files have the number of a process


def mark_ended(folder: Path, pid: int) -> None:
    """Note that a worker ended. It costs its master one empty file."""
    with suppress(OSError):  # the folder is gone: nobody reads it any more
        (folder / f"{_MARK}{pid}").touch(0o600)


def fold(folder: Path) -> None:
    """Add up what ended workers counted, and remove their files."""
    for mark in folder.glob(f"{_MARK}*"):
        pid = int(mark.name.removeprefix(_MARK))
        if _lives(pid):
            continue  # another process that got the same number: its file goes on
        for kind in KINDS:
            _add(folder / f"{kind}_{pid}.db", folder / f"{kind}_{_TOTAL}.db")
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        mark.unlink()


def _add(ended: Path, total: Path) -> None:
    """Add the values of one file to those of another, which is replaced as a whole."""
    values: dict[str, float] = defaultdict(float)
    for path in (ended, total):
        with suppress(FileNotFoundError):
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                values[key] += value
    if not ended.exists():
        return
    new = total.with_suffix(".new")
    new.unlink(missing_ok=True)
    written = MmapedDict(str(new))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    new.replace(total)
    ended.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
