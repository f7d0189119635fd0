"""Downloads: ciphertext from the app in, verified plaintext out.

Every byte is verified before it is sent. If at most ``Policy.verify_first`` bytes are to be sent,
all of them are verified before the status line, so that a tampered file results in a clean 500
without one of its bytes. More than that is sent segment by segment. This module decides where the
ciphertext is read from. Whether it may be served is decided by :mod:`securefs.middleware.servable`
before; :mod:`securefs.middleware.delivery` does the rest.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

from securefs.errors import IntegrityError, LimitExceededError, Reason, SecureFSError
from securefs.format1 import ciphertext_size
from securefs.header import (
    FIXED_SIZE,
    MAGIC,
    PREAMBLE_SIZE,
    claimed_least,
    claimed_object_id,
    claimed_suite,
)
from securefs.middleware.body import RewrittenBody
from securefs.middleware.conditions import entity_tag, failed_condition
from securefs.middleware.delivery import (
    FileDelivery,
    UnopenedDelivery,
    UnsentDelivery,
    record_failure,
)
from securefs.middleware.evidence import record_passed_over
from securefs.middleware.headers import STALE, without
from securefs.middleware.plain import select_of_plain_file
from securefs.middleware.refusal import BodyRefusedError, Refusal
from securefs.middleware.response import Closing
from securefs.middleware.servable import is_file, refuse_part
from securefs.middleware.servers import EMPTY_BODY, shows_breaks
from securefs.middleware.streamed import StreamDelivery, range_before
from securefs.primitives import view_of
from securefs.reader import nested_ids, open_encrypted
from securefs.source import as_a_file
from securefs.stream import Decryptor
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from securefs.middleware.delivery import Delivery
    from securefs.middleware.headers import Headers
    from securefs.middleware.source import GuardedInput
    from securefs.middleware.spool import Spool
    from securefs.middleware.transit import Transit
    from securefs.source import SeekableFile

__all__ = ["deliver"]


def deliver(transit: Transit) -> Iterable[bytes]:
    """Return the body for the server: the plaintext of a file, everything else unchanged.

    :raises Refusal: the response must not be sent; the journal has the reason.
    """
    if not is_file(transit):
        return _head_alone(transit) if transit.is_head else _unchanged(transit)
    delivery = _open(transit)
    try:
        _begin(transit, delivery.status, delivery.headers(transit.response.headers))
    except BaseException:
        # A server may refuse the app's headers, and then closes nothing: the record of the start
        # needs an outcome.
        delivery.close(Reason.IO_ERROR)
        raise
    chunks = EMPTY_BODY if transit.is_head else delivery
    return Closing(chunks, delivery.close, transit.close, transit.record_late)


def _unchanged(transit: Transit) -> Iterable[bytes]:
    """Return the app's response unchanged, except for ranges of plain files."""
    response, body = transit.response, transit.body
    if not response.started:
        if (selected := select_of_plain_file(transit)) is not None:
            selection, chunks = selected
            _begin(transit, selection.status, selection.headers(without(response.headers, STALE)))
            return Closing(chunks, transit.close)
        response.begin()
    result = response.unchanged(transit.environ.get("wsgi.file_wrapper"))
    if body is None or isinstance(result, (list, tuple)):
        if isinstance(body, RewrittenBody):
            body.close()
        return result
    # An app may read the request while it responds: the upload ends when the response does.
    return Closing(_while_accepted(result, body), transit.close, transit.record_late)


def _head_alone(transit: Transit) -> Iterable[bytes]:
    response = transit.response
    length = response.known_length()
    if length is not None and response.header("content-length") is None:
        # Servers take the length of an empty body for the response's length.
        response.headers.append(("Content-Length", str(length)))
    if not response.started:
        response.begin()
    transit.close()
    return ()


def _begin(transit: Transit, status: str | None, headers: Headers) -> None:
    """Tell the server of a response other than the app's own; ``status`` None is the app's."""
    transit.response.status = status or transit.response.status
    transit.response.headers = headers
    transit.response.begin()


def _while_accepted(result: Iterable[bytes], body: RewrittenBody | GuardedInput) -> Iterator[bytes]:
    """Yield the app's response until its request is refused; then abort the connection."""
    for chunk in result:
        if body.refusal is not None:
            break
        yield chunk
    if body.refusal is not None:
        raise BodyRefusedError("the request body was refused after the response had begun")


def _open(transit: Transit) -> Delivery:
    """Return the plaintext of the app's response, verified as far as the policy asks.

    Its start is recorded. For a HEAD request only what the headers need is read, and nothing is
    recorded, because no content is sent.

    :raises Refusal: the response must not be sent; the journal has the reason.
    """
    download = _Download(transit)
    try:
        return download.open()
    except (SecureFSError, OSError, Refusal) as error:
        raise record_failure(transit.exchange, error, download.about, 500) from None


class _Download:
    """A ciphertext from the app, until it becomes a delivery.

    :ivar about: what is known of the file so far, for the record of a failure: first what it
        claims, then what was verified.
    """

    def __init__(self, transit: Transit) -> None:
        self.about: dict[str, str | int] = {}
        self._transit = transit
        self._response = transit.response
        self._policy = transit.settings.policy
        self._context = transit.context()
        self._announced = transit.response.announced_length
        self._opened = transit.response.opened
        self._is_format_1 = self._opened is None and transit.place == 1 and not transit.head.startswith(MAGIC)

    def open(self) -> Delivery:
        transit, policy = self._transit, self._policy
        refuse_part(self._response)
        delivery = self._format_1() if self._is_format_1 else self._delivery()
        self.about = delivery.about
        record_passed_over(transit.exchange, self.about, delivery.passed_over)
        self._check_not_nested()
        transit.exchange.settle(str(self.about.get("id", "")))
        if (status := self._condition()) is not None:
            return UnsentDelivery(transit.exchange, status)
        if policy.restore_metadata:
            delivery.restore()
        if not transit.is_head:
            delivery.select(self._response, transit.environ, policy.max_ranges)
            delivery.begin(policy.verify_first)
        return delivery

    def _condition(self) -> str | None:
        """Give the file an entity tag, if the app did not; return the status if it is not sent."""
        tag = self._own_tag(self.about.get("id"))
        if tag is None:
            return None
        self._response.headers.append(("ETag", tag))
        return failed_condition(self._transit.environ, tag)

    def _own_tag(self, object_id: object) -> str | None:
        """Return the entity tag that the file gets; None if the app gave one, or for no file."""
        response = self._response
        if object_id is None or response.header("etag") is not None or not response.status.startswith("200"):
            return None
        return entity_tag(str(object_id))

    def _check_not_nested(self) -> None:
        """Refuse what the app read out of an encrypted file, in this request: it is plaintext."""
        if self._opened is None and self.about.get("id") in nested_ids():
            raise Refusal(
                500,
                Reason.CIPHERTEXT_INJECTION,
                "the app read this ciphertext out of an encrypted file: somebody encrypted it twice, and decrypts it by way of the app",
            )

    def _format_1(self) -> Delivery:
        """Return a Format 1 file. To open it costs a pass over it, so that is not done for HEAD."""
        if self._transit.exchange.expects:
            raise IntegrityError("a Format 1 file has no object id", Reason.WRONG_OBJECT)
        try:
            return self._unopened() if self._transit.is_head else self._delivery()
        except LimitExceededError as error:
            # Nothing of it was verified: it is no fault of the file.
            raise Refusal(500, Reason.LIMIT, f"Policy.max_format_1: {error}") from None

    def _unopened(self) -> Delivery:
        source, most = self._response.whole_file(), self._policy.max_format_1
        if source is not None:
            ciphertext_size(_length_of(source), most)
        elif most is not None and (self._announced or 0) > most:
            raise LimitExceededError("the body is longer than allowed")
        return UnopenedDelivery(self._transit.exchange)

    def _delivery(self) -> Delivery:
        transit = self._transit
        if self._opened is not None:
            # From here on, the delivery records what fails.
            self._opened.watch(None)
            return FileDelivery(transit.exchange, self._opened)
        keyring, context = transit.settings.keyring, self._context
        source, chunks = self._source()
        if source is None and self._is_format_1:
            raise LimitExceededError("the body is longer than allowed")
        if source is None:
            decryptor = Decryptor(keyring, context)
            return StreamDelivery(transit.exchange, chunks, decryptor, self._announced)
        self.about = {} if self._is_format_1 else _claimed(source)
        file = open_encrypted(
            source,
            keyring,
            context,
            format_1=transit.place == 1,
            unbound_format_1=self._policy.unbound_format_1,
            max_format_1=self._policy.max_format_1,
        )
        return FileDelivery(transit.exchange, file)

    def _source(self) -> tuple[SeekableFile | None, Iterator[bytes]]:
        """Return the body as a file if it can seek or is held, else all of it as chunks."""
        source = self._response.whole_file()
        if source is not None:
            return source, iter(())
        start, chunks = _started(self._response.chunks())
        if not self._is_format_1 and self._needs_little(start):
            return None, chunks
        most = self._most_held(start)
        if most is not None and self._announced is not None and self._announced > most:
            return None, chunks
        return _hold(self._response.spool(), chunks, most)

    def _needs_little(self, start: bytes) -> bool:
        """Return whether the answer needs no more than a beginning of the body.

        That is so for HEAD, for a condition that does not hold, and for a range that ends before
        the file does. What is there already, or must be verified as a whole, is rather held: then
        the answer knows where the file ends.

        :param start: its first bytes.
        """
        response, asked, most = self._response, self._transit.environ, self._policy.verify_first
        if response.is_all_there():
            return False
        tag = self._own_tag(claimed_object_id(start))
        if tag is not None and failed_condition(asked, tag) is not None:
            return True
        if most is None or self._transit.is_head:
            return most is not None
        end = None if self._announced is None else claimed_least(start, self._announced)
        span = range_before(response, asked, end, tag)
        return span is not None and len(span) <= most

    def _most_held(self, start: bytes) -> int | None:
        """Return how many bytes of ciphertext are held before streaming; None stands for all.

        :param start: its first bytes.
        """
        # Format 1 can only be verified as a whole.
        most = self._policy.max_format_1 if self._is_format_1 else self._policy.verify_first
        if self._is_format_1 or self._transit.is_head or shows_breaks(self._transit.environ):
            return most
        # Only the length tells the client that nothing is missing, so a body without one is held
        # until it is complete. It follows from the ciphertext's length in suite 2. Suite 1 pads:
        # only its final segment tells.
        known = self._announced is not None and claimed_suite(start) is Suite.GCM
        return most if known else None


def _started(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes of a body, enough for a file's preamble; and ``chunks`` again."""
    start = b""
    while len(start) < FIXED_SIZE and (chunk := next(chunks, None)) is not None:
        start += chunk
    return start, chain((start,), chunks)


def _hold(
    spool: Spool, chunks: Iterator[bytes], limit: int | None
) -> tuple[SeekableFile | None, Iterator[bytes]]:
    """Hold a body that ends within ``limit`` bytes of ciphertext; return it as a file.

    A longer body is returned as an iterator over all of it.
    """
    size = 0
    for chunk in chunks:
        size += len(chunk)
        spool.write(chunk)
        if limit is not None and size > limit:
            return None, chain(spool.pieces(), chunks)
    return spool.finish(), iter(())


def _length_of(source: SeekableFile) -> int:
    with as_a_file():
        source.seek(0, os.SEEK_END)
        length = int(source.tell())
        source.seek(0)
    return length


def _claimed(source: SeekableFile) -> dict[str, str | int]:
    """Return the object id that a file claims, for the record of its failure."""
    source.seek(0)
    object_id = claimed_object_id(bytes(view_of(source.read(PREAMBLE_SIZE))))
    return {} if object_id is None else {"id": object_id}
