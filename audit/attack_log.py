"""Attacks on the log, for a self-test: they sign anew, remove, exchange, and go back in time.

Guarantees: as :mod:`securefs.audit.attack`. No key of the journal's own is asked for or used: keys
are an argument, and the caller makes fresh ones. So what the live key could do is shown with a key
that no seal names, which its verifier can tell from the right one only by the same check.

Implements the section on attacks of ``docs/verifying.md``, for the log.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from securefs.audit.attack import Copy, relink, relink_from, seals
from securefs.audit.log_files import CHECKPOINTS, COSIGNATURES, TILES
from securefs.audit.note import (
    Checkpoint,
    Note,
    NoteError,
    Signature,
    VerificationKey,
    parse_checkpoint,
    parse_note,
)
from securefs.audit.record import encode_record, line_hash, parse_line
from securefs.audit.tree import HASH_SIZE, CompactRange, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from securefs.audit.attack import Chain
    from securefs.audit.seal import Seal
    from securefs.audit.signing import SigningKey

    NewKey = Callable[[], SigningKey]

__all__ = [
    "exchange_checkpoints",
    "go_back",
    "last_checkpoint",
    "last_size",
    "remove_checkpoint",
    "remove_log",
    "sign_with_fresh_keys",
    "sign_with_one_key",
    "unseal",
]

_END = b"\n\n"  # ends the text of a note, and in these files its signatures


def _notes(copy: Copy, name: str = CHECKPOINTS) -> list[tuple[Checkpoint, bytes]]:
    """Return the whole checkpoints in a file of notes, and the bytes of each."""
    parts = (copy.files or {}).get(name, b"").split(_END)
    notes = []
    for text, signatures in zip(parts[::2], parts[1::2], strict=False):
        data = text + _END + signatures + b"\n"
        try:
            notes.append((parse_checkpoint(parse_note(data).text), data + b"\n"))
        except NoteError:
            continue  # what a crash left
    return notes


def _with_files(copy: Copy, **files: bytes) -> Copy:
    return replace(copy, files={**(copy.files or {}), **files})


def last_checkpoint(copy: Copy) -> bytes:
    """Return the note of the last checkpoint, as an auditor would keep it; empty without one."""
    return next((data for _, data in reversed(_notes(copy))), b"")


def last_size(copy: Copy) -> int:
    """Return the size of the log in its last checkpoint, 0 without one."""
    return next((found.size for found, _ in reversed(_notes(copy))), 0)


def sign_with_one_key(copy: Copy, new_key: NewKey) -> Copy | None:
    """Sign everything anew with one key, over a chain in which a record was changed."""
    changed = relink_from(copy)
    if changed is None or not last_size(copy):
        return None
    key = new_key()
    return _signed(changed, lambda _: key)


def sign_with_fresh_keys(copy: Copy, new_key: NewKey) -> Copy | None:
    """Write the log anew under a new line of keys, over a chain in which a record was changed."""
    changed = relink_from(copy)
    if changed is None or not last_size(copy):
        return None
    keys = {seal.index: new_key() for seal, _, _ in seals(copy)}
    sealers = {name: list(chain.lines) for name, chain in copy.sealers.items()}
    for seal, name, number in seals(copy):
        following = keys.get(seal.index + 1) or new_key()
        member = replace(seal, key=keys[seal.index].public.hex(), next_key=following.public.hex()).member()
        sealers[name][number] = encode_record({**parse_line(sealers[name][number]), "seal": member})
    heads = {name: [line_hash(line) for line in chain.lines] for name, chain in changed.chains.items()}
    new = {
        name: replace(chain, lines=tuple(relink([_fitting(line, heads) for line in sealers[name]])))
        for name, chain in copy.sealers.items()
    }
    return _signed(replace(changed, sealers=new), lambda seal: keys[seal.index])


def _fitting(line: bytes, heads: Mapping[str, Sequence[str]]) -> bytes:
    """Return a record of a sealer in which the hash of another chain's end fits."""
    record = parse_line(line)
    obj = cast("dict[str, str | int]", record.get("obj", {}))
    chain, upto = str(obj.get("chain", "")), cast("int", obj.get("upto", -1))
    if "hash" not in obj or not 0 <= upto < len(heads.get(chain, ())):
        return line
    return encode_record({**record, "obj": {**obj, "hash": heads[chain][upto]}})


def _signed(copy: Copy, key_of: Callable[[Seal], SigningKey]) -> Copy:
    """Return the copy with the tree, and the checkpoints that it had, made over its chains now."""
    tree, notes, leaves = CompactRange(), [], []
    origins = {checkpoint.size: checkpoint.origin for checkpoint, _ in _notes(copy)}
    for seal, _, _ in seals(copy):
        for line in _taken(copy, seal):
            leaves.append(leaf_hash(line))
            tree.append(leaves[-1])
        if seal.size in origins:
            notes.append(_note(Checkpoint(origins[seal.size], seal.size, tree.root()), key_of(seal)))
    files = {name: data for name, data in (copy.files or {}).items() if name != COSIGNATURES}
    files |= {CHECKPOINTS: b"".join(notes), f"{TILES}/0": b"".join(leaves)}
    return replace(copy, files=files)


def _taken(copy: Copy, seal: Seal) -> Iterator[bytes]:
    both = {**copy.chains, **copy.sealers}
    for run in seal.runs:
        yield from both[run.chain].lines[run.first : run.last + 1]


def _note(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    text = checkpoint.text()
    key_id = VerificationKey(checkpoint.origin, key.public).key_id
    return Note(text, (Signature(checkpoint.origin, key_id, key.sign(text.encode())),)).encode() + b"\n"


def remove_checkpoint(copy: Copy) -> Copy | None:
    """Remove a checkpoint after which the line of keys goes on."""
    notes = _notes(copy)
    sizes = {checkpoint.size for checkpoint, _ in notes}
    for (seal, _, _), (following, _, _) in pairwise(seals(copy)):
        if {seal.size, following.size} <= sizes and seal.next_key == following.key:
            rest = b"".join(data for checkpoint, data in notes if checkpoint.size != seal.size)
            return _with_files(copy, **{CHECKPOINTS: rest})
    return None


def exchange_checkpoints(copy: Copy) -> Copy | None:
    """Exchange the first two checkpoints."""
    notes = [data for _, data in _notes(copy)]
    if len(notes) < 2:  # noqa: PLR2004 - two
        return None
    return _with_files(copy, **{CHECKPOINTS: b"".join([notes[1], notes[0], *notes[2:]])})


def remove_log(copy: Copy) -> Copy:
    """Remove the log, and the chains of its sealers with it."""
    return replace(copy, sealers={}, files=None)


def unseal(copy: Copy) -> Copy | None:
    """Cut the log alone to an older checkpoint: as if the sealer had been killed then."""
    older = go_back(copy)
    return None if older is None else replace(older, chains=copy.chains)


def go_back(copy: Copy) -> Copy | None:
    """Cut all chains and the log, consistently, to the last checkpoint that loses a record.

    A record of a chain, not of a sealer's own.
    """
    taken = (seal.size for seal, _, _ in seals(copy) if any(run.chain in copy.chains for run in seal.runs))
    newest = max(taken, default=0)
    sizes = [found.size for found, _ in _notes(copy) if found.size < newest]
    if not sizes:
        return None
    size = sizes[-1]
    counts = _older(copy)
    for seal, _, _ in seals(copy):
        if seal.size <= size:
            counts |= {run.chain: run.last + 1 for run in seal.runs}
    files = dict(copy.files or {})
    for name in (CHECKPOINTS, COSIGNATURES):
        files[name] = b"".join(data for found, data in _notes(copy, name) if found.size <= size)
    if f"{TILES}/0" in files:
        files[f"{TILES}/0"] = files[f"{TILES}/0"][: size * HASH_SIZE]
    return Copy(_cut(copy.chains, counts), _cut(copy.sealers, counts), files)


def _older(copy: Copy) -> dict[str, int]:
    """Return how many records of which chains are older than the log, as the log says."""
    counts = {}
    for chain in copy.sealers.values():
        for line in chain.lines:
            if b'"event":"audit.cutover"' in line:
                obj = cast("dict[str, str | int]", parse_line(line).get("obj", {}))
                counts[str(obj.get("chain", ""))] = cast("int", obj.get("upto", -1)) + 1
    return counts


def _cut(chains: Mapping[str, Chain], counts: Mapping[str, int]) -> dict[str, Chain]:
    return {name: chain.upto(counts[name]) for name, chain in chains.items() if counts.get(name)}
