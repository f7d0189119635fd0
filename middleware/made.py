"""The stored form of a file that the app itself made, as a stream: :class:`Sealed`.

Guarantees: nothing is read, sealed or recorded before the first byte is asked for, memory use does
not depend on the file's size, and a target that is named by its path appears whole or not at all.
"""

from __future__ import annotations

import io
import os
from typing import IO, TYPE_CHECKING, Protocol

from securefs.disk import write_atomically
from securefs.secrecy import HoldsSecrets, clears_frames

if TYPE_CHECKING:
    from collections.abc import Generator

    from _typeshed import WriteableBuffer

    from securefs.middleware.evidence import Upload
    from securefs.primitives import Bytes

__all__ = ["BeingSealed", "Sealed"]


class BeingSealed(Protocol):
    """One file on its way: :class:`securefs.middleware.sealing.SealedFile`.

    :ivar taken: bytes of plaintext so far.
    """

    taken: int

    @property
    def upload(self) -> Upload:
        """What is known of it."""
        ...

    def stored_length(self, size: int) -> int:
        """Return the stored size in bytes for ``size`` bytes of plaintext."""
        ...


class Sealed(HoldsSecrets, io.RawIOBase):
    """The stored form of a file, as a readable binary file. It can be read once.

    Iteration gives pieces of some 128 KiB; there are no lines. It is not seekable, but ``seek(0)``
    is allowed until something was read. A file that is closed before its end is recorded as a
    failure, and what was read of it never opens.

    :ivar object_id: the file's id, 64 hex digits; "" for Format 1.
    :ivar key_id: the id (hex) of the key that seals it.
    """

    def __init__(
        self, file: BeingSealed, pieces: Generator[Bytes, None, None], owned: IO[bytes] | None = None
    ) -> None:
        super().__init__()
        self.object_id, self.key_id = file.upload.object_id, file.upload.key_id
        self._file = file
        self._pieces = pieces
        self._owned = owned
        self._rest = memoryview(b"")
        self._position = 0

    @property
    def size(self) -> int:
        """Bytes of plaintext that were sealed so far: all of them behind the last read."""
        return self._file.taken

    def stored_length(self, size: int) -> int:
        """Return the size in bytes of the stored file for ``size`` bytes of plaintext."""
        return self._file.stored_length(size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Return to the position where the file is already; go to no other one.

        :raises io.UnsupportedOperation: it is another position.
        """
        self._check_open()
        if whence not in {os.SEEK_SET, os.SEEK_CUR} or offset != (0 if whence else self._position):
            raise io.UnsupportedOperation(
                "a file that is being sealed can be read once, from its beginning: seal it again"
            )
        return self._position

    @clears_frames
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Copy stored bytes into ``buffer``, at least one before the end; return how many.

        :raises SourceError, OSError: the plaintext can't be read.
        :raises FormatError: it starts as an encrypted file does, and the policy refuses that.
        :raises JournalError: it can't be recorded.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        data, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    @clears_frames
    def __next__(self) -> bytes:
        """Return the next piece."""
        self._check_open()
        data, self._rest = self._rest, memoryview(b"")
        while not data:
            data = memoryview(next(self._pieces))
        self._position += len(data)
        return bytes(data)

    @clears_frames
    def save(self, target: str | os.PathLike[str] | IO[bytes], *, overwrite: bool = False) -> int:
        """Write the whole file; return the plaintext's size in bytes.

        :param target: a path, at which the file appears whole or not at all (mode 0600), or a
            binary file that can be written.
        :param overwrite: replace what is at the path.
        :raises ConfigurationError: something is at the path, and ``overwrite`` is false.
        :raises OSError: it can't be written. And as :meth:`readinto`.
        """
        if isinstance(target, (str, os.PathLike)):
            with write_atomically(target, overwrite=overwrite) as file:
                self._write_to(file)
        else:
            self._write_to(target)
        return self.size

    def _write_to(self, target: IO[bytes]) -> None:
        for piece in self:
            target.write(piece)

    def close(self) -> None:
        """Close what is sealed, if its path was given; record a failure if its end was not read."""
        if not self.closed:
            self._rest = memoryview(b"")
            self._pieces.close()
            if self._owned is not None:
                self._owned.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
