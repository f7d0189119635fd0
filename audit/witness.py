"""Has a witness cosign the last checkpoint of a log, with the proof that the log only grew.

Guarantees: a cosignature is kept only if it is one of a key that the caller trusts, over this
checkpoint. What a witness answers is limited in size and time. A witness that has seen a longer
log, or another one, is a :class:`ContradictionError`: the log was cut or written anew. Everything
else that goes wrong is a :class:`WitnessError`.

Implements the client of C2SP tlog-witness (``add-checkpoint``) and the section on witnesses of
``docs/log.md``.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from securefs.audit.log_files import COSIGNATURES, read_notes, size_of
from securefs.audit.log_folder import Disk
from securefs.audit.note import (
    COSIGNATURE,
    MAX_NOTE,
    Note,
    NoteError,
    encode_base64,
    parse_count,
    parse_signature_line,
)
from securefs.audit.prove import prove_consistency
from securefs.audit.signing import SignatureError, verify_cosignature
from securefs.disk import explain
from securefs.errors import ConfigurationError, SecureFSError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from urllib.parse import SplitResult

    from securefs.audit.note import Checkpoint, Signature, VerificationKey
    from securefs.audit.prove import SignedCheckpoint

__all__ = ["ContradictionError", "WitnessError", "cosign", "keep"]

TIMEOUT: Final = 30.0  # seconds for each step of a request
_TRIES: Final = 3  # others may have the same witness cosign in the meantime
_WHY: Final[dict[int, str]] = {
    http.HTTPStatus.NOT_FOUND: "it does not know this log: give its operator the origin and the stable key",
    http.HTTPStatus.FORBIDDEN: (
        "it does not trust a key that signed this checkpoint: witnesses need the stable key (securefs audit init --stable)"
    ),
    http.HTTPStatus.BAD_REQUEST: "it does not understand this checkpoint",
}


class WitnessError(SecureFSError):
    """There is no cosignature of this witness, and nothing follows from that."""


class ContradictionError(SecureFSError):
    """The witness has seen another log under this origin, or a longer one."""


def cosign(
    journal: Path, log: Path, signed: SignedCheckpoint, url: str, pins: Sequence[VerificationKey]
) -> list[tuple[Signature, int]]:
    """Return the cosignatures of a witness on a checkpoint, each with its time in POSIX seconds.

    :param url: the witness's submission prefix.
    :param pins: the keys that the caller trusts; cosignatures of others are ignored.
    :raises WitnessError, ContradictionError: there is none.
    :raises ConfigurationError: the URL is none, or the log does not hold.
    """
    note, checkpoint = signed
    target = _target(url)
    old = 0
    for _ in range(_TRIES):
        proof = prove_consistency(journal, log, old, checkpoint)
        lines = "".join(f"{encode_base64(value)}\n" for value in proof)
        status, answer = _post(target, f"old {old}\n{lines}\n".encode() + note.encode())
        if status == http.HTTPStatus.OK:
            return _cosignatures(note, answer, pins, url)
        if status != http.HTTPStatus.CONFLICT:
            raise _refused(status, url)
        old = _size(answer, url)
        _check_size(old, checkpoint, url)
    raise WitnessError(f"{url}: the size that it names changes all the time; try again")


def keep(log: Path, note: Note, cosignatures: Sequence[Signature]) -> None:
    """Append a cosigned checkpoint to those of the log; it is on the disk when this returns.

    :raises OSError: it cannot be written.
    """
    path, disk = log / COSIGNATURES, Disk()
    for offset, _, whole in read_notes(path, 0, size_of(path)):
        if not whole:
            # A crash left it; what is appended behind it could not be read.
            disk.cut(path, offset)
    disk.append(path, Note(note.text, (*note.signatures, *cosignatures)).encode() + b"\n")


def _target(url: str) -> SplitResult:
    try:
        target = urlsplit(url)
        good = target.scheme in {"http", "https"} and target.hostname and not target.query
        _ = target.port  # raises for what is no port
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"{url!a} is not the URL of a witness: name its submission prefix, https://…"
        )
    return target


def _post(target: SplitResult, body: bytes) -> tuple[int, bytes]:
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=TIMEOUT)
    try:
        connection.request(
            "POST",
            f"{target.path.rstrip('/')}/add-checkpoint",
            body,
            {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "securefs"},
        )
        response = connection.getresponse()
        answer = response.read(MAX_NOTE + 1)
    except (OSError, http.client.HTTPException) as error:
        text = explain(error) if isinstance(error, OSError) else type(error).__name__
        raise WitnessError(f"{target.geturl()}: no answer: {text}") from None
    finally:
        connection.close()
    if len(answer) > MAX_NOTE:
        raise WitnessError(f"{target.geturl()}: its answer has more than {MAX_NOTE} bytes")
    return response.status, answer


def _refused(status: int, url: str) -> SecureFSError:
    if status == http.HTTPStatus.UNPROCESSABLE_ENTITY:
        return ContradictionError(
            f"{url}: the witness has seen another log under this origin: this one was written anew, or that one was"
        )
    return WitnessError(f"{url}: status {status}: {_WHY.get(status, 'it refused')}")


def _size(answer: bytes, url: str) -> int:
    # What does not end in a line end is no number here either.
    text = answer.decode("latin-1")
    try:
        return parse_count(text[:-1] if text.endswith("\n") else "")
    except NoteError as error:
        raise WitnessError(f"{url}: the size that it has seen cannot be read: {error}") from None


def _check_size(old: int, checkpoint: Checkpoint, url: str) -> None:
    if old > checkpoint.size:
        raise ContradictionError(
            f"{url}: the witness has cosigned {old} records of this log, and the log has {checkpoint.size}: it was cut"
        )


def _cosignatures(
    note: Note, answer: bytes, pins: Sequence[VerificationKey], url: str
) -> list[tuple[Signature, int]]:
    try:
        text = answer.decode("utf-8")
        lines = [parse_signature_line(line) for line in text.removesuffix("\n").split("\n")]
    except (UnicodeDecodeError, NoteError) as error:
        raise WitnessError(f"{url}: its answer is no signature: {error}") from None
    found = []
    for pin in pins:
        own = [line for line in lines if (line.name, line.key_id) == (pin.name, pin.key_id)]
        if pin.kind == COSIGNATURE and own:
            try:
                found.append((own[0], verify_cosignature(Note(note.text, tuple(own)), pin)))
            except SignatureError as error:
                raise WitnessError(f"{url}: its cosignature does not hold: {error}") from None
    if not found:
        raise WitnessError(f"{url}: it cosigned under a key that is not pinned (--pin)")
    return found
