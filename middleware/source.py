"""Reads a request body from the server: large reads, exact length, deadline, minimum rate.

:class:`BodySource` is for bodies that are parsed. :class:`GuardedInput` is for all others: it
passes the body on unchanged, unless it begins like an encrypted file.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Final

from securefs.errors import Reason
from securefs.header import MAGIC
from securefs.middleware.refusal import BodyRefusedError, Refusal
from securefs.middleware.servers import UPLOAD_READ
from securefs.middleware.waiting import Client, Pace, WaitingRoom

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from securefs.middleware.policy import Policy
    from securefs.middleware.servers import InputStream

__all__ = ["BodySource", "GuardedInput"]

_ODD_INPUT: Final = "the server's input gave text, nothing (None), or more than was asked for"


def _as_asked(data: object, wanted: int | None) -> bool:
    """Return whether a stream returned bytes, and at most as many as requested.

    Bytes beyond that belong to the next request, or to none.
    """
    return isinstance(data, bytes) and (wanted is None or len(data) <= wanted)


class BodySource:
    """The body of one request, as pieces of up to 1 MiB.

    :param length: the Content-Length, None for a chunked body.
    :param sock: the connection, if the server shows it: see :mod:`securefs.middleware.waiting`.
    :param room: the clients that are waited for; an unbounded room of its own unless given.
    """

    def __init__(
        self,
        stream: InputStream,
        length: int | None,
        policy: Policy,
        *,
        sock: socket.socket | None = None,
        room: WaitingRoom | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if length is not None and length > policy.max_body:
            raise Refusal(
                413,
                Reason.LIMIT,
                f"a body of {length} bytes; at most {policy.max_body} are allowed (max_body)",
            )
        self.length = length
        self.received = 0
        self._stream = stream
        self._policy = policy
        self._pace = Pace(policy, clock)
        self._client = None
        if sock is not None:
            self._client = Client(stream, sock, self._pace, room or WaitingRoom(None))

    def read(self) -> bytes:
        """Return the next bytes, none at the end; raise :class:`Refusal` for a faulty body."""
        wanted = UPLOAD_READ if self.length is None else min(UPLOAD_READ, self.length - self.received)
        if not wanted:
            return b""
        try:
            data = (self._client or self._stream).read(wanted)
        except Refusal:
            raise
        except TimeoutError:
            raise Refusal(
                408, Reason.TIMEOUT, "the request body stalled: the server's own time limit ended it"
            ) from None
        except Exception as error:  # noqa: BLE001  # each server has its own errors for a bad body
            raise Refusal(
                400, Reason.CLIENT_GONE, f"the request body broke off: {type(error).__name__}"
            ) from None
        if not _as_asked(data, wanted):
            raise Refusal(400, Reason.CLIENT_GONE, _ODD_INPUT)
        self.received += len(data)
        if not data and self.length is not None:
            detail = f"the request body ended after {self.received} of {self.length} bytes"
            raise Refusal(400, Reason.CLIENT_GONE, detail)
        if self.received > self._policy.max_body:
            raise Refusal(
                413, Reason.LIMIT, f"the body is longer than {self._policy.max_body} bytes (max_body)"
            )
        self._pace.check(self.received)
        return data

    def close(self) -> None:
        """End the reading of this body."""
        if self._client is not None:
            self._client.close()


class GuardedInput(io.BufferedIOBase):
    """A request body that is passed to the app unchanged, unless it starts with the magic.

    An app that stores such bytes as they are would turn this middleware into a decryption oracle:
    the next download would decrypt a stolen ciphertext for the client that posted it. Nothing is
    read before the app reads.

    :ivar refusal: why reading failed, None while it has not.
    """

    def __init__(self, stream: InputStream, length: int | None) -> None:
        super().__init__()
        self._stream = stream
        self._probe = len(MAGIC) if length is None else min(len(MAGIC), length)
        self._head: bytes | None = None
        self.refusal: Refusal | None = None

    def _take_head(self) -> bytes:
        """Return the bytes that were read for inspection and not yet passed on."""
        if self.refusal is not None:
            raise BodyRefusedError("the request body was refused; the response will say so")
        if self._head is None:
            head = b""
            while (wanted := self._probe - len(head)) and (
                more := self._given(self._stream.read(wanted), wanted)
            ):
                head += more
            if head == MAGIC:
                detail = "the request body starts like an encrypted file"
                self.refusal = Refusal(400, Reason.CIPHERTEXT_INJECTION, detail)
                raise BodyRefusedError(detail)
            self._head = head
        head, self._head = self._head, b""
        return head

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, as the server's stream does."""
        head = self._take_head()
        if size is None or size < 0:
            return head + self._given(self._stream.read())
        if len(head) > size:
            self._head = head[size:]
            return head[:size]
        # Many apps read their body with one read(CONTENT_LENGTH) and never read again: return what
        # the server's stream would.
        wanted = size - len(head)
        return head + self._given(self._stream.read(wanted), wanted) if wanted else head

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        return self.read(UPLOAD_READ if size < 0 else size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, to the end of a line."""
        limit = -1 if size is None else size
        head = self._take_head()
        end = head.find(b"\n") + 1 or len(head)
        if limit >= 0:
            end = min(end, limit)
        line, self._head = head[:end], head[end:]
        if self._head or line.endswith(b"\n") or len(line) == limit:
            return line
        if limit < 0:
            return line + self._given(self._stream.readline())
        wanted = limit - len(line)
        return line + self._given(self._stream.readline(wanted), wanted)

    def _given(self, data: object, wanted: int | None = None) -> bytes:
        """Return what the server's stream returned; refuse what no stream may return.

        After such a fault nothing is known of the rest.
        """
        if isinstance(data, bytes) and _as_asked(data, wanted):
            return data
        self.refusal = Refusal(400, Reason.CLIENT_GONE, _ODD_INPUT)
        raise BodyRefusedError(_ODD_INPUT)
