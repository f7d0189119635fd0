"""What is recorded of a file, in a request or outside of one.

:class:`Evidence` writes records of no request. :class:`securefs.middleware.Exchange` is the same of
one request: its records have the request's id, its path and who makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from securefs.audit import Entry
from securefs.errors import Reason
from securefs.middleware.refusal import log, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securefs.audit import Journal

__all__ = ["Evidence", "Upload", "described", "record_passed_over"]


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


class Evidence:
    """Writes records of files to the journal, and tells ``on_event`` of each.

    :ivar own: what was sealed in this request, by object id (Format 1: by tag, in hex); None if
        there is no request.
    :ivar receives: whether a file was sealed here; of a request, whether one was uploaded.
    """

    own: Mapping[str, Upload] | None = None
    receives = False

    def __init__(self, journal: Journal, on_event: Callable[[Entry], object] | None = None) -> None:
        self._journal = journal
        self._on_event = on_event

    def record(
        self,
        event: str,
        *,
        outcome: str = "success",
        reason: Reason | None = None,
        about: Mapping[str, str | int | None] = MappingProxyType({}),
    ) -> None:
        """Write a record; raise :class:`JournalError` if it can't be written.

        ``about`` describes the object; members that are None or empty are omitted.
        """
        self._keep(Entry(event, outcome, reason, described(about)))

    def sealed(self, upload: Upload, last: bytes) -> None:
        """Note a file whose last stored bytes are ``last``; nothing, outside of a request."""

    def spoil(self, reason: Reason | None, detail: str) -> None:
        """Note that a file failed while it was read; nothing, outside of a request."""

    def _keep(self, entry: Entry) -> None:
        self._journal.record(entry)
        if self._on_event is not None:
            try:
                self._on_event(entry)
            except Exception as error:  # noqa: BLE001  # whatever it is, the operation was recorded
                where = f" (request {entry.request_id})" if entry.request_id else ""
                log.error("on_event failed for %s%s: %s", entry.event, where, one_line(error))


def described(about: Mapping[str, str | int | None]) -> dict[str, str | int]:
    """Return the members of ``about`` that say something."""
    return {name: value for name, value in about.items() if value is not None and value != ""}


def record_passed_over(
    evidence: Evidence, about: Mapping[str, str | int], passed_over: tuple[tuple[int, str], ...]
) -> None:
    """Record slots that do not fit the contents.

    The file is opened by another slot, but one of the keys is compromised.

    :raises JournalError: it can't be recorded.
    """
    for slot, key_id in passed_over:
        evidence.record(
            "file.integrity_failure",
            outcome="failure",
            reason=Reason.COMMITMENT_MISMATCH,
            about={**about, "key_id": key_id, "slot": slot},
        )
