"""The verdict on a journal, as objects for programs and as text for people.

Guarantees: 0 is returned only if nothing was found, every record that a sealer had a minute to take
is sealed, the last checkpoint is of the last minute or its sealer ended in order, and a key that
the auditor pinned vouches for it. What is missing for that is told, each in a sentence. Pure.

Implements the section on verdicts of ``docs/log.md``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from securefs.audit.verify_anchors import Witnessed
    from securefs.audit.verify_chain import ChainSummary, Finding, TornTail
    from securefs.audit.verify_state import Break, LogState

__all__ = ["INCOMPLETE", "PROVEN", "TAMPERED", "TORN", "LogReport", "Report"]

PROVEN: Final = 0  # exit code: consistent and sealed under a pinned key
TAMPERED: Final = 1  # exit code: integrity does not hold
INCOMPLETE: Final = 3  # exit code: consistent, but not proven
TORN: Final = 4  # exit code: consistent, but for torn tails that nothing explains

_NO_LOG: Final = (
    "not sealed: there is no log, so a chain that was deleted, cut at a line end or written anew as a whole "
    "cannot be told from an honest one"
)
_MAX_SHOWN: Final = 5  # chains or breaks that are shown one by one


@dataclass(frozen=True, slots=True)
class LogReport:
    """What was found out about the log.

    :ivar checkpoints: that were read this time and hold.
    :ivar since: the size of the log in the state from which this verification went on, 0 for all.
    :ivar vouched: breaks for which a pinned key vouches, by number of the first checkpoint after.
    :ivar unsealed: records that are not in the log yet, the oldest of them written at ``oldest``.
    :ivar unsigned: seals behind the last checkpoint, which is not a finding.
    :ivar state: how far it was verified, for the next time.
    """

    directory: str
    state: LogState
    checkpoints: int
    since: int
    vouched: tuple[int, ...]
    unsealed: int
    oldest: str
    unsigned: int
    witnessed: tuple[Witnessed, ...]

    def to_json(self) -> dict[str, object]:
        """Return the section as objects that :mod:`json` can write."""
        state = self.state
        return {
            "directory": self.directory,
            "origin": state.origin,
            "size": state.tree.size,
            "root": state.tree.root().hex(),
            "checkpoints": self.checkpoints,
            "since": self.since,
            "older": state.older,
            "retired": sum(one.count for one in state.retired.values()),
            "first": state.first,
            "last": state.last,
            "closed": state.closed,
            "breaks": [asdict(one) | {"vouched": one.index in self.vouched} for one in state.breaks],
            "unsealed": self.unsealed,
            "oldest_unsealed": self.oldest,
            "unsigned_seals": self.unsigned,
            "witnessed": [asdict(one) for one in self.witnessed],
        }

    def lines(self) -> Iterator[str]:
        """Yield the section as lines of text for people."""
        state = self.state
        yield f"log {self.directory!a}: origin {state.origin}, {_many(state.tree.size, 'record')}"
        if state.older:
            yield f"  older than the log: {_many(state.older, 'record')}, sealed as they were when it began"
        if state.retired:
            gone = sum(one.count for one in state.retired.values())
            yield f"  retired: {_many(gone, 'record')} of {_many(len(state.retired), 'chain')}: not here, their hashes are in the log"
        if self.since:
            yield f"  records 1 to {self.since} were verified before and were not read again"
        if state.first:
            end = "; the sealer ended in order then" if state.closed else ""
            yield (
                f"sealed: {_many(self.checkpoints, 'checkpoint')} read, the first seal of {_short(state.first)}, "
                f"the last of {_short(state.last)}{end}"
            )
        for one in state.breaks[:_MAX_SHOWN]:
            yield _break(one, vouched=one.index in self.vouched)
        if len(state.breaks) > _MAX_SHOWN:
            yield f"  and {len(state.breaks) - _MAX_SHOWN} more breaks"
        if self.unsealed:
            yield f"not sealed yet: {_many(self.unsealed, 'record')}, the oldest of {_short(self.oldest)}"
        if self.unsigned:
            yield f"  not signed: {_many(self.unsigned, 'seal')}: the sealer is at work, or was killed before it signed"
        for witness in self.witnessed:
            yield f"witnessed: {witness.witness!a} cosigned {_many(witness.size, 'record')} at {witness.time}"


def _break(one: Break, *, vouched: bool) -> str:
    words = "a pinned key vouches for it" if vouched else "nothing that you pinned vouches for it"
    return (
        f"  break: between {_short(one.before)} and {_short(one.after)} the line of keys was lost (a sealer was "
        f"killed, or somebody took its place): {words}"
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _short(time: str) -> str:
    """Return a time of the journal to the second."""
    return f"{time[:19].replace('T', ' ')} UTC" if time else "an unknown time"


@dataclass(frozen=True, slots=True)
class Report:
    """The result for one journal.

    :ivar unknown: names of files in the folders that the journal did not write.
    :ivar explained: chains whose torn tail another record explains.
    :ivar log: what was found out about the log, None without one.
    :ivar reasons: why it is not proven, beside torn tails.
    """

    directory: str
    chains: tuple[ChainSummary, ...]
    findings: tuple[Finding, ...]
    finding_count: int
    unknown: tuple[str, ...]
    explained: frozenset[str] = frozenset()
    log: LogReport | None = None
    reasons: tuple[str, ...] = (_NO_LOG,)

    @property
    def intact(self) -> bool:
        """The first verdict, integrity: every line, link, seal and checkpoint holds."""
        return self.finding_count == 0

    @property
    def completeness(self) -> str:
        """The second verdict: ``proven`` if nothing can be missing, else ``not proven``."""
        return "not proven" if self.reasons or not self.intact else "proven"

    @property
    def torn(self) -> tuple[TornTail, ...]:
        """The torn tails that nothing explains."""
        return tuple(
            chain.torn
            for chain in self.chains
            if chain.torn is not None and chain.chain not in self.explained
        )

    @property
    def records(self) -> int:
        """The number of whole lines in all chains."""
        return sum(chain.records for chain in self.chains)

    @property
    def exit_code(self) -> int:
        """1 tampering, 3 not proven, 4 torn tails alone, 0 proven.

        Without a log, torn tails come first: 4 says more than 3, which is the best there is then.
        """
        if not self.intact:
            return TAMPERED
        if self.torn and (self.log is None or not self.reasons):
            return TORN
        return INCOMPLETE if self.reasons else PROVEN

    def to_json(self) -> dict[str, object]:
        """Return the report as objects that :mod:`json` can write."""
        return {
            "directory": self.directory,
            "integrity": "holds" if self.intact else "tampered",
            "completeness": self.completeness,
            "not_proven": list(self.reasons),
            "exit_code": self.exit_code,
            "records": self.records,
            "chains": [_chain_to_json(chain) for chain in self.chains],
            "findings": [asdict(finding) for finding in self.findings],
            "finding_count": self.finding_count,
            "torn": [asdict(tail) for tail in self.torn],
            "explained": sorted(self.explained),
            "unknown_files": list(self.unknown),
            "log": None if self.log is None else self.log.to_json(),
        }

    def lines(self) -> Iterator[str]:
        """Yield the report as lines of text for people.

        File names are escaped, because they may hold terminal escapes.
        """
        yield f"journal {self.directory!a}: {_many(self.records, 'record')} in {_many(len(self.chains), 'chain')}"
        yield from self._chain_lines()
        if self.log is not None:
            yield from self.log.lines()
        yield from self._finding_lines()
        for tail in self.torn:
            yield f"torn: {tail.file!a}, byte {tail.offset}: {tail.size} bytes of a record that was not written whole"
        for name in self.unknown:
            yield f"unknown: {name!a} was not written by the journal and was not read"
        yield from self._verdict()

    def _chain_lines(self) -> Iterator[str]:
        live = sum(chain.live for chain in self.chains)
        ended = sum(chain.ended for chain in self.chains)
        yield (
            f"  being written: {live}, ended in order: {ended}, ended without server.stop: "
            f"{len(self.chains) - live - ended} (their process was killed, or gave them up)"
        )

    def _finding_lines(self) -> Iterator[str]:
        if self.intact:
            yield "consistent: yes: no record that is here was changed, moved, removed or added between others"
            return
        yield f"consistent: NO: {_many(self.finding_count, 'finding')}"
        for finding in self.findings:
            record = "" if finding.seq is None else f", record {finding.seq}"
            yield f"  {finding.file!a}, byte {finding.offset}{record}: {finding.code}: {finding.message}"
        if self.finding_count > len(self.findings):
            yield f"  and {self.finding_count - len(self.findings)} more"

    def _verdict(self) -> Iterator[str]:
        code = self.exit_code
        if code == TAMPERED:
            yield "verdict: TAMPERING (exit code 1): what is here is not what was written"
        elif code == INCOMPLETE or self.reasons:
            yield f"verdict: NOT PROVEN (exit code {code}): nothing contradicts, but somebody could have changed it unseen:"
            yield from (f"  - {reason}" for reason in self.reasons)
        elif code == TORN:
            yield "verdict: TORN (exit code 4): consistent and sealed, but for the torn records above"
        else:
            yield "verdict: PROVEN (exit code 0): consistent, and sealed under a key that you pinned"


def _chain_to_json(chain: ChainSummary) -> Mapping[str, object]:
    return {
        "chain": chain.chain,
        "file": chain.file,
        "records": chain.records,
        "head": chain.head,
        "live": chain.live,
        "ended": chain.ended,
    }
