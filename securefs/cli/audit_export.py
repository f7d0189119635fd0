"""``securefs audit export``: the records of a journal for a SIEM, one line each.

It reads one chain after another, in the order of their first records, and holds one line at a time.
It verifies nothing: ``securefs audit verify`` does that, and an export is no evidence. A line that
is no record is counted, and the command then ends with 1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit.cef import to_cef
from securefs.audit.ecs import to_ecs
from securefs.audit.lines import chain_files, read_lines
from securefs.audit.ocsf import to_ocsf
from securefs.audit.record import RecordError, parse_line
from securefs.cli.terminal import DONE, FINDING, complain, say_bytes
from securefs.disk import explain
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["FORMATS", "LOG_VARIABLE", "run"]

LOG_VARIABLE: Final = "SECUREFS_AUDIT_LOG"


def run(arguments: argparse.Namespace) -> int:
    """Print each record in the format that is asked for."""
    convert, odd = FORMATS[arguments.format], 0
    for path in _files(Path(arguments.directory), arguments.log or os.environ.get(LOG_VARIABLE)):
        try:
            odd += sum(_print(convert, line) for _, line in read_lines(path))
        except OSError as error:  # noqa: PERF203  # of each file
            raise ConfigurationError(f"cannot read {str(path)!a} to its end: {explain(error)}") from None
    if odd:
        complain(f"lines that are no records, and were left out: {odd}; run securefs audit verify")
    return FINDING if odd else DONE


def _print(convert: Callable[[Mapping[str, object]], str], line: bytes) -> bool:
    """Print a record; return whether the line is none."""
    try:
        record = parse_line(line)
    except RecordError:
        return True
    say_bytes(convert(record).encode("utf-8") + b"\n")
    return False


def _as_json(convert: Callable[[Mapping[str, object]], Mapping[str, object]]) -> Callable[..., str]:
    return lambda record: json.dumps(convert(record), sort_keys=True, separators=(",", ":"))


FORMATS: Final[Mapping[str, Callable[[Mapping[str, object]], str]]] = {
    "ocsf": _as_json(to_ocsf),
    "ecs": _as_json(to_ecs),
    "cef": to_cef,
}


def _files(journal: Path, named: str | None) -> list[Path]:
    """Return the files of all chains, ordered by the times of their first records.

    :param named: the log's folder, if it is not in the journal's.
    :raises ConfigurationError: there is no journal.
    """
    log = Path(named) if named else journal / "log"
    try:
        found = list(_chains(journal))
        if not found:
            raise ConfigurationError(
                f"there is no chain of a journal in {str(journal)!a}; name the journal's folder"
            )
        if named or os.path.lexists(log):
            found += _chains(log)
    except OSError as error:
        raise ConfigurationError(f"cannot read the journal {str(journal)!a}: {explain(error)}") from None
    return [path for *_, path in sorted(found)]


def _chains(folder: Path) -> Iterator[tuple[str, str, int, Path]]:
    for chain, number, path in chain_files(folder):
        yield _first_time(path), chain, number, path


def _first_time(path: Path) -> str:
    try:
        return str(parse_line(next(read_lines(path), (0, b""))[1])["time"])
    except RecordError:
        return ""  # it is read first, and told
