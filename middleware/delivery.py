"""One file on its way to the client: ranges, order of verification, records, chunks.

A delivery is an iterable of chunks. The journal has a record of its start before its first byte is
sent, and of its outcome before its last segment is released. A failure after the status line aborts
the connection, so that no client can take the part for the whole.
"""

from __future__ import annotations

from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING

from securefs.audit.fields import MAX_INT
from securefs.disk import explain
from securefs.errors import IntegrityError, JournalError, Reason, SecureFSError, SourceError
from securefs.middleware.conditions import NOT_MODIFIED
from securefs.middleware.headers import STALE, values_of, without
from securefs.middleware.refusal import Refusal
from securefs.middleware.response import SEND_SIZE
from securefs.middleware.restored import restored
from securefs.middleware.selection import KEPT, Selection
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from securefs.middleware.exchange import Exchange
    from securefs.middleware.headers import Headers
    from securefs.middleware.response import Response
    from securefs.reader import EncryptedFile

__all__ = [
    "Delivery",
    "FileDelivery",
    "UnopenedDelivery",
    "UnsentDelivery",
    "record_failure",
]


class Delivery:
    """The plaintext of one file on its way to the client, as an iterable of chunks.

    :ivar status: the status line that replaces the app's, None to keep the app's.
    :ivar about: the file, for the journal.
    :ivar passed_over: (number, key id) of its planted slots.
    """

    status: str | None = None
    passed_over: tuple[tuple[int, str], ...] = ()

    def __init__(
        self, exchange: Exchange, about: dict[str, str | int], metadata: Mapping[str, object]
    ) -> None:
        self.about = about
        if isinstance(name := metadata.get("name"), str):
            about["name"] = name
        self._sent = 0  # bytes of the body that were handed to the server
        self._metadata = metadata
        self._exchange = exchange
        self._open = False
        self._restores = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._open:
            raise StopIteration
        return self._released()

    @clears_frames
    def _released(self) -> bytes:
        """Return the next verified chunk, after the outcome was recorded if it is the last."""
        try:
            data, last = self._read()
            # What is read may be the app's, which may call expect() and ignore that it raises.
            self._exchange.check()
            if last:
                self._open = False
                self._record("success", sent=len(data))
        except (SecureFSError, OSError, Refusal) as error:
            self._open = False
            about = {**self.about, "sent": self._sent}
            self._exchange.tell(record_failure(self._exchange, error, about, None))
            raise
        except Exception:
            # The app's generator may raise anything: the record still needs an outcome, and the
            # server gets the error.
            self._give_up()
            raise
        self._sent += len(data)
        return data

    def _give_up(self) -> None:
        """Record that the app's own body failed, with an error outside securefs."""
        self._open = False
        self._record("failure", Reason.IO_ERROR)

    def select(self, response: Response, asked: Mapping[str, Any], limit: int) -> None:
        """Choose the ranges that the request asks for, up to ``limit`` of them."""
        raise NotImplementedError  # pragma: no cover  # abstract

    def _read(self) -> tuple[bytes, bool]:
        """Return the next verified bytes to send, and whether they are the last."""
        raise NotImplementedError  # pragma: no cover  # abstract

    def headers(self, headers: Headers) -> Headers:
        """Return the app's headers, corrected for what is sent."""
        headers = without(headers, STALE)
        return restored(headers, self._metadata) if self._restores else headers

    def restore(self) -> None:
        """Take the file's type and name from its sealed metadata: see :func:`restored`."""
        self._restores = True

    def begin(self, limit: int | None) -> None:
        """Record the start, then verify what will be sent, up to ``limit`` bytes (None: all).

        :raises JournalError: it can't be recorded. :raises IntegrityError: it must not be sent.
        """
        self._record("started")
        self._open = True
        try:
            self._verify(limit)
            self._exchange.check()
        except (SecureFSError, OSError, Refusal):
            # The caller records it with its reason. Nothing was sent, so close() must not report a
            # client that went away.
            self._open = False
            raise
        except Exception:
            self._give_up()
            raise

    def _verify(self, limit: int | None) -> None:
        """Verify what will be sent, up to ``limit`` bytes (None: all of it)."""
        raise NotImplementedError  # pragma: no cover  # abstract

    def close(self, reason: Reason = Reason.CLIENT_GONE) -> None:
        """Record a failure if the last byte was not handed out: the client went away."""
        if self._open:
            self._open = False
            # Nothing more is released, so a failure of the journal can be ignored here.
            with suppress(JournalError):
                self._record("failure", reason)

    def _record(self, outcome: str, reason: Reason | None = None, *, sent: int = 0) -> None:
        """Write a record, which says how many bytes went out, ``sent`` more among them."""
        about = self.about if outcome == "started" else {**self.about, "sent": self._sent + sent}
        self._exchange.record("file.decrypt", outcome=outcome, reason=reason, about=about)

    def _will_send(self, spans: Sequence[range]) -> None:
        """Note the part of the file that is sent, for the records; none if none is known."""
        for name in ("start", "stop", "parts"):
            self.about.pop(name, None)
        if spans:
            # A client may ask for more than a record can say, of a file whose end is not known yet.
            self.about["start"] = min(MAX_INT, *(span.start for span in spans))
            self.about["stop"] = min(MAX_INT, max(span.stop for span in spans))
        if len(spans) > 1:
            self.about["parts"] = len(spans)


class FileDelivery(Delivery):
    """From a source that can seek, or was held.

    Its end is verified before its first byte is sent.
    """

    def __init__(self, exchange: Exchange, file: EncryptedFile) -> None:
        about: dict[str, str | int] = {"key_id": file.key_id, "format": file.format, "size": file.size}
        if file.object_id:
            about |= {"id": file.object_id, "suite": file.suite}
        super().__init__(exchange, about, file.metadata)
        self.passed_over = file.passed_over
        self._file = file
        self._selection = Selection(file.size)

    def select(self, response: Response, asked: Mapping[str, Any], limit: int) -> None:
        """See :meth:`Delivery.select`."""
        types = values_of(super().headers(response.headers), "content-type")
        self._selection.choose(response, asked, limit, types)
        self.status = self._selection.status
        self._will_send(self._selection.spans)

    def headers(self, headers: Headers) -> Headers:
        """See :meth:`Delivery.headers`."""
        return self._selection.headers(super().headers(headers))

    def _verify(self, limit: int | None) -> None:
        selection = self._selection
        length = selection.length
        if length <= KEPT:
            # A short selection is read once, for verifying and for sending. Larger pieces are not
            # joined: the joined copy would be in memory that is fresh from the kernel, and take as
            # long as decrypting them.
            kept = self._pieces()
            selection.plan = [*kept] if length > SEND_SIZE else [b"".join(kept)]
        elif limit is None or length <= limit:
            for item in selection.plan:
                if isinstance(item, range):
                    self._file.check(item.start, item.stop)

    def _pieces(self) -> list[bytes]:
        """Return all that is sent, in pieces; read it in the order of the file.

        So a segment that several ranges share is read once.
        """
        items = []
        while self._selection.plan:
            items.append(self._selection.take(SEND_SIZE))
        spans = [(item.start, number, item) for number, item in enumerate(items) if isinstance(item, range)]
        read = {number: self._span(span) for _, number, span in sorted(spans, key=itemgetter(0))}
        return [item if isinstance(item, bytes) else read[number] for number, item in enumerate(items)]

    def _span(self, span: range) -> bytes:
        self._file.seek(span.start)
        return self._file.read(len(span))

    def _read(self) -> tuple[bytes, bool]:
        item = self._selection.take(SEND_SIZE)
        return item if isinstance(item, bytes) else self._span(item), not self._selection.plan


class UnopenedDelivery(Delivery):
    """The headers of a Format 1 file that was not opened: for HEAD.

    Only a pass over the whole file tells whether it verifies and how long its plaintext is. A
    client could ask for that again and again at no cost of its own, so no length is named.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, {"format": 1}, {})

    def headers(self, headers: Headers) -> Headers:
        """See :meth:`Delivery.headers`."""
        return [*super().headers(headers), ("Accept-Ranges", "bytes")]


class UnsentDelivery(Delivery):
    """The headers of a file that is not sent, because a condition of the request does not hold."""

    def __init__(self, exchange: Exchange, status: str) -> None:
        super().__init__(exchange, {}, {})
        self.status = status

    def headers(self, headers: Headers) -> Headers:
        """See :meth:`Delivery.headers`: there is no content to describe."""
        kept = [pair for pair in super().headers(headers) if not pair[0].lower().startswith("content-")]
        return kept if self.status == NOT_MODIFIED else [*kept, ("Content-Length", "0")]


def record_failure(
    exchange: Exchange,
    error: SecureFSError | OSError | Refusal,
    about: dict[str, str | int],
    status: int | None,
) -> Refusal:
    """Record why a file is not served; return the refusal to answer with.

    It is 503 if the failure can't be recorded.
    """
    if isinstance(error, JournalError):
        return Refusal.of(error)
    if exchange.broken is not None and exchange.broken.recorded:
        return exchange.broken
    if isinstance(error, (Refusal, SourceError)):
        # A body that can't be held, or that the app returns in a wrong form, is no fault of the
        # file.
        refusal = error if isinstance(error, Refusal) else Refusal.of(error)
        status = status and refusal.status
        event = "file.decrypt"
    elif isinstance(error, OSError):
        refusal = Refusal(500, Reason.IO_ERROR, f"the stored file can't be read: {explain(error)}")
        event = "file.decrypt"
    else:
        refusal = Refusal.of(error)
        event = "file.integrity_failure"
    details: dict[str, str | int] = dict(about)
    if isinstance(error, IntegrityError) and error.segment is not None:
        details["segment"] = error.segment
        details["digest"] = error.digest or ""
    refusal.recorded = True
    try:
        exchange.record(event, outcome="failure", reason=refusal.reason, status=status, about=details)
    except JournalError as journal_error:
        return Refusal.of(journal_error)
    return refusal
