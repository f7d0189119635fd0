"""Uploads: a multipart body in, the same body out with every file encrypted, while it streams.

The client's body is parsed once, strictly, and written anew: a boundary of ours, one Content-Disposition a part, one
Content-Type a file, CRLF line ends. Nothing else of the client's framing reaches the app, so every parser behind us has
one reading of it, and what it takes for a file is what was encrypted.

The app must be told a length before the body is known. :meth:`UploadPipeline.upper_bound` gives one that is never too small; the
difference is filled with line ends behind the closing boundary, where parsers skip them.
"""

from __future__ import annotations

from itertools import chain
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from securefs.errors import JournalError, LimitExceededError, Reason
from securefs.header import MAGIC
from securefs.middleware.exchange import Upload
from securefs.middleware.filename import decode, normalise
from securefs.middleware.multipart import Data, MalformedBodyError, MultipartParser, Part, PartEnd
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import Piece, SealedFile
from securefs.stream import growth

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from securefs.middleware.exchange import Exchange
    from securefs.middleware.inspection import Inspector
    from securefs.middleware.multipart import Event
    from securefs.middleware.policy import Policy
    from securefs.middleware.sealing import PartSealer
    from securefs.middleware.source import BodySource

__all__ = ["MAX_PADDING", "UploadPipeline"]

MAX_PADDING: Final = 128 * 1024  # bytes of line ends behind a body; Werkzeug refuses 500,000
MIN_BOUNDARY: Final = 32  # characters: 128 random bits in hexadecimal
STREAMED_FIELD_BYTES: Final = (
    32 * 1024 * 1024
)  # bytes of fields in a streamed body; each MiB costs 1 KiB of padding
HEADER_GROWTH: Final = 8 * 1024  # bytes by which our part headers may be longer than a terse client's
# The longest metadata that a part's header gives but for its name: {"name":"","type":""} and a type, each character escaped.
METADATA_SIZE: Final = 21 + 2 * 127  # bytes


class UploadPipeline:
    """One multipart body on its way to the app.

    :param seal: makes the sealer of one file part from its metadata (``name`` and ``type``).
    :param overhead: the most bytes that a file has beyond its data, given the bytes of its metadata.
    :param inspect: looks at each file part before any of it goes on.
    """

    def __init__(
        self,
        source: BodySource,
        boundary: bytes,
        policy: Policy,
        exchange: Exchange,
        seal: Callable[[dict[str, str]], PartSealer],
        overhead: Callable[[int], int],
        inspect: Inspector | None = None,
    ) -> None:
        # At least as long as the client's, so that short boundaries are no way to make bodies grow, and seldom longer.
        self.boundary = token_hex(35)[: max(MIN_BOUNDARY, len(boundary))]
        self._longer = len(self.boundary) - len(boundary)
        self._source = source
        self._parser = MultipartParser(boundary, policy.max_part_header)
        self._policy = policy
        self._exchange = exchange
        self._seal = seal
        self._overhead = overhead
        self._inspect = inspect
        self._produced = 0  # bytes handed on
        self._growth = 0  # bytes by which our headers were longer than the client's
        self._files = self._fields = 0
        self._field_bytes = 0
        self._open: SealedFile | None = None  # the file part under way
        self._unsent = 0  # bytes of a part's header that was parsed and not handed on yet
        self._bounded = False

    @property
    def parts(self) -> int:
        """How many parts were begun."""
        return self._files + self._fields

    def pieces(self) -> Generator[Piece | None, None, None]:
        """Yield the new body, and None whenever more input must be read to go on.

        :raises Refusal: the body is malformed, over a limit, too slow, or can't be recorded.
        """
        try:
            yield from _whole_openings(self._parts(), self.boundary.encode("ascii"))
        except MalformedBodyError as error:
            raise Refusal(400, Reason.MALFORMED_MULTIPART, str(error)) from None
        except LimitExceededError as error:
            raise Refusal(413, Reason.LIMIT, str(error)) from None
        except JournalError as error:
            raise Refusal.of(error) from None
        finally:
            self._source.close()

    def upper_bound(self) -> int:
        """Return a length in bytes that the whole new body will not exceed, from what was read so far."""
        self._bounded = True
        rest = (self._source.length or 0) - self._source.received + self._parser.held
        taken, given = (self._open.taken, self._open.given) if self._open else (0, 0)
        data = rest + taken + growth(rest + taken) - given
        overhead = self._file_overhead if self._open else 0
        return self._produced + self._unsent + data + overhead + self._slack

    def streamable(self) -> bool:
        """Return whether the padding that :meth:`upper_bound` may cause is small enough to stream."""
        return self._slack + growth(STREAMED_FIELD_BYTES) <= MAX_PADDING

    @property
    def produced(self) -> int:
        """Bytes of the new body so far."""
        return self._produced

    @property
    def _file_overhead(self) -> int:
        # A name's own bytes, each of them escaped.
        return self._overhead(METADATA_SIZE + 2 * self._policy.max_filename)

    @property
    def _slack(self) -> int:
        """Bytes by which the rest of the body may grow beyond its data: parts that may yet come."""
        files = self._policy.max_files - self._files
        parts = files + self._policy.max_fields - self._fields
        return files * self._file_overhead + parts * self._longer + HEADER_GROWTH + len(self.boundary)

    def _events(self) -> Iterator[Event | None]:
        while data := self._source.read():
            yield from self._parser.feed(data)
            # What is done with is not kept while the client is waited for: a mebibyte for each upload under way.
            del data
            yield None
        self._parser.close()

    def _parts(self) -> Iterator[Piece | None]:
        """Yield the pieces of all parts and the last boundary, and count them."""
        events = self._events()
        for event in events:
            for piece in self._part(event, events) if isinstance(event, Part) else (None,):
                self._produced += len(piece.data) if piece else 0
                yield piece
        self._source.close()
        lead = b"\r\n" if self.parts else b""
        closing = Piece(lead + b"--" + self.boundary.encode("ascii") + b"--\r\n", atomic=True)
        self._produced += len(closing.data)
        yield closing

    def _part(self, part: Part, events: Iterator[Event | None]) -> Iterator[Piece | None]:
        first: Event | None = None
        self._unsent = part.size
        while first is None:
            first = next(events)
            if first is None:
                yield None
        self._unsent = 0
        # A browser's empty file input is filename="" without content, and goes on as it is. With content it is a file.
        is_file = bool(part.filename) or (part.filename is not None and isinstance(first, Data))
        content = _content(first, events)
        yield from self._file(part, content) if is_file else self._field(part, content)

    def _header(self, part: Part, filename: str | None) -> Piece:
        lines = ["", f"--{self.boundary}", f'Content-Disposition: form-data; name="{part.name}"']
        if filename is not None:
            lines[-1] += f'; filename="{filename}"'
            lines.append(f"Content-Type: {part.content_type}")
        data = "\r\n".join([*lines, "", ""]).encode("utf-8")
        self._growth += max(0, len(data) - part.size - self._longer)
        if self._bounded and self._growth > HEADER_GROWTH:
            raise LimitExceededError(
                "the body's part headers are too terse to stream; Policy(spool=True) takes them"
            )
        return Piece(data if self.parts > 1 else data[2:], atomic=True)

    def _field(self, part: Part, content: Iterator[memoryview | None]) -> Iterator[Piece | None]:
        self._fields += 1
        if self._fields > self._policy.max_fields:
            raise LimitExceededError(f"more than {self._policy.max_fields} fields")
        yield self._header(part, part.filename)
        start, size = b"", 0
        for data in content:
            if data is None:
                yield None
                continue
            size += len(data)
            self._check_field(size, len(data))
            start += bytes(data[: len(MAGIC) - len(start)])
            if start == MAGIC:
                # Stored as it is, it would be decrypted for whoever posts it: see GuardedInput.
                raise Refusal(400, Reason.CIPHERTEXT_INJECTION, "a field starts like an encrypted file")
            yield Piece(data)

    def _check_field(self, size: int, more: int) -> None:
        if size > self._policy.max_field_bytes:
            raise LimitExceededError(f"a field is longer than {self._policy.max_field_bytes} bytes")
        self._field_bytes += more if self._bounded else 0
        if self._field_bytes > STREAMED_FIELD_BYTES:
            raise LimitExceededError("too many bytes of fields to stream; Policy(spool=True) takes them")

    def _file(self, part: Part, content: Iterator[memoryview | None]) -> Iterator[Piece | None]:
        self._files += 1
        if self._files > self._policy.max_files:
            raise LimitExceededError(f"more than {self._policy.max_files} files")
        filename = normalise(part.filename or "")
        if len(filename.encode("utf-8")) > self._policy.max_filename:
            raise LimitExceededError(f"a file name is longer than {self._policy.max_filename} bytes")
        header = self._header(part, filename)
        sealer = self._seal({"name": decode(filename), "type": part.content_type})
        upload = Upload(
            sealer.object_id, decode(part.name), decode(filename), part.content_type, 0, sealer.key_id
        )
        self._open = SealedFile(upload, sealer, self._exchange, self._policy, self._inspect)
        try:
            yield from self._open.pieces(content, header)
        finally:
            self._open = None


def _whole_openings(pieces: Iterable[Piece | None], boundary: bytes) -> Iterator[Piece | None]:
    """Yield the same bytes, with each part's header and the beginning of its data in one atomic piece.

    Werkzeug 3.1.5 and 3.1.6 take the end of the header for data where a read ends within a boundary's length behind it. Where a
    part is shorter than that, the next boundary's line is in the piece too. Behind such a line a read may end.
    """
    opening, whole = bytearray(), 0  # what there is of such a piece, and its length in bytes
    for piece in pieces:
        if piece is None:
            yield None
        elif piece.atomic:
            data = bytes(piece.data)
            line = data.index(boundary) + len(boundary) + 2
            if data[line - 2 : line] == b"--":
                # The last boundary: no header follows it.
                line = len(data)
            yield Piece(bytes(opening) + data[:line], atomic=True)
            opening[:] = data[line:]
            whole = len(opening) + len(boundary) + 4
        elif opening:
            missing = whole - len(opening)
            opening += piece.data[:missing]
            if len(opening) == whole:
                yield Piece(bytes(opening), atomic=True)
                yield Piece(memoryview(piece.data)[missing:])
                opening.clear()
        else:
            yield piece


def _content(first: Event | None, events: Iterator[Event | None]) -> Iterator[memoryview | None]:
    """Yield the data of one part, and None whenever more input must be read."""
    for event in chain((first,), events):
        if isinstance(event, PartEnd):
            return
        yield event.data if isinstance(event, Data) else None
