"""The checkpoints of a log as they stand in its file: order, spelling, signatures and keys.

Guarantees: each checkpoint is read once, in the order of the file. A trusted key is noted only for
a checkpoint that it verifies. Refuses nothing: what does not hold is a :class:`Finding`. Whether a
checkpoint's root is right is for :mod:`securefs.audit.verify_log`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from securefs.audit.log_files import CHECKPOINTS, read_notes, size_of
from securefs.audit.note import ED25519, NoteError, VerificationKey, parse_checkpoint, parse_note
from securefs.audit.signing import SignatureError, verify_note
from securefs.audit.verify_chain import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from securefs.audit.note import Checkpoint, Note
    from securefs.audit.verify_state import LogState

__all__ = ["Checkpoints", "Signed"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint, its note, and the byte at which it begins in the file."""

    offset: int
    note: Note
    checkpoint: Checkpoint


class Checkpoints:
    """The checkpoints behind those that a state has.

    :param end: the size of the file in bytes when the verification began: what a running sealer
        adds is for the next one.
    :param pins: the keys that the auditor trusts. :param report: called with each finding.
    """

    def __init__(
        self,
        folder: Path,
        state: LogState,
        end: int,
        pins: Sequence[VerificationKey],
        report: Callable[[Finding], None],
    ) -> None:
        self._path = folder / CHECKPOINTS
        self._end = end
        self._state = state
        self._pins = [pin for pin in pins if pin.kind == ED25519]
        self._report = report
        self._rest = self._read()
        self._next: Signed | None = None
        self._begun = False
        if self._end < state.read:
            self.find(
                "checkpoint",
                0,
                f"{state.read} bytes were verified before, and it has {self._end}: it was cut",
            )
        self.torn = 0  # bytes of a checkpoint that was not written whole, at the end of the file

    def grown(self) -> bool:
        """Return whether a sealer added something since the verification began."""
        return size_of(self._path) > self._end

    def peek(self) -> Signed | None:
        """Return the next checkpoint, None behind the last one."""
        if not self._begun:
            self._begun, self._next = True, next(self._rest, None)
        return self._next

    def take(self, size: int) -> Signed | None:
        """Return the checkpoint of this size; None if there is none. Smaller ones have no seal."""
        while (signed := self.peek()) is not None and signed.checkpoint.size < size:
            self._drop(signed)
        if signed is None or signed.checkpoint.size != size:
            return None
        self._next = next(self._rest, None)
        return signed

    def finish(self) -> None:
        """Report the checkpoints that are left."""
        while (signed := self.peek()) is not None:
            self._drop(signed)

    def check(self, signed: Signed, index: int, key: str) -> bool:
        """Check who signed checkpoint ``index``; ``key`` is the public key that should, hex."""
        origin = signed.checkpoint.origin
        if origin != self._state.origin:
            self.find("checkpoint", signed.offset, f"the origin is {origin!a}, not {self._state.origin!a}")
            return False
        own = VerificationKey(origin, bytes.fromhex(key))
        names = {(line.name, line.key_id) for line in signed.note.signatures}
        good = self._verify(signed, own, index)
        for pin in self._pins:
            # Its own key is among the pins where the auditor pinned this very checkpoint's.
            if pin != own and (pin.name, pin.key_id) in names:
                good = self._verify(signed, pin, index) and good
        return good

    def find(self, code: str, offset: int, message: str) -> None:
        """Report a finding about the checkpoint at this byte."""
        self._report(Finding(code, CHECKPOINTS, "", None, offset, message))

    def _verify(self, signed: Signed, key: VerificationKey, index: int) -> bool:
        try:
            verify_note(signed.note, key)
        except SignatureError as error:
            self.find("signature", signed.offset, f"checkpoint {index}: {error}")
            return False
        if key in self._pins:
            self._state.keys[str(key)] = index
        return True

    def _drop(self, signed: Signed) -> None:
        size = signed.checkpoint.size
        self.find("checkpoint", signed.offset, f"no seal record belongs to this checkpoint of size {size}")
        self._next = next(self._rest, None)

    def _read(self) -> Iterator[Signed]:
        for offset, data, whole in read_notes(self._path, self._state.read, self._end):
            if not whole:
                self.torn = len(data)
                return
            self._state.read = offset + len(data) + 1
            try:
                note = parse_note(data)
                checkpoint = parse_checkpoint(note.text)
            except NoteError as error:
                self.find("checkpoint", offset, str(error))
                continue
            self._state.origin = self._state.origin or checkpoint.origin
            yield Signed(offset, note, checkpoint)
