"""``securefs token``: add, revoke and list the tokens of the reference app."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from securefs.app.database import DATA_VARIABLE, data_directory, open_database
from securefs.app.tokens import Tokens
from securefs.cli.service import refuse_root
from securefs.cli.terminal import DONE, complain, say, say_json
from securefs.errors import ConfigurationError

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
    say(_tokens(arguments).issue(arguments.name).secret)
    complain("this token is shown only now: keep it safe; securefs token revoke ends it")
    return DONE


def revoke(arguments: argparse.Namespace) -> int:
    """Revoke one token by its id, or all tokens of a name, with the sessions opened with them."""
    count = _tokens(arguments).revoke(arguments.who)
    if not count:
        raise ConfigurationError(f"no token has the id or name {arguments.who}: see securefs token list")
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
