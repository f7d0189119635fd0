"""``securefs token``: add, revoke and list the tokens of the reference app.

With a journal, no token is shown and none is revoked that it can't record.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from securefs.app.database import DATA_VARIABLE, data_directory, open_database
from securefs.app.tokens import Tokens
from securefs.cli.operator import record
from securefs.cli.service import journal_of, refuse_root
from securefs.cli.terminal import DONE, complain, say, say_json
from securefs.errors import ConfigurationError, Reason, SecureFSError

if TYPE_CHECKING:
    import argparse

__all__ = ["add", "revoke", "show"]


def _tokens(arguments: argparse.Namespace) -> Tokens:
    environ = os.environ if arguments.data_dir is None else {DATA_VARIABLE: arguments.data_dir}
    if folder := environ.get(DATA_VARIABLE):
        refuse_root(DATA_VARIABLE, folder)
    return Tokens(open_database(data_directory(environ)))


def add(arguments: argparse.Namespace) -> int:
    """Print a new token. It is shown only once, and stored nowhere."""
    tokens = _tokens(arguments)
    with journal_of() as journal:
        token = tokens.issue(arguments.name)
        try:
            record(journal, "token.add", about={"token": token.id, "principal": token.principal})
        except BaseException:
            # On any exception, an interrupt too: a token without a record must not be of use.
            tokens.revoke(token.id)
            raise
        say(token.secret)
    complain("this token is shown only now: keep it safe; securefs token revoke ends it")
    return DONE


def revoke(arguments: argparse.Namespace) -> int:
    """Revoke one token by its id, or all tokens of a name, with the sessions opened with them."""
    tokens, who = _tokens(arguments), arguments.who
    about: dict[str, str | int | None] = {"token" if tokens.is_id(who) else "principal": who}
    with journal_of() as journal:
        record(journal, "token.revoke", "started", about=about)
        try:
            count = tokens.revoke(who)
        except SecureFSError:
            record(journal, "token.revoke", "failure", Reason.IO_ERROR, about)
            raise
        outcome = "success" if count else "failure"
        record(journal, "token.revoke", outcome, about={**about, "count": count})
    if not count:
        raise ConfigurationError(f"no token has the id or name {who}: see securefs token list")
    say(f"revoked: {count}")
    return DONE


def show(arguments: argparse.Namespace) -> int:
    """List tokens: id, time of creation, and user."""
    tokens = _tokens(arguments).list()
    if arguments.json:
        say_json({"tokens": [{"id": t.id, "name": t.principal, "created": t.created} for t in tokens]})
        return DONE
    for token in tokens:
        made = datetime.fromtimestamp(token.created, timezone.utc)
        say(f"{token.id}  {made:%Y-%m-%d %H:%M}  {token.principal}")
    return DONE
