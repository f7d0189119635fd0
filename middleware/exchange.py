"""One request and its response: ``environ["securefs"]``, and its journal records."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.audit import Entry
from securefs.errors import IntegrityError, Reason
from securefs.middleware.proxies import TrustedProxies
from securefs.middleware.refusal import Refusal, log, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from securefs.audit import Journal

__all__ = ["Exchange", "Upload"]

_OBJECT_ID: Final = re.compile("[0-9a-f]{64}")
_STATUS: Final = re.compile("[1-9][0-9]{2}")  # of a status line
_NO_PROXIES: Final = TrustedProxies(())
_FAILURES: Final = 400  # the first HTTP status of them


@dataclass(frozen=True, slots=True)
class Upload:
    """One file part as the app received it. ``size`` is the plaintext's, in bytes."""

    object_id: str  # 64 hex digits; "" for Format 1, and for a file that is not encrypted
    field: str
    filename: str
    content_type: str
    size: int
    key_id: str  # "" for a file that is not encrypted
    encrypted: bool = True  # False: Policy.plain_uploads or plain_fields names it


class Exchange:
    """The interface of the wrapped app to the middleware: ``environ["securefs"]``.

    :ivar principal: the user who makes the request, for the journal; set by ``authorize``, or by an
        app that does its own login.
    :ivar uploads: the file parts of this request, each from the moment that its last byte was
        encrypted. The list is complete once the app has read its request body.
    :ivar receives: whether a file of this request was recorded.
    :ivar broken: why no response can be what the app expects, None while one can.
    """

    broken: Refusal | None = None
    receives = False
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
        self._journal = journal
        self._on_event = on_event

    @cached_property
    def request_id(self) -> str:
        """The id in this request's journal records and problem responses: 32 random hex digits.

        The records have the client's ``X-Request-ID`` beside it.
        """
        return token_hex(16)

    @cached_property
    def path(self) -> str:
        r"""The path, decoded as UTF-8; other bytes stand as ``\xff``."""
        try:
            return self._path.encode("latin-1").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return self._path  # the server does not follow PEP 3333

    @cached_property
    def address(self) -> str | None:
        """The client's address; None if the server names none."""
        return self._proxies.client_address(self._peer, self._forwarded) or None

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
        obj = {name: value for name, value in about.items() if value is not None and value != ""}
        peer = self._peer if self._peer != self.address else None
        entry = Entry(
            event,
            outcome,
            reason,
            obj,
            self.principal,
            self.request_id,
            self.address,
            http,
            peer or None,
            self._client_id if self._client_id and isinstance(self._client_id, str) else None,
        )
        self._journal.record(entry)
        if self._on_event is not None:
            try:
                self._on_event(entry)
            except Exception as error:  # noqa: BLE001  # whatever it is, the operation was recorded
                log.error("on_event failed for %s (request %s): %s", event, self.request_id, one_line(error))


def _is_object_id(value: object) -> bool:
    return isinstance(value, str) and _OBJECT_ID.fullmatch(value) is not None
