"""The options of ``securefs audit``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Add = Callable[[str, str, str], argparse.ArgumentParser]

__all__ = ["add_actions", "log_option"]

MAX_DAYS = 99_999


def add_actions(add: Add) -> None:
    """Add each action with ``add(name, what runs it, its help)``."""
    _verify_action(add)
    _show_actions(add)
    _proof_actions(add)
    _anchor_actions(add)
    _file_actions(add)
    _selftest_action(add)
    _hash_action(add)
    _seal_actions(add)
    _export_action(add)


def _verify_action(add: Add) -> None:
    command = add(
        "verify",
        "securefs.cli.audit:verify",
        "verify a journal and its log; exit code 0: proven, 1: tampering, 3: not proven, 4: only torn tails",
    )
    command.add_argument("directory", metavar="DIR")
    log_option(command)
    _pin_option(command)
    command.add_argument(
        "--strict", action="store_true", help="each pinned witness must have cosigned the last checkpoint"
    )
    command.add_argument(
        "--anchor",
        metavar="FILE",
        action="append",
        default=[],
        help="checkpoints that you kept: they must be in the log",
    )
    command.add_argument(
        "--since",
        metavar="FILE",
        help="read on from what was verified before, and keep in FILE what was verified now",
    )
    command.add_argument(
        "--as-of", metavar="TIME", help="when this copy of the journal was made; default: now"
    )
    _json_option(command)


def _show_actions(add: Add) -> None:
    for name, text in (
        ("show", "show the records of a journal by time; nothing is verified"),
        ("search", "search the records of a journal; nothing is verified"),
    ):
        command = add(name, "securefs.cli.audit_show:run", text)
        command.add_argument("directory", metavar="DIR")
        log_option(command)
        command.add_argument("--from", dest="begin", metavar="TIME", help="from this time on")
        command.add_argument("--to", dest="end", metavar="TIME", help="before this time")
        command.add_argument(
            "--event",
            metavar="EVENT",
            action="append",
            default=[],
            help="file.encrypt, or file.* for all of files",
        )
        command.add_argument(
            "--severity", type=int, choices=range(1, 6), metavar="N", help="of severity N or above"
        )
        command.add_argument("--principal", metavar="NAME", help="of this user, in clear or as a pseudonym")
        command.add_argument("--name", metavar="NAME", help="of this file name, in clear or as a pseudonym")
        _keys_option(command)
        command.add_argument("--object", metavar="ID", help="of this stored file, by its object id")
        command.add_argument("--request", metavar="ID", help="of this request")
        command.add_argument("--reason", metavar="WORD", help="that failed for this reason")
        command.add_argument("--last", type=_count, metavar="N", help="only the last N of these")
        command.add_argument(
            "-f", "--follow", action="store_true", help="go on with what is written from now on"
        )
        command.add_argument("--json", action="store_true", help="print each record as it is in the file")


def _proof_actions(add: Add) -> None:
    command = add(
        "prove",
        "securefs.cli.audit_prove:prove",
        "write the proof that one record is in the log, to show it without the others",
    )
    command.add_argument("directory", metavar="DIR")
    command.add_argument(
        "record", metavar="CHAIN:SEQ", help="the record's chain and number, as audit show prints them"
    )
    log_option(command)
    command.add_argument("--output", metavar="FILE", help="a new file; default: standard output")

    add(
        "page",
        "securefs.cli.audit_page:page",
        "print the page that verifies a journal in a browser: securefs audit page > verify.html",
    )

    command = add("check-proof", "securefs.cli.audit_prove:check", "verify such a proof")
    command.add_argument("proof", metavar="FILE")
    _pin_option(command)
    _json_option(command)


def _anchor_actions(add: Add) -> None:
    command = add(
        "witness",
        "securefs.cli.audit_witness:run",
        "have witnesses (C2SP tlog-witness) cosign the last checkpoint",
    )
    command.add_argument("directory", metavar="DIR")
    command.add_argument("url", metavar="URL", nargs="+", help="the witness's submission prefix")
    log_option(command)
    _pin_option(command)

    command = add(
        "reconcile",
        "securefs.cli.audit_reconcile:run",
        "compare a journal with stores: each file has its record, each record its file or its deletion",
    )
    command.add_argument("directory", metavar="DIR")
    command.add_argument("store", metavar="STORE", nargs="+", help="files and folders")
    log_option(command)
    _json_option(command)


def _file_actions(add: Add) -> None:
    command = add(
        "compress",
        "securefs.cli.audit_files:compress",
        "compress the files of a journal that are never written again; they are read as they are",
    )
    command.add_argument("directory", metavar="DIR")
    command.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")

    command = add(
        "retain",
        "securefs.cli.audit_files:retain",
        "remove the oldest files of a journal that are sealed, after the log says so",
    )
    command.add_argument("directory", metavar="DIR")
    log_option(command)
    command.add_argument(
        "--keep", type=_days, metavar="DAYS", required=True, help="400d: keep the records of 400 days"
    )
    command.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")


def _selftest_action(add: Add) -> None:
    command = add(
        "selftest",
        "securefs.cli.audit_selftest:run",
        "attack a copy of a journal in each documented way; exit code 1: one was not caught",
    )
    command.add_argument("directory", metavar="DIR")
    log_option(command)
    _pin_option(command)
    _json_option(command)


def _hash_action(add: Add) -> None:
    command = add("hash", "securefs.cli.audit:pseudonym", "print the pseudonym of a name in a journal")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--principal", action="store_true", help="the name of a user, not of a file")
    command.add_argument("--dir", metavar="DIR", help="the journal's folder; default: SECUREFS_AUDIT_DIR")
    _keys_option(command)
    command.add_argument(
        "--period", metavar="YYYY-MM", help="of this month, or `all`: under every key; default: this month"
    )


def _seal_actions(add: Add) -> None:
    text = "begin the log of a journal: make its first key, print the verification key to pin"
    command = add("init", "securefs.cli.sealing:init", text)
    command.add_argument("directory", metavar="DIR")
    log_option(command)
    command.add_argument("--origin", metavar="NAME", help="the log's name; default: HOST/securefs-8 DIGITS")
    command.add_argument(
        "--stable", action="store_true", help="also make a stable key, which witnesses and other tools need"
    )

    text = "seal a journal: sign checkpoints of all its records, until SIGTERM"
    command = add("seal", "securefs.cli.sealing:seal", text)
    command.add_argument("directory", metavar="DIR")
    log_option(command)
    command.add_argument("--once", action="store_true", help="seal what is there, and end: for cron")
    command.add_argument(
        "--stdin", action="store_true", help="end when standard input ends: for a server that started it"
    )


def _export_action(add: Add) -> None:
    text = "print the records of a journal for a SIEM, one line each, on standard output"
    command = add("export", "securefs.cli.audit_export:run", text)
    command.add_argument("directory", metavar="DIR")
    text = "OCSF 1.8.0, ECS 9.4.0 or CEF 0"
    command.add_argument("--format", choices=("ocsf", "ecs", "cef"), required=True, help=text)
    log_option(command)


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not (text.endswith("d") and number.isascii() and number.isdigit() and 0 < int(number[:9]) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days such as 400d")
    return int(number)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len("1000000")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 9999999")
    return int(text)


def log_option(command: argparse.ArgumentParser) -> None:
    """Add ``--log``, which several commands have."""
    command.add_argument(
        "--log",
        metavar="LOG",
        help="the log's folder; default: SECUREFS_AUDIT_LOG, else log in the journal's folder",
    )


def _keys_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--names-key", metavar="DIR", help="the folder of keys by month; default: SECUREFS_AUDIT_NAMES_KEY"
    )


def _pin_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--pin",
        metavar="KEY",
        action="append",
        default=[],
        help="a verification key that you trust, or a file of such keys",
    )


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")
