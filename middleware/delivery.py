"""One file on its way to the client: ranges, order of verification, records, chunks.

A delivery is an iterable of chunks. The journal has a record of its start before its first byte is
sent, and of its outcome before its last segment is released. A failure after the status line aborts
the connection, so that no client can take the part for the whole.
"""

from __future__ import annotations

from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING

from securefs.disk import explain
from securefs.errors import IntegrityError, JournalError, Reason, SecureFSError, SourceError
from securefs.middleware.conditions import NOT_MODIFIED
from securefs.middleware.headers import STALE, values_of, without
from securefs.middleware.ranges import UnsatisfiableRangeError
from securefs.middleware.refusal import Refusal
from securefs.middleware.response import SEND_SIZE
from securefs.middleware.restored import restored
from securefs.middleware.selection import KEPT, PARTIAL, Selection, content_range, requested
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from securefs.middleware.exchange import Exchange
    from securefs.middleware.headers import Headers
    from securefs.middleware.response import Response
    from securefs.reader import EncryptedFile
    from securefs.stream import Decryptor

__all__ = [
    "Delivery",
    "FileDelivery",
    "StreamDelivery",
    "UnopenedDelivery",
    "UnsentDelivery",
    "record_failure",
    "record_passed_over",
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
        """Note the part of the file that is sent, for the records."""
        if spans:
            self.about |= {"start": min(s.start for s in spans), "stop": max(s.stop for s in spans)}
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


class StreamDelivery(Delivery):
    """From a source that can be read once and is too long to hold: sent segment by segment.

    Only the final segment proves where the file ends, and it comes last. Until then the end is a
    claim of the app's Content-Length, and a truncated file has a Content-Length, too. So nothing
    tells a client that a part is the whole:

    - No total is named before: no ``Content-Range`` has one, no range gets status 416, and a HEAD
      response has no Content-Length.
    - A closed range that ends before the claimed end is served. For any other range, and for
      several, the whole file is sent, and the connection is aborted if its end fails verification.
    - The byte that completes a Content-Length is sent after the final segment was verified.

    The segments before a range are skipped unopened, and those after it are not requested.

    :param length: the ciphertext's length in bytes that the app announced, None if it announced
        none.
    """

    def __init__(
        self, exchange: Exchange, chunks: Iterator[bytes], decryptor: Decryptor, length: int | None
    ) -> None:
        self._chunks = chunks
        self._decryptor = decryptor
        self._ready = b""
        self._ahead: tuple[bytes, bool] | None = None
        drawn = 0
        while decryptor.unlocked is None and (chunk := next(chunks, None)) is not None:
            self._ready = decryptor.update(chunk)
            drawn += len(chunk)
        unlocked = decryptor.unlocked
        if unlocked is None:
            # The body ended inside its header: the parser reports where.
            decryptor.finalize()
            raise IntegrityError("it is cut", Reason.TRUNCATED)  # pragma: no cover  # raised above
        header = unlocked.header
        about: dict[str, str | int] = {"id": header.object_id, "key_id": unlocked.key_id, "format": 2}
        super().__init__(exchange, about | {"suite": header.suite.label}, unlocked.metadata)
        self.passed_over = unlocked.planted
        self._segment_size = header.suite.segment_size
        # Suite 1 pads: the ciphertext's length leaves the last four bits of the size open.
        self._least, most = (0, None) if length is None else header.plaintext_bounds(length)
        self._size = most if most == self._least else None
        self._due = (length or 0) - drawn  # bytes of ciphertext announced and still to come
        self._span: range | None = None
        self._added: Headers = []
        self._position = 0  # offset in the plaintext of the next byte

    # The limit is the interface's.
    def select(self, response: Response, asked: Mapping[str, Any], limit: int) -> None:  # noqa: ARG002
        """See :meth:`Delivery.select`. It is not called for HEAD, so no length is named there."""
        try:
            # One range only: of several, those left out as unsatisfiable would reveal where the
            # file ends.
            spans = requested(response, asked, self._least, 1)
        except UnsatisfiableRangeError:
            spans = None
        if spans is not None and spans[0].stop < self._least:
            self._select_part(spans[0])
        else:
            self.about["start"] = 0
            if self._size is not None:
                self._added = [("Content-Length", str(self._size))]
        if self._added:
            # These headers, and the position of a segment in the plaintext, are correct only for a
            # body of that length.
            self._chunks = _exactly(self._due, self._chunks)

    def _select_part(self, span: range) -> None:
        self.status, self._span = PARTIAL, span
        self._will_send([span])
        self._added = [("Content-Range", content_range(span, None)), ("Content-Length", str(len(span)))]
        if span.start >= len(self._ready):
            self._ready = b""
            index = span.start // self._segment_size
            self._decryptor.skip_to(index)
            self._position = index * self._segment_size

    def headers(self, headers: Headers) -> Headers:
        """See :meth:`Delivery.headers`."""
        return [*super().headers(headers), *self._added]

    def _verify(self, limit: int | None) -> None:  # noqa: ARG002  # the interface's
        # A failure in the first segment is still a clean 500.
        self._ahead = self._read()

    def _read(self) -> tuple[bytes, bool]:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        return self._next_of_all() if self._span is None else self._next_of(self._span)

    def _next(self) -> tuple[bytes, bool]:
        """Return the next bytes of the plaintext, and whether the final segment is verified."""
        data, self._ready = self._ready, b""
        ended = False
        while not data and not ended:
            chunk = next(self._chunks, None)
            ended = chunk is None
            data = self._decryptor.finalize() if chunk is None else self._decryptor.update(chunk)
        self._position += len(data)
        return data, ended

    def _next_of_all(self) -> tuple[bytes, bool]:
        data, ended = self._next()
        # If the final segment is empty, the last byte is in the segment before it: the two are sent
        # together.
        while not ended and self._size is not None and self._position >= self._size:
            more, ended = self._next()
            data += more
        if ended:
            self._will_send([range(self._position)])
        return data, ended

    def _next_of(self, span: range) -> tuple[bytes, bool]:
        """Return the next bytes of ``span``, and whether they are the last."""
        # The segments before it were skipped, so these bytes are in the span, the first in part.
        start = self._position
        data, ended = self._next()
        piece = data[max(0, span.start - start) : max(0, span.stop - start)]
        return piece, ended or self._position >= span.stop


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


def _exactly(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``chunks``; raise :class:`IntegrityError` unless they are ``size`` bytes in all."""
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            break
        yield chunk
    if size:
        raise IntegrityError("the file is not as long as the app announced", Reason.TRUNCATED)


def record_passed_over(
    exchange: Exchange, about: Mapping[str, str | int], passed_over: tuple[tuple[int, str], ...]
) -> None:
    """Record slots that do not fit the contents.

    The file is served by another slot, but one of the keys is compromised.

    :raises JournalError: it can't be recorded.
    """
    for slot, key_id in passed_over:
        exchange.record(
            "file.integrity_failure",
            outcome="failure",
            reason=Reason.COMMITMENT_MISMATCH,
            about={**about, "key_id": key_id, "slot": slot},
        )


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
