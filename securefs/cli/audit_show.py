"""``securefs audit show`` and ``search``: the records of all chains, in the order of their times.

They show what the files say and verify nothing: ``securefs audit verify`` does that. A line that is
no record is counted, and the command then ends with 1. Files are opened when their first record is
due, so as many are open as there were writers at one time.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit.log_files import LOG_FOLDER, read_lines
from securefs.audit.name_keys import hash_names
from securefs.audit.record import RecordError, parse_line
from securefs.audit.segments import find_chains
from securefs.cli.audit import KEYS_VARIABLE, log_folder, moment
from securefs.cli.terminal import DONE, FINDING, complain, flush_output, say, say_bytes
from securefs.disk import explain
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from securefs.audit.pseudonym import Kind
    from securefs.audit.segments import ChainFiles

    Record = Mapping[str, object]
    Test = Callable[[Record], bool]

__all__ = ["journal_folders", "records", "run"]

_EVERY: Final = 0.5  # seconds between two looks at the chains
_HEAD: Final = frozenset({"v", "time", "chain", "seq", "prev", "event", "outcome", "sev", "src", "host"})


def run(arguments: argparse.Namespace) -> int:
    """Print the records that the options ask for; with ``--follow`` until a signal comes."""
    reader = _Reader(journal_folders(arguments), _tests(arguments))
    found: Iterable[Record] = reader.merged()
    if arguments.last is not None:
        found = deque(found, arguments.last)
    for record in found:
        _print(record, as_json=arguments.json)
    while arguments.follow:
        flush_output()
        time.sleep(_EVERY)
        for record in sorted(reader.more(), key=_moment_of):
            _print(record, as_json=arguments.json)
    if reader.odd:
        complain(f"lines that are no records: {reader.odd}; run securefs audit verify")
    return FINDING if reader.odd else DONE


def records(folders: list[Path], marks: tuple[bytes, ...]) -> Iterator[Record | None]:
    """Yield the records of all chains, one chain after another; None for a line that is none.

    :param marks: only lines that hold one of these are looked at.
    """
    for folder in folders:
        for files in find_chains(folder).values():
            for _, line in read_lines(files, 0, files.size()):
                if any(mark in line for mark in marks):
                    yield _parsed(line)


def _parsed(line: bytes) -> Record | None:
    try:
        return parse_line(line)
    except RecordError:
        return None


def journal_folders(arguments: argparse.Namespace) -> list[Path]:
    """Return the folders with chains: the journal's, and the log's if there is one.

    :raises ConfigurationError: there is no journal.
    """
    journal = Path(arguments.directory)
    named = log_folder(arguments)
    log = Path(named) if named else journal / LOG_FOLDER
    try:
        if not find_chains(journal):
            raise ConfigurationError(
                f"there is no chain of a journal in {str(journal)!a}; name the journal's folder"
            )
        return [journal, log] if named or os.path.lexists(log) else [journal]
    except OSError as error:
        raise ConfigurationError(f"cannot read the journal {str(journal)!a}: {explain(error)}") from None


def _tests(arguments: argparse.Namespace) -> list[Test]:
    """Return what a record must be for each option that was given."""
    tests: list[Test] = []
    if arguments.begin is not None:
        begin = _bound(arguments.begin, "--from")
        tests.append(lambda record: str(record["time"]) >= begin)
    if arguments.end is not None:
        end = _bound(arguments.end, "--to")
        tests.append(lambda record: str(record["time"]) < end)
    if arguments.event:
        events = tuple(arguments.event)
        # "file." and "file.*" are all events of files.
        tests.append(lambda record: any(_is_event(str(record["event"]), event) for event in events))
    if arguments.severity is not None:
        tests.append(lambda record: isinstance(found := record["sev"], int) and found >= arguments.severity)
    for option, section, member, kind in _MEMBERS:
        if (given := getattr(arguments, option)) is not None:
            tests.append(_member(section, member, _spellings(arguments, given, kind)))
    return tests


# Option, section, member, and the kind of pseudonym under which it may stand.
_MEMBERS: Final[tuple[tuple[str, str | None, str, Kind | None], ...]] = (
    ("principal", "actor", "id", "principal"),
    ("name", "obj", "name", "name"),
    ("object", "obj", "id", None),
    ("request", None, "req", None),
    ("reason", None, "reason", None),
)


def _is_event(event: str, asked: str) -> bool:
    prefix = asked.removesuffix("*")
    return event == asked or (prefix.endswith(".") and event.startswith(prefix))


def _member(section: str | None, member: str, values: set[str]) -> Test:
    def test(record: Record) -> bool:
        part = record if section is None else record.get(section)
        return isinstance(part, dict) and part.get(member) in values

    return test


def _spellings(arguments: argparse.Namespace, text: str, kind: Kind | None) -> set[str]:
    """Return how a name may stand in a record: as it is, and as a pseudonym under each key."""
    if kind is None:
        return {text}
    names_key = arguments.names_key or os.environ.get(KEYS_VARIABLE) or None
    return {text, *hash_names(arguments.directory, text, kind, names_key=names_key).values()}


def _bound(text: str, option: str) -> str:
    """Return a time as records spell it, so that texts can be compared."""
    seconds = moment(text, option)
    whole = int(seconds // 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 1e9):09d}Z"


@dataclass(slots=True)
class _Chain:
    files: ChainFiles
    offset: int = 0


class _Reader:
    """Reads chains, each line once."""

    def __init__(self, folders: list[Path], tests: list[Test]) -> None:
        self._folders = folders
        self._tests = tests
        self._chains: dict[str, _Chain] = {}
        self.odd = 0  # lines that are no records

    def merged(self) -> Iterator[Record]:
        """Yield the records that pass all tests, ordered by time as far as each chain is."""
        self._discover()
        waiting: list[tuple[str, str, Record | None, Iterator[Record]]] = []
        for name, chain in self._chains.items():
            records = self._records(chain, chain.files.size())
            heapq.heappush(waiting, (_first_time(chain.files), name, None, records))
        while waiting:
            _, name, record, records = heapq.heappop(waiting)
            if record is not None:
                yield record
            following = next(records, None)
            if following is not None:
                heapq.heappush(waiting, (_moment_of(following), name, following, records))

    def more(self) -> Iterator[Record]:
        """Yield what came since."""
        self._discover()
        for chain in self._chains.values():
            yield from self._records(chain, chain.files.size())

    def _discover(self) -> None:
        for folder in self._folders:
            for name, files in find_chains(folder).items():
                self._chains.setdefault(name, _Chain(files)).files = files

    def _records(self, chain: _Chain, end: int) -> Iterator[Record]:
        for offset, line in read_lines(chain.files, chain.offset, end):
            chain.offset = offset + len(line) + 1
            record = _parsed(line)
            if record is None:
                self.odd += 1
            elif all(test(record) for test in self._tests):
                yield record


def _first_time(files: ChainFiles) -> str:
    _, line = next(read_lines(files, 0, files.size()), (0, b""))
    try:
        return _moment_of(parse_line(line))
    except RecordError:
        return ""  # it is read first, and told


def _moment_of(record: Record) -> str:
    return str(record["time"])


def _print(record: Record, *, as_json: bool) -> None:
    if as_json:
        # One object on one line, as in the file.
        say_bytes(json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n")
        return
    words = [f"{str(record['time'])[:23]}Z", str(record["sev"]), str(record["event"]), str(record["outcome"])]
    for section, value in record.items():
        if section not in _HEAD:
            words += _words(section, value)
    say(f"{' '.join(words)} {record['chain']}:{record['seq']}")


def _words(section: str, value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{section}={_word(value)}"
        return
    for key, member in value.items():
        if not isinstance(member, list):
            yield f"{section}.{key}={_word(member)}"


def _word(value: object) -> str:
    text = str(value)
    # Quoted where a reader could take it for several.
    return text if text.isalnum() or all(c.isalnum() or c in "-_./:" for c in text) else json.dumps(value)
