"""The reference app's HTTP: file parts, error responses, cookies, and the origin check.

Text from a client never becomes part of a header unescaped. An error says what to do and no more:
not why a file failed, and not where it is stored.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.wrappers import Request, Response

from securefs.app.database import StorageError
from securefs.app.pages import PAGE_HEADERS, error_page, harmless
from securefs.middleware import attachment as for_saving

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from _typeshed.wsgi import WSGIEnvironment

    from securefs.app.storage import Incoming, Storage
    from securefs.app.tokens import Token
    from securefs.middleware import Exchange

__all__ = [
    "CALLER",
    "COMMON_HEADERS",
    "AppRequest",
    "attachment",
    "check_origin",
    "cookie_name",
    "log",
    "page",
    "problem",
    "to_json",
]

# In environ: the Token, None for nobody, or the StorageError of the look-up.
CALLER: Final = "securefs.app.caller"
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
COMMON_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
    # Not no-referrer: browsers then send "Origin: null" with a form, which check_origin would
    # refuse.
    "Referrer-Policy": "same-origin",
    # If a browser ever shows a response that is not a page of this app, a download above all, it
    # runs nothing and belongs to no origin.
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class AppRequest(Request):
    """A request whose file parts are written directly to their final folder."""

    def __init__(self, environ: WSGIEnvironment, storage: Storage) -> None:
        super().__init__(environ)
        self.received: list[Incoming] = []
        self._storage = storage

    def _get_file_stream(
        self,
        total_content_length: int | None,  # noqa: ARG002  # Werkzeug's interface
        content_type: str | None,  # noqa: ARG002  # the same
        filename: str | None = None,  # noqa: ARG002  # the same
        content_length: int | None = None,  # noqa: ARG002  # the same
    ) -> IO[bytes]:
        self.received.append(self._storage.receive())
        return cast("IO[bytes]", self.received[-1])

    @property
    def exchange(self) -> Exchange:
        """The app's interface to the middleware for this request."""
        return cast("Exchange", self.environ["securefs"])

    @property
    def caller(self) -> Token | None:
        """The caller's token, None for nobody; raises :class:`StorageError` if that is unknown."""
        found: Token | StorageError | None = self.environ[CALLER]
        if isinstance(found, StorageError):
            raise found
        return found

    @property
    def token(self) -> Token:
        """The caller's token; 401 for nobody."""
        if self.caller is None:
            raise Unauthorized
        return self.caller

    @property
    def wants_html(self) -> bool:
        """Whether the client is a browser. A program that sends no Accept header gets JSON."""
        return self.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def check_origin(request: Request) -> None:
    """Refuse a request that another site made a browser send (cross-site request forgery).

    The browser adds this app's cookie to it, and says where it came from. A browser never adds a
    program's token on its own, so a request with a token needs no such check.
    """
    if request.method in SAFE_METHODS or "Authorization" in request.headers:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin", "")
    # Browsers send Sec-Fetch-Site only over https and to the local machine; elsewhere the Origin
    # has to suffice.
    same = (
        site == "same-origin"
        if site is not None
        else origin.partition("://")[2] == request.headers.get("Host")
    )
    if not same:
        raise Forbidden(
            "The request did not come from this site's own pages. Open the page anew and try again."
        )


def cookie_name(request: Request) -> str:
    """Return the session cookie's name.

    With https, its prefix makes browsers refuse a cookie that a neighbouring host tries to set.
    """
    return "__Host-securefs" if request.is_secure else "securefs"


def attachment(name: str) -> str:
    """Return the Content-Disposition for saving as ``name``, without deceptive characters."""
    return for_saving(harmless(name, "_"))


def page(html: str, status: int = 200) -> Response:
    """Return an HTML page."""
    return Response(html, status, mimetype="text/html", headers=PAGE_HEADERS)


def to_json(
    document: Mapping[str, object], status: int = 200, mimetype: str = "application/json"
) -> Response:
    """Return a JSON document, in ASCII."""
    return Response(json.dumps(document) + "\n", status, mimetype=mimetype)


def problem(request: AppRequest, status: int, title: str, detail: str) -> Response:
    """Return an error: a page for a browser, ``application/problem+json`` (RFC 9457) otherwise."""
    if request.wants_html:
        return page(error_page(title, detail), status)
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request.exchange.request_id,
    }
    return to_json(document, status, "application/problem+json")


def log(request: Request, message: str) -> None:
    """Write one line for the operator to the server's error log."""
    errors = request.environ["wsgi.errors"]
    errors.write(f"securefs: {message}\n")
    errors.flush()
