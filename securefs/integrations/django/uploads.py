"""One upload as Django shows it: :class:`SealedUpload`.

Guarantees: reading gives verified plaintext of what this request sealed, ``chunks()`` gives what is
to be stored, and memory use does not depend on the file's size. Refuses: to write into an upload
that is too long to be held in memory, because its plaintext must not touch a disk.
"""

from __future__ import annotations

import io
import mimetypes
import os
from typing import IO, TYPE_CHECKING, Any, Final

from django.core.files.uploadedfile import UploadedFile

from securefs.errors import FormatError, Reason
from securefs.middleware.media_type import is_media_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securefs.middleware import Exchange, Sealed, Upload

__all__ = ["COPY_SIZE", "SealedUpload", "media_type_of", "shown"]

COPY_SIZE: Final = 128 * 1024  # bytes of ciphertext read at a time
MAX_REWRITTEN: Final = 64 * 1024 * 1024  # bytes of an upload that is changed in its place


class SealedUpload(UploadedFile):
    """An upload: ``read()`` and ``seek()`` are of the plaintext, ``chunks()`` are the ciphertext.

    It is opened, and recorded as opened, when something of it is first read. A sanitizer may write
    into it, or replace ``file``: what is stored then is sealed anew. It has no path, because a
    library would read ciphertext there.

    :ivar upload: what is known of it: object id, size in bytes, key id.
    """

    def __init__(self, sealed: UploadedFile, upload: Upload, exchange: Exchange) -> None:
        self.upload, self.sealed = upload, sealed
        self._exchange = exchange
        self._plain: Any = None
        self._rewritten = False
        extra = sealed.content_type_extra
        super().__init__(None, sealed.name, sealed.content_type, None, sealed.charset, extra)
        self.field_name = getattr(sealed, "field_name", None)
        self._rewritten = False

    @property
    def file(self) -> Any:
        """The plaintext, as a binary file that can seek.

        :raises IntegrityError: the upload was changed meanwhile. :raises JournalError: it can't be
            recorded.
        """
        if self._plain is None:
            self._plain = self._exchange.open(self.sealed.file)
        return self._plain

    @file.setter
    def file(self, replacement: IO[bytes] | None) -> None:
        self._plain, self._rewritten = replacement, True

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        if not self._rewritten:
            return self.upload.size
        here = self.file.tell()
        end: int = self.file.seek(0, os.SEEK_END)
        self.file.seek(here)
        return end

    @size.setter
    def size(self, _given: object) -> None:
        """Ignore what Django sets: it counted ciphertext."""

    @property
    def is_rewritten(self) -> bool:
        """Whether something was written into it, so that what was sealed is not what it is."""
        return self._rewritten

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield what is to be stored: the whole ciphertext, wherever reading stands."""
        if self._rewritten:
            with self.seal() as made:
                yield from made
            return
        self.sealed.file.seek(0)
        while data := self.sealed.file.read(chunk_size or COPY_SIZE):
            yield data

    def multiple_chunks(self, chunk_size: int | None = None) -> bool:  # noqa: ARG002  # Django's
        """Return True: who stores it without asking for chunks would store plaintext."""
        return True

    def seal(self) -> Sealed:
        """Return the stored form of what was written into it."""
        self.file.seek(0)
        return self._exchange.seal(self.file, name=self.name or "", content_type=media_type_of(self.name))

    def plain_chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the plaintext."""
        self.file.seek(0)
        while data := self.file.read(chunk_size or COPY_SIZE):
            yield data

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines of the plaintext."""
        self.file.seek(0)
        return iter(self.file)

    def write(self, data: bytes) -> int:
        """Write plaintext where reading stands; it is held in memory."""
        self._copy(self.upload.size)
        count: int = self.file.write(data)
        return count

    def writable(self) -> bool:
        """Return True."""
        return True

    def truncate(self, size: int | None = None) -> int:
        """Cut the plaintext after ``size`` bytes, where reading stands unless it is given."""
        self._copy(self.file.tell() if size is None else size)
        result: int = self.file.truncate(size)
        return result

    def _copy(self, wanted: int) -> None:
        """Hold the first ``wanted`` bytes of the plaintext in memory from now on."""
        if self._rewritten:
            return
        if wanted > MAX_REWRITTEN:
            raise io.UnsupportedOperation(
                f"{self.name!a} is too long to be changed in its place: truncate it first, or replace its file"
            )
        opened = self.file
        here = opened.tell()
        opened.seek(0)
        self.file = io.BytesIO(opened.read(wanted))
        self.file.seek(0, os.SEEK_END)
        self.file.seek(here)
        opened.close()

    def open(self, mode: str | None = None) -> SealedUpload:
        """Return to the beginning.

        :raises ValueError: it is closed, or the mode is another one than "rb".
        """
        if self.closed or mode not in {None, "r", "rb"}:
            raise ValueError("an upload can be read while it is open, as bytes")
        if self._plain is not None:
            self.file.seek(0)
        return self

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(self.sealed.file.closed)

    def close(self) -> None:
        """Close the plaintext and the ciphertext."""
        if self._plain is not None:
            self._plain.close()
        self.sealed.close()


def shown(uploaded: UploadedFile, exchange: Exchange) -> UploadedFile:
    """Return an upload as the app is to see it.

    :raises FormatError: it is neither what this request sealed nor what is declared plain.
    """
    upload = exchange.upload_of(uploaded.file)
    uploaded.file.seek(0)
    if upload is not None:
        return SealedUpload(uploaded, upload, exchange)
    # Plain files (plain_fields, plain_uploads) are known by their sizes: parsers spell names in
    # different ways.
    if uploaded.size in {other.size for other in exchange.uploads if not other.encrypted}:
        return uploaded
    raise FormatError(
        f"the upload {uploaded.name!a} is not what the middleware encrypted: something between SecureFS and Django changed the "
        "request body",
        Reason.NOT_ENCRYPTED,
    )


def media_type_of(name: str | None) -> str:
    """Return the media type that a name stands for, "" if it stands for none."""
    found = mimetypes.guess_type(name or "")[0] or ""
    return found if is_media_type(found) else ""
