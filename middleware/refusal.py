"""HTTP refusals: what the client is told, and what only the journal and the log are.

Bodies are ``application/problem+json`` (RFC 9457), or a page for a browser. If the client's request
broke a rule or a limit, ``detail`` names it. They never say why a stored file failed, so that they
are no decryption oracle for an attacker who tampers with stored files.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from traceback import format_exception
from typing import TYPE_CHECKING, Any, Final

from securefs.errors import (
    JournalError,
    Reason,
    SecureFSError,
    UnknownKeyError,
)
from securefs.middleware.refusal_page import POLICY, page, wants_page

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BodyRefusedError", "Problem", "Refusal", "log", "one_line"]

# One line for the operator: what a client is not told.
log: Final = logging.getLogger("securefs")

_STATUS: Final = {
    400: ("400 Bad Request", "The request body was refused."),
    401: ("401 Unauthorized", "Authentication is required."),
    408: ("408 Request Timeout", "The request body came too slowly."),
    413: ("413 Content Too Large", "The request exceeds a limit."),
    415: ("415 Unsupported Media Type", "This kind of body is not accepted here."),
    500: ("500 Internal Server Error", "The file cannot be served."),
    507: ("507 Insufficient Storage", "There is no room to hold the request or its answer."),
    503: ("503 Service Unavailable", "The service cannot do this now. Nothing was done."),
}

# Faults of the client. The details of their refusals name rules and limits, which are no secrets.
_CLIENTS_FAULT: Final = frozenset(
    {
        Reason.CHUNKED_UPLOAD,
        Reason.CIPHERTEXT_INJECTION,
        Reason.CLIENT_GONE,
        Reason.LIMIT,
        Reason.MALFORMED_MULTIPART,
        Reason.TIMEOUT,
        Reason.UNDECLARED,
    }
)


class Refusal(Exception):  # noqa: N818  # an answer, not an error
    """The middleware answers a request in the app's place.

    :param status: the HTTP status, one of 400, 401, 408, 413, 415, 500, 503, 507.
    :param reason: the journal's code.
    :param detail: what happened. It is sent only if :attr:`told` says so.
    :param recorded: whether the journal has a record of it already, or can't have one.
    """

    def __init__(self, status: int, reason: Reason | None, detail: str, *, recorded: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.recorded = recorded

    @property
    def told(self) -> str | None:
        """What the client is told: the rule that its request broke, None for any other fault."""
        if self.status >= 500:  # noqa: PLR2004  # an HTTP status
            return None
        if self.reason is Reason.INSPECTION:
            return "a file was refused by an inspection"  # its message is the inspector's
        return str(self) if self.reason in _CLIENTS_FAULT else None

    @classmethod
    def of(cls, error: SecureFSError) -> Refusal:
        """Return the refusal for an error of the core: 500 for a file, 503 for the journal."""
        if isinstance(error, JournalError):
            return cls(503, Reason.JOURNAL_ERROR, f"{error} (SECUREFS_AUDIT_DIR)", recorded=True)
        if isinstance(error, UnknownKeyError):
            detail = f"{error}: if it is a key of yours, add it to FILE_KEY_BASE64_PREVIOUS"
            return cls(500, error.reason, detail)
        return cls(500, error.reason or Reason.IO_ERROR, str(error))


class BodyRefusedError(OSError):
    """Raised into an app that reads a refused request body.

    It is an :class:`OSError`, because frameworks expect one if a connection fails while a body is
    read. The app's reaction does not matter: its response is replaced.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is told of a refusal.

    :ivar status: the HTTP status. :ivar detail: the rule or the limit that the request broke, if it
        broke one; None for what is no fault of the client. :ivar request_id: the id under which the
        journal has the reason.
    """

    status: int
    detail: str | None
    request_id: str

    @property
    def line(self) -> str:
        """The status line, e.g. "413 Content Too Large"."""
        return _STATUS[self.status][0]

    @property
    def title(self) -> str:
        """One sentence that says what happened."""
        return _STATUS[self.status][1]

    def answer(self, environ: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return (status line, headers, body): a page for a browser, JSON for any other client."""
        policy = "sandbox; default-src 'none'"
        if wants_page(environ):
            body = page(environ, self.status, self.title, self.detail, self.request_id)
            media_type, policy = "text/html; charset=utf-8", POLICY
        else:
            body, media_type = self._document(), "application/problem+json"
        headers = [
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            # The response replaces a requested file: a browser must not take it for another type,
            # nor let another site load it.
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", policy),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Request-ID", self.request_id),
        ]
        if self.status == 503:  # noqa: PLR2004  # RFC 9110 section 10.2.3
            headers.append(("Retry-After", "5"))
        if self.status == 401:  # noqa: PLR2004  # RFC 9110 section 11.6.1 asks for a challenge
            headers.append(("WWW-Authenticate", "Bearer"))
        return self.line, headers, body

    def _document(self) -> bytes:
        document = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "request_id": self.request_id,
        }
        if self.detail is not None:
            document["detail"] = self.detail
        return json.dumps(document).encode("ascii") + b"\n"


def one_line(error: BaseException) -> str:
    """Return an error of the app's, with its traceback, as one line of ASCII.

    It may quote a client, who must not write lines of a log.
    """
    return ascii("".join(format_exception(error)))[1:-1]
