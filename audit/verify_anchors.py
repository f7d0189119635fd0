"""What others saw of a log: cosignatures of witnesses, and checkpoints that were kept elsewhere.

Guarantees: a cosignature counts only under a key that the auditor pinned. A checkpoint that an
auditor names is taken at its word: it is their own evidence. Each of them must be in the log with
the same root: a log that is shorter, or another, is a :class:`Finding`, whoever signed it.

Implements the section on witnesses of ``docs/log.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from securefs.audit.log_files import COSIGNATURES, read_notes, size_of
from securefs.audit.note import COSIGNATURE, NoteError, parse_checkpoint, parse_note
from securefs.audit.signing import SignatureError, verify_cosignature
from securefs.audit.verify_chain import Finding
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from securefs.audit.note import Checkpoint, Note, VerificationKey

__all__ = ["Anchors", "Witnessed"]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """The largest checkpoint that a pinned witness cosigned, and when."""

    witness: str
    size: int
    time: str


@dataclass(frozen=True, slots=True)
class _Seen:
    checkpoint: Checkpoint
    who: str
    witness: VerificationKey | None
    time: str
    file: str
    offset: int


class Anchors:
    """What must be in the log.

    :param folder: the log's folder. :param pins: the keys that the auditor trusts.
    :param files: files with checkpoints that the auditor kept.
    :raises ConfigurationError: one of these files cannot be read or holds no checkpoint.
    """

    def __init__(self, folder: Path, pins: Sequence[VerificationKey], files: Sequence[Path]) -> None:
        self.findings: list[Finding] = []
        self.witnessed: list[Witnessed] = []
        self._witnesses = [pin for pin in pins if pin.kind == COSIGNATURE]
        self._seen = [seen for file in files for seen in _kept(file)]
        if self._witnesses:
            self._seen += self._cosigned(folder / COSIGNATURES)

    def sizes(self) -> frozenset[int]:
        """Return the sizes whose roots are compared."""
        return frozenset(seen.checkpoint.size for seen in self._seen)

    def compare(self, origin: str, since: int, size: int, roots: Mapping[int, bytes]) -> None:
        """Compare with the log, which was followed from size ``since`` to ``size``."""
        best: dict[str, Witnessed] = {}
        for seen in self._seen:
            found = seen.checkpoint
            if found.size > since and not self._is_there(seen, origin, size, roots.get(found.size)):
                continue
            if seen.witness is not None and found.size >= best.get(seen.who, Witnessed("", 0, "")).size:
                best[seen.who] = Witnessed(seen.witness.name, found.size, seen.time)
        self.witnessed = sorted(best.values(), key=lambda one: one.witness)

    def reasons(self, size: int) -> list[str]:
        """Return what is missing for a log of this size to be witnessed, in sentences."""
        there = {one.witness for one in self.witnessed if one.size >= size}
        late = [witness.name for witness in self._witnesses if witness.name not in there]
        if not self._witnesses:
            return ["no witness is pinned, and --strict asks for one (--pin with a key of type 4)"]
        return [f"the witness {name} has not cosigned the last checkpoint" for name in late]

    def _is_there(self, seen: _Seen, origin: str, size: int, root: bytes | None) -> bool:
        found = seen.checkpoint
        says = f"{seen.who} a checkpoint of size {found.size}{f' at {seen.time}' if seen.time else ''}"
        if found.origin != origin:
            why = f"{says} of the log {found.origin!a}, which is another one"
        elif found.size > size:
            why = f"{says}, and the log has {size}: it was cut, or is another one"
        elif root != found.root:
            why = f"{says}, which is not in this log: it was written anew"
        else:
            return True
        self.findings.append(Finding("log", seen.file, "", None, seen.offset, why))
        return False

    def _cosigned(self, path: Path) -> Iterator[_Seen]:
        for offset, note, checkpoint, whole in _notes(path):
            if note is None or checkpoint is None:
                if whole:  # else a crash left it
                    self._find("checkpoint", offset, "this is no cosigned checkpoint")
                continue
            names = {(line.name, line.key_id) for line in note.signatures}
            for witness in self._witnesses:
                if (witness.name, witness.key_id) not in names:
                    continue
                try:
                    time = verify_cosignature(note, witness)
                except SignatureError as error:
                    self._find("signature", offset, f"of witness {witness.name}: {error}")
                    continue
                who = f"the witness {witness.name} cosigned"
                yield _Seen(checkpoint, who, witness, _text(time), COSIGNATURES, offset)

    def _find(self, code: str, offset: int, message: str) -> None:
        self.findings.append(Finding(code, COSIGNATURES, "", None, offset, message))


def _kept(path: Path) -> Iterator[_Seen]:
    any_there = False
    for offset, _, checkpoint, _ in _notes(path):
        if checkpoint is None:
            raise ConfigurationError(
                f"{str(path)!a}, byte {offset}: this is no checkpoint; name a file of signed notes"
            )
        any_there = True
        yield _Seen(checkpoint, f"the file {path.name!a} holds", None, "", str(path), offset)
    if not any_there:
        raise ConfigurationError(f"there is no checkpoint in {str(path)!a}; name a file of signed notes")


def _notes(path: Path) -> Iterator[tuple[int, Note | None, Checkpoint | None, bool]]:
    for offset, data, whole in read_notes(path, 0, size_of(path)):
        try:
            # The last one may lack the empty line, as a single note in a file does.
            note = parse_note(data)
            yield offset, note, parse_checkpoint(note.text), whole
        except NoteError:  # noqa: PERF203 - each note on its own
            yield offset, None, None, whole


def _text(time: int) -> str:
    """Return POSIX seconds as the journal writes times, as far as a calendar goes."""
    try:
        return f"{datetime.fromtimestamp(time, timezone.utc).isoformat()[:19]}Z"
    except (ValueError, OverflowError, OSError):
        return f"second {time}"
