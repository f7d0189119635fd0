"""One chain of records and the file (or stream) that it goes to.

Guarantees: every line of a chain is written by one ``os.write``, to a file that was new and ours
when it was opened and still is where it was; after anything that went wrong, not one byte more is
appended to that file. Refuses: a file that exists already, a symbolic link, a file that was
removed, renamed or replaced while it was open. It never decides what to do about a failure: it
raises :class:`ChainBrokenError`, and :mod:`securefs.audit.journal` decides.

Implements the section on chains of ``docs/journal.md``.
"""

from __future__ import annotations

import atexit  # noqa: F401  (weakref.finalize would import it at a record: journal.py says why nothing may)
import contextlib
import errno
import fcntl
import os
import secrets
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from securefs.audit.record import NO_LINE, Entry, Position, Source, build_line, line_hash
from securefs.disk import create_private, explain, flush_folder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Chain", "ChainBrokenError", "FileSink", "Sink", "StreamSink", "chain_file_name"]

# Data and length reach the disk; macOS has only the call that also writes the times.
_flush_to_disk: Final = getattr(os, "fdatasync", os.fsync)


class ChainBrokenError(Exception):
    """The chain must not be used again. :attr:`why` is one of the words below, :attr:`error` an errno name or None.

    ``unlinked`` ``moved`` ``write_failed`` ``short_write`` ``flush_failed`` ``open_failed``
    """

    def __init__(self, why: str, message: str, cause: OSError | None = None) -> None:
        super().__init__(message if cause is None else f"{message}: {explain(cause)}")
        self.why = why
        self.error = None if cause is None else errno.errorcode.get(cause.errno or 0)


class Sink(Protocol):
    """Where the lines of one chain go."""

    def check(self) -> None:
        """Raise :class:`ChainBrokenError` when a line written now would not be found later."""
        ...

    def write(self, line: bytes) -> None:
        """Write the whole line by one system call, or raise :class:`ChainBrokenError`."""
        ...

    def flush(self) -> None:
        """Return once what was written is on the disk, where there is one."""
        ...

    def close(self, *, discard_empty: bool = False) -> None:
        """Let the file go; with ``discard_empty``, also remove it if it never got a byte."""
        ...


def chain_file_name(chain: str) -> str:
    """Return the name of the file that holds this chain."""
    return f"{chain}-0.jsonl"


class FileSink:
    """A new file of its own, held under ``flock`` for as long as the chain lives."""

    def __init__(self, directory: Path, chain: str) -> None:
        self._path = directory / chain_file_name(chain)
        trouble = f"cannot open a new file in {directory}"
        try:
            self._fd = create_private(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise ChainBrokenError("open_failed", trouble, error) from error
        # A journal that is dropped without close(), and a forked child, let the file go as well.
        self._close = weakref.finalize(self, os.close, self._fd)
        self._close.atexit = False
        status = os.fstat(self._fd)
        self._identity = (status.st_dev, status.st_ino)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            flush_folder(directory)
        except OSError as error:
            self.close(discard_empty=True)
            raise ChainBrokenError("open_failed", trouble, error) from error

    def check(self) -> None:
        """Refuse a file that somebody unlinked, renamed or replaced: records in it would be written to nowhere."""
        try:
            links = os.fstat(self._fd).st_nlink
            status = os.lstat(self._path)
        except FileNotFoundError:
            if links == 0:
                raise ChainBrokenError("unlinked", f"{self._path} was removed while it was open") from None
            raise ChainBrokenError("moved", f"{self._path} was renamed while it was open") from None
        except OSError as error:
            raise ChainBrokenError("moved", f"cannot see {self._path} any more", error) from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise ChainBrokenError("moved", f"{self._path} was replaced while it was open")

    def write(self, line: bytes) -> None:
        """Append the line."""
        _write_whole(self._fd, line, str(self._path))

    def flush(self) -> None:
        """Flush the file's data and length to the disk."""
        try:
            _flush_to_disk(self._fd)
        except OSError as error:
            raise ChainBrokenError("flush_failed", f"cannot flush {self._path}", error) from error

    def close(self, *, discard_empty: bool = False) -> None:
        """Close the file, which also ends the lock."""
        if not self._close.alive:
            # Its number may be another file's by now.
            return
        with contextlib.suppress(OSError, ChainBrokenError):
            if discard_empty and os.fstat(self._fd).st_size == 0:
                # On a full disk, every attempt would otherwise leave another empty file behind.
                self.check()
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._close()


class StreamSink:
    """A descriptor that somebody else owns, such as standard error. Lines of several processes may alternate in it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._torn = False

    def check(self) -> None:
        """Refuse a closed descriptor."""
        try:
            os.fstat(self._fd)
        except OSError as error:
            raise ChainBrokenError("write_failed", f"descriptor {self._fd} is closed", error) from error

    def write(self, line: bytes) -> None:
        """Write the line, on a line of its own even where the one before was torn."""
        # Set first and cleared last: an exception of any kind in between leaves it true.
        start, self._torn = b"\n" if self._torn else b"", True
        _write_whole(self._fd, start + line, f"descriptor {self._fd}")
        self._torn = False

    def flush(self) -> None:
        """Do nothing: a pipe or terminal keeps nothing on a disk."""

    def close(self, *, discard_empty: bool = False) -> None:
        """Do nothing: the descriptor is not ours."""


class Chain:
    """A chain that is being written: where it stands, and whether it may go on.

    :param chain: 32 hex digits. :meth:`random_id` draws them.
    """

    __slots__ = ("_source", "_whole", "pid", "position", "sink")

    def __init__(self, chain: str, source: Source, sink: Sink) -> None:
        self.position = Position(chain)
        self.pid: Final = source.pid
        self.sink: Final = sink
        self._source = source
        self._whole = True

    @staticmethod
    def random_id() -> str:
        """Return a new chain id."""
        return secrets.token_hex(16)

    @property
    def usable(self) -> bool:
        """False after a failure, and after an exception (a signal's, say) that cut an append short."""
        return self._whole

    def append(self, entry: Entry, time_ns: int, *, flush_from: int) -> None:
        """Write the next record.

        :param flush_from: severity, 1 to 5, from which on this returns only once the record is on
            the disk.
        :raises ValueError: the entry is not a record; nothing was written and the chain stays
            usable.
        :raises ChainBrokenError: it was not written whole, or not flushed; the chain must be
            abandoned.
        """
        line = build_line(self.position, self._source, time_ns, entry)
        # Between the write and the new position the chain is neither here nor there: a second
        # record with the same number would look like tampering to whoever verifies. So it is closed
        # first, and opened again last.
        self._whole = False
        self.sink.check()
        self.sink.write(line)
        self.position = Position(self.position.chain, self.position.seq + 1, line_hash(line[:-1]))
        if entry.severity >= flush_from:
            self.sink.flush()
        self._whole = True

    def abandon(self) -> None:
        """Let the file go for good, with what it holds on the disk as far as that is still possible."""
        self._whole = False
        # The chain that comes after will name this one's last record; after a power cut both must
        # still be there.
        with contextlib.suppress(ChainBrokenError):
            self.sink.flush()
        self.sink.close(discard_empty=self.position.prev == NO_LINE)


def _write_whole(fd: int, line: bytes, where: str) -> None:
    try:
        written = os.write(fd, line)
    except OSError as error:
        raise ChainBrokenError("write_failed", f"cannot write to {where}", error) from error
    if written != len(line):
        raise ChainBrokenError("short_write", f"only {written} of {len(line)} bytes went to {where}")
