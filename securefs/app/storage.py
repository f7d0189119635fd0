"""The encrypted files of the reference app: ``files/<object id>.enc``, and their owners.

They are stored under ``SECUREFS_DATA_DIR``. An upload is written directly to a hidden temporary
file, flushed to disk and renamed, and only then becomes a row of the database: a partial file is
never listed. An upload of several files is stored whole or not at all. The temporary files of a
process that died are removed at the next start, if nobody holds their lock. A finished file without
a row, which a crash between the last two steps leaves, is never removed, because a restored older
database would look the same.

File names are not stored here: they are sealed inside each file. Object ids are checked before they
become part of a path.

Only regular files are opened. A pipe, a device or a link in a file's place is an error, and no
thread waits for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs import PREAMBLE_SIZE, ConfigurationError, FormatError, Reason, SourceError, claimed_object_id
from securefs.app.database import StorageError, transaction
from securefs.disk import (
    create_private,
    explain,
    flush_folder,
    is_full,
    make_private_folder,
    open_regular,
    read_regular,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["PAGE_SIZE", "Incoming", "Storage", "StoredFile", "owner_context"]

PAGE_SIZE: Final = 100  # files in one listing: the header of each is opened to show its name
STALE_AFTER: Final = 60.0  # seconds for which a new temporary file may be without its lock

_OBJECT_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TEMPORARY: Final = re.compile(r"\.upload-[0-9a-f]{32}\.tmp", re.ASCII)


def owner_context(principal: str) -> bytes:
    """Return the context that binds a file to its owner.

    ``securefs verify --context owner:NAME`` opens such a file outside the app.
    """
    return f"owner:{principal}".encode()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One row: ``size`` is the plaintext's in bytes, ``created`` in seconds since the epoch."""

    object_id: str
    size: int
    created: int


class Incoming:
    """A file that is being received: Werkzeug's parser writes a part into it.

    It is removed unless it is stored.
    """

    def __init__(self, path: Path) -> None:
        with _explained(path):
            self._file = create_private(path, os.O_RDWR)
        self._path = path
        self._temporary = True
        # The lock tells the sweep of another process that this process lives; it ends with the
        # process.
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, data: bytes) -> int:
        """Write all of ``data``; raise :class:`StorageError` if the disk accepts less."""
        rest = memoryview(data)
        with _explained(self._path):
            while rest:
                rest = rest[os.write(self._file, rest) :]
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in bytes."""
        return os.lseek(self._file, offset, whence)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the ciphertext."""
        return os.read(self._file, size)

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return os.fstat(self._file).st_size

    @property
    def object_id(self) -> str:
        """The id in the file's own header.

        :raises FormatError: the upload is not encrypted: the middleware is not in front of this
            app.
        """
        object_id = claimed_object_id(os.pread(self._file, PREAMBLE_SIZE, 0))
        if object_id is None:
            raise FormatError("the upload is not encrypted", Reason.NOT_ENCRYPTED)
        return object_id

    def move_to(self, target: Path) -> None:
        """Flush the file to disk and give it its final name."""
        with _explained(target):
            os.fsync(self._file)
            self._path.rename(target)
        self._temporary = False

    def close(self) -> None:
        """Do nothing: :meth:`discard` closes the file, not the parser that fills it."""

    def discard(self) -> None:
        """Close the file; remove it unless it was moved to its final name."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._temporary:
            with suppress(OSError):  # the next start sweeps what can't be removed now
                self._path.unlink()
            self._temporary = False


class Storage:
    """The files of one data folder, each of which has one owner.

    Every method raises :class:`StorageError` on failure.
    """

    def __init__(self, directory: Path, database: Path) -> None:
        self._database = database
        self._files = directory / "files"
        try:
            make_private_folder(self._files)
            self._sweep()
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._files}: {explain(error)}") from None

    def _sweep(self) -> None:
        """Remove the temporary files of dead processes: old enough to be locked, and not locked."""
        for path in self._files.iterdir():
            if _TEMPORARY.fullmatch(path.name) is None:
                continue
            # Another process sweeps it, or its upload lives, or it was not made here.
            with suppress(OSError, SourceError):
                file = open_regular(path, os.O_RDWR, follow_links=False)
                try:
                    if time.time() - os.fstat(file).st_mtime > STALE_AFTER:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                finally:
                    os.close(file)

    def receive(self) -> Incoming:
        """Return an empty temporary file."""
        return Incoming(self._files / f".upload-{secrets.token_hex(16)}.tmp")

    def path(self, object_id: str) -> Path:
        """Return the path of a file. The id must be 64 hex digits: it becomes part of the path."""
        if _OBJECT_ID.fullmatch(object_id) is None:
            raise ValueError("not an object id")
        return self._files / f"{object_id}.enc"

    def store(self, owner: str, received: Sequence[Incoming], sizes: Mapping[str, int]) -> list[StoredFile]:
        """Store everything that was received, or nothing; return the files in order.

        :param sizes: the sizes in bytes of the plaintexts, by object id.
        """
        now = int(time.time())
        stored: list[StoredFile] = []
        try:
            for incoming in received:
                try:
                    object_id = incoming.object_id
                    stored.append(StoredFile(object_id, sizes[object_id], now))
                except (FormatError, KeyError):
                    # The app runs without the middleware, or a part got past it.
                    raise StorageError("a part arrived that the middleware has not encrypted") from None
                incoming.move_to(self.path(object_id))
            self._sync()
            with transaction(self._database) as database:
                database.executemany(
                    "INSERT INTO files (object_id, owner, size, created) VALUES (?, ?, ?, ?)",
                    [(file.object_id, owner, file.size, file.created) for file in stored],
                )
        except BaseException:
            # On any exception, an interrupt too: a file without a row is nobody's.
            for file in stored:
                with suppress(OSError):  # the first error is the one to tell
                    self.path(file.object_id).unlink()
            raise
        return stored

    def _sync(self) -> None:
        """Flush the new names to disk before the database refers to them."""
        with _explained(self._files):
            flush_folder(self._files)

    def page(self, owner: str, number: int) -> tuple[list[StoredFile], bool]:
        """Return page ``number`` (from 1) of the owner's files, newest first.

        Also return whether there are more.
        """
        with transaction(self._database, write=False) as database:
            rows = database.execute(
                "SELECT object_id, size, created FROM files WHERE owner = ?"
                " ORDER BY number DESC LIMIT ? OFFSET ?",
                (owner, PAGE_SIZE + 1, (number - 1) * PAGE_SIZE),
            ).fetchall()
        return [StoredFile(*row) for row in rows[:PAGE_SIZE]], len(rows) > PAGE_SIZE

    def newest(self, count: int) -> list[tuple[str, StoredFile]]:
        """Return (owner, file) of the newest files of all owners, at most ``count``."""
        with transaction(self._database, write=False) as database:
            rows = database.execute(
                "SELECT owner, object_id, size, created FROM files ORDER BY number DESC LIMIT ?", (count,)
            ).fetchall()
        return [(owner, StoredFile(*row)) for owner, *row in rows]

    def find(self, owner: str, object_id: str) -> StoredFile | None:
        """Return the owner's file with this id; None if there is none or it is somebody else's."""
        with transaction(self._database, write=False) as database:
            row = database.execute(
                "SELECT object_id, size, created FROM files WHERE owner = ? AND object_id = ?",
                (owner, object_id),
            ).fetchone()
        return StoredFile(*row) if row else None

    def has(self, object_id: str) -> bool:
        """Return whether anybody's file has this id."""
        with transaction(self._database, write=False) as database:
            row = database.execute("SELECT 1 FROM files WHERE object_id = ?", (object_id,)).fetchone()
        return row is not None

    def open(self, file: StoredFile) -> BinaryIO:
        """Return the ciphertext, to be closed by the caller."""
        path = self.path(file.object_id)
        with _explained(path, "read"):
            return read_regular(path, follow_links=False)

    def delete(self, file: StoredFile) -> None:
        """Remove a file, then its row.

        After a crash in between, the list shows a missing file; no file remains unlisted.
        """
        path = self.path(file.object_id)
        with _explained(path):
            path.unlink(missing_ok=True)
        with transaction(self._database) as database:
            database.execute("DELETE FROM files WHERE object_id = ?", (file.object_id,))

    def check(self) -> None:
        """Raise :class:`StorageError` if a file could not be stored now."""
        probe = self.receive()
        try:
            probe.write(b"ready")
        finally:
            probe.discard()
        with transaction(self._database) as database:
            database.execute("SELECT count(*) FROM files WHERE object_id = ''").fetchone()


@contextmanager
def _explained(path: Path, verb: str = "store") -> Iterator[None]:
    """Turn an error of the system, or a special file, into one line for the operator's log."""
    try:
        yield
    except SourceError as error:
        raise StorageError(f"cannot {verb} {path.name}: {error}") from None
    except OSError as error:
        raise StorageError(f"cannot {verb} {path.name}: {explain(error)}", full=is_full(error)) from error
