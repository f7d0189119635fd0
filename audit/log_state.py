"""What the log took until now, from the records of the sealers that were there before.

Guarantees: the seal records alone decide what is in the log. The last whole one counts, whether or
not its checkpoint was signed: that comes after it. So a sealer that goes on from here never signs
what contradicts an earlier checkpoint. Refuses: seal records that do not follow from each other,
with :class:`LogDamagedError`.

Implements the section on the sealer of ``docs/log.md``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from securefs.audit.fields import LONGEST_LINE, RecordError
from securefs.audit.follow import chain_names
from securefs.audit.log_folder import LogDamagedError
from securefs.audit.record import Entry, build_line, line_hash, parse_line
from securefs.audit.record import Position as RecordPosition
from securefs.audit.seal import Seal, read_seal
from securefs.audit.sink import chain_file_name
from securefs.disk import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from securefs.audit.log_folder import Disk
    from securefs.audit.record import Source

__all__ = ["LogState", "Taken", "complete_stop", "read_seals", "read_state"]

# No string of a record can hold these bytes: quotes in it are escaped.
_HASH: Final = re.compile("[0-9a-f]{64}")
_OURS: Final = (b'"event":"audit.', b'"event":"server.stop"')


@dataclass(slots=True)
class Taken:
    """How much of a chain is in the log, or older than it: its first ``count`` records.

    The last of them is leaf ``leaf``; if that is None, the hash of its line is ``head``.
    """

    count: int = 0
    leaf: int | None = None
    head: bytes = b""


@dataclass(slots=True)
class LogState:
    """The log after its last seal record.

    :ivar index: of the next checkpoint. :ivar size: leaves.
    :ivar next_key: the public key of the next checkpoint, in hex; "" before the first.
    :ivar chain: the sealer's chain that holds the last seal record. :ivar tail: the hashes of that
        record and, if the sealer ended in order, of its server.stop: the last leaves.
    :ivar cut_short: that server.stop was to follow, and did not.
    :ivar adopted: the chains that were closed for their dead writers.
    :ivar retired: the chains whose oldest records are in no file any more: how many, and the hash
        of the last of them.
    """

    index: int = 0
    size: int = 0
    next_key: str = ""
    chain: str = ""
    tail: list[bytes] = field(default_factory=list)
    cut_short: bool = False
    taken: dict[str, Taken] = field(default_factory=dict)
    adopted: set[str] = field(default_factory=set)
    retired: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def take(self, seal: Seal, chain: str) -> None:
        """Take what a seal record in the sealer's chain ``chain`` took.

        :raises LogDamagedError: it does not follow from those before it.
        """
        if seal.index != self.index:
            raise _damaged(chain, f"seal {self.index} is missing, and seal {seal.index} is there")
        size = self.size
        for run in seal.runs:
            taken = self.taken.setdefault(run.chain, Taken())
            if run.first != taken.count:
                raise _damaged(chain, f"seal {seal.index} takes record {run.first} of chain {run.chain} next")
            size += len(run)
            taken.count, taken.leaf = run.last + 1, size - 1
        if size != seal.size:
            raise _damaged(chain, f"seal {seal.index} counts {seal.size} leaves, its runs {size}")
        self.index, self.size, self.next_key, self.chain = seal.index + 1, size, seal.next_key, chain


def read_state(folder: Path) -> LogState:
    """Return the state of the log in ``folder``.

    :raises LogDamagedError: its seal records do not follow from each other.
    """
    state, found = LogState(), ""
    said: set[str] = set()
    gone: dict[str, tuple[int, bytes]] = {}
    for chain, digest, record in _ordered(folder):
        if chain != found:
            # What a sealer says is true once a seal of its own took it.
            found, said, gone = chain, set(), {}
        if (seal := read_seal(record)) is not None:
            state.adopted |= said
            state.retired |= gone
            said, gone = set(), {}
            state.take(seal, chain)
            state.tail = [bytes.fromhex(digest)]
            state.cut_short = seal.runs[-1].last != record["seq"]
        elif record["event"] == "server.stop":
            if state.cut_short and chain == state.chain:
                state.tail.append(bytes.fromhex(digest))
                state.cut_short = False
        elif record["event"] == "audit.adopted":
            said.add(_told_of(record, chain)["chain"])
        elif record["event"] == "audit.retired":
            obj = _told_of(record, chain)
            gone[obj["chain"]] = obj["upto"] + 1, bytes.fromhex(obj["hash"])
        elif record["event"] == "audit.cutover" and not state.index:
            obj = _told_of(record, chain)
            state.taken[obj["chain"]] = Taken(obj["upto"] + 1, head=bytes.fromhex(obj["hash"]))
    # Without a seal, nothing of it was ever true.
    return state if state.index else LogState()


def _told_of(record: Mapping[str, object], chain: str) -> Any:  # as the table of events says
    """Return what a record says of another chain: ``chain``, and ``upto`` and ``hash`` together."""
    obj = record.get("obj")
    if isinstance(obj, dict) and "chain" in obj:
        needed = record["event"] != "audit.adopted"
        if not needed or ("upto" in obj and _HASH.fullmatch(obj.get("hash", ""))):
            return obj
    raise _damaged(chain, f"record {record['seq']} does not say what it should")


def read_seals(folder: Path) -> Iterator[Seal]:
    """Yield the seals of the log in ``folder``, in order."""
    for _, _, record in _ordered(folder):
        if (seal := read_seal(record)) is not None:
            yield seal


def _ordered(folder: Path) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Yield (chain, line hash, record) of the sealers' own events, in the order of the log."""
    firsts = []
    for chain in chain_names(folder):
        path = folder / chain_file_name(chain)
        first = next((seal.index for _, record in _records(path) if (seal := read_seal(record))), None)
        # A sealer that died before its first seal may have written other records.
        firsts.append((first is None, first or 0, chain, path))
    for _, _, chain, path in sorted(firsts):
        for digest, record in _records(path):
            yield chain, digest, record


def complete_stop(state: LogState, folder: Path, disk: Disk, source: Source, time_ns: int) -> None:
    """Write the server.stop that the last seal record took, and a crash prevented."""
    path = folder / chain_file_name(state.chain)
    position = RecordPosition(state.chain, state.taken[state.chain].count - 1, state.tail[0].hex())
    with read_regular(path, follow_links=False) as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - 2 * LONGEST_LINE))
        whole = start + file.read().rfind(b"\n") + 1
    if whole < size:
        disk.cut(path, whole)
    disk.append(path, build_line(position, source, time_ns, Entry("server.stop")))


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield (line hash, record) of the sealer's own events in a chain."""
    with read_regular(path, follow_links=False) as file:
        while (line := file.readline(LONGEST_LINE + 1)).endswith(b"\n"):
            if any(mark in line for mark in _OURS):
                try:
                    yield line_hash(line[:-1]), parse_line(line[:-1])
                except RecordError as error:
                    raise LogDamagedError(f"{path}: a record of the sealer is none: {error}") from None


def _damaged(chain: str, what: str) -> LogDamagedError:
    return LogDamagedError(f"sealer's chain {chain}: {what}: run securefs audit verify")
