"""Chunked uploads: what browser widgets send if they cut a file into several requests.

Each request holds a piece, and the app joins the pieces. Behind the middleware each piece would
become an encrypted file of its own, and no reader opens what the app joins. So a piece is
recognised by what the widgets send beside it, and refused with a reason that names the remedy. The
widgets are Dropzone, Resumable.js, Flow.js, Fine Uploader and Plupload, those that send
Content-Range, such as jQuery File Upload, and those that send Upload-Offset, such as tus (Uppy) and
FilePond. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from securefs.errors import Reason
from securefs.middleware.multipart import MalformedBodyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ChunkWatch", "ChunkedUploadError", "refuse_resumed"]

# Fields that a widget sends beside a piece: any of these sets.
_MARKS: Final = tuple(
    frozenset(names.split())
    for names in (
        "dzchunkindex",
        "dzchunkbyteoffset",
        "resumableChunkNumber",
        "flowChunkNumber",
        "qqpartindex",
        "chunk chunks",
    )
)
# Fields with the number of pieces. Some widgets send all of these fields beside a whole file, too.
_TOTALS: Final = frozenset(
    {"dztotalchunkcount", "resumableTotalChunks", "flowTotalChunks", "qqtotalparts", "chunks"}
)
_NAMES: Final = frozenset().union(*_MARKS)
# Types of a body that is a piece: tus 1.0 ("PATCH"), and draft-ietf-httpbis-resumable-upload.
_TYPES: Final = frozenset({"application/offset+octet-stream", "application/partial-upload"})
_MAX_PAIRS: Final = 1000  # pairs of a query string


class ChunkedUploadError(MalformedBodyError):
    """A request holds a piece of a file. The message says how it shows, and names the remedy."""

    reason = Reason.CHUNKED_UPLOAD

    def __init__(self, sign: str) -> None:
        super().__init__(
            f"a piece of a file ({sign}): each piece would be encrypted by itself, and what the app joins "
            'would open for nobody. Turn chunking off in the widget, or set Policy(chunked_uploads="allow"), SECUREFS_CHUNKED_UPLOADS, '
            "if the app decrypts the pieces before it joins them"
        )


def refuse_resumed(environ: Mapping[str, object]) -> None:
    """Raise for a body that the headers call a piece: of tus, or of a widget that does as tus does.

    It is neither a form nor a declared upload. Without this, it would pass without encryption.

    :param environ: of a request with a body.
    :raises ChunkedUploadError: it is one.
    """
    media_type = str(environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
    if "HTTP_UPLOAD_OFFSET" in environ:
        raise ChunkedUploadError("an Upload-Offset")
    if media_type in _TYPES:
        raise ChunkedUploadError(f"of the type {media_type}")


class ChunkWatch:
    """Looks for the marks of a piece in one request. A piece that is the only one is a whole file.

    :param content_range: whether the request has a Content-Range.
    """

    def __init__(self, *, content_range: bool) -> None:
        self._ranged = content_range
        self._has_file = False
        self._only_one = False
        self._seen: set[str] = set()

    def add_file(self, *, ranged: bool = False) -> None:
        """Count a file, ``ranged`` with a Content-Range; raise if it is a piece of one.

        :raises ChunkedUploadError: it is.
        """
        self._has_file = True
        self._ranged = self._ranged or ranged
        self._check()

    def add_field(self, name: str) -> None:
        """Count a field."""
        if name in _NAMES:
            self._seen.add(name)

    def add_value(self, name: str, value: bytes) -> None:
        """Take the first bytes of a field's value, two at least if there are two."""
        if name in _TOTALS:
            self._only_one = value == b"1"

    def finish(self) -> None:
        """Take the end of the request; raise if a file in it is a piece after all.

        The number of pieces may come last, so what is behind a file is judged here.

        :raises ChunkedUploadError: it is.
        """
        self._check()

    def add_query(self, text: str) -> None:
        """Count the names in a query string: widgets put them there if the body is the piece."""
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PAIRS)
        except ValueError:
            return
        for name, value in pairs:
            self.add_field(name)
            self.add_value(name, value.encode("utf-8"))

    def _check(self) -> None:
        if not self._has_file:
            return
        if self._ranged:
            raise ChunkedUploadError("a Content-Range")
        if self._only_one:
            return
        for mark in _MARKS:
            if mark <= self._seen:
                raise ChunkedUploadError(f"beside {' and '.join(sorted(mark))}")
