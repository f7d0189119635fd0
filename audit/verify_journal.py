"""The verifier of a whole journal: the folder, its chains, what they say of each other, the log.

Guarantees: it only reads. Integrity and completeness are two separate verdicts, and neither is
derived from the other. Memory grows with the number of chains and of findings kept, not with their
length. Refuses: a path that is not a folder or holds no journal, and a chain that this user cannot
read, because a journal of which a part was skipped was not verified.

Without a log, completeness is never proven: anyone who can write the files can then write a whole
chain anew, and anyone who can delete a file can delete a chain.

Implements the sections on verifying of ``docs/journal.md`` and ``docs/log.md``.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.arguments import require_path
from securefs.audit.folder import open_regular
from securefs.audit.log_files import CHECKPOINTS, LOG_FOLDER, LOG_NAMES, size_of
from securefs.audit.pseudonym import KEY_FILE
from securefs.audit.report import LogReport, Report
from securefs.audit.verify_anchors import Anchors
from securefs.audit.verify_chain import ChainSummary, ChainVerifier, Finding
from securefs.audit.verify_coverage import check_adopted, find_unsealed, reasons, vouched_breaks
from securefs.audit.verify_log import LogWalk
from securefs.audit.verify_state import LogState
from securefs.disk import explain
from securefs.errors import ConfigurationError
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from securefs.audit.note import VerificationKey
    from securefs.audit.verify_state import Place

__all__ = ["LogTerms", "verify_journal"]

_CHAIN_FILE: Final = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]*)\.jsonl")
_BLOCK: Final = 256 * 1024  # bytes read at a time
_MAX_KEPT: Final = 1000  # findings kept in a report; further ones are only counted


@dataclass(frozen=True, slots=True)
class LogTerms:
    """What a log is held to.

    :ivar pins: the keys that the auditor trusts: of the log, and of witnesses.
    :ivar strict: each pinned witness must have cosigned the last checkpoint.
    :ivar now: POSIX seconds at which the copy was made; the clock's if None.
    :ivar anchors: files with checkpoints that the auditor kept.
    :ivar state: how far the log was verified before. It is changed.
    """

    pins: Sequence[VerificationKey] = ()
    strict: bool = False
    now: float | None = None
    anchors: Sequence[Path] = ()
    state: LogState | None = None


@clears_frames
def verify_journal(
    directory: str | os.PathLike[str],
    log: str | os.PathLike[str] | None = None,
    terms: LogTerms | None = None,
) -> Report:
    """Verify every chain in this folder, what they say of each other, and the log; write nothing.

    :param log: the log's folder. None: ``log`` in the journal's folder, if it is there.
    :raises ConfigurationError: it is not a folder, there is no journal in it, something in it
        cannot be read, or a log needs the library ``cryptography``.
    """
    require_path("directory", directory)
    folder = Path(directory)
    terms = LogTerms() if terms is None else terms
    sealed = _log_folder(folder, log)
    walk = _Walk(terms.state or LogState())
    # In this order, because a server may be at work: the log of this moment is of records that are
    # in the chains that are listed after it. A chain that a listed chain replaces was abandoned
    # before this moment, so the claim can be checked against the whole file of that chain.
    end = 0 if sealed is None else size_of(sealed / CHECKPOINTS)
    log_names = [] if sealed is None else _names(sealed)
    names = _names(folder)
    if not any(map(_CHAIN_FILE.fullmatch, (*names, *log_names))) and not walk.state.places:
        raise ConfigurationError(
            f"there is no chain of a journal in {str(folder)!a}; name the journal's folder"
        )
    inside = {sealed.name} if sealed is not None and sealed.parent == folder else set()
    walk.add(folder, names, {KEY_FILE, *inside})
    if sealed is None:
        if walk.state.index:
            walk.find(Finding("log", "", "", None, 0, "the log that was verified before is not here"))
        walk.verify()
        return walk.report(folder)
    walk.add(sealed, log_names, LOG_NAMES)
    return _with_log(walk, folder, sealed, end, terms)


def _log_folder(folder: Path, log: str | os.PathLike[str] | None) -> Path | None:
    if log is not None:
        require_path("log", log)
        return Path(log)
    default = folder / LOG_FOLDER
    return default if os.path.lexists(default) else None


def _with_log(walk: _Walk, folder: Path, sealed: Path, end: int, terms: LogTerms) -> Report:
    anchors = Anchors(sealed, terms.pins, terms.anchors)
    state, since = walk.state, walk.state.tree.size
    sealers = [chain for chain, path in walk.paths.items() if path.parent == sealed]
    log = LogWalk(
        sealed,
        walk.paths,
        sealers,
        state,
        end=end,
        pins=terms.pins,
        sizes=anchors.sizes(),
        report=walk.find,
    )
    walk.verify()
    facts = log.run({chain for chain, summary in walk.chains.items() if summary.live})
    anchors.compare(state.origin, since, state.tree.size, facts.roots)
    for finding in anchors.findings:
        walk.find(finding)
    walk.explained |= check_adopted(state, walk.chains, facts.told, walk.find)
    state.ended = sorted(
        chain
        for chain, summary in walk.chains.items()
        if summary.ended and chain in state.places and state.places[chain].count == summary.records
    )
    unsealed = find_unsealed(state, walk.chains, walk.paths, walk.find)
    why = reasons(state, unsealed, terms.pins, time.time() if terms.now is None else terms.now)
    if terms.strict:
        why += anchors.reasons(state.tree.size)
    section = LogReport(
        directory=str(sealed),
        state=state,
        checkpoints=facts.checkpoints,
        since=since,
        vouched=vouched_breaks(state, terms.pins),
        unsealed=unsealed.count,
        oldest=unsealed.oldest,
        unsigned=facts.unsigned,
        witnessed=tuple(anchors.witnessed),
    )
    return replace(walk.report(folder), log=section, reasons=tuple(why))


class _Walk:
    """Collects the parts of the report."""

    def __init__(self, state: LogState) -> None:
        self.state = state
        self.paths: dict[str, Path] = {}
        self.chains: dict[str, ChainSummary] = {}
        self.explained: frozenset[str] = frozenset()
        self._findings: list[Finding] = []
        self._finding_count = 0
        self._unknown: list[str] = []

    def add(self, folder: Path, names: Sequence[str], others: Collection[str]) -> None:
        """Take the chains of a folder; ``others`` are names that the journal has beside them."""
        for name in names:
            match = _CHAIN_FILE.fullmatch(name)
            if match is None:
                if name not in others:
                    self._unknown.append(name)
                continue
            chain, number = match.groups()
            if number != "0" or chain in self.paths:
                message = "a chain has one file, whose name ends in -0.jsonl"
                self.find(Finding("second_file", name, chain, None, 0, message))
                continue
            self.paths[chain] = folder / name

    def verify(self) -> None:
        """Verify all chains, and what they say of each other."""
        for chain, path in self.paths.items():
            self._visit(chain, path)
        self._check_claims()

    def _visit(self, chain: str, path: Path) -> None:
        verifier = _verifier(path.name, chain, self.state)
        try:
            summary = _verify_file(path, verifier, self.state.places.get(chain))
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {str(path)!a}: {explain(error)}; verify as a user who can read the journal"
            ) from error
        if summary is None:
            message = "a chain is a regular file; this is something else"
            self.find(Finding("not_a_file", path.name, chain, None, 0, message))
            return
        self.chains[chain] = summary
        place = self.state.places.get(chain)
        if place is not None and (size := size_of(path)) < place.offset:
            message = f"{place.offset} bytes of it were verified before, and it has {size}: it was cut"
            self.find(Finding("log", path.name, chain, None, 0, message))
        self._add(*verifier.findings, count=verifier.finding_count)

    def _check_claims(self) -> None:
        """Check what each first line says of the chain that it replaces against that chain."""
        explained = set()
        for successor in self.chains.values():
            claim = successor.claim
            if claim is None:
                continue
            found = self.chains.get(claim.replaces)
            says = f"chain {claim.by} says that chain {claim.replaces!a} ended with record {claim.seq}"
            if found is None:
                self.find(Finding("missing_chain", claim.file, claim.by, 0, 0, f"{says}, and it is not here"))
            elif not _has_end(found, claim.seq, claim.digest):
                self.find(Finding("cut_chain", found.file, found.chain, None, 0, f"{says}, and it does not"))
            else:
                explained.add(found.chain)
        self.explained |= explained

    def report(self, folder: Path) -> Report:
        return Report(
            directory=str(folder),
            chains=tuple(self.chains.values()),
            findings=tuple(self._findings),
            finding_count=self._finding_count,
            unknown=tuple(self._unknown),
            explained=self.explained,
        )

    def find(self, finding: Finding) -> None:
        """Add one finding."""
        self._add(finding, count=1)

    def _add(self, *findings: Finding, count: int) -> None:
        self._finding_count += count
        self._findings.extend(findings[: max(0, _MAX_KEPT - len(self._findings))])


def _names(folder: Path) -> list[str]:
    try:
        # Names, not paths: they are data to check.
        return sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError) as error:
        text = explain(error)
        raise ConfigurationError(
            f"cannot read the journal {str(folder)!a}: {text}; name its folder"
        ) from error


def _verifier(file: str, chain: str, state: LogState) -> ChainVerifier:
    """Return a verifier that goes on where the state says that the chain was verified."""
    place = state.places.get(chain)
    if place is None:
        return ChainVerifier(file, chain)
    return ChainVerifier.resumed(
        file, chain, place.count, place.offset, (place.head, place.before), ended=chain in state.ended
    )


def _verify_file(path: Path, verifier: ChainVerifier, place: Place | None) -> ChainSummary | None:
    """Run the verifier over a file; return None if it is not a regular file."""
    file = open_regular(path)
    if file is None:
        return None
    with file:
        live = _is_live(file.fileno())
        # A live chain grows while it is read: later records are for the next verification.
        left = os.fstat(file.fileno()).st_size
        if place is not None:
            left -= file.seek(place.offset)
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            verifier.feed(block)
            left -= len(block)
        # Twice: a new file becomes visible a moment before it is locked.
        live = live or _is_live(file.fileno())
    summary = verifier.finish()
    # The end of a live chain may be a record that is being written at this moment.
    return replace(summary, live=True, torn=None) if live else summary


def _is_live(descriptor: int) -> bool:
    """Return whether a writer holds the lock on the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _has_end(found: ChainSummary, seq: int, digest: str) -> bool:
    """Return whether this record is the last one, or the last but one.

    One more record may follow: one whose write was reported as failed, or was cut short by a
    signal, and yet arrived.
    """
    return (found.records - 1, found.head) == (seq, digest) or (found.records - 2, found.before_head) == (
        seq,
        digest,
    )
