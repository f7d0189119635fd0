"""The verifier of a whole journal: the folder, its chains, and what they say of each other.

Guarantees: it only reads. Integrity and completeness are two separate verdicts, and neither is
derived from the other. Memory grows with the number of chains and of findings kept, not with their
length. Refuses: a path that is not a folder, and a chain that this user cannot read, because a
journal of which a part was skipped was not verified.

This version never proves completeness: nothing in the journal is signed yet, so anyone who can
write the files can write a whole chain anew, and anyone who can delete a file can delete a chain.

Implements the section on verifying of ``docs/journal.md``.
"""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.arguments import require_path
from securefs.audit.folder import open_regular
from securefs.audit.pseudonym import KEY_FILE
from securefs.audit.verify_chain import ChainSummary, ChainVerifier, Finding, TornTail
from securefs.disk import explain
from securefs.errors import ConfigurationError
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["INCOMPLETE", "TAMPERED", "TORN", "Report", "verify_journal"]

TAMPERED: Final = 1  # exit code: integrity does not hold
INCOMPLETE: Final = 3  # exit code: intact, completeness not proven
TORN: Final = 4  # exit code: intact but for torn tails

_CHAIN_FILE: Final = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]*)\.jsonl")
_BLOCK: Final = 256 * 1024  # bytes read at a time
_MAX_KEPT: Final = 1000  # findings kept in a report; further ones are only counted
_NOT_PROVEN: Final = (
    "nothing in this journal is signed yet, so a chain that was deleted, cut at a line end or written anew "
    "as a whole cannot be told from an honest one"
)


@dataclass(frozen=True, slots=True)
class Report:
    """The result for one journal. ``unknown`` names files there that the journal did not write."""

    directory: str
    chains: tuple[ChainSummary, ...]
    findings: tuple[Finding, ...]
    finding_count: int
    unknown: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """The first verdict, integrity: every line and every link holds."""
        return self.finding_count == 0

    @property
    def completeness(self) -> str:
        """The second verdict, completeness; in this version always ``not proven``."""
        return "not proven"

    @property
    def torn(self) -> tuple[TornTail, ...]:
        """The tails of all chains that a crash or a full disk left."""
        return tuple(chain.torn for chain in self.chains if chain.torn is not None)

    @property
    def records(self) -> int:
        """The number of whole lines in all chains."""
        return sum(chain.records for chain in self.chains)

    @property
    def exit_code(self) -> int:
        """1 for tampering, 4 for torn tails only, 3 if intact.

        Never 0, because completeness is not proven.
        """
        if not self.intact:
            return TAMPERED
        return TORN if self.torn else INCOMPLETE

    def to_json(self) -> dict[str, object]:
        """Return the report as objects that :mod:`json` can write."""
        return {
            "directory": self.directory,
            "integrity": "holds" if self.intact else "tampered",
            "completeness": self.completeness,
            "exit_code": self.exit_code,
            "records": self.records,
            "chains": [_chain_to_json(chain) for chain in self.chains],
            "findings": [asdict(finding) for finding in self.findings],
            "finding_count": self.finding_count,
            "torn": [asdict(tail) for tail in self.torn],
            "unknown_files": list(self.unknown),
        }

    def lines(self) -> Iterator[str]:
        """Yield the report as lines of text for people.

        File names are escaped, because they may hold terminal escapes.
        """
        yield f"journal {self.directory!a}: chains: {len(self.chains)}, records: {self.records}"
        for chain in self.chains:
            state = "live" if chain.live else "ended" if chain.ended else "not ended in order"
            yield f"  chain {chain.chain}: {chain.records} records, {state}"
        if self.intact:
            yield "integrity: holds: every line and link that is there is as it was written"
        else:
            yield f"integrity: DOES NOT HOLD: {self.finding_count} findings"
        for finding in self.findings:
            record = "" if finding.seq is None else f", record {finding.seq}"
            yield f"  {finding.file!a}, byte {finding.offset}{record}: {finding.code}: {finding.message}"
        if self.finding_count > len(self.findings):
            yield f"  and {self.finding_count - len(self.findings)} more"
        yield f"completeness: not proven: {_NOT_PROVEN}"
        for tail in self.torn:
            yield f"torn: {tail.file!a}, byte {tail.offset}: {tail.size} bytes of a record that was not written whole"
        for name in self.unknown:
            yield f"unknown: {name!a} was not written by the journal and was not read"


@clears_frames
def verify_journal(directory: str | os.PathLike[str]) -> Report:
    """Verify every chain in this folder, and what the chains say of each other; write nothing.

    :raises ConfigurationError: it is not a folder, or something in it cannot be read.
    """
    require_path("directory", directory)
    folder = Path(directory)
    walk = _Walk(folder)
    # The folder is listed before anything is read. A chain that a listed chain replaces was
    # abandoned before this moment, so the claim can be checked against the whole file of that
    # chain.
    for name in _names(folder):
        walk.visit(name)
    walk.check_claims()
    return walk.report()


class _Walk:
    """Collects the parts of the report."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chains: dict[str, ChainSummary] = {}
        self._findings: list[Finding] = []
        self._finding_count = 0
        self._unknown: list[str] = []

    def visit(self, name: str) -> None:
        match = _CHAIN_FILE.fullmatch(name)
        if match is None:
            if name != KEY_FILE:
                self._unknown.append(name)
            return
        chain, number = match.groups()
        if number != "0":
            self._add(
                Finding(
                    "second_file", name, chain, None, 0, "a chain has one file, whose name ends in -0.jsonl"
                )
            )
            return
        verifier = ChainVerifier(name, chain)
        try:
            summary = _verify_file(self._folder / name, verifier)
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {str(self._folder / name)!a}: {explain(error)}; verify as a user who can read the journal"
            ) from error
        if summary is None:
            self._add(
                Finding(
                    "not_a_file", name, chain, None, 0, "a chain is a regular file; this is something else"
                )
            )
            return
        self._chains[chain] = summary
        self._add(*verifier.findings, count=verifier.finding_count)

    def check_claims(self) -> None:
        """Check what each first line says of the chain that it replaces against that chain."""
        for successor in self._chains.values():
            claim = successor.claim
            if claim is None:
                continue
            found = self._chains.get(claim.replaces)
            says = f"chain {claim.by} says that chain {claim.replaces!a} ended with record {claim.seq}"
            if found is None:
                self._add(Finding("missing_chain", claim.file, claim.by, 0, 0, f"{says}, and it is not here"))
            elif not _has_end(found, claim.seq, claim.digest):
                self._add(Finding("cut_chain", found.file, found.chain, None, 0, f"{says}, and it does not"))

    def report(self) -> Report:
        return Report(
            directory=str(self._folder),
            chains=tuple(self._chains.values()),
            findings=tuple(self._findings),
            finding_count=self._finding_count,
            unknown=tuple(self._unknown),
        )

    def _add(self, *findings: Finding, count: int = 1) -> None:
        self._finding_count += count
        self._findings.extend(findings[: _MAX_KEPT - len(self._findings)])


def _names(folder: Path) -> list[str]:
    try:
        # Names, not paths: they are data to check.
        return sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError) as error:
        text = explain(error)
        raise ConfigurationError(
            f"cannot read the journal {str(folder)!a}: {text}; name its folder"
        ) from error


def _verify_file(path: Path, verifier: ChainVerifier) -> ChainSummary | None:
    """Run the verifier over a file; return None if it is not a regular file."""
    file = open_regular(path)
    if file is None:
        return None
    with file:
        live = _is_live(file.fileno())
        # A live chain grows while it is read: later records are for the next verification.
        left = os.fstat(file.fileno()).st_size
        while left and (block := file.read(min(_BLOCK, left))):
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


def _chain_to_json(chain: ChainSummary) -> Mapping[str, object]:
    return {
        "chain": chain.chain,
        "file": chain.file,
        "records": chain.records,
        "head": chain.head,
        "live": chain.live,
        "ended": chain.ended,
    }
