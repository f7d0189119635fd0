"""Makes proofs from the files of a log: of one record, and that a log only grew.

Guarantees: a proof that is returned was verified. The tiles are asked first; where they are missing
or do not give the root that was signed, the leaves are computed from the chains. Refuses: a record
that no checkpoint covers, and a log that does not hold, with :class:`ConfigurationError`.

Implements the section on proofs of ``docs/log.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.audit.log_files import (
    CHECKPOINTS,
    COSIGNATURES,
    TILES,
    Leaves,
    read_hashes,
    read_lines,
    read_notes,
    size_of,
)
from securefs.audit.log_folder import LogDamagedError
from securefs.audit.log_state import read_seals
from securefs.audit.note import NoteError, parse_checkpoint, parse_note
from securefs.audit.proof import Proof
from securefs.audit.segments import find_chains
from securefs.audit.tree import (
    CompactRange,
    ProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    subtrees_from_tiles,
    verify_consistency,
    verify_inclusion,
)
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from securefs.audit.note import Checkpoint, Note
    from securefs.audit.seal import Seal
    from securefs.audit.tree import Subtrees

__all__ = ["SignedCheckpoint", "latest_checkpoint", "prove_consistency", "prove_record"]

SignedCheckpoint = tuple["Note", "Checkpoint"]


def latest_checkpoint(log: Path) -> SignedCheckpoint:
    """Return the last whole checkpoint of a log.

    :raises ConfigurationError: there is none.
    """
    last = None
    for last in _notes(log / CHECKPOINTS):  # noqa: B007 - the last one is meant
        pass
    if last is None:
        raise ConfigurationError(f"there is no checkpoint in {str(log)!a}: nothing was sealed yet")
    return last


def prove_record(journal: Path, log: Path, chain: str, seq: int) -> Proof:
    """Return the proof that this record of a chain is in the log.

    It is for the last checkpoint, or for the last one that was cosigned if one covers the record.

    :raises ConfigurationError: no checkpoint covers it, or the log does not hold.
    """
    index = _leaf_index(log, chain, seq)
    record = _record(journal, log, chain, seq)
    note, checkpoint = latest_checkpoint(log)
    for cosigned in _notes(log / COSIGNATURES):
        if cosigned[1].size > index:
            note, checkpoint = cosigned
    if index >= checkpoint.size:
        raise ConfigurationError(f"record {seq} of chain {chain} is not sealed yet: no checkpoint covers it")

    def made(read: Subtrees) -> list[bytes]:
        proof = inclusion_proof(read, index, checkpoint.size)
        verify_inclusion(leaf_hash(record), index, checkpoint.size, proof, checkpoint.root)
        return proof

    return Proof(record, index, tuple(_made(journal, log, checkpoint.size, made)), note)


def prove_consistency(journal: Path, log: Path, old: int, new: Checkpoint) -> list[bytes]:
    """Return the proof that the log of ``old`` leaves is the beginning of the checkpoint ``new``.

    :raises ConfigurationError: the log does not hold.
    """

    def made(read: Subtrees) -> list[bytes]:
        proof = consistency_proof(read, old, new.size)
        old_root = CompactRange.from_subtrees(read, old).root()
        verify_consistency(old, old_root, new.size, new.root, proof)
        return proof

    return _made(journal, log, new.size, made)


def _made(journal: Path, log: Path, size: int, made: Callable[[Subtrees], list[bytes]]) -> list[bytes]:
    try:
        return made(subtrees_from_tiles(lambda level, first, count: _tiles(log, level, first, count)))
    except ProofError:
        pass  # The tiles are a cache: what is in the chains decides.
    leaves = _leaves(journal, log, size)
    try:
        return made(lambda level, index: root_of(leaves[index << level : (index + 1) << level]))
    except ProofError as error:
        raise ConfigurationError(
            f"the records do not give the root that was signed: {error}; run securefs audit verify"
        ) from None


def _tiles(log: Path, level: int, first: int, count: int) -> bytes:
    hashes = read_hashes(log / TILES / str(level), first, count)
    if len(hashes) != count:
        raise ProofError("the tiles end too early")
    return b"".join(hashes)


def _notes(path: Path) -> Iterator[SignedCheckpoint]:
    for offset, data, whole in read_notes(path, 0, size_of(path)):
        if whole:  # else a crash left it
            try:
                note = parse_note(data)
                yield note, parse_checkpoint(note.text)
            except NoteError as error:
                raise ConfigurationError(
                    f"{str(path)!a}, byte {offset}: {error}; run securefs audit verify"
                ) from None


def _seals(log: Path) -> Iterator[Seal]:
    try:
        yield from read_seals(log)
    except (LogDamagedError, OSError) as error:
        raise ConfigurationError(f"cannot follow the log: {error}; run securefs audit verify") from None


def _leaf_index(log: Path, chain: str, seq: int) -> int:
    index = 0
    for seal in _seals(log):
        for run in seal.runs:
            if run.chain == chain and run.first <= seq <= run.last:
                return index + seq - run.first
            index += len(run)
    raise ConfigurationError(
        f"record {seq} of chain {chain} is not in the log: it is not there, not sealed yet, or older than the log"
    )


def _record(journal: Path, log: Path, chain: str, seq: int) -> bytes:
    for folder in (journal, log):
        files = find_chains(folder).get(chain)
        if files is not None:
            lines = read_lines(files, 0, files.size())
            for number, (_, line) in enumerate(lines, files.begin.count):
                if number == seq:
                    return line
    raise ConfigurationError(
        f"record {seq} of chain {chain} was sealed and is not here: retired, or missing; run securefs audit verify"
    )


def _leaves(journal: Path, log: Path, size: int) -> list[bytes]:
    """Return the leaf hashes in the order of the log, from the chains: 32 bytes for each record."""
    paths = find_chains(journal) | find_chains(log)
    leaves, found = Leaves(paths, {}), list[bytes]()
    try:
        for seal in _seals(log):
            for run in seal.runs:
                # What is older than the log is no leaf.
                for _ in leaves.take(run.chain, run.first - leaves.place(run.chain).count):
                    pass
                found += leaves.take(run.chain, len(run))
            if len(found) >= size:
                break
    finally:
        leaves.close()
    return found
