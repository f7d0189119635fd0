"""A strict, sans-IO parser for ``multipart/form-data`` (RFC 7578, RFC 2046 section 5.1).

It takes bytes and yields events. Because the body is written anew, no parser behind the middleware
reads the client's bytes. So this one is strict only where its own reading could take a file for a
field, and leave it in plaintext, or could end a part at the wrong byte. It refuses line ends other
than CRLF, folded or repeated headers, white space before a colon, control characters, names that
are not UTF-8, and a boundary amid the bytes before the first boundary line or after the closing
one. Such bytes are else dropped, up to 8 KiB. Which part is a file is decided by
:mod:`securefs.middleware.disposition`.

The table of states::

    START ──"--boundary CRLF"──▶ HEADER ──empty line──▶ BODY ──"CRLF --boundary CRLF"──▶ HEADER …
      └─────"--boundary--"──────────────▶ EPILOGUE ◀──────"CRLF --boundary--"───────────┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from securefs.errors import LimitExceededError, Reason, SecureFSError
from securefs.middleware.disposition import MalformedDispositionError, parse_disposition
from securefs.middleware.media_type import type_of_field, type_of_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Data",
    "Event",
    "MalformedBodyError",
    "MultipartParser",
    "Part",
    "PartEnd",
]


class MalformedBodyError(SecureFSError):
    """Not every parser would read this body alike. The message says where it deviates."""

    reason = Reason.MALFORMED_MULTIPART


@dataclass(frozen=True, slots=True)
class Part:
    """The header of a part. The names are written as current browsers do: percent escapes stay.

    ``filename`` is None for a field, and ``content_type`` may be empty for one. ``size`` is the
    length in bytes of the part's delimiter line and header block, ``ranged`` whether there was a
    Content-Range in it.
    """

    name: str
    filename: str | None
    content_type: str
    size: int
    ranged: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a part's content, never empty. The view is valid until the next event is taken."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


Event = Part | Data | PartEnd

# field-line = field-name ":" OWS field-value OWS, without obs-fold, and of all tokens only such
# names as are in use. White space is stripped, not matched: if two repetitions can share it, the
# time to find no match grows with the square of the header.
_HEADER_LINE: Final = re.compile(rb"([A-Za-z0-9_\-]+):([\t\x20-\x7e\x80-\xff]*)")
MAX_AROUND: Final = 8 * 1024  # bytes that are dropped before the first boundary and after the last
_IDENTITY_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})  # RFC 2045 section 6.2
_QUOTED_PRINTABLE: Final = "quoted-printable"  # RFC 2045 section 6.7


class _State(Enum):
    START = auto()
    HEADER = auto()
    BODY = auto()
    EPILOGUE = auto()


@dataclass(frozen=True, slots=True)
class _Step:
    """The result of one step: events, the position reached, and whether it needs more bytes."""

    events: tuple[Event, ...]
    position: int
    starved: bool = False


class MultipartParser:
    """Turns the bytes of one body into events.

    :param boundary: the result of :func:`securefs.middleware.media_type.parse_boundary`.
    :param max_header: the most bytes of one part's header block.
    :param preamble: whether other bytes than line ends may precede the first boundary.
    """

    def __init__(self, boundary: bytes, max_header: int, *, preamble: bool = True) -> None:
        self._mark = b"--" + boundary
        self._delimiter = b"\r\n" + self._mark
        self._max_header = max_header
        # With a line end before it, the first delimiter is like the others.
        self._held = b"\r\n"
        self._state = _State.START
        self._quoted = False  # whether the part is in quoted-printable
        self._preamble = preamble
        self._ended = False  # whether the line of the closing boundary has ended
        self._dropped = 0  # bytes before the first boundary and after the last

    @property
    def held(self) -> int:
        """Bytes that were fed and are not yet part of an event."""
        return len(self._held)

    @property
    def complete(self) -> bool:
        """Whether the closing delimiter has arrived."""
        return self._state is _State.EPILOGUE

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes; yield events. Exhaust the iterator before the next call.

        :raises MalformedBodyError: the body deviates from the grammar.
        :raises LimitExceededError: a part's header is longer than allowed.
        """
        buffer = self._held + data if self._held else data
        self._held = b""
        position = 0
        while position < len(buffer):
            step = self._step(buffer, position)
            position = step.position
            yield from step.events
            if step.starved:
                self._held = buffer[position:]
                return

    def _step(self, buffer: bytes, position: int) -> _Step:
        if self._state is _State.BODY:
            return self._body(buffer, position)
        if self._state is _State.HEADER:
            return self._header(buffer, position)
        return (self._start if self._state is _State.START else self._epilogue)(buffer, position)

    def close(self) -> None:
        """End the body; raise :class:`MalformedBodyError` if it must not end here."""
        if not self.complete:
            raise MalformedBodyError("the body ends before its closing boundary (--boundary--)")

    def _start(self, buffer: bytes, start: int) -> _Step:
        """Drop what precedes the first delimiter (RFC 2046 section 5.1.1: preamble)."""
        end = buffer.find(self._mark, start)
        if end < 0:
            return self._drop(buffer, start)
        if not buffer.startswith(b"\r\n", max(start, end - 2)):
            # Some parsers find a boundary amid a line, or behind a bare LF.
            raise MalformedBodyError("the first boundary is not at the beginning of a line")
        self._count_dropped(buffer[start : end - 2])
        return self._behind_delimiter(buffer, end - 2)

    def _header(self, buffer: bytes, start: int) -> _Step:
        if buffer.startswith(b"\r\n", start):
            raise MalformedBodyError("a part has no Content-Disposition")
        end = buffer.find(b"\r\n\r\n", start)
        if (end if end >= 0 else len(buffer) - 3) - start > self._max_header:
            raise LimitExceededError(
                f"a part's header is longer than {self._max_header} bytes (max_part_header)"
            )
        if end < 0:
            return _Step((), start, starved=True)
        self._state = _State.BODY
        size = len(self._delimiter) + 2 + end + 4 - start
        headers = _parse_header_lines(buffer[start:end])
        part = _parse_header(headers, size)
        encoding = headers.get(b"content-transfer-encoding", "binary").lower()
        self._quoted = _is_quoted_printable(encoding, part)
        return _Step((part,), end + 4)

    def _body(self, buffer: bytes, start: int) -> _Step:
        end = buffer.find(self._delimiter, start)
        found = end >= 0
        if not found:
            # A delimiter holds one CR, its first byte: only the last CR in the buffer can begin an
            # incomplete delimiter.
            end = buffer.rfind(b"\r", max(start, len(buffer) - len(self._delimiter) + 1))
            if end < 0 or not self._delimiter.startswith(buffer[end:]):
                end = len(buffer)
        if self._quoted and buffer.find(b"=", start, end) >= 0:
            raise MalformedBodyError("a field has an '=' in quoted-printable, which some frameworks decode")
        content = (Data(memoryview(buffer)[start:end]),) if end > start else ()
        if not found:
            return _Step(content, end, starved=True)
        step = self._behind_delimiter(buffer, end)
        return (
            _Step(content, end, starved=True) if step.starved else _Step((*content, PartEnd()), step.position)
        )

    def _epilogue(self, buffer: bytes, start: int) -> _Step:
        """Drop what follows the line of the closing boundary (RFC 2046 section 5.1.1: epilogue)."""
        if not self._ended and buffer[start : start + 1] not in {b"\r", b"\n"}:
            raise MalformedBodyError("the closing boundary is followed by other bytes than a line end")
        self._ended = True
        if buffer.find(self._mark, start) >= 0:
            # Some parsers go on reading there.
            raise MalformedBodyError("a boundary follows the closing boundary")
        return self._drop(buffer, start)

    def _drop(self, buffer: bytes, start: int) -> _Step:
        """Drop what is neither a delimiter nor may be the beginning of one."""
        end = max(start, len(buffer) - len(self._delimiter) + 1)
        self._count_dropped(buffer[start:end])
        return _Step((), end, starved=True)

    def _count_dropped(self, data: bytes) -> None:
        # The new body is shorter by what is dropped, and its end is filled. Line ends are not
        # counted: they are what a filled body ends in.
        self._dropped += len(data.translate(None, b"\r\n"))
        if self._dropped and not self._preamble and self._state is _State.START:
            raise MalformedBodyError("the body does not begin with its boundary")
        if self._dropped > MAX_AROUND:
            raise MalformedBodyError(
                f"more than {MAX_AROUND} bytes precede the first boundary or follow the last: "
                "is it the boundary of the Content-Type?"
            )

    def _behind_delimiter(self, buffer: bytes, start: int) -> _Step:
        """Check the two bytes after the delimiter at ``start``; change state accordingly."""
        end = start + len(self._delimiter)
        tail = buffer[end : end + 2]
        if tail in {b"", b"\r", b"-"}:
            return _Step((), start, starved=True)
        if tail == b"\r\n":
            self._state = _State.HEADER
        elif tail == b"--":
            self._state = _State.EPILOGUE
        else:
            # White space, or a longer boundary that begins with this one: parsers disagree on both.
            raise MalformedBodyError("a boundary is followed by other bytes than a line end or two hyphens")
        return _Step((), end + 2)


def _parse_header_lines(block: bytes) -> dict[bytes, str]:
    """Return the headers in ``block`` by their name in lower case."""
    headers: dict[bytes, str] = {}
    for line in block.split(b"\r\n"):
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise MalformedBodyError("a part's header line is not 'name: value', or holds control characters")
        name = match[1].lower()
        if name in headers:
            raise MalformedBodyError("a part has the same header twice")
        try:
            headers[name] = match[2].strip(b" \t").decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedBodyError("a part's header is not UTF-8") from None
    return headers


def _parse_header(headers: dict[bytes, str], size: int) -> Part:
    if b"content-disposition" not in headers:
        raise MalformedBodyError("a part has no Content-Disposition")
    try:
        disposition = parse_disposition(headers[b"content-disposition"])
    except MalformedDispositionError as error:
        raise MalformedBodyError(str(error)) from None
    content_type = headers.get(b"content-type", "")
    if content_type.lower().startswith("multipart/"):
        raise MalformedBodyError("a part is itself multipart")
    content_type = (type_of_field if disposition.filename is None else type_of_file)(content_type)
    # In a well-formed type, a tab is white space around a semicolon.
    content_type = content_type.replace("\t", " ")
    return Part(disposition.name, disposition.filename, content_type, size, b"content-range" in headers)


def _is_quoted_printable(encoding: str, part: Part) -> bool:
    """Return whether a part is a field in quoted-printable; raise if some framework decodes it."""
    if encoding == _QUOTED_PRINTABLE and part.filename is None:
        return True
    if encoding not in _IDENTITY_ENCODINGS:
        raise MalformedBodyError("a part has a Content-Transfer-Encoding, which some frameworks decode")
    return False
