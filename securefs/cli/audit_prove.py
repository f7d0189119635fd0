"""``securefs audit prove`` and ``check-proof``: one record, shown without the others."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit.note import NoteError, parse_checkpoint
from securefs.audit.proof import MAX_PROOF_FILE, check_proof, parse_proof
from securefs.audit.prove import prove_record
from securefs.audit.record import RecordError, parse_line
from securefs.audit.report import INCOMPLETE
from securefs.audit.signing import SignatureError
from securefs.audit.tree import ProofError
from securefs.cli.audit import journal_log, pinned, read_small
from securefs.cli.terminal import DONE, FINDING, complain, say, say_bytes, say_json
from securefs.disk import write_atomically
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from securefs.audit.proof import Checked, Proof

__all__ = ["check", "prove"]

_PLACE: Final = re.compile(r"([0-9a-f]{32}):(0|[1-9][0-9]{0,15})")


def prove(arguments: argparse.Namespace) -> int:
    """Write the proof that a record is in the log."""
    match = _PLACE.fullmatch(arguments.record)
    if match is None:
        raise ConfigurationError(
            f"{arguments.record!a} is not CHAIN:SEQ: 32 hex digits, a colon and the record's number"
        )
    log = journal_log(arguments)
    proof = prove_record(Path(arguments.directory), log, match[1], int(match[2]))
    data = proof.encode()
    if arguments.output is None:
        # Bytes: a terminal's encoding may not have the dash of a signature line.
        say_bytes(data)
    else:
        with write_atomically(arguments.output) as file:
            file.write(data)
    origin = parse_checkpoint(proof.note.text).origin
    complain(
        f"the checkpoint in it is signed by the log {origin}; whoever checks the proof must trust its key: the stable "
        f"key, a witness, or the key of that checkpoint, which you know to be genuine once audit verify ended with 0"
    )
    return DONE


def check(arguments: argparse.Namespace) -> int:
    """Verify a proof; end with 0 if a pinned key vouches for it, with 3 if it only adds up."""
    pins = pinned(arguments.pin)
    try:
        proof = parse_proof(read_small(arguments.proof, MAX_PROOF_FILE, "the proof"))
        checked = check_proof(proof, pins)
    except (NoteError, ProofError, SignatureError) as error:
        if arguments.json:
            say_json({"verdict": "does not hold", "exit_code": FINDING, "message": str(error)})
        else:
            say(f"verdict: DOES NOT HOLD (exit code {FINDING}): {error}")
        return FINDING
    code = DONE if checked.signed or checked.witnessed else INCOMPLETE
    if arguments.json:
        say_json(_as_json(proof, checked, code))
    else:
        _tell(proof, checked, code)
    return code


def _tell(proof: Proof, checked: Checked, code: int) -> None:
    say(proof.record.decode("ascii", "backslashreplace"))
    try:
        parse_line(proof.record)
    except RecordError as error:
        say(f"this is not a record of a journal: {error}")
    point = checked.checkpoint
    say(f"it is leaf {proof.index} of {point.size} in the log {point.origin!a}")
    for key in checked.signed:
        say(f"signed by {str(key)!a}")
    for key, time in checked.witnessed:
        say(f"witnessed by {str(key)!a} at {_text(time)}")
    if code == DONE:
        say("verdict: PROVEN (exit code 0): a key that you pinned vouches for the log that has this record")
    else:
        say(
            f"verdict: NOT PROVEN (exit code {code}): no key that you pinned vouches for the checkpoint (--pin)"
        )


def _as_json(proof: Proof, checked: Checked, code: int) -> dict[str, object]:
    return {
        "verdict": "proven" if code == DONE else "not proven",
        "exit_code": code,
        "record": proof.record.decode("ascii", "backslashreplace"),
        "index": proof.index,
        "origin": checked.checkpoint.origin,
        "size": checked.checkpoint.size,
        "signed": [str(key) for key in checked.signed],
        "witnessed": [{"witness": str(key), "time": time} for key, time in checked.witnessed],
    }


def _text(time: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {time}"
