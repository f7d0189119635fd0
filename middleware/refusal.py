"""Saying no over HTTP: what the client may know (a status, a request id) and what only the journal gets (the reason).

Bodies are ``application/problem+json`` (RFC 9457). They never say why a file failed: whoever
tampers with stored files would learn from it.
"""

from __future__ import annotations

import json
import re
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from securefs.errors import (
    JournalError,
    Reason,
    SecureFSError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BodyRefusedError", "Refusal", "problem", "request_id"]

_STATUS: Final = {
    400: ("400 Bad Request", "The request body was refused."),
    401: ("401 Unauthorized", "Authentication is required."),
    408: ("408 Request Timeout", "The request body came too slowly."),
    413: ("413 Content Too Large", "The request exceeds a limit."),
    500: ("500 Internal Server Error", "The file cannot be served."),
    507: ("507 Insufficient Storage", "There is no room to hold the request or its answer."),
    503: ("503 Service Unavailable", "The service cannot do this now. Nothing was done."),
}

# What a proxy or a client may name a request: letters that need no escaping anywhere, of a length
# that fits a log line.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")


class Refusal(Exception):  # noqa: N818  # not an error of ours: an answer
    """A request is answered by us and not by the app.

    :param status: the HTTP status, one of 400, 401, 408, 413, 500, 503, 507.
    :param reason: the journal's code.
    :param detail: what happened, for whoever debugs; never sent.
    :param recorded: whether the journal knows of it already, or can't be told.
    """

    def __init__(self, status: int, reason: Reason | None, detail: str, *, recorded: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.recorded = recorded

    @classmethod
    def of(cls, error: SecureFSError) -> Refusal:
        """Return what an error of the core means to a client: a file that fails is 500, a journal that does 503."""
        if isinstance(error, JournalError):
            return cls(503, Reason.JOURNAL_ERROR, str(error), recorded=True)
        return cls(500, error.reason or Reason.IO_ERROR, str(error))


class BodyRefusedError(OSError):
    """Raised into an app that reads a request body which was refused.

    An :class:`OSError`, since that is what frameworks expect of a connection that fails while a
    body is read. What the app makes of it does not matter: its response is replaced.
    """


def problem(status: int, request: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return (status line, headers, body) of a problem response."""
    line, title = _STATUS[status]
    document = {"type": "about:blank", "title": title, "status": status, "request_id": request}
    body = json.dumps(document).encode("ascii") + b"\n"
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        # It stands where a file was asked for: no browser is to take it for anything else, nor to
        # let another site load it.
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", "sandbox; default-src 'none'"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("X-Request-ID", request),
    ]
    if status == 503:  # noqa: PLR2004  # RFC 9110 section 10.2.3
        headers.append(("Retry-After", "5"))
    if status == 401:  # noqa: PLR2004  # RFC 9110 section 11.6.1 asks for a challenge
        headers.append(("WWW-Authenticate", "Bearer"))
    return line, headers, body


def request_id(environ: Mapping[str, object]) -> str:
    """Return the request's id: the client's ``X-Request-ID`` where it is well-formed, a random one elsewhere."""
    given = environ.get("HTTP_X_REQUEST_ID")
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else token_hex(16)
