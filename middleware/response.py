"""The app's response, held until its first bytes tell whether it is ciphertext (PEP 3333).

:class:`Response` stands between the app and the server. It sends nothing before the first eight
bytes of the body are known. A body that is not a container then goes to the server as the object
that the app returned, so that the server's own optimisations (a length for one-item lists,
``sendfile``) work as before.
"""

from __future__ import annotations

import zlib
from itertools import chain
from operator import eq
from typing import TYPE_CHECKING, Any, Final

from securefs.header import MAGIC
from securefs.middleware.headers import length_in, value_of
from securefs.middleware.refusal import BodyRefusedError, Refusal
from securefs.middleware.spool import Spool
from securefs.primitives import view_of
from securefs.source import as_a_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from securefs.middleware.exchange import Exchange
    from securefs.middleware.headers import Headers
    from securefs.source import SeekableFile

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    StartResponse = Callable[..., Callable[[bytes], object]]

__all__ = ["SEND_SIZE", "Closing", "FileWrapper", "Response"]

SEND_SIZE: Final = 256 * 1024  # bytes; whole segments of either suite that stay in the cache


class FileWrapper:
    """``wsgi.file_wrapper`` as the app sees it.

    It is a separate class, so that no server recognises its own wrapper by isinstance and sends the
    file's stored bytes with ``sendfile``.
    """

    def __init__(self, file: Any, block_size: int = 8192) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with as_a_file():
            # A file with nothing to read yet returns None: it is not at its end.
            data = _as_bytes(self.file.read(self.block_size))
        if data:
            return data
        raise StopIteration

    def seekable_file(self) -> SeekableFile | None:
        """Return the file if it can seek and is at its beginning, else None."""
        try:
            at_start = self.file.seekable() and self.file.tell() == 0
        except (AttributeError, OSError, ValueError):
            return None
        return self.file if at_start else None


class Closing:
    """An iterable of body chunks for the server, with actions to run at its end."""

    def __init__(self, chunks: Iterable[bytes], *on_close: Callable[[], None]) -> None:
        self._chunks = iter(chunks)
        self._on_close = list(on_close)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Run each action once; run the later ones even if an earlier one fails."""
        try:
            while self._on_close:
                self._on_close.pop(0)()
        finally:
            if self._on_close:
                self.close()


class Response:
    """One response of the app.

    :param exchange: tells what the app expects of it.
    :param must_be_file: plaintext is refused. So everything that the app writes must be held until
        the app returns, however it begins.
    :param is_head: the client asked for headers only.
    :ivar refusal: why the output of the app can't be held, None while it can.
    """

    def __init__(
        self, start_response: StartResponse, exchange: Exchange, *, must_be_file: bool, is_head: bool
    ) -> None:
        self.status = ""
        self.headers: Headers = []
        self._start_response = start_response
        self._exchange = exchange
        self._must_be_file = must_be_file
        self._is_head = is_head
        self._result: Iterable[bytes] = ()
        self._server_write: Callable[[bytes], object] | None = None
        self._written: Spool | None = None
        self._spools: list[Spool] = []
        self.refusal: Refusal | None = None
        self._head = b""  # the first bytes of the body
        self._decode: Callable[[bytes, int], bytes] | None = None
        self._pulled: list[bytes] = []
        self._rest: Iterator[bytes] | None = None

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Handle the app's ``start_response``."""
        if self.started:
            # Too late for another response, unless the server finds that nothing was sent yet.
            self._server_write = self._start_response(status, headers, exc_info)
        elif self.status and not exc_info:
            raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
        else:
            self.status, self.headers = status, list(headers)
        return self.write

    def begin(self) -> None:
        """Call the server's ``start_response`` with the present :attr:`status` and headers."""
        self._exchange.settle()
        self._server_write = self._start_response(self.status, self.headers)

    @property
    def started(self) -> bool:
        """Whether the server's ``start_response`` was called."""
        return self._server_write is not None

    def write(self, data: bytes) -> None:
        """Handle the app's ``write``.

        Plaintext is passed on at once. Possible ciphertext is held until the app returns.
        """
        if self._server_write is not None:
            self._write_through(data)
            return
        data = _as_bytes(data)
        if self._note(data) and not self.claims_ciphertext and not self.wants_ciphertext:
            # It is plaintext: from here on everything is passed on at once.
            self.begin()
            for held in self._replay_written():
                self._write_through(held)
            if self._written is not None:
                self._written.close()
                self._written = None
            self._write_through(data)
            return
        if self._written is None:
            self._written = self.spool()
        try:
            self._written.write(data)
        except Refusal as refusal:
            # However the app handles this, its response is incomplete.
            self.refusal = self.refusal or refusal
            raise BodyRefusedError("the response can't be held; another will be sent") from None

    @property
    def wants_ciphertext(self) -> bool:
        """Whether a successful response must be ciphertext.

        It must be if the path is declared so, or if the app expects a file.
        """
        return self._must_be_file or self._exchange.expects

    def _write_through(self, data: bytes) -> None:
        self._exchange.check()
        if self._server_write is not None and not self._is_head:
            self._server_write(data)

    def receive(self, result: Iterable[bytes]) -> bytes:
        """Take what the app returned; return the first eight bytes of the body, or fewer.

        Fewer are returned if they are enough to identify the body. They are the bytes inside the
        Content-Encoding: compressed ciphertext is still ciphertext. From a generator only as much
        is drawn as is needed, mostly one chunk.
        """
        self._result = result
        if self.started:
            return b""
        if self._written is None and (file := self.seekable_file()) is not None:
            self._note(file.read(SEND_SIZE if self.header("content-encoding") else len(MAGIC)))
            file.seek(0)
            return self._head
        if not isinstance(result, (list, tuple)):
            self._rest = iter(result)
        for chunk in self._result if self._rest is None else self._rest:
            if self._rest is not None:
                self._pulled.append(chunk)
            if self._note(chunk):
                break
        return self._head

    def seekable_file(self) -> SeekableFile | None:
        """Return the body as a file that can seek, None if the app returned none."""
        if self._written is not None or not isinstance(self._result, FileWrapper):
            return None
        return self._result.seekable_file()

    def chunks(self) -> Iterator[bytes]:
        """Return the whole body from its first byte, as an iterator to be used once."""
        rest = self._result if self._rest is None else self._rest
        for chunk in chain(self._replay_written(), self._pulled, rest):
            # What runs the app may have it call expect(), and the app may ignore that it raises.
            self._exchange.check()
            # PEP 3333 allows only bytes. The meaning of any other object is unknown.
            yield _as_bytes(chunk)
        self._exchange.check()

    def unchanged(self, server_wrapper: Callable[[Any, int], Iterable[bytes]] | None) -> Iterable[bytes]:
        """Return a body that is not ciphertext: the app's own object if possible."""
        if isinstance(self._result, FileWrapper) and self._rest is None and server_wrapper is not None:
            return server_wrapper(self._result.file, self._result.block_size)
        if self._written is None and self._rest is None:
            return self._result
        return Closing(self.chunks(), self.close)

    def spool(self) -> Spool:
        """Return a spool that is closed with this response."""
        self._spools.append(Spool())
        return self._spools[-1]

    def header(self, name: str) -> str | None:
        """Return the app's header ``name`` (lower case), None if it set none."""
        return value_of(self.headers, name)

    @property
    def announced_length(self) -> int | None:
        """The app's Content-Length in bytes, None if it set none or an invalid one."""
        return length_in(self.header("content-length"))

    def _note(self, chunk: bytes) -> bool:
        """Add to the first bytes of the body; return whether they are enough to identify it."""
        if self._decode is None:
            self._decode = _decoder(self.header("content-encoding"))
        if missing := len(MAGIC) - len(self._head):
            self._head += self._decode(_as_bytes(chunk), missing)
        # A body that starts otherwise is not held for more, however small its first chunk is.
        return len(self._head) == len(MAGIC) or 2 * _alike(self._head) < len(self._head)

    @property
    def claims_ciphertext(self) -> bool:
        """Whether the first bytes are the magic, or half of them are: then something changed it.

        Of a file that was cut inside its magic, four bytes are enough.
        """
        return 2 * _alike(self._head) >= len(MAGIC)

    @property
    def source(self) -> object:
        """What the body is read from, if the app shows it: a file, or the iterable itself."""
        return self._result.file if isinstance(self._result, FileWrapper) else self._result

    @property
    def is_file(self) -> bool:
        """Whether the body is a file, as far as the app shows it."""
        return isinstance(self._result, FileWrapper) or hasattr(self._result, "fileno")

    def known_length(self) -> int | None:
        """Return the length in bytes of a body that is a list or tuple, else None."""
        if isinstance(self._result, (list, tuple)) and self._written is None and not self.started:
            return sum(map(len, self._result))
        return None

    def close(self) -> None:
        """Close what the app returned, and the spools."""
        for spool in self._spools:
            spool.close()
        close = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _replay_written(self) -> Iterator[bytes]:
        if self._written is not None:
            yield from self._written.pieces()


def _alike(head: bytes) -> int:
    """Return how many bytes of ``head`` are those of the magic."""
    return sum(map(eq, MAGIC, head))


def _as_bytes(chunk: object) -> bytes:
    return chunk if isinstance(chunk, bytes) else bytes(view_of(chunk))


def _decoder(encoding: str | None) -> Callable[[bytes, int], bytes]:
    """Return a function that decodes the first bytes of a body in a Content-Encoding of zlib.

    It takes a chunk and returns at most the requested number of bytes.
    """
    if (encoding or "").lower() not in {"gzip", "x-gzip", "deflate"}:
        return lambda chunk, size: chunk[:size]
    decompressor = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # the data tells: gzip or zlib

    def decode(chunk: bytes, size: int) -> bytes:
        try:
            return decompressor.decompress(chunk, size)
        except zlib.error:
            return chunk[:size]  # not compressed, whatever the header says: inspected as it is

    return decode
