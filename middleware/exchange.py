"""One request and its response: ``environ["securefs"]``, and what the journal is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from securefs.audit import Entry
from securefs.middleware.refusal import request_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from securefs.audit import Journal
    from securefs.errors import Reason

__all__ = ["Exchange", "Upload"]


@dataclass(frozen=True, slots=True)
class Upload:
    """One file part as the app received it. ``size`` is the plaintext's, in bytes."""

    object_id: str  # 64 hex digits; "" for Format 1
    field: str
    filename: str
    content_type: str
    size: int
    key_id: str


class Exchange:
    """What the wrapped app may use and say: ``environ["securefs"]``.

    :ivar principal: who asks, for the journal; set by ``authorize``, or by an app that does its own
        login.
    :ivar uploads: the file parts of this request, each from the moment that its last byte was
        encrypted. An app has them all when it has read its request body.
    :ivar request_id: the id in this request's journal records and problem responses.
    """

    def __init__(self, environ: Mapping[str, Any], journal: Journal) -> None:
        self.principal: str | None = None
        self.uploads: list[Upload] = []
        self.request_id = request_id(environ)
        self.path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self._method: str = environ.get("REQUEST_METHOD", "")
        self._address: str | None = environ.get("REMOTE_ADDR") or None
        self._journal = journal
        self._expected: str | None = None

    def expect(self, object_id: str) -> None:
        """Say which file this response must be: one with another object id is refused, and so is plaintext.

        Catches a stored file that was swapped for another, or rolled back to an older one.
        """
        self._expected = object_id

    @property
    def expected(self) -> str | None:
        """What :meth:`expect` was told, None if nothing."""
        return self._expected

    def record(
        self,
        event: str,
        *,
        outcome: str = "success",
        reason: Reason | None = None,
        status: int | None = None,
        about: Mapping[str, str | int | None] = MappingProxyType({}),
    ) -> None:
        """Write a record of this exchange; raise :class:`JournalError` where it can't be written.

        ``about`` describes the object; what is None, or empty, is left out.
        """
        http: dict[str, str | int] = {"method": self._method, "path": self.path}
        if status is not None:
            http["status"] = status
        obj = {name: value for name, value in about.items() if value is not None and value != ""}
        self._journal.record(
            Entry(event, outcome, reason, obj, self.principal, self.request_id, self._address, http)
        )
