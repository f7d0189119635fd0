"""A proof that one record is in a log, which can be verified without the other records.

Guarantees: what :func:`parse_proof` accepts is written in exactly one way. Whoever has a proof, and
a key that they trust, verifies with :func:`check_proof` that the record in it was in the log when a
checkpoint was signed. The proof carries the record itself in its ``extra`` line, so it is one file.
Refuses: a proof of which any part does not hold, with :class:`NoteError`, :class:`ProofError` or
:class:`SignatureError`. Pure.

Implements C2SP tlog-proof.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.note import (
    COSIGNATURE,
    MAX_NOTE,
    NoteError,
    decode_base64,
    encode_base64,
    parse_checkpoint,
    parse_count,
    parse_note,
)
from securefs.audit.signing import SignatureError, verify_cosignature, verify_note
from securefs.audit.tree import MAX_PROOF, leaf_hash, verify_inclusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securefs.audit.note import Checkpoint, Note, VerificationKey

__all__ = ["MAX_PROOF_FILE", "Checked", "Proof", "check_proof", "parse_proof"]

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_MAX_EXTRA: Final = 2 * LONGEST_LINE  # characters of base64
MAX_PROOF_FILE: Final = _MAX_EXTRA + MAX_NOTE + 8 * 1024  # bytes
_LINE: Final = re.compile(r"(extra|index) (.*)")


@dataclass(frozen=True, slots=True)
class Proof:
    """A record (its line, without the line end), its place in the log, and a checkpoint.

    :ivar hashes: the inclusion proof, from the leaf's sibling to the root's child.
    """

    record: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: Note

    def encode(self) -> bytes:
        """Return the proof's bytes."""
        head = [_FIRST, f"extra {encode_base64(self.record)}", f"index {self.index}"]
        lines = (*head, *map(encode_base64, self.hashes))
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note.encode()


@dataclass(frozen=True, slots=True)
class Checked:
    """What a proof shows.

    :ivar signed: the trusted keys of the log that signed the checkpoint. :ivar witnessed: the
        trusted witnesses that cosigned it, each with the POSIX seconds at which it did.
    """

    checkpoint: Checkpoint
    signed: tuple[VerificationKey, ...]
    witnessed: tuple[tuple[VerificationKey, int], ...]


def parse_proof(data: bytes) -> Proof:
    """Return the proof that these bytes are; nothing of it is verified.

    :raises NoteError: they are not one, or one without the record.
    """
    if len(data) > MAX_PROOF_FILE:
        raise NoteError(f"a proof has at most {MAX_PROOF_FILE} bytes")
    head, gap, note = data.partition(b"\n\n")
    if not gap or not head.isascii():
        raise NoteError("a proof has lines of ASCII, an empty line and a checkpoint")
    lines = head.decode("ascii").split("\n")
    if len(lines) < len((_FIRST, "extra", "index")) or lines[0] != _FIRST:
        raise NoteError(f"a proof begins with {_FIRST}, and with lines for extra and index")
    if len(lines) > len((_FIRST, "extra", "index")) + MAX_PROOF:
        raise NoteError(f"a proof has at most {MAX_PROOF} hashes")
    record = decode_base64(_value(lines[1], "extra"), _MAX_EXTRA)
    index = parse_count(_value(lines[2], "index"))
    return Proof(record, index, tuple(decode_base64(line) for line in lines[3:]), parse_note(note))


def _value(line: str, name: str) -> str:
    match = _LINE.fullmatch(line)
    if match is None or match[1] != name:
        raise NoteError(f"there is no line {name!r} where it should be")
    return match[2]


def check_proof(proof: Proof, pins: Sequence[VerificationKey]) -> Checked:
    """Verify a proof; say which of the keys in ``pins`` vouch for it, perhaps none.

    :raises ProofError: the record is not where the proof says, in the tree of its checkpoint.
    :raises SignatureError: a signature of one of these keys does not verify.
    :raises NoteError: the checkpoint is none. :raises ConfigurationError: no ``cryptography``.
    """
    checkpoint = parse_checkpoint(proof.note.text)
    verify_inclusion(leaf_hash(proof.record), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    names = {(line.name, line.key_id) for line in proof.note.signatures}
    signed, witnessed = [], []
    for pin in dict.fromkeys(pins):
        if (pin.name, pin.key_id) not in names:
            continue
        if pin.kind == COSIGNATURE:
            witnessed.append((pin, verify_cosignature(proof.note, pin)))
        elif pin.name != checkpoint.origin:
            raise SignatureError(f"the key {pin} signs another log than {checkpoint.origin!a}")
        else:
            verify_note(proof.note, pin)
            signed.append(pin)
    return Checked(checkpoint, tuple(signed), tuple(witnessed))
