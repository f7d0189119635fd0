"""The request body that the app reads: ``wsgi.input``, made of the new body's pieces.

The pieces come from :mod:`securefs.middleware.upload`. The body makes two promises to the parser
behind it. First, no read ends within a boundary, a part's header or the first bytes of its data:
some parsers add or drop bytes of a file there (:func:`securefs.middleware.servers.least_opening`),
and one wrong byte makes an encrypted file unreadable. So a read may be short, but is never empty
before the end; for a framework that copies the whole body before it parses, reads are full. Second,
the declared length is met to the byte, or the read raises.
"""

from __future__ import annotations

import io
import sys
from collections import deque
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from securefs.errors import Reason
from securefs.middleware.refusal import BodyRefusedError, Refusal
from securefs.middleware.sealing import Piece
from securefs.middleware.servers import UPLOAD_READ, copies_before_parsing
from securefs.middleware.spool import SealedSpool
from securefs.secrecy import clear_frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from securefs.middleware.raw import RawPipeline
    from securefs.middleware.upload import UploadPipeline
    from securefs.reader import EncryptedFile

__all__ = ["RewrittenBody", "prepare", "prepare_raw"]

_LINE_ENDS: Final = b"\r\n" * 8192
_NO_ENVIRON: Final[Mapping[str, object]] = MappingProxyType({})


class Closable(Protocol):
    """An object that is closed with the body."""

    def close(self) -> None:
        """Close it."""
        ...


class RewrittenBody(io.BufferedIOBase):
    """The encrypted body as a readable stream. ``length`` is the Content-Length for the app.

    :param pieces: the pieces that follow ``ready``.
    :param resources: closed with the body.
    :param environ: the app's, in which a framework leaves its traces.
    :ivar refusal: why reading failed, None while it has not.
    """

    def __init__(
        self,
        pipeline: UploadPipeline | RawPipeline,
        pieces: Iterator[Piece | None],
        ready: deque[Piece],
        length: int,
        environ: Mapping[str, object] = _NO_ENVIRON,
        resources: tuple[Closable, ...] = (),
    ) -> None:
        super().__init__()
        self._pipeline: UploadPipeline | RawPipeline | None = pipeline
        self._parts = 0  # of the pipeline, once it is gone
        self._pieces = pieces
        self._ready = ready
        self._environ = environ
        self._resources = resources
        self._broken = False
        self.length = length
        self.refusal: Refusal | None = None

    @property
    def parts(self) -> int:
        """The number of parts that were passed on; the last one may be incomplete."""
        return self._parts if self._pipeline is None else self._pipeline.parts

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, fewer at a boundary; the rest if it is negative or None."""
        room = sys.maxsize if size is None or size < 0 else size
        taken: list[bytes | bytearray | memoryview] = []
        while room and (piece := self._next()) is not None:
            if len(piece.data) > room:
                if taken and self._must_stay_whole(piece):
                    self._ready.appendleft(piece)
                    break
                piece = self._split(piece, room)
            taken.append(piece.data)
            room -= len(piece.data)
        return b"".join(taken)

    def _must_stay_whole(self, piece: Piece) -> bool:
        return piece.atomic and not copies_before_parsing(self._environ)

    def _split(self, piece: Piece, size: int) -> Piece:
        """Return the first ``size`` bytes of a piece; put the rest back."""
        view = memoryview(piece.data)
        self._ready.appendleft(Piece(view[size:]))
        return Piece(view[:size])

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        return self.read(UPLOAD_READ if size < 0 else size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, to the end of a line."""
        line = super().readline(size)
        if size is not None and 0 <= size < len(line):
            # IOBase compares each single step with the size, not their sum.
            self._ready.appendleft(Piece(line[size:]))
            line = line[:size]
        return line

    def peek(self, _size: int = 0, /) -> bytes:
        """Return the next piece without taking it; ``readline`` of :class:`io.IOBase` uses it."""
        piece = self._next()
        if piece is None:
            return b""
        self._ready.appendleft(piece)
        return bytes(piece.data[:8192])

    def close(self) -> None:
        """End the upload: what the app has not read is not encrypted."""
        self._ready.clear()
        for resource in self._resources:
            resource.close()
        # Both know this body: without them it is freed when its last user is gone, and not later.
        self._parts, self._pipeline = self.parts, None
        self._environ = _NO_ENVIRON
        self._pieces = iter(())
        super().close()

    def _next(self) -> Piece | None:
        """Return the next piece that is not empty, None at the end.

        :raises BodyRefusedError: the body was refused.
        """
        if self.closed:
            raise ValueError("the request body was closed: it can be read until the response is done")
        while self.refusal is None and not self._broken:
            try:
                piece = self._ready.popleft() if self._ready else next(self._pieces)
            except StopIteration:
                return None
            except Refusal as refusal:
                self.refusal = refusal
                break
            except BaseException as error:
                clear_frames(error)
                # A generator that raised has ended. An app that continues to read would take that
                # for the end of the body.
                self._broken = True
                raise
            if piece is not None and len(piece.data):
                return piece
        raise BodyRefusedError("the request body was refused; the response will say so")


def prepare(
    pipeline: UploadPipeline, *, spool: bool, environ: Mapping[str, object] = _NO_ENVIRON
) -> RewrittenBody:
    """Return the body for the app, with its start read already. ``environ`` is the app's.

    If the first read (1 MiB) brings the whole body, it is transformed in memory and gets its exact
    length. A longer body streams under an upper bound. If the bound would be too loose, if there is
    no length to start from, or if ``spool`` is true, the ciphertext is held until it is complete:
    up to 1 MiB in memory, more in a temporary file.

    :raises Refusal: the body is refused before the app runs.
    """
    pieces = pipeline.pieces()
    if pipeline.length is None or spool:
        return _spooled(pipeline, pieces, environ)
    ready: deque[Piece] = deque()
    for piece in pieces:
        if piece is not None:
            ready.append(piece)
        elif pipeline.length > UPLOAD_READ:
            break
    else:
        return RewrittenBody(pipeline, iter(()), ready, pipeline.produced, environ)
    if not pipeline.streamable():
        return _spooled(pipeline, chain(ready, pieces), environ)
    # From here on, limits hold that keep the body within its bound.
    bound = pipeline.upper_bound()
    return RewrittenBody(pipeline, _padded(pipeline, pieces, bound), ready, bound, environ, (pieces,))


def prepare_raw(pipeline: RawPipeline, *, spool: bool, environ: Mapping[str, object]) -> RewrittenBody:
    """Return the body for the app if it is one file; its length follows from the request's."""
    pieces = pipeline.pieces()
    if pipeline.length is None or spool:
        return _spooled(pipeline, pieces, environ)
    return RewrittenBody(pipeline, pieces, deque(), pipeline.length, environ, (pieces,))


def _padded(pipeline: UploadPipeline, pieces: Iterator[Piece | None], length: int) -> Iterator[Piece | None]:
    """Yield the pieces, then line ends up to ``length`` bytes: an epilogue, which parsers skip."""
    for piece in pieces:
        if pipeline.produced > length:
            # The app would see a truncated body, which a parser may take for a complete one.
            detail = "the body grew beyond the length that was announced for it; Policy(spool=True) takes it"
            raise Refusal(413, Reason.LIMIT, detail)
        yield piece
    missing = length - pipeline.produced
    while missing > 0:
        # An odd byte comes first, as a lone LF: every run after it consists of whole line ends.
        run = b"\n" if missing % 2 else _LINE_ENDS[:missing]
        missing -= len(run)
        yield Piece(run)


def _spooled(
    pipeline: UploadPipeline | RawPipeline, pieces: Iterable[Piece | None], environ: Mapping[str, object]
) -> RewrittenBody:
    """Hold the new body until it is complete.

    Its fields and names are plaintext, so it is sealed once more.
    """
    spool = SealedSpool()
    runs: list[tuple[int, bool]] = []  # length of each run written, and whether it is atomic
    try:
        for piece in pieces:
            if piece is None:
                continue
            spool.write(piece.data)
            if runs and not piece.atomic and not runs[-1][1]:
                runs[-1] = (runs[-1][0] + len(piece.data), False)
            else:
                runs.append((len(piece.data), piece.atomic))
        held = spool.finish()
    except BaseException:
        # On any exception: nothing else has a reference to the spool yet.
        spool.close()
        raise
    return RewrittenBody(pipeline, _replay(held, runs), deque(), pipeline.produced, environ, (spool,))


def _replay(held: EncryptedFile, runs: list[tuple[int, bool]]) -> Iterator[Piece | None]:
    for length, atomic in runs:
        for start in range(0, length, UPLOAD_READ):
            yield Piece(held.read(min(length - start, UPLOAD_READ)), atomic)
