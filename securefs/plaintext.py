"""Verified plaintext as a raw file, whatever the format under it.

:class:`Plaintext` keeps a position and one run of blocks. A subclass returns the verified plaintext
of a run, and says how large the file and a block are. So the rules of reading are here once: what
reaches a buffer of the caller's was verified before, a failed run leaves nothing behind, and a
ciphertext that comes out of an encrypted file is noted.
"""

from __future__ import annotations

import io
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.errors import SecureFSError
from securefs.header import MAGIC, PREAMBLE_SIZE, claimed_object_id
from securefs.secrecy import HoldsSecrets, clears_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

__all__ = ["READ_SIZE", "Plaintext", "forget_nested", "nested_ids"]

# Bytes of ciphertext read at a time: 4 segments of suite 1, 16 of suite 2. Four times as much made
# decryption three times slower, because the kernel supplies buffers of that size anew, page by
# page, at every read.
READ_SIZE: Final = 262_400
# The object ids of ciphertexts that were read out of encrypted files, in this thread or task.
_NESTED: ContextVar[tuple[str, ...]] = ContextVar("securefs_nested", default=())
MAX_NESTED: Final = 64


def nested_ids() -> tuple[str, ...]:
    """Return the object ids of ciphertexts that were read as plaintext, the last 64 of them.

    Somebody encrypted a ciphertext. Whoever decrypts it a second time makes a decryption oracle.
    """
    return _NESTED.get()


def forget_nested() -> None:
    """Forget what :func:`nested_ids` returns."""
    if _NESTED.get():
        _NESTED.set(())


def _note_nested(plaintext: memoryview) -> None:
    """Note the object id of a ciphertext, if ``plaintext``, the first of a file, is one."""
    start = bytes(plaintext[:PREAMBLE_SIZE])
    object_id = claimed_object_id(start) if start.startswith(MAGIC) else None
    if object_id is not None and object_id not in _NESTED.get():
        _NESTED.set((*_NESTED.get(), object_id)[-MAX_NESTED:])


class Plaintext(HoldsSecrets, io.RawIOBase):
    """The plaintext of an encrypted file under :class:`securefs.EncryptedFile`, which buffers it.

    It holds the plaintext of one run of blocks and of the last block.
    """

    object_id: str = ""
    key_id: str = ""
    format: int = 0
    suite: str = ""
    size: int = 0
    block_size: int = 1
    passed_over: tuple[tuple[int, str], ...] = ()
    owned: BinaryIO | None = None
    on_failure: Callable[[SecureFSError | OSError], object] | None = None
    # Python's buffer asks for it at each line; as a property it took a third of a line's time.
    closed: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.metadata: dict[str, object] = {}
        self._position = 0
        # The offset in the plaintext at which a run of blocks starts, and the plaintext of the run.
        self._cached: tuple[int, memoryview] = (0, memoryview(b""))
        self._final = self._cached  # the same of the last block alone
        # A run's plaintext is in this buffer, which is reused, because the kernel supplies fresh
        # ones page by page.
        self._output = memoryview(b"")

    def _run(self, index: int, count: int) -> memoryview:
        """Return the verified plaintext of up to ``count`` blocks, from block ``index`` on.

        It is a part of the output buffer. The last block is not among them, unless it is block
        ``index``.
        """
        raise NotImplementedError  # pragma: no cover  # abstract

    def check(self, start: int, stop: int | None) -> None:
        """See :meth:`securefs.EncryptedFile.check`."""
        raise NotImplementedError  # pragma: no cover  # abstract

    def tell_failure(self, error: SecureFSError | OSError) -> None:
        """Call :attr:`on_failure`, at the first failure alone."""
        on_failure, self.on_failure = self.on_failure, None
        if on_failure is not None:
            on_failure(error)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the plaintext, in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position, which may be behind the end; return it.

        :raises ValueError: the position would be negative, or ``whence`` is none of the three.
        """
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"invalid whence: {whence}")
        if base + offset < 0:
            raise ValueError(f"negative seek position: {base + offset}")
        self._position = base + offset
        return self._position

    @clears_frames
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Copy plaintext into ``buffer``, at least one byte before the end; return how many bytes.

        It is copied after its verification: nothing else ever reaches a buffer of the caller's.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")
        piece = self._here(len(view))[: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    @clears_frames
    def readall(self) -> bytes:
        """Return the plaintext from the position to the end."""
        self._check_open()
        pieces = []
        while piece := bytes(self._here(READ_SIZE)):
            self._position += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _here(self, wanted: int) -> memoryview:
        """Return the plaintext from the position to the end of a run of blocks.

        The run is one block, or as many as end within ``wanted`` bytes. The next call reuses its
        memory.
        """
        start, run = self._final
        if not start:
            _note_nested(run)
        if self._position < start:
            start, run = self._cached
            if not start <= self._position < start + len(run):
                start, run = self._next_run(wanted)
        return run[self._position - start :]

    def _next_run(self, wanted: int) -> tuple[int, memoryview]:
        index, offset = divmod(self._position, self.block_size)
        # If it fails, the output buffer holds no run.
        self._cached = (0, memoryview(b""))
        # Every block before the last is full, so this run is never empty.
        try:
            run = self._run(index, max(1, (offset + wanted) // self.block_size))
        except (SecureFSError, OSError) as error:
            self.tell_failure(error)
            raise
        if not index:
            _note_nested(run)
        self._cached = index * self.block_size, run
        return self._cached

    @clears_frames
    def close(self) -> None:
        """Forget the plaintext that is held, and close the file that is owned."""
        self._cached = self._final = (0, memoryview(b""))
        if self.owned is not None:
            self.owned.close()
        super().close()
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
