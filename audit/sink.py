"""Where the lines of a chain go: a file of its own, or a stream that somebody else owns.

Guarantees: a file is created here, and a line goes to it by one ``os.write``, only while it is
still under its name and holds exactly what was written before. A stream whose reader stalls costs
:data:`PATIENCE` seconds at most, once. Refuses: a file that exists already, a symbolic link, and a
file that was removed, renamed, replaced, cut or appended to while it was open.

Implements the section on chains of ``docs/journal.md``.
"""

from __future__ import annotations

# weakref.finalize would import atexit when a record is written. Nothing may be imported then: a
# forked child could wait for the import lock for ever (journal.py).
import atexit  # noqa: F401
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from securefs.disk import create_private, explain, flush_folder, share_with_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PATIENCE", "ChainBrokenError", "FileSink", "Sink", "StreamSink", "chain_file_name"]

PATIENCE: Final = 2.0  # seconds that one record may wait for the reader of a stream
# Data and length reach the disk; macOS has only the call that also writes the times.
_flush_to_disk: Final = getattr(os, "fdatasync", os.fsync)


class ChainBrokenError(Exception):
    """The chain must not be used again.

    :attr:`why` is one of the words below; :attr:`error` is an errno name or None.

    ``unlinked`` ``moved`` ``truncated`` ``appended`` ``write_failed`` ``short_write`` ``stalled``
    ``flush_failed`` ``open_failed``
    """

    def __init__(self, why: str, message: str, cause: OSError | None = None) -> None:
        super().__init__(message if cause is None else f"{message}: {explain(cause)}")
        self.why = why
        self.error = None if cause is None else errno.errorcode.get(cause.errno or 0)


class Sink(Protocol):
    """The destination of the lines of one chain."""

    def check(self) -> None:
        """Raise :class:`ChainBrokenError` if a line written now could not be found later."""
        ...

    def write(self, line: bytes) -> None:
        """Write the whole line with one system call, or raise :class:`ChainBrokenError`."""
        ...

    def flush(self) -> None:
        """Return once everything written is on the disk, if there is a disk."""
        ...

    def close(self, *, discard_empty: bool = False) -> None:
        """Close the file; with ``discard_empty``, also remove it if it is still empty."""
        ...


def chain_file_name(chain: str, number: int = 0) -> str:
    """Return the name of a file of this chain: they are numbered from 0."""
    return f"{chain}-{number}.jsonl"


class FileSink:
    """A new file of one chain, locked with ``flock`` for as long as the chain is in it."""

    def __init__(self, directory: Path, chain: str, number: int = 0) -> None:
        self._path = directory / chain_file_name(chain, number)
        trouble = f"cannot open a new file in {directory}"
        try:
            self._fd = create_private(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise ChainBrokenError("open_failed", trouble, error) from error
        # Also closes the file of a journal that is dropped without close(), and in a forked child.
        self._close = weakref.finalize(self, os.close, self._fd)
        self._close.atexit = False
        status = os.fstat(self._fd)
        self._identity = (status.st_dev, status.st_ino)
        self._size = 0  # bytes that were written
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            share_with_group(self._fd, directory)
            flush_folder(directory)
        except OSError as error:
            self.close(discard_empty=True)
            raise ChainBrokenError("open_failed", trouble, error) from error

    def check(self) -> None:
        """Refuse a file that is elsewhere, or that others wrote to: records in it would be lost."""
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            raise self._gone() from None
        except OSError as error:
            raise ChainBrokenError("moved", f"cannot see {self._path} any more", error) from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise ChainBrokenError("moved", f"{self._path} was replaced while it was open")
        if status.st_size < self._size:
            raise ChainBrokenError("truncated", f"{self._path} was cut while it was open")
        if status.st_size > self._size:
            raise ChainBrokenError("appended", f"somebody else appended to {self._path}")

    def _gone(self) -> ChainBrokenError:
        try:
            unlinked = os.fstat(self._fd).st_nlink == 0
        except OSError as error:
            return ChainBrokenError("moved", f"cannot see {self._path} any more", error)
        if unlinked:
            return ChainBrokenError("unlinked", f"{self._path} was removed while it was open")
        return ChainBrokenError("moved", f"{self._path} was renamed while it was open")

    def write(self, line: bytes) -> None:
        """Append the line."""
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise ChainBrokenError("write_failed", f"cannot write to {self._path}", error) from error
        if written != len(line):
            raise ChainBrokenError("short_write", f"only {written} of {len(line)} bytes went to {self._path}")
        self._size += written

    def flush(self) -> None:
        """Flush the file's data and length to the disk."""
        try:
            _flush_to_disk(self._fd)
        except OSError as error:
            raise ChainBrokenError("flush_failed", f"cannot flush {self._path}", error) from error

    def close(self, *, discard_empty: bool = False) -> None:
        """Close the file, which also releases the lock."""
        if not self._close.alive:
            # The descriptor's number may belong to another file by now.
            return
        with contextlib.suppress(OSError, ChainBrokenError):
            if discard_empty and os.fstat(self._fd).st_size == 0:
                # On a full disk, every attempt would otherwise leave an empty file behind.
                self.check()
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._close()


class StreamSink:
    """A descriptor that somebody else owns, such as standard error.

    Lines of several processes may alternate in it. Its reader may stall (a log collector that
    hangs, say). A line then waits for ``patience`` seconds at most, and the lines after it wait no
    more until one got through.
    """

    def __init__(self, fd: int, patience: float = PATIENCE) -> None:
        self._fd = fd
        self._torn = False
        self._patience = self._at_hand = patience
        self._own: _Unblocked | None = None

    def check(self) -> None:
        """Refuse a closed descriptor, and a stream whose reader stalls."""
        self._unblocked()
        if not self._at_hand and not self._is_ready(0):
            raise self._stalled()

    def write(self, line: bytes) -> None:
        """Write the line on a line of its own, even after a torn one."""
        own = self._unblocked()
        # Set first and cleared last: an exception of any kind in between leaves it true.
        start, self._torn = b"\n" if self._torn else b"", True
        self._write_all(own.write, memoryview(start + line))
        self._torn = False
        self._at_hand = self._patience

    def stalls(self, fd: int) -> bool:
        """Return whether the reader stalls, and ``fd`` leads to the same stream."""
        if self._at_hand:
            return False
        try:
            return self._own is not None and self._own.leads_to(os.fstat(fd))
        except OSError:
            return False

    def _write_all(self, write: Callable[[memoryview], int], rest: memoryview) -> None:
        deadline = time.monotonic() + self._at_hand
        while rest:
            if not self._is_ready(max(0.0, deadline - time.monotonic())):
                self._at_hand = 0.0
                raise self._stalled()
            rest = rest[self._attempt(write, rest) :]

    def _attempt(self, write: Callable[[memoryview], int], data: memoryview) -> int:
        try:
            return write(data)
        except BlockingIOError:
            return 0  # another process was faster
        except OSError as error:
            raise ChainBrokenError("write_failed", f"cannot write to descriptor {self._fd}", error) from error

    def _is_ready(self, timeout: float) -> bool:
        """Return whether the stream takes bytes, or fails at once, within ``timeout`` seconds."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(timeout * 1000))

    def _stalled(self) -> ChainBrokenError:
        return ChainBrokenError("stalled", f"the reader of descriptor {self._fd} takes nothing")

    def _unblocked(self) -> _Unblocked:
        """Return the way to write to what the descriptor is now."""
        try:
            status = os.fstat(self._fd)
            if self._own is None or not self._own.leads_to(status):
                self._own = _Unblocked(self._fd, status)
        except OSError as error:
            raise ChainBrokenError("write_failed", f"descriptor {self._fd} is closed", error) from error
        return self._own

    def flush(self) -> None:
        """Do nothing: a pipe or a terminal has no disk to flush to."""

    def close(self, *, discard_empty: bool = False) -> None:
        """Do nothing: the descriptor belongs to somebody else."""


class _Unblocked:
    """Writes to a descriptor without waiting, and without a change to it that others would see.

    ``O_NONBLOCK`` belongs to the open file, which other programs share: a shell, say. So a pipe or
    a terminal is opened once more. Where that is not allowed, a write may wait if another process
    fills the pipe in the moment after it was found ready.
    """

    def __init__(self, fd: int, status: os.stat_result) -> None:
        self._identity = (status.st_dev, status.st_ino)
        self.write: Callable[[memoryview], int] = partial(os.write, fd)
        if stat.S_ISSOCK(status.st_mode):
            connection = socket.socket(fileno=os.dup(fd))
            weakref.finalize(self, connection.close)
            self.write = lambda data: connection.send(data, socket.MSG_DONTWAIT)
        elif stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
            with contextlib.suppress(OSError):
                own = os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, own).atexit = False
                self.write = partial(os.write, own)

    def leads_to(self, status: os.stat_result) -> bool:
        """Return whether the descriptor is still what it was."""
        return (status.st_dev, status.st_ino) == self._identity
