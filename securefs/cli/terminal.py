"""Input and output of the command line: errors, standard streams, progress bar.

No content of a file name or a message reaches the terminal as a control sequence or a second line:
:func:`shown` escapes it. :func:`securefs.disk.write_atomically` writes a target whole or not at
all. Output to a stream can't be taken back: a failure after some of it was written says so.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from securefs.disk import explain, remove_stale, special_kind, write_atomically
from securefs.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

__all__ = [
    "DONE",
    "FINDING",
    "STREAM",
    "USAGE",
    "Progress",
    "abandon_output",
    "complain",
    "flush_output",
    "label",
    "named",
    "open_source",
    "open_target",
    "reading",
    "regular_size",
    "say",
    "say_bytes",
    "say_json",
    "shown",
]

DONE: Final = 0  # exit code
FINDING: Final = 1  # exit code: something does not verify
USAGE: Final = 2  # exit code: the command or this machine makes it impossible
STREAM: Final = "-"  # the name of standard input and output
BAR_WIDTH: Final = 30  # characters
SOON: Final = 2.0  # seconds after which a command without a bar tells how far it is
RATE_AFTER: Final = 1.0  # seconds; before that, a rate is a guess
BAR_EVERY: Final = 1.0  # seconds between two looks at a bar that did not move
LINE_EVERY: Final = 10.0  # seconds between two lines where standard error is no terminal
KIBI: Final = 1024


def shown(text: str) -> str:
    """Return ``text`` as one printable line; write other characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str) -> None:
    """Print one line, escaped by :func:`shown`."""
    _Output().write((shown(text) + "\n").encode("utf-8", "backslashreplace"))


def say_json(document: Mapping[str, object]) -> None:
    """Print a JSON document in ASCII, indented."""
    _Output().write(json.dumps(document, indent=2).encode("ascii") + b"\n")


def say_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    _Output().write(data)


def complain(text: str) -> None:
    """Print one line on standard error, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # the reader is gone
            line = f"securefs: {shown(text)}\n"
            sys.stderr.write(line.encode("ascii", "backslashreplace").decode("ascii"))
            sys.stderr.flush()


class _Output:
    """Standard output as bytes: every write is whole, and its errors name the stream."""

    def __init__(self) -> None:
        # Python sets sys.stdout to None if the caller closed the descriptor.
        if sys.stdout is None:
            raise ConfigurationError("standard output is closed: say with -o where to write")
        self._file = sys.stdout.buffer

    def write(self, data: bytes) -> int:
        """Write all of ``data``.

        Under ``python -u`` the stream is unbuffered, and may accept less at a time.
        """
        rest = memoryview(data)
        with named("standard output"):
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        return len(data)


def flush_output() -> None:
    """Flush standard output: only then is it known that the output arrived."""
    if sys.stdout is not None:
        with named("standard output"):
            sys.stdout.flush()


def abandon_output() -> None:
    """Discard further output after standard output failed.

    Otherwise Python's own flush at exit would fail too.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Put the name that the user knows into an OSError without a file name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, explain(error), name) from None
        raise


class _Named:
    """A binary stream whose errors name it. It closes nothing."""

    def __init__(self, file: BinaryIO, name: str, progress: Progress) -> None:
        self._file, self._name, self._progress = file, name, progress

    def read(self, size: int) -> bytes:
        """Read as the stream does."""
        with named(self._name):
            data = self._file.read(size)
        if data is None:
            # Taken for the end, it would turn the input so far into a complete file.
            raise SourceError(f"{self._name} is not blocking and has nothing to read yet")
        self._progress.add(len(data))
        return data


class Progress:
    """How far a command is, on standard error: a bar on a terminal, otherwise a line now and then.

    Both have the rate and the time that is left. Nothing is told of what takes less than two
    seconds, except for the bar.

    :param total: the total in ``unit``, 0 if it is unknown.
    :param unit: what is counted: ``bytes``, or a plural of something else.
    :param quiet: show nothing.
    :param clock: returns seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        unit: str = "bytes",
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._unit, self._clock = max(0, total), unit, clock
        self._silent = quiet or sys.stderr is None
        self._terminal = not self._silent and sys.stderr.isatty()
        self._done = 0
        self._percent = -1
        self._columns = 0  # of the bar that is on the screen
        self._start = self._shown = clock()

    @classmethod
    def over(
        cls, total: Callable[[], int], arguments: argparse.Namespace, *, unit: str = "bytes"
    ) -> Progress:
        """Return the progress of a command on many files, whose total takes a walk of its own."""
        return cls(0 if arguments.quiet else total(), unit=unit, quiet=arguments.quiet)

    def add(self, size: int) -> None:
        """Count ``size`` more."""
        self._done += size
        if self._silent:
            return
        now = self._clock()
        percent = min(100, 100 * self._done // self._total) if self._total else -1
        if not self._due(now, percent):
            return
        self._percent, self._shown = percent, now
        text = self._text(now - self._start)
        if not self._terminal:
            complain(text)
            return
        if self._total:
            filled = BAR_WIDTH * percent // 100
            text = f"[{'#' * filled}{' ' * (BAR_WIDTH - filled)}] {text}"
        sys.stderr.write("\r" + text.ljust(self._columns))
        sys.stderr.flush()
        self._columns = len(text)

    def reach(self, done: int) -> None:
        """Count up to ``done``."""
        self.add(done - self._done)

    def _due(self, now: float, percent: int) -> bool:
        if self._terminal and percent != self._percent:
            return True
        every = BAR_EVERY if self._terminal else LINE_EVERY
        first = self._start == self._shown
        return now - self._shown >= (SOON if first else every)

    def _text(self, seconds: float) -> str:
        parts = [f"{self._percent:3d} %"] if self._total else []
        parts.append(_amount(self._done, self._unit))
        if seconds >= RATE_AFTER and self._done:
            rate = self._done / seconds
            parts.append(f"{_amount(round(rate), self._unit)}/s")
            if self._total > self._done:
                parts.append(f"{_duration((self._total - self._done) / rate)} left")
        return ", ".join(parts)

    def wipe(self) -> None:
        """Erase the bar, because its line belongs to the next output."""
        if self._columns:
            sys.stderr.write("\r" + " " * self._columns + "\r")
            sys.stderr.flush()
            self._columns, self._percent = 0, -1

    def __enter__(self) -> Progress:  # noqa: PYI034  # typing.Self is newer than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Erase the bar."""
        self.wipe()


def _amount(count: int, unit: str) -> str:
    if unit != "bytes":
        return f"{count} {unit}"
    size = float(count)
    for name in ("bytes", "KiB", "MiB", "GiB"):
        if size < KIBI:
            return f"{size:.0f} {name}" if name == "bytes" else f"{size:.1f} {name}"
        size /= KIBI
    return f"{size:.1f} TiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def reading(file: BinaryIO, name: str, *, quiet: bool = False) -> Iterator[BinaryIO]:
    """Yield an open file for one pass, with a progress bar, and with errors that name it."""
    with Progress(regular_size(file) or 0, quiet=quiet) as progress:
        yield cast("BinaryIO", _Named(file, label(name), progress))


def label(name: str) -> str:
    """Return the name of a source in messages."""
    return "standard input" if name == STREAM else name


@contextlib.contextmanager
def open_source(name: str) -> Iterator[BinaryIO]:
    """Yield a binary file for reading; ``-`` is standard input, which is not closed.

    A pipe or a device that the user names is a stream, and its writer is waited for.
    """
    if name == STREAM:
        if sys.stdin is None:  # closed by the caller
            raise ConfigurationError("standard input is closed: name a file")
        yield cast("BinaryIO", sys.stdin.buffer)
    else:
        with _opened(name) as file:
            yield file


def _opened(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as error:
        # The system's words for a socket are "No such device or address".
        if error.errno != errno.ENXIO or (kind := special_kind(name)) is None:
            raise
        raise SourceError(f"{name} is {kind} and can't be read as a file") from None


def regular_size(file: BinaryIO) -> int | None:
    """Return the size in bytes of an open regular file, None for anything else."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextlib.contextmanager
def open_target(name: str, *, force: bool, keep_owner: bool = False) -> Iterator[BinaryIO]:
    """Yield a file for writing that appears only if the block ends without an error.

    ``-`` is standard output. What an earlier run for the same target left when it was killed is
    removed, and told.

    :param keep_owner: a file that is replaced keeps its owner, group and mode.
    :raises ConfigurationError: it exists and ``force`` is false, or it is not a regular file.
    """
    if name == STREAM:
        yield cast("BinaryIO", _Output())
        flush_output()
        return
    path = Path(name)
    if path.exists() and not force:
        raise ConfigurationError(
            f"{name} exists already: name another target with -o, or replace it with --force"
        )
    if path.is_symlink() and force:
        # Otherwise it would be replaced, and the file that it leads to would stay as it is.
        raise ConfigurationError(f"{name} is a symbolic link: name the file that it leads to")
    for left in remove_stale(path):
        complain(f"removed {left}, which a run that was killed had left")
    with named(name), write_atomically(path, overwrite=force, keep_owner=keep_owner) as file:
        yield file
