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
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.arguments import require_path
from securefs.audit.log_files import CHECKPOINTS, LOG_FOLDER, LOG_NAMES, size_of
from securefs.audit.pseudonym import KEY_FILE
from securefs.audit.report import LogReport, Report
from securefs.audit.segments import CHAIN_FILE, PACKED, ChainFiles, Segment, Unpacked, find_chains
from securefs.audit.verify_anchors import Anchors
from securefs.audit.verify_chain import ChainSummary, ChainVerifier, Finding
from securefs.audit.verify_coverage import (
    check_adopted,
    check_retired,
    find_unsealed,
    reasons,
    vouched_breaks,
)
from securefs.audit.verify_log import LogWalk
from securefs.audit.verify_state import LogState
from securefs.disk import explain
from securefs.errors import ConfigurationError
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from securefs.audit.note import VerificationKey

__all__ = ["LogTerms", "verify_journal"]

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
    if not any(map(CHAIN_FILE.fullmatch, (*names, *log_names))) and not walk.state.places:
        raise ConfigurationError(
            f"there is no chain of a journal in {str(folder)!a}; name the journal's folder"
        )
    inside = {sealed.name} if sealed is not None and sealed.parent == folder else set()
    walk.add(folder, names, {KEY_FILE, *inside})
    if sealed is None:
        if walk.state.index:
            walk.find(Finding("log", "", "", None, 0, "the log that was verified before is not here"))
        walk.verify()
        walk.settle()
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
    sealers = [chain for chain, files in walk.paths.items() if files.folder == sealed]
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
    walk.settle()
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
        self.paths: dict[str, ChainFiles] = {}
        self.chains: dict[str, ChainSummary] = {}
        self.explained: frozenset[str] = frozenset()
        self._findings: list[Finding] = []
        self._finding_count = 0
        self._unknown: list[str] = []

    def add(self, folder: Path, names: Sequence[str], others: Collection[str]) -> None:
        """Take the chains of a folder; ``others`` are names that the journal has beside them."""
        for name in names:
            # Of a file and its compressed copy, the file counts: compressing was cut short.
            twice = name.endswith(PACKED) and name.removesuffix(PACKED) in names
            if name not in others and (twice or not CHAIN_FILE.fullmatch(name)):
                self._unknown.append(name)
        for chain, files in find_chains(folder, names).items():
            if chain in self.paths:
                message = "the chain has files in two folders"
                self.find(Finding("second_file", files.name, chain, None, 0, message))
            else:
                self.paths[chain] = files

    def verify(self) -> None:
        """Verify all chains."""
        for chain, files in self.paths.items():
            self._visit(chain, files)

    def settle(self) -> None:
        """Check what chains and the log say of each other, after the log was followed."""
        check_retired(self.state, self.paths, self.chains, self.find)
        self._check_claims()

    def _visit(self, chain: str, files: ChainFiles) -> None:
        verifier, offset = _verifier(files, self.state)
        summary = None
        for number, (segment, skip) in enumerate(files.after(offset)):
            if not number:
                fresh = segment.number > 0 and not skip
                verifier.begin_in(segment.number, offset - skip, fresh=fresh)
                verifier.file = segment.path.name
            else:
                verifier.next_file(segment.path.name, segment.number)
            try:
                live = _verify_file(segment, verifier, skip)
            except OSError as error:
                raise ConfigurationError(
                    f"cannot read {str(segment.path)!a}: {explain(error)}; verify as a user who can read the journal"
                ) from error
            if live is None:
                message = "a file of a chain is a regular file; this is something else"
                self.find(Finding("not_a_file", segment.path.name, chain, None, 0, message))
                return
        summary = verifier.finish()
        # The end of a live chain may be a record that is being written at this moment.
        self.chains[chain] = replace(summary, live=True, torn=None) if live else summary
        place = self.state.places.get(chain)
        if place is not None and (size := size_of(files)) < place.offset:
            message = f"{place.offset} bytes of it were verified before, and it has {size}: it was cut"
            self.find(Finding("log", files.name, chain, None, 0, message))
        self._add(*verifier.findings, count=verifier.finding_count)

    def _check_claims(self) -> None:
        """Check what each first line says of the chain that it replaces against that chain."""
        explained = set()
        for successor in self.chains.values():
            claim = successor.claim
            if claim is None:
                continue
            found = self.chains.get(claim.replaces)
            retired = self.state.retired.get(claim.replaces)
            if retired is not None and (retired.count - 1, retired.head) == (claim.seq, claim.digest):
                continue
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


def _verifier(files: ChainFiles, state: LogState) -> tuple[ChainVerifier, int]:
    """Return a verifier that goes on where the state says, or where the files begin; and where."""
    place, begin, chain = state.places.get(files.chain), files.begin, files.chain
    if place is not None and place.offset >= begin.offset:
        heads = (place.head, place.before)
        resumed = ChainVerifier.resumed(
            files.name, chain, place.count, place.offset, heads, ended=chain in state.ended
        )
        return resumed, place.offset
    if begin.count:
        # Whether what was before it was retired is checked with the log.
        heads = (begin.head, "")
        return ChainVerifier.resumed(
            files.name, chain, begin.count, begin.offset, heads, ended=False
        ), begin.offset
    return ChainVerifier(files.name, chain), begin.offset


def _verify_file(segment: Segment, verifier: ChainVerifier, skip: int) -> bool | None:
    """Run the verifier over a file; return whether it is written, None if it is no regular file."""
    file = segment.open()
    if file is None:
        return None
    with file:
        if isinstance(file, Unpacked):
            while skip and (block := file.read(min(skip, _BLOCK))):
                skip -= len(block)
            while block := file.read(_BLOCK):
                verifier.feed(block)
            if file.damage:
                verifier.damaged(file.damage)
            return False
        live = _is_live(file.fileno())
        # A live chain grows while it is read: later records are for the next verification.
        left = os.fstat(file.fileno()).st_size - file.seek(skip)
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            verifier.feed(block)
            left -= len(block)
        # Twice: a new file becomes visible a moment before it is locked. And a writer that goes on
        # in another file has made that one before it lets this one go.
        return live or _is_live(file.fileno()) or os.path.lexists(segment.following())


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
