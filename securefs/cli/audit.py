"""``securefs audit verify`` and ``securefs audit hash``."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit import LogTerms, hash_name, verify_journal
from securefs.audit.log_files import LOG_FOLDER
from securefs.audit.name_keys import hash_names
from securefs.audit.note import NoteError, parse_vkey
from securefs.audit.report import TAMPERED
from securefs.audit.verify_state import LogState, read_state, write_state
from securefs.cli.terminal import DONE, say, say_json
from securefs.disk import explain, read_regular, write_atomically
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from securefs.audit import Report
    from securefs.audit.note import VerificationKey
    from securefs.audit.pseudonym import Kind

__all__ = [
    "KEYS_VARIABLE",
    "journal_log",
    "log_folder",
    "moment",
    "pinned",
    "pseudonym",
    "read_small",
    "verify",
]

JOURNAL_VARIABLE: Final = "SECUREFS_AUDIT_DIR"
KEYS_VARIABLE: Final = "SECUREFS_AUDIT_NAMES_KEY"
LOG_VARIABLE: Final = "SECUREFS_AUDIT_LOG"
MAX_KEYS: Final = 64 * 1024  # bytes of a file of keys
MAX_STATE: Final = 256 * 1024 * 1024  # bytes: some 300 for each chain

EVERY: Final = "all"  # periods


def verify(arguments: argparse.Namespace) -> int:
    """Verify a journal and its log; the exit code is the verdict."""
    state = _state(arguments.since)
    terms = LogTerms(
        pins=pinned(arguments.pin),
        strict=arguments.strict,
        now=None if arguments.as_of is None else moment(arguments.as_of, "--as-of"),
        anchors=[Path(name) for name in arguments.anchor],
        state=state,
    )
    report = verify_journal(arguments.directory, log_folder(arguments), terms)
    if arguments.json:
        say_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    _keep_state(arguments.since, report)
    return report.exit_code


def pseudonym(arguments: argparse.Namespace) -> int:
    """Print the pseudonym of a file name or a principal in the journal."""
    kind: Kind = "principal" if arguments.principal else "name"
    directory = arguments.dir or os.environ.get(JOURNAL_VARIABLE) or None
    names_key = arguments.names_key or os.environ.get(KEYS_VARIABLE) or None
    if not (directory or names_key):
        raise ConfigurationError(
            "name the journal's folder with --dir, or the folder of its keys with --names-key "
            f"(or set {JOURNAL_VARIABLE}, {KEYS_VARIABLE})"
        )
    if arguments.period == EVERY:
        found = hash_names(directory, arguments.name, kind, names_key=names_key)
        if not found:
            raise ConfigurationError("there is no key of pseudonyms in the folders that were named")
        for period, text in found.items():
            say(f"{period or 'journal'} {text}")
        return DONE
    say(hash_name(directory, arguments.name, kind, names_key=names_key, period=arguments.period))
    return DONE


def log_folder(arguments: argparse.Namespace) -> str | None:
    """Return the log's folder: ``--log``, or what the environment names; None for the default."""
    return arguments.log or os.environ.get(LOG_VARIABLE) or None


def journal_log(arguments: argparse.Namespace) -> Path:
    """Return the folder of a log that must be there.

    :raises ConfigurationError: it is not.
    """
    path = Path(log_folder(arguments) or Path(arguments.directory) / LOG_FOLDER)
    if not path.is_dir():
        raise ConfigurationError(
            f"there is no log {str(path)!a}; name it with --log, or begin one: securefs audit init"
        )
    return path


def pinned(given: list[str]) -> list[VerificationKey]:
    """Return the keys of ``--pin``: each a verification key, or a file with one on each line."""
    keys: list[VerificationKey] = []
    for text in given:
        try:
            keys.append(parse_vkey(text))
        except NoteError as error:  # noqa: PERF203 - each on its own
            # A key that was mistyped is not taken for the name of a file that is missing.
            if text.count("+") > 1 and not os.path.lexists(text):
                raise ConfigurationError(f"--pin {text!a}: {error}") from None
            keys += _keys_in(text)
    return keys


def _keys_in(name: str) -> list[VerificationKey]:
    try:
        lines = read_small(name, MAX_KEYS, "--pin").decode("utf-8").split("\n")
        keys = [parse_vkey(line.strip()) for line in lines if line.strip()]
    except ValueError as error:
        raise ConfigurationError(f"--pin {name!a}: {error}") from None
    if not keys:
        raise ConfigurationError(f"--pin {name!a}: there is no key in this file")
    return keys


def _state(name: str | None) -> LogState | None:
    if name is None or not os.path.lexists(name):
        return None
    return read_state(read_small(name, MAX_STATE, "--since"))


def read_small(name: str, limit: int, option: str) -> bytes:
    """Return the content of a file of at most ``limit`` bytes that ``option`` names."""
    try:
        with read_regular(name, follow_links=True) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= limit else b""
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{option}: cannot read {name!a}: {explain(error)}") from None
    if size > limit:
        raise ConfigurationError(f"{option}: {name!a} has more than {limit} bytes")
    return data


def _keep_state(name: str | None, report: Report) -> None:
    # What was found to be changed is no ground to build on.
    if name is None or report.log is None or report.exit_code == TAMPERED:
        return
    try:
        with write_atomically(name, overwrite=True) as file:
            file.write(write_state(report.log.state))
    except OSError as error:
        raise ConfigurationError(f"--since: cannot write {name!a}: {explain(error)}") from None


def moment(text: str, option: str) -> float:
    """Return the time that an option names, in POSIX seconds."""
    try:
        # Python 3.10 reads no Z.
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigurationError(
            f"{option}: {text!a} is not a time such as 2026-11-23T19:15:00Z, or a day such as 2026-11-23"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
