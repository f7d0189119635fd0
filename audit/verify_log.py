"""The verifier of a log: follows its seal records and compares leaves, roots, keys and signatures.

Guarantees: each leaf is the hash of a line that is in a chain now, in the order that the seal
records give. A checkpoint counts only if its root is the one over these leaves, and the key that
its seal record names has signed it. Memory grows with the number of chains, not with their length.
Refuses nothing: what does not hold is a :class:`Finding`. What cannot be proven is told apart from
it: a :class:`Break` in the line of keys, and records that are not sealed yet.

The rules:

1. Seal records are numbered without a gap. Each names the key that signs its checkpoint, and that
   is the key that the seal before it announced: otherwise there is a break.
2. The runs of a seal continue each chain where the log left it. The last one ends with the seal
   record itself, or with the server.stop that follows it. Their lengths add up to the growth of the
   tree.
3. The checkpoint of the seal's size has its root and a good signature. It may be missing only for
   the last seal and before a break: a crash.
4. What the log says of a chain that its writer left, or that is older than the log, is what the
   chain looks like.

Implements the section on verifying of ``docs/log.md``.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from securefs.audit.log_files import TILES, Leaves, read_hashes, read_lines, size_of
from securefs.audit.note import VerificationKey
from securefs.audit.record import RecordError, line_hash, parse_line
from securefs.audit.seal import read_seal
from securefs.audit.tree import CompactRange
from securefs.audit.verify_chain import Finding
from securefs.audit.verify_checkpoints import Checkpoints
from securefs.audit.verify_state import Adopted, Break, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from securefs.audit.seal import Run, Seal
    from securefs.audit.segments import ChainFiles
    from securefs.audit.verify_checkpoints import Signed
    from securefs.audit.verify_state import LogState

__all__ = ["LogFacts", "LogWalk"]

_MAX_NAMED: Final = 5  # runs that a finding names
# No string of a record can hold these bytes: quotes in it are escaped.
_OF_INTEREST: Final = (b'"event":"audit.', b'"event":"server.stop"')


@dataclass(slots=True)
class LogFacts:
    """What was found out about a log, beside findings and the state.

    :ivar checkpoints: those that were read and hold. :ivar unsigned: seals behind the last
        checkpoint. :ivar roots: the roots at the sizes that were asked for.
    :ivar torn: bytes of a last checkpoint that is not whole. :ivar told: chains of which one sealed
        record was found missing or changed.
    """

    checkpoints: int = 0
    unsigned: int = 0
    torn: int = 0
    told: frozenset[str] = frozenset()
    roots: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seal:
    """A seal record and where it stands."""

    seal: Seal
    chain: str
    file: str
    seq: int
    offset: int
    time: str


class LogWalk:
    """One verification of a log, from where ``state`` says; the state is changed.

    Verify the chains first, and run it then: so each record that the log took before ``end`` was
    measured is in a chain that was verified.

    :param paths: the files of each chain, in both folders.
    :param sealers: the chains in ``folder``.
    :param end: the size of the checkpoints, measured before the folders were listed.
    :param pins: the keys that the auditor trusts. :param sizes: sizes whose roots are wanted.
    :param report: called with each finding.
    """

    def __init__(
        self,
        folder: Path,
        paths: Mapping[str, ChainFiles],
        sealers: Sequence[str],
        state: LogState,
        *,
        end: int,
        pins: Sequence[VerificationKey] = (),
        sizes: Collection[int] = (),
        report: Callable[[Finding], None],
    ) -> None:
        self._tiles = folder / TILES / "0"
        self._paths = paths
        self._sealers = sealers
        self._state = state
        self._sizes = sizes
        self._report = report
        self._checkpoints = Checkpoints(folder, state, end, pins, report)
        # Measured after the checkpoints: a sealer writes the record first, so each checkpoint has
        # its record below these marks.
        self._ends = {chain: size_of(paths[chain]) for chain in sealers}
        self._leaves = Leaves(paths, state.places)
        self._tree: CompactRange | None = state.tree
        self._size = state.tree.size
        self._sealed = self._size  # leaves in the last checkpoint
        self._key = state.key
        self._missing: _Seal | None = None  # a seal without a checkpoint
        self._starts = {chain: self._leaves.place(chain).offset for chain in sealers}
        self._retired = dict(state.retired)  # what sealers' records say of it, sealed or not
        self._told: set[str] = set()  # chains of which one sealed record was found missing or changed
        self.facts = LogFacts()

    def run(self, live: Collection[str]) -> LogFacts:
        """Follow the log to its end; ``live`` are the chains that are being written."""
        try:
            self._read_retired()
            for chain in self._order():
                self._follow(chain, live)
            self._adopt()
        finally:
            self._leaves.close()
        self._checkpoints.finish()
        self.facts.torn = self._checkpoints.torn
        self.facts.told = frozenset(self._told)
        self._state.tree = self._tree or self._state.tree
        return self.facts

    def _order(self) -> list[str]:
        """Return the sealers' chains with seals that are still to be followed, in order."""
        first: dict[str, int] = {}
        for chain in self._sealers:
            for _, record in self._records(chain, self._starts[chain]):
                seal = read_seal(record)
                if seal is not None:
                    first[chain] = seal.index
                    break
        return sorted(first, key=lambda chain: (first[chain], chain))

    def _records(self, chain: str, start: int) -> Iterator[tuple[int, Mapping[str, object]]]:
        """Yield (offset, record) of those records of a sealer that say something about the log."""
        for offset, line in read_lines(self._paths[chain], start, self._ends[chain]):
            if any(mark in line for mark in _OF_INTEREST):
                try:
                    yield offset, parse_line(line)
                except RecordError:
                    continue  # the chain's verifier has found it

    def _follow(self, chain: str, live: Collection[str]) -> None:
        for offset, record in self._records(chain, self._starts[chain]):
            seal = read_seal(record)
            if seal is not None:
                seq, time = cast("int", record["seq"]), cast("str", record["time"])
                found = _Seal(seal, chain, self._paths[chain].name, seq, offset, time)
                self._seal(found, running=chain in live or self._checkpoints.grown())
            elif record["event"] == "server.stop":
                self._state.closed = record["seq"] == self._leaves.place(chain).count - 1
            elif record["event"] == "audit.cutover" and not self._state.index:
                # Only before the first seal: later it would take records out of the log.
                self._cut_over(record, chain)

    def _cut_over(self, record: Mapping[str, object], chain: str) -> None:
        """Begin a chain that is older than the log where the log says."""
        obj = cast("Mapping[str, str | int]", record.get("obj", {}))
        other, head = str(obj.get("chain", "")), str(obj.get("hash", ""))
        count = cast("int", obj.get("upto", -1)) + 1
        place = self._leaves.place(other)
        for _ in self._leaves.take(other, count - place.count):
            self._state.older += 1
        if (place.count, place.head) != (count, head):
            message = (
                f"chain {chain} says that it had {count} records when the log began; it has not got these"
            )
            self._report(Finding("log", self._file(other), other, None, 0, message))

    def _read_retired(self) -> None:
        """Note which records are in no file any more, as sealers say: tiles have their leaves."""
        for chain, start in self._starts.items():
            for _, record in self._records(chain, start):
                if record["event"] == "audit.retired":
                    _keep(self._retired, *_seen(record))

    def _adopt(self) -> None:
        """Note what the log says of chains whose writers are dead, and of files that were removed.

        Any sealer may have written it. It counts once it is sealed.
        """
        for chain, start in self._starts.items():
            for _, record in self._records(chain, start):
                seq = cast("int", record["seq"])
                if seq >= self._leaves.place(chain).count:
                    continue
                other, seen = _seen(record)
                if record["event"] == "audit.adopted":
                    self._state.adopted[other] = seen
                elif record["event"] == "audit.retired":
                    _keep(self._state.retired, other, seen)

    def _seal(self, found: _Seal, *, running: bool) -> None:
        seal, state = found.seal, self._state
        breaks = bool(self._key) and seal.key != self._key
        signed = self._checkpoints.peek() is not None
        if self._missing is not None and not breaks and (signed or not running):
            self._find(self._missing, f"checkpoint {self._missing.seal.index} is missing", "checkpoint")
        self._key, self._missing = seal.next_key, None
        if not signed:
            # What it takes is not sealed: a crash was before the signature, or a sealer is at work.
            self.facts.unsigned += 1
            self._missing = found
            return
        if seal.index != state.index:
            self._find(found, f"this is seal number {seal.index}; number {state.index} should stand here")
        if breaks:
            state.breaks.append(Break(seal.index, self._sealed, state.last, found.time, self._vkey(seal.key)))
        state.index, state.key, state.closed = seal.index + 1, seal.next_key, False
        if breaks or found.chain != state.sealer:
            state.begun, state.sealer = found.time, found.chain
        self._grow(found)
        state.first, state.last = state.first or found.time, found.time

    def _vkey(self, key: str) -> str:
        return str(VerificationKey(self._state.origin, bytes.fromhex(key)))

    def _grow(self, found: _Seal) -> None:
        """Take what the seal took, and compare the tree with its checkpoint."""
        seal, before = found.seal, self._tree
        starts = {run.chain: copy(self._leaves.place(run.chain)) for run in seal.runs}
        self._check_size(found)
        whole = before is not None and self._take(found, before)
        signed = self._checkpoints.take(seal.size)
        if signed is None:
            self._missing = found
            self._tree = self._tree if whole else None
            return
        good = self._checkpoints.check(signed, seal.index, seal.key)
        self._sealed = seal.size
        if not whole or self._tree is None or self._tree.root() != signed.checkpoint.root:
            self._tree = None if before is None else self._repair(found, signed, before, starts)
            return
        self.facts.checkpoints += good
        if seal.size in self._sizes:
            self.facts.roots[seal.size] = signed.checkpoint.root

    def _check_size(self, found: _Seal) -> None:
        seal = found.seal
        last = seal.runs[-1]
        # A sealer that ends in order has its server.stop sealed, too.
        if last.chain != found.chain or last.last not in {found.seq, found.seq + 1}:
            self._find(found, "the runs of a seal end with its own record")
        size = self._size + sum(map(len, seal.runs))
        if seal.size != size:
            self._find(found, f"the seal names a size of {seal.size}, and its runs add up to {size}")
        self._size = seal.size

    def _take(self, found: _Seal, before: CompactRange) -> bool:
        """Append the leaves of all runs to a new tree; return whether all were there."""
        tree = CompactRange(before.size, before.peaks)
        whole = True
        for run in found.seal.runs:
            place = self._leaves.place(run.chain)
            if run.first != place.count:
                self._find(
                    found,
                    f"it takes chain {run.chain} from record {run.first}, and {place.count} is the next",
                )
                whole = False
            for leaf in self._take_retired(run, place, tree.size):
                tree.append(leaf)
            for leaf in self._leaves.take(run.chain, run.last + 1 - place.count):
                tree.append(leaf)
            if place.count <= run.last:
                whole = False
                self._short(run, place.count, found.time)
                # So that its later runs are in step.
                place.count = run.last + 1
        self._tree = tree
        return whole

    def _take_retired(self, run: Run, place: Place, index: int) -> list[bytes]:
        """Return the leaves of a run whose records were retired, as the tiles have them.

        The root that was signed says whether they are right.
        """
        retired = self._retired.get(run.chain)
        if retired is None or place.count >= retired.count:
            return []
        leaves = read_hashes(self._tiles, index, min(run.last + 1, retired.count) - place.count)
        place.count += len(leaves)
        if leaves:
            place.before = leaves[-2].hex() if len(leaves) > 1 else place.head
            place.head = leaves[-1].hex()
        if place.count == retired.count:
            place.offset = self._offset_of(run.chain, place.count)
        return leaves

    def _offset_of(self, chain: str, count: int) -> int:
        """Return the byte after so many records, which are whole files."""
        files = self._paths.get(chain)
        if files is None:
            return 0
        return next((begin.offset for begin in files.begins if begin.count == count), files.size())

    def _short(self, run: Run, count: int, time: str) -> None:
        if run.chain in self._told:
            return
        self._told.add(run.chain)
        what = "its file is missing" if run.chain not in self._paths else f"it ends after {count} records"
        message = f"record {run.last} was sealed at {time}, and {what}: the chain was cut or removed"
        self._report(Finding("log", self._file(run.chain), run.chain, None, 0, message))

    def _repair(
        self, found: _Seal, signed: Signed, before: CompactRange, starts: Mapping[str, Place]
    ) -> CompactRange | None:
        """Find which records are not those that were sealed; return the tree over those that were.

        The tiles hold the leaves as they were sealed. They are believed only if they give the root
        that was signed. Without them, all that is known is the seal.
        """
        tree = CompactRange(before.size, before.peaks)
        leaves = read_hashes(self._tiles, before.size, found.seal.size - before.size)
        for leaf in leaves:
            tree.append(leaf)
        if tree.size != found.seal.size or tree.root() != signed.checkpoint.root:
            runs = ", ".join(f"{run.chain} {run.first}-{run.last}" for run in found.seal.runs[:_MAX_NAMED])
            more = ", ..." if len(found.seal.runs) > _MAX_NAMED else ""
            message = (
                f"its records do not give the root that was signed; one of them was changed: {runs}{more}"
            )
            self._find(found, message)
            return None
        rest = iter(leaves)
        for run in found.seal.runs:
            # Runs that do not add up were reported; then these hashes end early.
            sealed = [leaf.hex() for leaf in islice(rest, len(run))]
            self._compare(run, starts[run.chain], sealed, found.time)
        return tree

    def _compare(self, run: Run, start: Place, sealed: Sequence[str], time: str) -> None:
        """Report the first record of a chain that is not the one that was sealed."""
        if run.chain in self._told or run.chain not in self._paths:
            return
        retired = self._retired.get(run.chain, Adopted(0, "", 0)).count
        gone = max(0, retired - run.first)
        begin = self._offset_of(run.chain, retired) if gone else start.offset
        lines = read_lines(self._paths[run.chain], begin, size_of(self._paths[run.chain]))
        pairs = zip(lines, sealed[gone:], strict=False)
        for seq, ((offset, line), leaf) in enumerate(pairs, run.first + gone):
            if line_hash(line) != leaf:
                self._told.add(run.chain)
                message = f"this is not the record that was sealed at {time}: it was changed after that"
                self._report(Finding("log", self._file(run.chain), run.chain, seq, offset, message))
                return

    def _file(self, chain: str) -> str:
        return self._paths[chain].name if chain in self._paths else ""

    def _find(self, found: _Seal, message: str, code: str = "log") -> None:
        self._report(Finding(code, found.file, found.chain, found.seq, found.offset, message))


def _seen(record: Mapping[str, object]) -> tuple[str, Adopted]:
    """Return which chain a record is about, and how much of it."""
    obj = cast("Mapping[str, str | int]", record.get("obj", {}))
    count, torn = cast("int", obj.get("upto", -1)) + 1, cast("int", obj.get("size", 0))
    return str(obj.get("chain", "")), Adopted(count, str(obj.get("hash", "")), torn)


def _keep(retired: dict[str, Adopted], chain: str, seen: Adopted) -> None:
    """Keep the most that is said of a chain: sealers are not read in order."""
    if seen.count > retired.get(chain, Adopted(0, "", 0)).count:
        retired[chain] = seen
