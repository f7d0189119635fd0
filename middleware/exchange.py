"""One request and its response: ``environ["securefs"]``, and its journal records."""

from __future__ import annotations

import logging
import re
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.audit import Entry
from securefs.errors import ConfigurationError, IntegrityError, Reason
from securefs.lazy import lazy
from securefs.middleware.evidence import Evidence, Upload, described
from securefs.middleware.proxies import TrustedProxies
from securefs.middleware.refusal import Refusal, log
from securefs.primitives import HMAC_SIZE
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from securefs.audit import Journal
    from securefs.middleware.made import Sealed
    from securefs.reader import EncryptedFile

    class Opener(Protocol):
        """The vault, as a request uses it."""

        def open_in(
            self,
            evidence: Evidence,
            file: Any,
            context: Callable[[], bytes],
            object_id: str | None,
            *,
            anywhere: bool,
        ) -> EncryptedFile:
            """Open a file for a request."""
            ...

        def seal_in(
            self, evidence: Evidence, file: Any, context: Callable[[], bytes], name: str, content_type: str
        ) -> Sealed:
            """Seal what the app made in a request."""
            ...

        def is_sealed(self, file: Any) -> bool:
            """Tell whether a file is encrypted."""
            ...

        def find(self, evidence: Evidence, file: Any) -> Upload | None:
            """Return the upload of a request that ``file`` is."""
            ...


__all__ = ["Exchange", "Upload"]

_OBJECT_ID: Final = re.compile("[0-9a-f]{64}")
_STATUS: Final = re.compile("[1-9][0-9]{2}")  # of a status line
_NO_PROXIES: Final = TrustedProxies(())
_FAILURES: Final = 400  # the first HTTP status of them


class Exchange(Evidence):
    """The interface of the wrapped app to the middleware: ``environ["securefs"]``.

    :ivar principal: the user who makes the request, for the journal; set by ``authorize``, or by an
        app that does its own login.
    :ivar uploads: the file parts of this request, each from the moment that its last byte was
        encrypted. The list is complete once the app has read its request body.
    :ivar receives: whether a file of this request was recorded.
    :ivar broken: why no response can be what the app expects, None while one can.
    :ivar vault: what opens and seals files of the app; set by the middleware.
    :ivar asks: returns what asks for the context of this request; None if files are bound to none.
    """

    vault: Opener
    # Weak in what it leads to: the app's environ, of which the context is made, has this object.
    asks: Callable[[], Callable[[], bytes] | None] | None = None
    own: Mapping[str, Upload] = MappingProxyType({})
    broken: Refusal | None = None
    _expected: str | None = None
    _told: Refusal | None = None
    # Whether it is decided what the response is, and the object id of the file that it is.
    _settled = False
    _sent: str | None = None
    _answered = False

    def __init__(
        self,
        environ: Mapping[str, Any],
        journal: Journal,
        on_event: Callable[[Entry], object] | None = None,
        proxies: TrustedProxies = _NO_PROXIES,
    ) -> None:
        self.principal: str | None = None
        self.uploads: list[Upload] = []
        # What is derived of these is derived when it is needed: most requests are never recorded.
        # The environ itself would refer to this object, in a cycle.
        self._client_id: object = environ.get("HTTP_X_REQUEST_ID")
        self._path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self._method: str = environ.get("REQUEST_METHOD", "")
        self._peer: str = environ.get("REMOTE_ADDR") or ""
        self._forwarded: str = environ.get("HTTP_X_FORWARDED_FOR") or ""
        self._proxies = proxies
        # As in Evidence, and without a call: most requests are pages.
        self._journal = journal
        self._on_event = on_event

    @lazy
    def request_id(self) -> str:
        """The id in this request's journal records and problem responses: 32 random hex digits.

        The records have the client's ``X-Request-ID`` beside it.
        """
        return token_hex(16)

    @lazy
    def path(self) -> str:
        r"""The path, decoded as UTF-8; other bytes stand as ``\xff``."""
        try:
            return self._path.encode("latin-1").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return self._path  # the server does not follow PEP 3333

    @lazy
    def address(self) -> str | None:
        """The client's address; None if the server names none."""
        return self._proxies.client_address(self._peer, self._forwarded) or None

    @clears_frames
    def open(self, file: Any, *, object_id: str | None = None, anywhere: bool = False) -> EncryptedFile:
        """Return the verified plaintext of an upload of this request, or of a stored file.

        It is a seekable, read-only binary file. Handed to a response, it is verified again, served
        in ranges and recorded as a download.

        :param file: a path, or a binary file that can seek: what this request sealed, or a file of
            a store. Closing the result closes a file that was opened here, by its path.
        :param object_id: the object id that the app expects.
        :param anywhere: open it though it is neither: the caller vouches for its place. This is for
            object stores, and never for what a client names or sends.
        :raises FormatError: it is neither, or it is not encrypted. :raises IntegrityError: it was
            changed, or is another file than the one that is expected.
        :raises UnknownKeyError, LimitExceededError, ConfigurationError, SourceError, OSError: as
            :func:`securefs.open_encrypted`.
        :raises JournalError: it can't be recorded.
        """
        return self.vault.open_in(self, file, self._bound, object_id, anywhere=anywhere)

    @clears_frames
    def seal(self, file: Any, *, name: str = "", content_type: str = "") -> Sealed:
        """Return the stored form of a file that the app made, such as a thumbnail.

        It is bound to the context of this request, which may open it. See
        :meth:`securefs.middleware.Vault.seal`.
        """
        return self.vault.seal_in(_ByApp(self), file, self._bound, name, content_type)

    @clears_frames
    def is_sealed(self, file: Any) -> bool:
        """Return whether a file is encrypted: see :meth:`securefs.middleware.Vault.is_sealed`."""
        return self.vault.is_sealed(file)

    @clears_frames
    def upload_of(self, file: Any) -> Upload | None:
        """Return what this request sealed that ``file`` claims to be; None if it is nothing of it.

        :param file: as for :meth:`open`. It is not verified.
        :raises SourceError, OSError: it can't be read.
        """
        return self.vault.find(self, file)

    def _bound(self) -> bytes:
        if self.asks is None:
            return b""
        ask = self.asks()
        if ask is None:
            raise ConfigurationError(
                "the request is over, and with it what SecureFS(context=…) asks: open files before the response is returned, "
                'or use SecureFS.vault with context=b"…"'
            )
        return ask()

    def sealed(self, upload: Upload, last: bytes) -> None:
        """Note a file part that was sealed whole, or that passed as it is."""
        self.uploads.append(upload)
        if upload.encrypted:
            self.permit(upload, last)

    def permit(self, upload: Upload, last: bytes) -> None:
        """Let this request open what it sealed."""
        # Format 1 has no object id. Its tag, which is as hard to forge, stands behind everything.
        mark = upload.object_id or last[-HMAC_SIZE:].hex()
        own = self.own if isinstance(self.own, dict) else {}
        own[mark] = upload
        self.own = own

    def spoil(self, reason: Reason | None, detail: str) -> None:
        """Note that a file failed while the app read it.

        A response that has begun is aborted: it may be made of the file, and end as if it were
        whole.
        """
        if self._settled and self.broken is None:
            self.broken = Refusal(500, reason, detail, recorded=True)

    def expect(self, object_id: str) -> None:
        """Declare the object id of the file that this response must be; refuse any other content.

        A file with another object id is refused, and so is plaintext, if the status is 2xx. This
        catches a stored file that was swapped for another, or rolled back to an older version. Once
        the response has begun, only the file that is being sent can be expected.

        :param object_id: 64 hex digits, as in :attr:`Upload.object_id`. Format 1 files have none.
        :raises IntegrityError: no response can be what is expected: ``object_id`` is none, another
            one was expected before, or the response has begun and is not that file. It is refused,
            or aborted if it has begun, even if the app catches the error.
        """
        if not _is_object_id(object_id):
            self.break_off(
                "expect() takes an object id: 64 hex digits in lower case; a Format 1 file has none"
            )
        elif self._expected is not None and self._expected != object_id:
            self.break_off("expect() was called with two object ids: one response is one file")
        elif self._settled and object_id not in {self._expected, self._sent}:
            self.break_off("expect() was called after the response had begun, which is not that file")
        else:
            self._expected = object_id
        self.check()

    def break_off(self, detail: str) -> None:
        """Note that no response can be what it must be. Record it if the response has begun."""
        plain = self._settled and self._sent is None
        reason = Reason.NOT_ENCRYPTED if plain else Reason.WRONG_OBJECT
        self.broken = Refusal(500, reason, detail, recorded=self._settled)
        if self._settled:
            self.tell(self.broken)
            self.record("file.integrity_failure", outcome="failure", reason=reason, about={"id": self._sent})

    def check(self) -> None:
        """Raise :class:`IntegrityError` if no response can be what the app expects."""
        if self.broken is not None:
            raise IntegrityError(str(self.broken), self.broken.reason or Reason.WRONG_OBJECT)

    def settle(self, object_id: str | None = None) -> None:
        """Note what the response is from now on: the file ``object_id``, or no file.

        :raises IntegrityError: it is a file, and another one is expected.
        """
        if object_id is not None:
            self.check()
            if self._expected not in {None, object_id}:
                raise IntegrityError("the file is not the one that was asked for", Reason.WRONG_OBJECT)
            self._sent = object_id
        self._settled = True

    @property
    def expected(self) -> str | None:
        """The object id given to :meth:`expect`, None if none was given."""
        return self._expected

    @property
    def expects(self) -> bool:
        """Whether the app expects a file."""
        return self._expected is not None or self.broken is not None

    def tell(self, refusal: Refusal) -> None:
        """Log a refusal for the operator: a warning unless the client is to blame."""
        if refusal is self._told or self._journal.stalls_the_log:
            return
        self._told = refusal
        level = logging.WARNING if refusal.status >= 500 else logging.INFO  # noqa: PLR2004  # HTTP
        # One line of ASCII: a message may quote a client, or an inspector that does.
        detail = ascii(str(refusal))[1:-1]
        log.log(level, "%.32a %a: %s (request %s)", self._method, self.path[:256], detail, self.request_id)

    def answered(self, status: str | None) -> None:
        """Record the app's answer if files of this request were encrypted; once.

        That a file was encrypted does not say that the app stored it.

        :param status: the status line, None if the app failed.
        :raises JournalError: it can't be recorded.
        """
        if not self.receives or self._answered:
            return
        self._answered = True
        match = _STATUS.match(status or "")
        code = int(match[0]) if match else None
        outcome = "success" if code is not None and code < _FAILURES else "failure"
        self.record("request.answered", outcome=outcome, status=code, about={"parts": len(self.uploads)})

    def record(
        self,
        event: str,
        *,
        outcome: str = "success",
        reason: Reason | None = None,
        status: int | None = None,
        about: Mapping[str, str | int | None] = MappingProxyType({}),
    ) -> None:
        """Write a record of this exchange; raise :class:`JournalError` if it can't be written.

        ``about`` describes the object; members that are None or empty are omitted.
        """
        http: dict[str, str | int] = {"method": self._method, "path": self.path}
        if status is not None:
            http["status"] = status
        peer = self._peer if self._peer != self.address else None
        entry = Entry(
            event,
            outcome,
            reason,
            described(about),
            self.principal,
            self.request_id,
            self.address,
            http,
            peer or None,
            self._client_id if self._client_id and isinstance(self._client_id, str) else None,
        )
        self._keep(entry)


class _ByApp(Evidence):
    """The records of what the app itself seals in a request."""

    def __init__(self, exchange: Exchange) -> None:
        self.record = exchange.record  # type: ignore[method-assign]  # the same, with less of it
        self.sealed = exchange.permit  # type: ignore[method-assign]  # it is no file part


def _is_object_id(value: object) -> bool:
    return isinstance(value, str) and _OBJECT_ID.fullmatch(value) is not None
