"""The underlying file of an encrypted one: what it must be, and exact reads at absolute offsets.

Guarantees: a read is short only at the file's end. Refuses, with :class:`SourceError`: a file that
returns text, None, or more bytes than requested, and one that can't tell its length. An OSError of
the file passes unchanged.
"""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from securefs.errors import SecureFSError, SourceError
from securefs.primitives import view_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SeekableFile", "Source", "as_a_file"]

_FILES: Final = (io.BufferedReader, io.BufferedRandom, io.BytesIO)


class SeekableFile(Protocol):
    """The interface of a source: a binary file that can seek."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, fewer only at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> Any:
        """Move to a position."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...


class Source:
    """Exact reads of the underlying file at absolute offsets.

    A read is short only if the file ends there. Anything that a binary file must not do (return
    text, None or more bytes than requested) is a :class:`SourceError`.
    """

    def __init__(self, file: SeekableFile) -> None:
        for method in ("read", "seek", "tell"):
            if not callable(getattr(file, method, None)):
                raise SourceError(
                    f"the file must be a path (str or os.PathLike) or a binary file that can seek, not {type(file).__name__}"
                )
        self._file = file
        # Reading into a reused buffer costs half as much. This applies to Python's own file types
        # only: a subclass may have another read().
        own = type(file) in _FILES
        self._readinto = cast("io.BytesIO", file).readinto if own else self._read_and_copy
        with as_a_file():
            file.seek(0, os.SEEK_END)
            length: object = file.tell()
        if not isinstance(length, int) or length < 0:
            raise SourceError(f"the file says that its length is {length!r}")
        self.length = length

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` with the bytes from ``offset`` on; return how many there were."""
        done = 0
        with as_a_file():
            self._file.seek(offset)
            while done < len(view):
                count = self._readinto(view[done:])
                if count is None:
                    raise SourceError("the file has nothing to read yet: it must not be a non-blocking one")
                if not count:
                    break
                done += count
        return done

    def _read_and_copy(self, view: memoryview) -> int:
        data = view_of(self._file.read(len(view)))
        if len(data) > len(view):
            raise SourceError(f"the file gave {len(data)} bytes where {len(view)} were asked for")
        view[: len(data)] = data
        return len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset`` on, fewer at the end."""
        view = memoryview(bytearray(size))
        return bytes(view[: self.read_into(offset, view)])


@contextmanager
def as_a_file() -> Iterator[None]:
    """Turn errors of a closed or non-binary file into :class:`SourceError`; pass OSError on."""
    try:
        yield
    except (OSError, SecureFSError, MemoryError):
        raise
    except Exception as error:
        raise SourceError(f"this can't be read as a binary file: {error!r}") from error
