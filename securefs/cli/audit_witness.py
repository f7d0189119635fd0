"""``securefs audit witness``: have witnesses cosign the last checkpoint of a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from securefs.audit.note import COSIGNATURE
from securefs.audit.prove import latest_checkpoint
from securefs.audit.report import INCOMPLETE
from securefs.audit.witness import ContradictionError, WitnessError, cosign, keep
from securefs.cli.audit import journal_log, pinned
from securefs.cli.service import refuse_root
from securefs.cli.terminal import DONE, FINDING, complain, say
from securefs.disk import explain
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Ask each witness; 1 if one has seen another log, 3 if one did not cosign, else 0."""
    log = journal_log(arguments)
    pins = [pin for pin in pinned(arguments.pin) if pin.kind == COSIGNATURE]
    if not pins:
        raise ConfigurationError(
            "pin the key of each witness with --pin: a cosignature of an unknown key is worth nothing"
        )
    refuse_root("--log", str(log))
    note, checkpoint = latest_checkpoint(log)
    code, found = DONE, []
    for url in arguments.url:
        try:
            cosigned = cosign(Path(arguments.directory), log, (note, checkpoint), url, pins)
        except ContradictionError as error:  # noqa: PERF203 - the others are asked, too
            complain(f"TAMPERING: {error}")
            code = FINDING
        except WitnessError as error:
            complain(str(error))
            code = code or INCOMPLETE
        else:
            found += [line for line, _ in cosigned]
            for line, _ in cosigned:
                say(f"{url}: {line.name} cosigned {checkpoint.size} records of {checkpoint.origin}")
    if found:
        try:
            keep(log, note, list(dict.fromkeys(found)))
        except OSError as error:
            raise ConfigurationError(
                f"cannot keep the cosignatures in {str(log)!a}: {explain(error)}"
            ) from None
    return code
