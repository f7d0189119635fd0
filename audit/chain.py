"""One hash chain of records, and the file or stream that it is written to.

Guarantees: each line of a chain is written by one ``os.write``, to a file that this process created
and that is still under its name. After any failure, not one more byte is appended to that file.
Refuses: a file that exists already, a symbolic link, and a file that was removed, renamed or
replaced while it was open. This module does not decide what to do about a failure: it raises
:class:`ChainBrokenError`, and :mod:`securefs.audit.journal` decides.

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
    """The chain must not be used again.

    :attr:`why` is one of the words below; :attr:`error` is an errno name or None.

    ``unlinked`` ``moved`` ``write_failed`` ``short_write`` ``flush_failed`` ``open_failed``
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


def chain_file_name(chain: str) -> str:
    """Return the name of the file that holds this chain."""
    return f"{chain}-0.jsonl"


class FileSink:
    """A new file for one chain, locked with ``flock`` for as long as the chain lives."""

    def __init__(self, directory: Path, chain: str) -> None:
        self._path = directory / chain_file_name(chain)
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
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            flush_folder(directory)
        except OSError as error:
            self.close(discard_empty=True)
            raise ChainBrokenError("open_failed", trouble, error) from error

    def check(self) -> None:
        """Refuse a file that was unlinked, renamed or replaced: records in it would be lost."""
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

    Lines of several processes may alternate in it.
    """

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
        """Write the line on a line of its own, even after a torn one."""
        # Set first and cleared last: an exception of any kind in between leaves it true.
        start, self._torn = b"\n" if self._torn else b"", True
        _write_whole(self._fd, start + line, f"descriptor {self._fd}")
        self._torn = False

    def flush(self) -> None:
        """Do nothing: a pipe or a terminal has no disk to flush to."""

    def close(self, *, discard_empty: bool = False) -> None:
        """Do nothing: the descriptor belongs to somebody else."""


class Chain:
    """A chain that is being written: its position, and whether it may continue.

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
        """False after a failure, or after an exception (from a signal, say) cut an append short."""
        return self._whole

    def append(self, entry: Entry, time_ns: int, *, flush_from: int) -> None:
        """Write the next record.

        :param flush_from: severity, 1 to 5. From this severity on, the method returns only once the
            record is on the disk.
        :raises ValueError: the entry is not a record; nothing was written and the chain stays
            usable.
        :raises ChainBrokenError: the record was not written whole, or not flushed; the chain must
            be abandoned.
        """
        line = build_line(self.position, self._source, time_ns, entry)
        # Between the write and the new position, the state of the chain is undefined: a second
        # record with the same number would look like tampering to a verifier. So the chain is
        # marked unusable first, and usable again last.
        self._whole = False
        self.sink.check()
        self.sink.write(line)
        self.position = Position(self.position.chain, self.position.seq + 1, line_hash(line[:-1]))
        if entry.severity >= flush_from:
            self.sink.flush()
        self._whole = True

    def abandon(self) -> None:
        """Close the file for good, and flush what it holds if that is still possible."""
        self._whole = False
        # The successor names the last record of this chain; after a power cut both must still be
        # there.
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
