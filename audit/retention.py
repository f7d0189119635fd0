"""Retention: whole files of chains, the oldest, are removed once the log says so.

Guarantees: a file is removed only if every record in it is in the log, under a signed checkpoint
and with the hash that the file has, and if the sealer has sealed an ``audit.retired`` record that
names its last one. The hashes of its records stay in the log's tiles, so everything else is proven
as before. Never the file that is written, a file whose writer nobody saw die, or one with records
that are not sealed or older than the log. Refuses: anything that it can't read.

The sealer alone writes to the log: it is asked by a file, which it takes up and removes.

Implements the section on retention of ``docs/log.md``.
"""

from __future__ import annotations

import calendar
import fcntl
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from securefs.audit.log_files import CHECKPOINTS, TILES, read_hashes, read_notes, size_of
from securefs.audit.log_state import read_seals, read_state
from securefs.audit.note import parse_checkpoint, parse_note
from securefs.audit.record import line_hash
from securefs.audit.segments import ChainFiles, find_chains
from securefs.disk import flush_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from securefs.audit.log_state import LogState
    from securefs.audit.segments import Segment

__all__ = [
    "REQUEST",
    "Retired",
    "fresh",
    "is_retired",
    "plan",
    "read_request",
    "remove_files",
    "taken",
    "write_request",
]

REQUEST: Final = "retire"  # the file by which the sealer is asked
_MAX_REQUEST: Final = 16 * 1024 * 1024  # bytes
_TIME: Final = re.compile(rb'"time":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})')
_STOP: Final = b'"event":"server.stop"'
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Retired:
    """Files of a chain that are to go: all records up to ``upto``, whose hash is ``digest``."""

    chain: str
    upto: int
    digest: str
    files: int
    paths: tuple[Path, ...] = field(default=(), compare=False)


def plan(journal: Path, log: Path, before: float) -> tuple[list[Retired], list[str]]:
    """Return what is to be retired, and sentences on old files that stay.

    :param before: POSIX seconds; a file goes if its newest record is older.
    :raises LogDamagedError: the log does not hold. :raises OSError: something can't be read.
    """
    state, leaves = read_state(log), _Leaves(log)
    found, kept = [], []
    for files in find_chains(journal).values():
        count, digest, paths = files.begin.count, "", []
        for segment in files.segments:
            last = segment is files.segments[-1]
            lines = _Lines(segment)
            if lines.newest >= before or not lines.count:
                break
            if trouble := _unfit(files, segment, lines, state, last=last) or leaves.differ(
                files.chain, count, lines.hashes
            ):
                kept.append(f"{segment.path.name} stays: {trouble}")
                break
            count, digest = count + lines.count, lines.hashes[-1].hex()
            paths.append(segment.path)
        if paths:
            found.append(Retired(files.chain, count - 1, digest, len(paths), tuple(paths)))
    return found, kept


def _unfit(files: ChainFiles, segment: Segment, lines: _Lines, state: LogState, *, last: bool) -> str:
    if last and not (lines.stopped or files.chain in state.adopted):
        return "its writer lives, or nobody saw it end"
    if last and _is_locked(segment.path):
        return "a writer holds it"
    if lines.torn and not (last and files.chain in state.adopted):
        return "it does not end with a whole record"
    return ""


class _Lines:
    """What retention needs to know of a file."""

    def __init__(self, segment: Segment) -> None:
        self.hashes: list[bytes] = []
        self.newest, self.stopped, rest = 0.0, False, b""
        file = segment.open()
        if file is not None:
            with file:
                while block := file.read(256 * 1024):
                    *whole, rest = (rest + block).split(b"\n")
                    for line in whole:
                        self._take(line)
        self.torn = bool(rest) or bool(getattr(file, "damage", ""))

    @property
    def count(self) -> int:
        return len(self.hashes)

    def _take(self, line: bytes) -> None:
        self.hashes.append(bytes.fromhex(line_hash(line)))
        self.stopped = _STOP in line
        match = _TIME.search(line)
        if match is not None:
            moment = time.strptime(match[1].decode("ascii"), "%Y-%m-%dT%H:%M:%S")
            self.newest = max(self.newest, float(calendar.timegm(moment)))


class _Leaves:
    """The leaves of a log that a checkpoint covers, by chain and number."""

    def __init__(self, log: Path) -> None:
        self._tiles = log / TILES / "0"
        self._runs: dict[str, list[tuple[int, int, int]]] = {}
        size, index = _signed_size(log / CHECKPOINTS), 0
        for seal in read_seals(log):
            for run in seal.runs:
                if seal.size <= size:
                    self._runs.setdefault(run.chain, []).append((run.first, run.last, index))
                index += len(run)

    def differ(self, chain: str, first: int, hashes: list[bytes]) -> str:
        """Return why these are not the leaves of a chain's records from ``first`` on; "" if so."""
        done = first
        for start, last, index in self._runs.get(chain, []):
            if not start <= done <= last:
                continue
            part = hashes[done - first : last + 1 - first]
            if read_hashes(self._tiles, index + done - start, len(part)) != part:
                return "its records are not those that the log's tiles have"
            done += len(part)
        return "" if done == first + len(hashes) else "not all of its records are sealed"


def _signed_size(path: Path) -> int:
    size = 0
    for _, data, whole in read_notes(path, 0, size_of(path)):
        if whole:
            size = parse_checkpoint(parse_note(data).text).size
    return size


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def fresh(log: Path, wanted: list[Retired]) -> list[Retired]:
    """Return what no sealed record retires yet: a run that was cut short goes on with the files."""
    retired = read_state(log).retired
    return [one for one in wanted if retired.get(one.chain, (0, b""))[0] <= one.upto]


def is_retired(log: Path, wanted: list[Retired]) -> bool:
    """Return whether sealed records under a signed checkpoint retire all of this."""
    state = read_state(log)
    if state.size > _signed_size(log / CHECKPOINTS):
        return False
    return all(state.retired.get(one.chain) == (one.upto + 1, bytes.fromhex(one.digest)) for one in wanted)


def write_request(log: Path, wanted: list[Retired]) -> None:
    """Ask the sealer of this log, whose user owns its folder, to retire this."""
    data = json.dumps([[one.chain, one.upto, one.digest, one.files] for one in wanted]).encode("ascii")
    temporary = log / f".{REQUEST}.tmp"
    temporary.unlink(missing_ok=True)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        owner = log.stat()
        if os.geteuid() != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(log / REQUEST)
    flush_folder(log)


def read_request(data: bytes) -> Iterator[Retired]:
    """Yield what a request asks for; nothing of one that is none."""
    try:
        found = json.loads(data) if len(data) <= _MAX_REQUEST else []
        for chain, upto, digest, files in found:
            good = _ID.fullmatch(chain) and _HASH.fullmatch(digest)
            if good and type(upto) is type(files) is int and upto >= 0 and files > 0:
                yield Retired(chain, upto, digest, files)
    except (ValueError, TypeError, RecursionError):
        return


def remove_files(journal: Path, wanted: list[Retired]) -> None:
    """Remove the files, the oldest of each chain first."""
    for one in wanted:
        for path in one.paths:
            path.unlink()
    flush_folder(journal)


def taken(request: Retired, counts: Mapping[str, int], retired: Mapping[str, tuple[int, bytes]]) -> bool:
    """Return whether the log has what is to be retired, and has not retired it before."""
    before = retired.get(request.chain, (0, b""))[0]
    return before <= request.upto < counts.get(request.chain, 0)
