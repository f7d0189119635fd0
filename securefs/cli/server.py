"""The commands around the server: token, audit, demo. What each needs is imported only when it runs."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.cli.terminal import complain, say, say_json
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from securefs.app.tokens import Tokens

__all__ = ["audit_hash", "audit_verify", "demo", "token_add", "token_list", "token_revoke"]

DONE: Final = 0  # exit code


def _tokens(arguments: argparse.Namespace) -> Tokens:
    from securefs.app.database import DATA_VARIABLE, data_directory, open_database  # noqa: PLC0415  # lazy: quick --help
    from securefs.app.tokens import Tokens  # noqa: PLC0415  # the same

    environ = os.environ if arguments.data_dir is None else {DATA_VARIABLE: arguments.data_dir}
    return Tokens(open_database(data_directory(environ)))


def token_add(arguments: argparse.Namespace) -> int:
    """Print a new token: it is shown this once and kept nowhere."""
    say(_tokens(arguments).issue(arguments.name).secret)
    complain("this token is shown only now: keep it safe; securefs token revoke ends it")
    return DONE


def token_revoke(arguments: argparse.Namespace) -> int:
    """Revoke one token by its id, or all tokens of a name; sessions opened with them end too."""
    count = _tokens(arguments).revoke(arguments.who)
    if not count:
        raise ConfigurationError(f"no token has the id or name {arguments.who}: see securefs token list")
    say(f"revoked: {count}")
    return DONE


def token_list(arguments: argparse.Namespace) -> int:
    """List tokens: id, when they were made, and for whom."""
    tokens = _tokens(arguments).list()
    if arguments.json:
        say_json({"tokens": [{"id": t.id, "name": t.principal, "created": t.created} for t in tokens]})
        return DONE
    for token in tokens:
        made = datetime.fromtimestamp(token.created, timezone.utc)
        say(f"{token.id}  {made:%Y-%m-%d %H:%M}  {token.principal}")
    return DONE


def audit_verify(arguments: argparse.Namespace) -> int:
    """Verify a journal; the exit code tells its two verdicts apart."""
    from securefs.audit import verify_journal  # noqa: PLC0415  # lazy: quick --help

    report = verify_journal(arguments.directory)
    if arguments.json:
        say_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    return report.exit_code


def audit_hash(arguments: argparse.Namespace) -> int:
    """Print under which pseudonym the journal knows a file name, or a principal."""
    from securefs.audit import hash_name  # noqa: PLC0415  # lazy: quick --help

    directory = arguments.dir or os.environ.get("SECUREFS_AUDIT_DIR")
    if not directory:
        raise ConfigurationError("name the journal's folder with --dir, or set SECUREFS_AUDIT_DIR")
    say(hash_name(directory, arguments.name, "principal" if arguments.principal else "name"))
    return DONE


def demo(arguments: argparse.Namespace) -> int:
    """Serve the reference app on this machine until Ctrl-C."""
    from securefs.cli.demo import run  # noqa: PLC0415  # lazy: quick --help

    run(Path(arguments.dir) if arguments.dir is not None else None, arguments.port)
    return DONE  # pragma: no cover  # run() ends by becoming the server
