"""The part of a file that is sent: all of it, one range or several (RFC 9110 section 14).

Several ranges are sent as ``multipart/byteranges``. No I/O: :class:`Selection` plans which bytes
are sent, and what the headers say of them. It serves the plaintext of encrypted files and also the
app's plain files, because the app never sees a Range header.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Final

from securefs.middleware.headers import without
from securefs.middleware.ranges import UnsatisfiableRangeError, if_range_holds, parse_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from securefs.middleware.headers import Headers
    from securefs.middleware.response import Response

__all__ = ["KEPT", "PARTIAL", "UNSATISFIABLE", "Selection", "content_range", "requested"]

KEPT: Final = 1024 * 1024  # bytes that may wait in memory for the status line
PARTIAL: Final = "206 Partial Content"
UNSATISFIABLE: Final = "416 Range Not Satisfiable"


def requested(
    response: Response, asked: Mapping[str, Any], size: int, limit: int, tag: str | None = None
) -> list[range] | None:
    """Return the spans of ``size`` bytes that the request asks for; None for all.

    :param response: the app's; only one with status 200 may be sent in part.
    :param asked: the server's environ, with the headers that the app never saw.
    :param limit: the most ranges that may be requested.
    :param tag: the entity tag, if the app gives none.
    :raises UnsatisfiableRangeError: none of them lies within the file.
    """
    header = asked.get("HTTP_RANGE")
    if header is None or asked.get("REQUEST_METHOD") != "GET" or not response.status.startswith("200"):
        return None
    validators = response.header("etag") or tag, response.header("last-modified")
    if not if_range_holds(asked.get("HTTP_IF_RANGE"), *validators):
        return None
    return parse_ranges(header, size, limit)


class Selection:
    """The bytes that are sent of one file of ``size`` bytes.

    :param forwards: the file is read once, so ranges come in its order.
    :ivar status: the status line that replaces the app's, None to keep the app's.
    :ivar plan: spans of the file, and bytes between them, in the order in which they are sent.
    :ivar spans: the spans of the file that are sent.
    """

    def __init__(self, size: int, *, forwards: bool = False) -> None:
        self._forwards = forwards
        self.status: str | None = None
        self.spans = [range(size)]
        self.plan: list[range | bytes] = [range(size)]
        self._size = size
        self._added: Headers = []
        self._media_type: str | None = None

    @property
    def length(self) -> int:
        """The number of bytes still to be sent."""
        return sum(map(len, self.plan))

    def choose(self, response: Response, asked: Mapping[str, Any], limit: int, types: list[str]) -> None:
        """Choose the ranges that the request asks for: see :func:`requested`.

        :param types: the file's Content-Type, if any.
        """
        if not self._size:
            # An empty file is sent as it is, as other servers do: no status says less of it.
            return
        try:
            spans = requested(response, asked, self._size, limit)
        except UnsatisfiableRangeError:
            self.status, self.plan, self.spans = UNSATISFIABLE, [], []
            self._added = [("Content-Range", content_range(range(0), self._size))]
            return
        if spans is None:
            return
        self.status, self.spans = PARTIAL, spans
        if len(spans) == 1:
            self.plan = [spans[0]]
            self._added = [("Content-Range", content_range(spans[0], self._size))]
        else:
            self._plan_parts(spans, types)

    def _plan_parts(self, spans: list[range], types: list[str]) -> None:
        """Plan a ``multipart/byteranges`` response (RFC 9110 section 14.6).

        Its parts come in the order of the request, as the RFC recommends. If they are too long to
        be kept, they come in the order of the file. In any other order, a client could have a
        segment that several ranges share read once for each of them.
        """
        boundary = token_hex(16)
        parts: list[tuple[bytes, range]] = []
        for span in spans:
            lines = ["", f"--{boundary}", *(f"Content-Type: {media_type}" for media_type in types)]
            lines += [f"Content-Range: {content_range(span, self._size)}", "", ""]
            parts.append(("\r\n".join(lines).encode("latin-1"), span))
        end = f"\r\n--{boundary}--\r\n".encode("ascii")
        length = sum(len(head) + len(span) for head, span in parts) + len(end)
        if self._forwards or length > KEPT:
            parts.sort(key=lambda part: part[1].start)
        self.plan = [item for part in parts for item in part]
        self.plan.append(end)
        self._media_type = f"multipart/byteranges; boundary={boundary}"

    def headers(self, headers: Headers) -> Headers:
        """Return ``headers``, which have no length or range yet, with those of the selection."""
        if self._media_type is not None:
            headers = without(headers, {"content-type"})
            headers.append(("Content-Type", self._media_type))
        return [*headers, *self._added, ("Accept-Ranges", "bytes"), ("Content-Length", str(self.length))]

    def take(self, size: int) -> range | bytes:
        """Take the next item off the plan.

        It is up to ``size`` bytes of the file, or all of the bytes between two spans.
        """
        item = self.plan.pop(0)
        if isinstance(item, bytes):
            return item
        if len(item) > size:
            self.plan.insert(0, item[size:])
        return item[:size]


def content_range(span: range, size: int | None) -> str:
    """Return the value of ``Content-Range``; an empty span stands for no bytes.

    :param size: the file's size in bytes, None if it is unknown.
    """
    where = f"{span.start}-{span.stop - 1}" if span else "*"
    return f"bytes {where}/{'*' if size is None else size}"
