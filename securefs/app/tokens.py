"""Sign-in for the reference app: tokens, and the browser sessions that are opened with them.

A token is ``sfs_<id>_<secret>``. The id, 64 bits, finds the row and is public. The secret is 256
bits from the system's CSPRNG. Only the SHA-256 of the whole token is stored, and it is compared in
constant time, so a reader of the database can't sign in. (A slow password hash would add nothing,
because 256 random bits can't be guessed.) A session is a token with a parent and an end. It is
revoked with its parent. A session is accepted only from a cookie, and a token only outside of one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from securefs import ConfigurationError
from securefs.app.database import transaction

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ANONYMOUS", "SESSION_LIFETIME", "Token", "Tokens"]

ANONYMOUS: Final = "anonymous"  # the journal's principal on public pages; a reserved name
SESSION_LIFETIME: Final = 12 * 60 * 60  # seconds
ID_SIZE: Final = 8  # bytes
SECRET_SIZE: Final = 32  # bytes
MAX_PRINCIPAL: Final = 64  # characters

_TOKEN: Final = re.compile(r"sfs_([0-9a-f]{16})_[0-9a-f]{64}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A token. ``secret`` is the whole text, known only when it is issued, and not in the repr."""

    id: str
    principal: str
    created: int  # seconds since the epoch
    expires: int | None = None  # seconds since the epoch; sessions only
    secret: str = field(default="", repr=False)


class Tokens:
    """The tokens of one data folder.

    :param database: the result of :func:`securefs.app.database.open_database`.
    """

    def __init__(self, database: Path) -> None:
        self._database = database

    def issue(self, principal: str) -> Token:
        """Return a new token for ``principal``. Its secret is known only now.

        :raises ConfigurationError: the name is empty, too long, not printable, reserved, or looks
            like a token's id.
        """
        if not principal.isprintable() or not 1 <= len(principal.strip()) <= len(principal) <= MAX_PRINCIPAL:
            raise ConfigurationError(
                f"a name has 1 to {MAX_PRINCIPAL} printable characters, and not only spaces"
            )
        if principal == ANONYMOUS or _ID.fullmatch(principal):
            raise ConfigurationError(f"{principal} cannot be somebody's name: choose another one")
        return self._insert(principal, None, None)

    def open_session(self, token: Token) -> Token:
        """Return a new session of the token's principal.

        It ends after 12 hours or with the token.
        """
        return self._insert(token.principal, token.id, int(time.time()) + SESSION_LIFETIME)

    def _insert(self, principal: str, parent: str | None, expires: int | None) -> Token:
        identity = secrets.token_hex(ID_SIZE)
        token = Token(
            id=identity,
            principal=principal,
            created=int(time.time()),
            expires=expires,
            secret=f"sfs_{identity}_{secrets.token_hex(SECRET_SIZE)}",
        )
        with transaction(self._database) as database:
            database.execute("DELETE FROM tokens WHERE expires <= ?", (token.created,))
            database.execute(
                "INSERT INTO tokens (id, digest, principal, parent, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
                (identity, _digest(token.secret), principal, parent, token.created, expires),
            )
        return token

    def authenticate(self, secret: str, *, session: bool = False) -> Token | None:
        """Return the valid token (or with ``session`` the session) of this secret, or None."""
        match = _TOKEN.fullmatch(secret)
        if match is None:
            return None
        with transaction(self._database, write=False) as database:
            row = database.execute(
                "SELECT digest, principal, created, expires FROM tokens WHERE id = ? AND (parent IS NOT NULL) = ?",
                (match[1], session),
            ).fetchone()
        # The id is public and may be looked up in variable time; only the secret needs a comparison
        # in constant time.
        if row is None or not hmac.compare_digest(row[0], _digest(secret)):
            return None
        token = Token(id=match[1], principal=row[1], created=row[2], expires=row[3])
        return token if token.expires is None or token.expires > time.time() else None

    def close_session(self, token: Token) -> None:
        """End one session."""
        with transaction(self._database) as database:
            database.execute("DELETE FROM tokens WHERE id = ? AND parent IS NOT NULL", (token.id,))

    def revoke(self, who: str) -> int:
        """Revoke the token with the id ``who``, or all tokens of the principal ``who``.

        Return how many there were.
        """
        if not who.isprintable():
            return 0  # nobody's name, and perhaps no text that SQLite takes
        with transaction(self._database) as database:
            # The rows of their sessions are deleted too: ON DELETE CASCADE.
            cursor = database.execute(
                "DELETE FROM tokens WHERE parent IS NULL AND (id = ? OR principal = ?)", (who, who)
            )
            return cursor.rowcount

    @staticmethod
    def is_id(who: str) -> bool:
        """Return whether ``who`` is the id of a token, and nobody's name."""
        return _ID.fullmatch(who) is not None

    def list(self) -> list[Token]:
        """Return all tokens, oldest first; sessions are not listed."""
        with transaction(self._database, write=False) as database:
            rows = database.execute(
                "SELECT id, principal, created FROM tokens WHERE parent IS NULL ORDER BY created, id"
            ).fetchall()
        return [Token(id=row[0], principal=row[1], created=row[2]) for row in rows]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
