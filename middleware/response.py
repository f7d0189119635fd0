"""The app's response, held until its first bytes tell whether it is ciphertext (PEP 3333).

:class:`Response` stands between the app and the server. It sends nothing before the first eight
bytes of the body are known. A body that is not a container then goes to the server as the object
that the app returned, so that the server's own optimisations (a length for one-item lists,
``sendfile``) work as before.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from securefs.errors import JournalError
from securefs.header import MAGIC, PREAMBLE_SIZE
from securefs.middleware.beginning import Beginning
from securefs.middleware.file_wrapper import FileWrapper, as_bytes, opened_by_app
from securefs.middleware.headers import is_identity, length_in, value_of, values_of
from securefs.middleware.refusal import BodyRefusedError, Refusal
from securefs.middleware.spool import SealedSpool, Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from securefs.middleware.exchange import Exchange
    from securefs.middleware.headers import Headers
    from securefs.middleware.places import Places
    from securefs.reader import EncryptedFile
    from securefs.source import SeekableFile

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    StartResponse = Callable[..., Callable[[bytes], object]]

__all__ = ["SEND_SIZE", "Closing", "Response", "length_of"]

_LATE: Final = "a file of stores (SECUREFS_STORES) is read after the response has begun as something else"
SEND_SIZE: Final = 256 * 1024  # bytes; whole segments of either suite that stay in the cache


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
    :param places: what is declared.
    :param must_be_file: plaintext is refused. So everything that the app writes must be held until
        the app returns, however it begins.
    :param is_head: the client asked for headers only.
    :ivar refusal: why the output of the app can't be held, None while it can.
    :ivar beginning: what the first bytes of the body say it is.
    :ivar opened: what the app opened itself, with :func:`securefs.open_encrypted`, and answers
        with: verified plaintext. None if that isn't so.
    """

    refusal: Refusal | None = None
    opened: EncryptedFile | None = None
    _file: FileWrapper | None = None  # the file that the app returned
    _handed: tuple[FileWrapper, ...] = ()  # the files that the app handed over

    def __init__(
        self,
        start_response: StartResponse,
        exchange: Exchange,
        places: Places,
        *,
        must_be_file: bool,
        is_head: bool,
    ) -> None:
        self.status = ""
        self.headers: Headers = []
        self._start_response = start_response
        self._exchange = exchange
        self._places = places
        self._must_be_file = must_be_file
        self._is_head = is_head
        self._result: Iterable[bytes] = ()
        self._server_write: Callable[[bytes], object] | None = None
        self._written: Spool | None = None
        self._spools: list[Spool | SealedSpool] = []
        self.beginning = Beginning()
        self._pulled: list[bytes] = []
        self._rest: Iterator[bytes] | None = None

    def wrap(self, file: Any, block_size: int = 8192) -> FileWrapper:
        """Handle the app's ``wsgi.file_wrapper``."""
        wrapper = FileWrapper(file, block_size, self._places, self._refuse_late)
        self._handed = (*self._handed, wrapper)
        return wrapper

    def _refuse_late(self) -> None:
        """Refuse a file of a store that is first read when the response has begun without it."""
        if self.started and self.status.startswith("2"):
            self._exchange.break_off(_LATE)
            self._exchange.check()

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
        """Call the server's ``start_response`` with the present :attr:`status` and headers.

        :raises Refusal: the answer to an upload can't be recorded.
        """
        try:
            self._exchange.answered(self.status)
        except JournalError as error:
            raise Refusal.of(error) from None
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
        data = as_bytes(data)
        if not data:
            return
        begins = self.beginning
        is_known = self._note(data) and not begins.claims_ciphertext and not begins.packs_ciphertext
        if is_known and not self.wants_ciphertext:
            # It is plaintext: from here on everything is passed on at once.
            try:
                self.begin()
            except Refusal as refusal:
                # However the app handles this, there is no response of its own.
                self.refusal = refusal
                raise BodyRefusedError("the response can't be recorded; another will be sent") from None
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

        Fewer are returned if they are enough to identify the body. From a generator only as much is
        drawn as is needed, mostly one chunk. Of what the app opened itself, nothing is read.
        """
        self._result = result
        self._find_file(result)
        if self.started:
            return b""
        if isinstance(result, (list, tuple)):
            for chunk in result:
                if self._note(chunk):
                    break
        elif not self._look_at_file():
            self._draw()
        return self.beginning.head

    def _find_file(self, result: Iterable[bytes]) -> None:
        if isinstance(result, FileWrapper):
            self._file = result
        elif opened_by_app(result) is not None:
            # It would be read line by line.
            self._result = self._file = FileWrapper(result)
        elif hasattr(result, "fileno"):
            # A file that is returned by itself was handed over, too.
            self._file = FileWrapper(result, places=self._places)

    def _look_at_file(self) -> bool:
        """Look at a file; return False if its first bytes must be drawn as those of a generator."""
        file = self.seekable_file()
        if self._file is not None:
            self.opened = opened_by_app(self._file.file)
        if file is not None and self.opened is None:
            self._note(file.read(len(MAGIC) if is_identity(self.coding) else SEND_SIZE))
            file.seek(0)
        return file is not None

    def _draw(self) -> None:
        self._rest = iter(self._result)
        for chunk in self._rest:
            self._pulled.append(chunk)
            if self._note(chunk):
                break
        for wrapper in self._drawn:
            self.opened = self.opened or opened_by_app(wrapper.file)

    def seekable_file(self) -> SeekableFile | None:
        """Return the body as a file that can seek, None if the app returned none."""
        if self._written is not None or not isinstance(self._result, FileWrapper):
            return None
        return self._result.seekable_file()

    @property
    def _drawn(self) -> list[FileWrapper]:
        """The files that were drawn from, by whatever the app put around them."""
        return [wrapper for wrapper in self._handed if wrapper.first is not None]

    def _passed_on(self) -> FileWrapper | None:
        """Return the file of which something passed on the first chunk as it was, if it did."""
        first = next(filter(None, self._pulled), b"")
        # A chunk without the object id may be that of any file.
        drawn = (wrapper for wrapper in self._drawn if wrapper.block_size >= PREAMBLE_SIZE)
        return next((wrapper for wrapper in drawn if wrapper.first == first), None)

    def begins_as_stored_file(self) -> bool:
        """Return whether the body begins with the first bytes of a file in a store.

        That the app drew from such a file on its way says nothing of the bytes of another one.
        """
        file = self._file or self._passed_on()
        return self._written is None and file is not None and file.is_stored()

    def whole_file(self) -> SeekableFile | None:
        """Return the file that the body is from its first to its last byte, as far as is known.

        If the app returned something that passes on the chunks of a file, this is the file, too:
        the first chunk was the file's, and the announced length is. It is for files that are
        verified, because nothing tells whether the other chunks would have been passed on as well.
        """
        if self._written is not None or self._file is not None:
            return self.seekable_file()
        passed_on = self._passed_on()
        if passed_on is None or not passed_on.from_start:
            return None
        file: SeekableFile = passed_on.file
        length = self.announced_length
        return file if length is not None and length == length_of(file) else None

    def is_opened_whole(self) -> bool:
        """Return whether the body is all of what the app opened itself, as far as is known.

        A part has a status or a length of its own, or begins elsewhere.
        """
        if self.opened is None or self.status.startswith("206"):
            return False
        is_whole = opened_by_app(self.whole_file()) is self.opened
        return is_whole and self.announced_length in {None, self.opened.size}

    def is_stored(self) -> bool:
        """Return whether a file in a store was returned, or was drawn from.

        :raises FormatError: it is in a store and must not be: see :meth:`Places.holds`.
        """
        if self._file is not None:
            return self._file.is_stored()
        return bool(self._handed) and any(wrapper.is_stored() for wrapper in self._drawn)

    def chunks(self) -> Iterator[bytes]:
        """Return the whole body from its first byte, as an iterator to be used once."""
        rest = self._result if self._rest is None else self._rest
        for chunk in chain(self._replay_written(), self._pulled, rest):
            # What runs the app may have it call expect(), and the app may ignore that it raises.
            self._exchange.check()
            # PEP 3333 allows only bytes. The meaning of any other object is unknown.
            yield as_bytes(chunk)
        self._exchange.check()

    def unchanged(self, server_wrapper: Callable[[Any, int], Iterable[bytes]] | None) -> Iterable[bytes]:
        """Return a body that is not ciphertext: the app's own object if possible."""
        if isinstance(self._result, FileWrapper) and self._rest is None and server_wrapper is not None:
            return server_wrapper(self._result.file, self._result.block_size)
        if self._written is None and self._rest is None:
            return self._result
        return Closing(self.chunks(), self.close)

    def spool(self) -> Spool:
        """Return a spool for ciphertext that is closed with this response."""
        spool = Spool()
        self._spools.append(spool)
        return spool

    def sealed_spool(self) -> SealedSpool:
        """Return a spool for plaintext that is closed with this response."""
        spool = SealedSpool()
        self._spools.append(spool)
        return spool

    def header(self, name: str) -> str | None:
        """Return the app's header ``name`` (lower case), None if it set none."""
        return value_of(self.headers, name)

    @property
    def coding(self) -> str:
        """The app's Content-Encoding, of all the lines that have one; "" if there is none."""
        return ", ".join(values_of(self.headers, "content-encoding"))

    @property
    def announced_length(self) -> int | None:
        """The app's Content-Length in bytes, None if it set none or an invalid one."""
        return length_in(self.header("content-length"))

    def _note(self, chunk: bytes) -> bool:
        """Add to the first bytes of the body; return whether they are enough to identify it."""
        return self.beginning.add(as_bytes(chunk), self.coding)

    @property
    def is_file(self) -> bool:
        """Whether the app returned a file, or one that it handed over was drawn from."""
        return self._file is not None or bool(self._drawn)

    def known_length(self) -> int | None:
        """Return the length in bytes of a body that is a list or tuple, else None."""
        if isinstance(self._result, (list, tuple)) and self._written is None and not self.started:
            return sum(map(len, self._result))
        return None

    def is_all_there(self) -> bool:
        """Return whether nothing of the body is left to ask of the app, by what it announced."""
        announced = self.announced_length
        drawn = announced is not None and sum(map(len, self._pulled)) >= announced
        return drawn or isinstance(self._result, (list, tuple))

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


def length_of(file: SeekableFile) -> int | None:
    """Return a file's length in bytes, None if it can't be told; leave the file where it stands."""
    try:
        here = file.tell()
        file.seek(0, os.SEEK_END)
        length: int = file.tell()
        file.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return length
