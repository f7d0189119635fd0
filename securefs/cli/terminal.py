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
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from securefs.disk import explain, special_kind, write_atomically
from securefs.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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
    "say_json",
    "shown",
]

DONE: Final = 0  # exit code
FINDING: Final = 1  # exit code: something does not verify
USAGE: Final = 2  # exit code: the command or this machine makes it impossible
STREAM: Final = "-"  # the name of standard input and output
BAR_WIDTH: Final = 30  # characters


def shown(text: str) -> str:
    """Return ``text`` as one printable line; write other characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str) -> None:
    """Print one line, escaped by :func:`shown`."""
    _Output().write((shown(text) + "\n").encode("utf-8", "backslashreplace"))


def say_json(document: Mapping[str, object]) -> None:
    """Print a JSON document in ASCII, indented."""
    _Output().write(json.dumps(document, indent=2).encode("ascii") + b"\n")


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
    """A progress bar on standard error if that is a terminal.

    :param total: the total in bytes, 0 if it is unknown.
    """

    def __init__(self, total: int) -> None:
        self._total = total if total > 0 and sys.stderr is not None and sys.stderr.isatty() else 0
        self._done = 0
        self._percent = -1

    def add(self, size: int) -> None:
        """Count ``size`` more bytes."""
        self._done += size
        if not self._total:
            return
        percent = min(100, 100 * self._done // self._total)
        if percent != self._percent:
            self._percent = percent
            filled = BAR_WIDTH * percent // 100
            sys.stderr.write(f"\r[{'#' * filled}{' ' * (BAR_WIDTH - filled)}] {percent:3d} %")
            sys.stderr.flush()

    def __enter__(self) -> Progress:  # noqa: PYI034  # typing.Self is newer than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Erase the bar, because its line belongs to the next output."""
        if self._percent >= 0:
            sys.stderr.write("\r" + " " * (BAR_WIDTH + 8) + "\r")
            sys.stderr.flush()


@contextlib.contextmanager
def reading(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Yield an open file for one pass, with a progress bar, and with errors that name it."""
    with Progress(regular_size(file) or 0) as progress:
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
def open_target(name: str, *, force: bool) -> Iterator[BinaryIO]:
    """Yield a file for writing that appears only if the block ends without an error.

    ``-`` is standard output.

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
    with named(name), write_atomically(path, overwrite=force) as file:
        yield file
