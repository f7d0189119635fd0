"""Storages around any other storage: :class:`SealedStorage` and :class:`PlainStorage`.

Guarantees: what a sealed storage keeps is ciphertext, whoever gave it; what it opens was verified,
and the journal has it. A plain storage keeps plaintext, and the journal has that. Refuses: to write
a file in pieces, and to give the path of a file, where an app would find ciphertext.
"""

from __future__ import annotations

import io
import os
from contextlib import closing
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage
from django.utils.deconstruct import deconstructible
from django.utils.module_loading import import_string

from securefs.integrations.django.config import current, means, vault
from securefs.integrations.django.uploads import COPY_SIZE, SealedUpload, media_type_of
from securefs.middleware.evidence import Evidence
from securefs.middleware.servers import beneath

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from securefs.middleware import Sealed
    from securefs.reader import EncryptedFile

__all__ = ["PlainStorage", "SealedStorage"]

_LOCAL: Final = "django.core.files.storage.FileSystemStorage"


class _Around(Storage):
    """A storage that names, lists and deletes as another one does.

    :param storage: the other one, as in ``STORAGES``: ``{"BACKEND": …, "OPTIONS": {…}}``. Django's
        ``FileSystemStorage`` unless given.
    :param options: those of ``FileSystemStorage``, such as ``location`` and ``base_url``.
    """

    def __init__(self, storage: Mapping[str, Any] | None = None, **options: Any) -> None:
        described = storage or {"BACKEND": _LOCAL, "OPTIONS": options}
        if storage is not None and options:
            raise TypeError(f"{min(options)!a} belongs into the OPTIONS of storage")
        self.inner = import_string(described["BACKEND"])(**described.get("OPTIONS", {}))

    @property
    def folder(self) -> str | None:
        """The folder of its files; None if they are in none, as in an object store."""
        # Storages in memory have a path, too, and nothing is there.
        return str(self.inner.location) if isinstance(self.inner, FileSystemStorage) else None

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def exists(self, name: str) -> bool:
        return bool(self.inner.exists(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        found: tuple[list[str], list[str]] = self.inner.listdir(path)
        return found

    def url(self, name: str) -> str:
        return str(self.inner.url(name))

    @property
    def base_url(self) -> str | None:
        """Where the other storage says that its files are served."""
        found: str | None = getattr(self.inner, "base_url", None)
        return found

    def get_accessed_time(self, name: str) -> datetime:
        found: datetime = self.inner.get_accessed_time(name)
        return found

    def get_created_time(self, name: str) -> datetime:
        found: datetime = self.inner.get_created_time(name)
        return found

    def get_modified_time(self, name: str) -> datetime:
        found: datetime = self.inner.get_modified_time(name)
        return found

    def get_valid_name(self, name: str) -> str:
        return str(self.inner.get_valid_name(name))

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return str(self.inner.get_available_name(name, max_length=max_length))

    def generate_filename(self, filename: str) -> str:
        return str(self.inner.generate_filename(filename))


@deconstructible(path="securefs.integrations.django.SealedStorage")
class SealedStorage(_Around):
    """A storage whose every file is ciphertext; ``open()`` gives verified plaintext.

    What this request sealed is stored as it is. Everything else, such as a thumbnail, is sealed on
    its way. Handed to a ``FileResponse``, what ``open()`` returns is served by the middleware:
    verified first, in ranges, recorded.
    """

    @property
    def store(self) -> str | None:
        """The folder that must be a declared store; None if its files are in no folder."""
        return self.folder

    def _open(self, name: str, mode: str = "rb") -> File:
        if set(mode) - set("rbt"):
            raise ValueError(f"{name!a} is sealed, and is written whole: use save()")
        opened = self._opened(name)
        # Exactly Django's class: the middleware knows what it gives.
        return File(opened if "b" in mode else io.TextIOWrapper(opened, "utf-8"), name)

    def _opened(self, name: str) -> EncryptedFile:
        exchange = current()
        if self.folder is not None:
            path = self.inner.path(name)
            return vault().open(path) if exchange is None else exchange.open(path)
        raw = self.inner.open(name, "rb")
        try:
            # The project's settings vouch for it: no folder holds it.
            opened = (exchange or vault()).open(raw, anywhere=True)
        except BaseException:
            # On any exception: nobody else has it.
            raw.close()
            raise
        opened.keep(raw)
        return opened

    def size(self, name: str) -> int:
        """Return the size of the plaintext in bytes. The file is opened for that."""
        with self.open(name) as file:
            return int(file.size)

    def _save(self, name: str, content: Any) -> str:
        raw = _sealed_here(content)
        if raw is not None:
            return str(self.inner.save(name, _Stored(raw, name)))
        with sealed(content, name) as made:
            return str(self.inner.save(name, _Stored(made, name, _stored_length(made, content))))


@deconstructible(path="securefs.integrations.django.PlainStorage")
class PlainStorage(_Around):
    """A storage for files that are deliberately not encrypted, such as public logos.

    Each that is saved is in the journal as ``file.plain``, before its first byte and at its end.
    Its folder must not be in a store, whose files are ciphertext.
    """

    def _open(self, name: str, mode: str = "rb") -> File:
        return self.inner.open(name, mode)

    def size(self, name: str) -> int:
        """Return the size in bytes."""
        return int(self.inner.size(name))

    def path(self, name: str) -> str:
        """Return the path, as the other storage does."""
        return str(self.inner.path(name))

    def _save(self, name: str, content: Any) -> str:
        evidence = current() or Evidence(means().journal)
        about = {"name": PurePosixPath(name).name}
        evidence.record("file.plain", outcome="started", about=about)
        source = _Pieces(_plain_pieces(content))
        try:
            saved = str(self.inner.save(name, _Stored(source, name)))
        except BaseException:
            evidence.record("file.plain", outcome="failure", about={**about, "size": source.given})
            raise
        evidence.record("file.plain", about={**about, "size": source.given})
        return saved


def sealed(content: Any, name: str) -> Sealed:
    """Return the stored form of what the app gave, such as a thumbnail."""
    return (current() or vault()).seal(
        _Pieces(_pieces_of(content)), name=PurePosixPath(name).name, content_type=media_type_of(name)
    )


def _sealed_here(content: Any) -> Any:
    """Return the ciphertext of an upload of this request, as a file; None if this is none.

    Also of a copy that an app made of what ``chunks()`` gave: all of it is verified.
    """
    if (upload := _upload_in(content)) is not None:
        return None if upload.is_rewritten else upload.sealed.file
    exchange = current()
    if exchange is None or not exchange.own or not _is_binary(content):
        return None
    known = exchange.upload_of(content)
    content.seek(0)
    if known is None:
        return None
    with exchange.open(content) as opened:
        opened.check()
    return content


def _upload_in(content: Any) -> SealedUpload | None:
    """Return the upload whose bytes a file gives."""
    while content is not None and not isinstance(content, SealedUpload):
        content = beneath(content)
    return content


def _pieces_of(content: Any) -> Iterator[bytes | str]:
    """Return the plaintext in pieces: those of an upload are its ciphertext."""
    upload = _upload_in(content)
    pieces: Iterator[bytes | str] = content.chunks() if upload is None else upload.plain_chunks()
    return pieces


def _is_binary(content: Any) -> bool:
    try:
        content.seek(0)
        return isinstance(content.read(0), bytes)
    except (AttributeError, OSError, ValueError):
        return False


def _plain_pieces(content: Any) -> Iterator[bytes | str]:
    copy = _sealed_here(content)
    exchange = current()
    if copy is None or exchange is None or _upload_in(content) is not None:
        yield from _pieces_of(content)
        return
    with closing(exchange.open(copy)) as opened:
        while data := opened.read(COPY_SIZE):
            yield data


def _stored_length(made: Sealed, content: Any) -> int | None:
    try:
        return made.stored_length(int(content.size))
    except (AttributeError, OSError, TypeError, ValueError):
        return None


class _Pieces:
    """Pieces as a file to read from, once.

    :ivar given: bytes that were read so far.
    """

    def __init__(self, pieces: Iterator[bytes | str]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self.given = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most ``size``; all of them if it is negative."""
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_SIZE), b""))
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece.encode() if isinstance(piece, str) else piece)
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        self.given += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Stay at the beginning, where storages go before they read."""
        if self.given or offset or whence != os.SEEK_SET:
            raise io.UnsupportedOperation("it can be read once, from its beginning")
        return 0

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        return self.given


class _Stored(File):
    """What a storage is to keep, as it is: it may be read once."""

    def __init__(self, source: Any, name: str, size: int | None = None) -> None:
        super().__init__(source, name)
        if size is not None:
            self.size = size

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        self.file.seek(0)
        while data := self.file.read(chunk_size or COPY_SIZE):
            yield data

    def multiple_chunks(self, chunk_size: int | None = None) -> bool:  # noqa: ARG002  # Django's
        return True

    def close(self) -> None:
        """Leave it open: who made it closes it."""
