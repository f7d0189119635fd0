"""Uploads: a multipart body in, the same body out with every file encrypted, as a stream.

The client's body is parsed once, strictly, and written anew: with a new boundary, one
Content-Disposition per part, one Content-Type per file, and CRLF line ends. No other framing of the
client reaches the app. So every parser behind the middleware reads the body in one way, and every
part that it takes for a file is encrypted.

The app must be told a length before the body is known: see :mod:`securefs.middleware.bound`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from securefs.errors import JournalError, LimitExceededError, Reason
from securefs.middleware.bound import MAX_SEALED_NAME, Bound
from securefs.middleware.filename import decode, normalise, relative, shortened
from securefs.middleware.media_type import DEFAULT_TYPE, charset_of
from securefs.middleware.multipart import Data, MalformedBodyError, MultipartParser, Part, PartEnd
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import CIPHERTEXT, Piece, refuse_ciphertext
from securefs.middleware.servers import least_opening

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from securefs.middleware.chunks import ChunkWatch
    from securefs.middleware.multipart import Event
    from securefs.middleware.policy import Policy
    from securefs.middleware.sealing import SealedFile, Sealing
    from securefs.middleware.source import BodySource

__all__ = ["UploadPipeline"]

MIN_BOUNDARY: Final = 32  # characters: 128 random bits in hexadecimal


class UploadPipeline:
    """One multipart body on its way to the app.

    :param chunks: refuses pieces of files, None to let them pass.
    :param plain: no file of this body is encrypted: ``Policy.plain_uploads`` names its path.
    :param preamble: whether text may precede the first boundary.
    :param unicode: whether fields are UTF-8; else those that name no charset are ASCII.
    """

    def __init__(
        self,
        source: BodySource,
        boundary: bytes,
        policy: Policy,
        sealing: Sealing,
        chunks: ChunkWatch | None = None,
        *,
        plain: bool = False,
        preamble: bool = True,
        unicode: bool = True,
    ) -> None:
        # At least as long as the client's boundary, so that short boundaries can't make bodies
        # grow; seldom longer. Some frameworks take no more than 70 characters.
        self.boundary = token_hex(35)[: max(MIN_BOUNDARY, len(boundary))]
        self.produced = 0  # bytes passed on
        self._source = source
        self._parser = MultipartParser(boundary, policy.max_part_header, preamble=preamble)
        self._policy = policy
        self._sealing = sealing
        self._chunks = chunks
        size = len(self.boundary)
        overhead = None if plain else sealing.new.most_overhead
        self._bound = Bound(policy, overhead, boundary=size, longer=size - len(boundary))
        self._plain = plain
        self._unicode = unicode
        self._open: SealedFile | None = None  # the file part that is being sealed
        self._unsent = 0  # bytes of a part's header that was parsed and not yet passed on

    @property
    def length(self) -> int | None:
        """The client's Content-Length, None for a chunked body."""
        return self._source.length

    @property
    def parts(self) -> int:
        """The number of parts that were begun."""
        return self._bound.parts

    def pieces(self) -> Generator[Piece | None, None, None]:
        """Yield the new body, and None whenever more input must be read.

        :raises Refusal: the body is malformed, exceeds a limit, is too slow, or can't be recorded.
        """
        try:
            yield from _whole_openings(self._parts(), self.boundary.encode("ascii"))
        except MalformedBodyError as error:
            raise Refusal(400, error.reason, str(error)) from None
        except LimitExceededError as error:
            raise Refusal(413, Reason.LIMIT, str(error)) from None
        except JournalError as error:
            raise Refusal.of(error) from None
        finally:
            self._source.close()

    def upper_bound(self) -> int:
        """Return an upper bound on the new body's length in bytes, from what was read so far."""
        return self.produced + self._unsent + self._bound.announce(self._rest, self._open)

    def streamable(self) -> bool:
        """Return whether :meth:`upper_bound` is close enough to stream under it."""
        return self._bound.is_close(self._rest, self._open)

    @property
    def _rest(self) -> int:
        """The number of bytes of the client's body that were not parsed yet."""
        return (self._source.length or 0) - self._source.received + self._parser.held

    def _events(self) -> Iterator[Event | None]:
        while data := self._source.read():
            yield from self._parser.feed(data)
            # Processed input is not kept while the client is waited for: it is 1 MiB per upload.
            del data
            yield None
        self._parser.close()

    def _parts(self) -> Iterator[Piece | None]:
        """Yield the pieces of all parts and the last boundary, and count them."""
        events = self._events()
        for event in events:
            for piece in self._part(event, events) if isinstance(event, Part) else (None,):
                self.produced += len(piece.data) if piece else 0
                yield piece
        self._source.close()
        if self._chunks is not None:
            self._chunks.finish()
        lead = b"\r\n" if self.parts else b""
        closing = Piece(lead + b"--" + self.boundary.encode("ascii") + b"--\r\n", atomic=True)
        self.produced += len(closing.data)
        yield closing

    def _part(self, part: Part, events: Iterator[Event | None]) -> Iterator[Piece | None]:
        first: Event | None = None
        self._unsent = part.size
        while first is None:
            first = next(events)
            if first is None:
                yield None
        self._unsent = 0
        content = _content(first, events)
        is_file = self._is_file(part, first)
        yield from self._file(part, content) if is_file else self._field(part, content)

    def _is_file(self, part: Part, first: Event) -> bool:
        if part.filename is None:
            # A framework that strips names must not find text where a file was declared.
            name = decode(part.name)
            return name in self._policy.file_fields or name.strip() in self._policy.file_fields
        # A browser's empty file input is filename="" without content, and is passed on as it is.
        # With content it is a file.
        return bool(part.filename) or isinstance(first, Data)

    def _header(self, part: Part, filename: str | None) -> Piece:
        lines = ["", f"--{self.boundary}", f'Content-Disposition: form-data; name="{part.name}"']
        if filename is not None:
            lines[-1] += f'; filename="{filename}"'
        if part.content_type:
            lines.append(f"Content-Type: {part.content_type}")
        data = "\r\n".join([*lines, "", ""]).encode("utf-8")
        self._bound.add_header(len(data), part.size)
        return Piece(data if self.parts > 1 else data[2:], atomic=True)

    def _field(self, part: Part, content: Iterator[memoryview | None]) -> Iterator[Piece | None]:
        self._bound.add_field()
        if self._chunks is not None:
            self._chunks.add_field(part.name)
        yield self._header(part, part.filename)
        size, start = 0, b""
        # Frameworks differ on whether such a field is in the charset of the form.
        ascii_only = not self._unicode and charset_of(part.content_type) is None
        for data in refuse_ciphertext(content, "a field starts like an encrypted file"):
            if data is None:
                yield None
                continue
            if ascii_only and not bytes(data).isascii():
                raise MalformedBodyError(
                    "a field without a charset of its own is not ASCII, in a form whose charset is not UTF-8"
                )
            size += len(data)
            if size > self._policy.max_field_bytes:
                raise LimitExceededError(
                    f"a field is longer than {self._policy.max_field_bytes} bytes (max_field_bytes)"
                )
            self._bound.add_field_bytes(len(data))
            start = (start + bytes(data[:2]))[:2]
            yield Piece(data)
        if self._chunks is not None:
            self._chunks.add_value(part.name, start)

    def _file(self, part: Part, content: Iterator[memoryview | None]) -> Iterator[Piece | None]:
        self._bound.add_file()
        if self._chunks is not None:
            self._chunks.add_file(ranged=part.ranged)
        field = decode(part.name)
        plain = self._plain or field in self._policy.plain_fields
        if plain:
            # Whatever the policy allows: the app stores it as it is, and may serve it.
            content = refuse_ciphertext(content, "a file that is not encrypted starts like an encrypted file")
        elif self._policy.ciphertext_uploads == "refuse":
            content = refuse_ciphertext(content, CIPHERTEXT)
        if part.filename is None:
            # Without a file name, frameworks read a part of file_fields as text.
            part = replace(part, filename=part.name, content_type=part.content_type or DEFAULT_TYPE)
        name = (relative if self._policy.keep_paths else normalise)(part.filename or "")
        filename = self._handed_on(name)
        header = self._header(part, filename)
        metadata = {
            "name": self._bound.sealed_name(decode(name), part.content_type),
            "type": part.content_type,
        }
        name = decode(filename)
        self._open = self._sealing.begin(part.content_type, metadata, field=field, name=name, plain=plain)
        try:
            yield from self._open.pieces(content, header)
        finally:
            self._open = None

    def _handed_on(self, name: str) -> str:
        """Return the name for the app: of a path, no component is too long, nor the whole."""
        longest = self._policy.max_filename
        if "/" not in name and len(name) * 4 <= longest:
            return name  # as most are
        sizes = [len(component.encode("utf-8")) for component in name.split("/")]
        if max(sizes) <= longest and sum(sizes) + len(sizes) - 1 <= max(longest, MAX_SEALED_NAME):
            return name
        return shortened(name.rpartition("/")[2], longest)


def _whole_openings(pieces: Iterable[Piece | None], boundary: bytes) -> Iterator[Piece | None]:
    """Yield the same bytes; join each part's header and the first bytes of its data.

    They form one atomic piece. If a part is shorter than those first bytes, the piece also holds
    the line of the next boundary. A read may end after such a line, so the header of the next part
    begins a piece of its own.
    """
    least = least_opening(boundary)
    # A header with the data after it so far; the number of bytes still missing.
    opening, missing = bytearray(), 0
    for piece in pieces:
        if piece is None:
            yield None
        elif piece.atomic:
            line, header = _after_boundary(bytes(piece.data), boundary)
            yield Piece(bytes(opening) + line, atomic=True)
            opening[:], missing = header, least
        elif not opening:
            yield piece
        else:
            opening += piece.data[:missing]
            if len(piece.data) < missing:
                missing -= len(piece.data)
                continue
            yield Piece(bytes(opening), atomic=True)
            yield Piece(memoryview(piece.data)[missing:])
            opening.clear()


def _after_boundary(data: bytes, boundary: bytes) -> tuple[bytes, bytes]:
    """Split a new header after its boundary line; nothing follows the last boundary."""
    end = data.index(boundary) + len(boundary) + len(b"\r\n")
    return (data, b"") if data[:end].endswith(b"--") else (data[:end], data[end:])


def _content(first: Event | None, events: Iterator[Event | None]) -> Iterator[memoryview | None]:
    """Yield the data of one part, and None whenever more input must be read."""
    for event in chain((first,), events):
        if isinstance(event, PartEnd):
            return
        yield event.data if isinstance(event, Data) else None
