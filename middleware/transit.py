"""One request in flight: the server's side, the app's side, and the outcome of both.

:mod:`securefs.middleware.intake` receives request bodies, and :mod:`securefs.middleware.download`
delivers responses. If a step raises :class:`Refusal`, :meth:`Transit.refuse` answers in the app's
place. Everything that was opened on the way is closed once: with the body that the server gets, or
by :meth:`Transit.close`.
"""

from __future__ import annotations

import errno
import io
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl
from weakref import WeakMethod

from securefs.arguments import require
from securefs.errors import ConfigurationError, JournalError
from securefs.middleware.body import RewrittenBody
from securefs.middleware.exchange import Exchange
from securefs.middleware.proxies import TrustedProxies
from securefs.middleware.refusal import BodyRefusedError, Problem, Refusal, log, one_line
from securefs.middleware.response import Response
from securefs.middleware.servers import drains
from securefs.reader import forget_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from securefs.audit import Entry, Journal
    from securefs.keys import Keyring
    from securefs.middleware.inspection import Inspector
    from securefs.middleware.places import Places
    from securefs.middleware.policy import Policy
    from securefs.middleware.source import GuardedInput
    from securefs.middleware.vault import Vault
    from securefs.middleware.waiting import WaitingRoom
    from securefs.sealer import NewFiles

    Environ = dict[str, Any]
    Rendered = tuple[str, list[tuple[str, str]], bytes]
    Renderer = Callable[[Environ, Problem], Rendered | None]
    WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

__all__ = ["Settings", "Transit"]

# A part of a ciphertext can't be verified, so the app never sees Range headers.
_HIDDEN: Final = ("HTTP_RANGE", "HTTP_IF_RANGE")
# Methods that are answered by a page about the file, or by nothing (RFC 9110, 5789, 4918 and 3253).
_ABOUT_FILES: Final = frozenset(
    {"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND"}
    | {"PROPPATCH", "REPORT", "UNLOCK"}
)
# Headers and query parameters by which middleware lets a POST be a GET.
_OVERRIDE: Final = re.compile(r"HTTP_\w*(?:METHOD|VERB)")
_OVERRIDE_IN_QUERY: Final = re.compile(r"_method|.*method.*override|.*override.*method", re.IGNORECASE)
# It asks what may be done, by a method that is named here.
_PREFLIGHT: Final = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"
# What a server takes of an app (PEP 3333), of final responses.
_STATUS_LINE: Final = re.compile("[2-5][0-9]{2} ")
_HEADER_TEXT: Final = re.compile("[\t\x20-\x7e\x80-\xff]*")
_READS: Final = re.compile(r"\b(?:GET|HEAD)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one :class:`SecureFS`: its arguments, and what follows from them."""

    keyring: Keyring
    journal: Journal
    policy: Policy
    new_files: NewFiles
    places: Places
    room: WaitingRoom
    context: Callable[[Environ], bytes] | None
    authorize: Callable[[Environ], str | None] | None
    inspect: Inspector | None
    on_refusal: Renderer | None
    on_event: Callable[[Entry], object] | None
    vault: Vault
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))


class Transit:
    """One request.

    :ivar settings: the settings of the middleware.
    :ivar environ: the server's environ. :ivar inner: the app's: without ranges, and with GET for
        HEAD.
    :ivar exchange: the app's interface to the middleware.
    :ivar body: what the app reads in the place of the request body, None if there is none.
    :ivar response: the app's response. :ivar head: the first bytes of its body.
    :ivar place: what a file on this path is: see :meth:`Places.format_of`. Decided from the
        server's environ alone.
    """

    def __init__(self, settings: Settings, environ: Environ, start_response: Callable[..., Any]) -> None:
        # The same thread served another request before.
        forget_nested()
        self.settings = settings
        self.environ = environ
        self.exchange = exchange = Exchange(environ, settings.journal, settings.on_event, settings.proxies)
        exchange.vault = settings.vault
        if settings.context is not None:
            exchange.asks = WeakMethod(self.context)
        self.is_head = environ.get("REQUEST_METHOD") == "HEAD"
        self.place = settings.places.format_of(environ)
        reads = self.place is not None and _reads(environ)
        self.response = Response(
            start_response, exchange, settings.places, must_be_file=reads, is_head=self.is_head
        )
        self._start_response = start_response
        self._closed = False
        self.body: RewrittenBody | GuardedInput | None = None
        self.head = b""  # the first bytes of the app's response
        self.inner = inner = dict(environ)
        for name in _HIDDEN:
            inner.pop(name, None)
        inner["securefs"] = exchange
        inner["wsgi.file_wrapper"] = self.response.wrap
        if self.is_head:
            # Only a GET shows whether the response is ciphertext, and so how long the plaintext is.
            inner["REQUEST_METHOD"] = "GET"

    @property
    def shows_file(self) -> bool:
        """Whether the response, to any method, is made from a file on a path that is declared."""
        return self.place is not None and self.response.is_file

    def context(self) -> bytes:
        """Return the context that the files of this request are bound to."""
        context = self.settings.context
        return b"" if context is None else context(self.inner)

    def admit(self) -> None:
        """Authorize the request, or refuse it (401)."""
        authorize = self.settings.authorize
        if authorize is None:
            return
        principal = authorize(self.inner)
        if principal is None or principal == "":
            raise Refusal(401, None, "authorize named no principal")
        # False, or a coroutine that nobody awaits, must not pass for a name.
        require("what authorize returns", principal, str, "a str or None")
        self.exchange.principal = principal

    def run(self, app: WSGIApp) -> None:
        """Run the app, up to the first bytes of its response."""
        try:
            self.head = self.response.receive(app(self.inner, self.response.start))
        except Exception:
            # If the body was refused, any error of the app follows from that: the refusal is the
            # response.
            refusal = self._refusal
            if refusal is None:
                raise
            raise refusal from None
        if (refusal := self._refusal) is not None:
            raise refusal

    def refuse(self, refusal: Refusal) -> Iterable[bytes]:
        """Close what is open, record the refusal, and answer in the app's place.

        If the app's response has begun, abort the connection.
        """
        try:
            self.close()
        except Exception as error:  # noqa: BLE001  # it may follow from the refusal, which is the response
            log.error(
                "the app's response can't be closed (request %s): %s",
                self.exchange.request_id,
                one_line(error),
            )
        # A body that is read while the response is opened may be what broke it.
        refusal = self._recorded(self._refusal or refusal)
        self.exchange.tell(refusal)
        if self.response.started:
            raise BodyRefusedError("the request body was refused after the response had begun") from None
        status, headers, body = self._answer(Problem(refusal.status, refusal.told, self.exchange.request_id))
        self._start_response(status, headers)
        content = () if self.is_head else (body,)
        if "HTTP_TRANSFER_ENCODING" in self.environ and not drains(self.environ):
            return _then_close(content)
        return content

    def _answer(self, problem: Problem) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the app's own rendering of a refusal, if it gives one, else the middleware's."""
        render = self.settings.on_refusal
        if render is not None:
            # What was refused is not for the app, nor is what was not read of it: as it came, its
            # files are plaintext.
            environ = self.environ | {"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "0"}
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            try:
                if (rendered := render(environ, problem)) is not None:
                    return _checked(*rendered)
            except Exception as error:  # noqa: BLE001  # whatever it is, the client gets an answer
                message = "on_refusal failed: the middleware answers (request %s): %s"
                log.error(message, problem.request_id, one_line(error))
        return problem.answer(self.environ)

    def close(self) -> None:
        """Close the app's response and the request body, the first time that it is called."""
        if self._closed:
            return
        self._closed = True
        try:
            self.response.close()
        finally:
            if isinstance(self.body, RewrittenBody):
                self.body.close()

    @property
    def _refusal(self) -> Refusal | None:
        """The refusal of the request body, or of what the app wrote."""
        return (self.body.refusal if self.body is not None else None) or self.response.refusal

    def _recorded(self, refusal: Refusal) -> Refusal:
        """Record a refused request; return the refusal to answer with."""
        if refusal.recorded:
            return refusal
        try:
            if refusal.status == 401:  # noqa: PLR2004  # an HTTP status
                self.exchange.record("auth.denied", outcome="failure", status=401)
            else:
                parts = self.body.parts if isinstance(self.body, RewrittenBody) else 0
                # Quoted by clients: ASCII, and no longer than an object's name may be.
                rule = ascii(refusal.told or "")[1:-1]
                self.exchange.record(
                    "file.rejected",
                    outcome="failure",
                    reason=refusal.reason,
                    status=refusal.status,
                    about={"parts": parts, "rule": rule},
                )
        except JournalError as error:
            return Refusal.of(error)
        return refusal

    def record_late(self) -> None:
        """Record what is known only at the end of a response that had begun.

        A refused body: the connection was then aborted. Else the answer to files that the app read
        while it responded.
        """
        if self.body is not None and self.body.refusal is not None:
            self.exchange.tell(self._recorded(self.body.refusal))
            return
        self._record_answer(self.response.status)

    def record_crash(self) -> None:
        """Record that the app failed, if it had received files: the server answers."""
        self._record_answer(None)

    def _record_answer(self, status: str | None) -> None:
        # There is no answer left that could be refused for it; the journal tells the operator.
        with suppress(JournalError):
            self.exchange.answered(status)


def _checked(status: str, headers: Iterable[tuple[str, str]], body: bytes) -> Rendered:
    """Return what ``on_refusal`` rendered.

    :raises ConfigurationError: a server would not take it, and the client would get nothing.
    """
    wanted = "what on_refusal returns, (status line, headers, body),"
    require(f"the status of {wanted}", status, str, 'a line such as "413 Content Too Large"')
    require(f"the body of {wanted}", body, bytes, "bytes")
    pairs = [(name, value) for name, value in headers]
    for text in chain((status,), *pairs):
        require(f"each header of {wanted}", text, str, "two strings")
        if not _HEADER_TEXT.fullmatch(text):
            raise ConfigurationError(f"{wanted} has control characters, or others than latin-1")
    if not _STATUS_LINE.match(status):
        raise ConfigurationError(f'{wanted} must have a status line such as "413 Content Too Large"')
    return status, pairs, body


def _reads(environ: Environ) -> bool:
    """Return whether the app may take the request for one that reads a file."""
    if str(environ.get("REQUEST_METHOD")).upper() not in _ABOUT_FILES:
        return True
    claimed = [value for name, value in environ.items() if _OVERRIDE.match(name) and name != _PREFLIGHT]
    in_query = parse_qsl(environ.get("QUERY_STRING", ""))
    claimed += [value for name, value in in_query if _OVERRIDE_IN_QUERY.fullmatch(name)]
    return any(map(_READS.search, claimed))


def _then_close(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the whole response, then end the connection in the only way that an app has.

    A server that does not drain the body takes the rest of it for the next request, so a client
    could use it for request smuggling.
    """
    yield from content
    # This is the error that servers take for a client's departure, and do not log.
    raise ConnectionResetError(errno.ECONNRESET, "the rest of the request was not read")
