"""The files that the app hands to the server: ``wsgi.file_wrapper`` (PEP 3333).

A file that is handed over is known from there on, also behind what the app or a reporter of errors
puts around it: :class:`FileWrapper` notes the first bytes that are drawn of it, and asks the file
where it is stored while it is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from securefs.errors import FormatError
from securefs.middleware.servers import beneath
from securefs.primitives import view_of
from securefs.reader import EncryptedFile
from securefs.source import as_a_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.middleware.places import Places
    from securefs.source import SeekableFile

__all__ = ["FileWrapper", "as_bytes", "opened_by_app"]


class FileWrapper:
    """``wsgi.file_wrapper`` as the app sees it.

    It is a separate class, so that no server recognises its own wrapper by isinstance and sends the
    file's stored bytes with ``sendfile``.

    :param places: what is declared; None: nothing.
    :param on_stored: a method that is called before the first bytes of a file in a store are drawn.
        It may refuse them.
    :ivar first: the first chunk that was drawn, None before.
    :ivar from_start: whether that is the beginning of a file that can seek.
    """

    def __init__(
        self,
        file: Any,
        block_size: int = 8192,
        places: Places | None = None,
        on_stored: Callable[[], None] | None = None,
    ) -> None:
        self.file = file
        self.block_size = block_size
        self.first: bytes | None = None
        self.from_start = False
        self._places = places
        # Weak: a file that knows its response, which knows the file, would be freed later than it.
        self._on_stored = None if on_stored is None else WeakMethod(on_stored)
        self._stored: bool | FormatError | None = None
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.first is None:
            self.from_start = self.seekable_file() is not None
            # Behind the last byte, what draws may have closed the file.
            if self._look() is not False and (refuse := self._on_stored and self._on_stored()):
                refuse()
        with as_a_file():
            # A file with nothing to read yet returns None: it is not at its end.
            data = as_bytes(self.file.read(self.block_size))
        if self.first is None:
            self.first = data
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

    def is_stored(self) -> bool:
        """Return whether the file is in a store.

        :raises FormatError: it is there, and must not be: see :meth:`Places.holds`.
        """
        stored = self._look()
        if isinstance(stored, FormatError):
            raise stored
        return stored

    def _look(self) -> bool | FormatError:
        if self._stored is None:
            try:
                places = self._places
                self._stored = places is not None and places.has_stores and places.holds(self.file)
            except FormatError as error:
                self._stored = error
        return self._stored


def opened_by_app(file: object) -> EncryptedFile | None:
    """Return what the app opened with :func:`securefs.open_encrypted`, if ``file`` gives its bytes.

    They are verified plaintext, whatever they look like.
    """
    while not isinstance(file, EncryptedFile):
        file = beneath(file)
        if file is None:
            return None
    return file


def as_bytes(chunk: object) -> bytes:
    """Return a chunk of a body as bytes; raise :class:`SourceError` if it is none."""
    return chunk if isinstance(chunk, bytes) else bytes(view_of(chunk))
