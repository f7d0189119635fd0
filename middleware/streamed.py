"""A file that can be read once on its way to the client: an object store's response, a generator.

Only the final segment proves where the file ends, and it comes last. What needs the beginning of
the file alone (HEAD, a range that ends before the file does) reads no more of the body than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.errors import IntegrityError, Reason
from securefs.middleware.delivery import Delivery
from securefs.middleware.ranges import UnsatisfiableRangeError
from securefs.middleware.selection import KEPT, PARTIAL, UNSATISFIABLE, content_range, requested

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from securefs.middleware.exchange import Exchange
    from securefs.middleware.headers import Headers
    from securefs.middleware.response import Response
    from securefs.stream import Decryptor

__all__ = ["StreamDelivery", "range_before"]

_FAR: Final = 2**63  # bytes: more than any file has


class StreamDelivery(Delivery):
    """From a source that can be read once, and is too long to hold or need not be held.

    Only the final segment proves where the file ends, and it comes last. Until then the end is a
    claim of the app's Content-Length, and a truncated file has a Content-Length, too. So nothing
    tells a client that a part is the whole:

    - No total is named before: no ``Content-Range`` has one, no range gets status 416, and a HEAD
      response has no Content-Length.
    - A closed range that ends before the claimed end is served. For any other range, and for
      several, the whole file is sent, and the connection is aborted if its end fails verification.
    - The byte that completes a Content-Length is sent after the final segment was verified.

    The segments before a range are skipped unopened, and those after it are not requested. A range
    of up to ``Policy.verify_first`` bytes is held until its last byte is verified. If the final
    segment came on the way, the total is known and named.

    :param length: the ciphertext's length in bytes that the app announced, None if it announced
        none.
    """

    def __init__(
        self, exchange: Exchange, chunks: Iterator[bytes], decryptor: Decryptor, length: int | None
    ) -> None:
        self._chunks = chunks
        self._decryptor = decryptor
        self._ready = b""
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
        self._announced = length
        # Suite 1 pads: the ciphertext's length leaves the last four bits of the size open.
        self._least, most = (0, None) if length is None else header.plaintext_bounds(length)
        self._size = most if most == self._least else None
        self._due = (length or 0) - drawn  # bytes of ciphertext announced and still to come
        self._span: range | None = None  # what is sent, None for all
        self._added: Headers = []
        self._position = 0  # offset in the plaintext of the next byte
        self._ended = False  # whether the final segment is verified
        # What was read before the status line, and whether each piece is the last.
        self._ahead: Iterator[tuple[bytes, bool]] = iter(())

    # The limit is the interface's.
    def select(self, response: Response, asked: Mapping[str, Any], limit: int) -> None:  # noqa: ARG002
        """See :meth:`Delivery.select`. It is not called for HEAD, so no length is named there."""
        self._response = response
        self._span = range_before(response, asked, None if self._announced is None else self._least)
        if self._span is None:
            self._will_send_all()
        else:
            self._will_send([self._span])

    def headers(self, headers: Headers) -> Headers:
        """See :meth:`Delivery.headers`."""
        return [*super().headers(headers), *self._added]

    def _verify(self, limit: int | None) -> None:
        span = self._span
        if span is not None and (limit is None or len(span) <= limit):
            self._expect_announced()
            self._ahead = self._hold(span)
            return
        if self._announced is None:
            # Nothing tells that the range ends before the file does.
            self._span = None
            self._will_send_all()
        elif span is not None:
            self._skip_to(span)
            self._promise(span, None)
        elif self._size is not None:
            self._added = [("Content-Length", str(self._size))]
        if self._added:
            self._expect_announced()
        # A failure in the first segment is still a clean 500.
        self._ahead = iter((self._next_piece(),))

    def _will_send_all(self) -> None:
        self.about["start"] = 0
        self.about.pop("stop", None)  # known at the end of the file

    def _expect_announced(self) -> None:
        """Fail if the body is not as long as announced: lengths and positions follow from that."""
        if self._announced is not None:
            self._chunks = _exactly(self._due, self._chunks)

    def _promise(self, span: range, size: int | None) -> None:
        if size == 0:
            self._added = [("Content-Length", "0")]
            return
        self.status = PARTIAL if span else UNSATISFIABLE
        self._will_send([span] if span else [])
        self._added = [("Content-Range", content_range(span, size)), ("Content-Length", str(len(span)))]

    def _skip_to(self, span: range) -> None:
        if span.start >= len(self._ready):
            self._ready = b""
            index = span.start // self._segment_size
            self._decryptor.skip_to(index)
            self._position = index * self._segment_size

    def _hold(self, span: range) -> Iterator[tuple[bytes, bool]]:
        """Read all of the range, up to its end or the file's; return it in pieces."""
        self._skip_to(span)
        spool = None if len(span) <= KEPT else self._response.sealed_spool()
        kept = bytearray()
        ended = False
        while not ended:
            data, ended = self._next_of(span)
            if spool is None:
                kept += data
            else:
                spool.write(data)
        if self._ended:
            size = self._decryptor.size
            span = range(span.start, max(span.start, min(span.stop, size)))
            self._promise(span, size)
        else:
            self._promise(span, None)
        return _with_end(iter((bytes(kept),)) if spool is None else spool.pieces(), len(span))

    def _read(self) -> tuple[bytes, bool]:
        ahead = next(self._ahead, None)
        return self._next_piece() if ahead is None else ahead

    def _next_piece(self) -> tuple[bytes, bool]:
        return self._next_of_all() if self._span is None else self._next_of(self._span)

    def _next(self) -> bytes:
        """Return the next bytes of the plaintext, none only behind the final segment."""
        data, self._ready = self._ready, b""
        while not data and not self._ended:
            chunk = next(self._chunks, None)
            self._ended = chunk is None
            data = self._decryptor.finalize() if chunk is None else self._decryptor.update(chunk)
        # The final segment may be one that was to be skipped: then it tells the position.
        self._position = self._decryptor.size if self._ended else self._position + len(data)
        return data

    def _next_of_all(self) -> tuple[bytes, bool]:
        data = self._next()
        # If the final segment is empty, the last byte is in the segment before it: the two are sent
        # together.
        while not self._ended and self._size is not None and self._position >= self._size:
            data += self._next()
        if self._ended:
            self._will_send([range(self._position)])
        return data, self._ended

    def _next_of(self, span: range) -> tuple[bytes, bool]:
        """Return the next bytes of ``span``, and whether they are the last."""
        data = self._next()
        # The segments before it were skipped, so these bytes are in the span, the first in part.
        start = self._position - len(data)
        piece = data[max(0, span.start - start) : max(0, span.stop - start)]
        return piece, self._ended or self._position >= span.stop


def range_before(
    response: Response, asked: Mapping[str, Any], end: int | None, tag: str | None = None
) -> range | None:
    """Return the range that the request asks for, if it names one that ends before byte ``end``.

    One only: of several, those left out as unsatisfiable would reveal where the file ends.

    :param end: None: wherever the file ends, but the range must end somewhere.
    :param tag: the file's entity tag, if the app gives none.
    """
    end = _FAR if end is None else end
    try:
        spans = requested(response, asked, end, 1, tag)
    except UnsatisfiableRangeError:
        return None
    return spans[0] if spans is not None and spans[0].stop < end else None


def _with_end(pieces: Iterator[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield each of ``pieces``, ``size`` bytes in all, and whether it is the last."""
    for piece in pieces:
        size -= len(piece)
        yield piece, not size


def _exactly(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``chunks``; raise :class:`IntegrityError` unless they are ``size`` bytes in all."""
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            break
        yield chunk
    if size:
        raise IntegrityError("the file is not as long as the app announced", Reason.TRUNCATED)
