"""The reference app's database: who may sign in, and who owns which file.

It holds no file names and no contents. It is one SQLite file, ``securefs.sqlite3`` in
``SECUREFS_DATA_DIR``, mode 0600. A connection lives for one transaction, so no connection is
carried across a fork or shared by threads. An error of SQLite becomes a :class:`StorageError` in
one line.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs import ConfigurationError, SecureFSError, SourceError
from securefs.disk import explain, make_private_folder, open_regular, others_can_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DATABASE_NAME", "DATA_VARIABLE", "StorageError", "data_directory", "open_database", "transaction"]

DATA_VARIABLE: Final = "SECUREFS_DATA_DIR"
DATABASE_NAME: Final = "securefs.sqlite3"
SCHEMA_VERSION: Final = 1  # PRAGMA user_version of the tables below
BUSY_TIMEOUT: Final = 10.0  # seconds to wait for another worker's transaction

_SCHEMA: Final = """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    principal TEXT NOT NULL,
    parent TEXT REFERENCES tokens (id) ON DELETE CASCADE,
    created INTEGER NOT NULL,
    expires INTEGER
) WITHOUT ROWID;
CREATE TABLE files (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    object_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX files_by_owner ON files (owner, number);
"""


class StorageError(SecureFSError):
    """The reference app could not store or look up data. ``full``: the disk or a quota is full."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


def data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that ``SECUREFS_DATA_DIR`` names; create it (mode 0700) if missing.

    :raises ConfigurationError: it is not set, can't be created, is not a folder, or other users can
        write to it.
    """
    text = environ.get(DATA_VARIABLE, "")
    if not text:
        raise ConfigurationError(
            f"{DATA_VARIABLE} is not set: name the folder in which the app keeps its files"
        )
    try:
        path = Path(text)
        status = make_private_folder(path)
    except OSError as error:
        raise ConfigurationError(f"{DATA_VARIABLE}: cannot use {text}: {explain(error)}") from None
    except ValueError:  # a NUL byte in the path
        raise ConfigurationError(f"{DATA_VARIABLE}: is not a usable path") from None
    if others_can_write(status):
        # Anyone who can write here can replace the database, and with it the ownership of files.
        raise ConfigurationError(f"{DATA_VARIABLE}: other users can write to {path}: run chmod 700 on it")
    return path


def open_database(directory: Path) -> Path:
    """Return the path of the database in ``directory``; create it with its tables if missing.

    :raises ConfigurationError: it can't be opened, is another database, or a newer release wrote
        it.
    """
    path = directory / DATABASE_NAME
    try:
        # Created here and not by SQLite, so that it is never readable by others, whatever the
        # umask.
        os.close(open_regular(path, os.O_RDWR | os.O_CREAT, follow_links=False))
        with transaction(path) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except OSError as error:
        raise ConfigurationError(f"{DATA_VARIABLE}: cannot use {path}: {explain(error)}") from None
    except (StorageError, SourceError) as error:
        raise ConfigurationError(f"{DATA_VARIABLE}: {error}") from None
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{DATA_VARIABLE}: a newer release of securefs wrote {path}: use that release"
        )
    return path


@contextmanager
def transaction(path: Path, *, write: bool = True) -> Iterator[sqlite3.Connection]:
    """Yield a connection inside one transaction: commit at the end, roll back on an exception.

    :param write: take the one write lock at once; without it the block must only read.
    :raises StorageError: SQLite failed, e.g. because the disk is full or the file is locked for 10
        s.
    """
    try:
        # mode=rw: a database that vanished is an error, not a new, empty one in which nobody owns a
        # file.
        address = f"{path.absolute().as_uri()}?mode=rw"
        with closing(
            sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        ) as database:
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            # Closing without a COMMIT rolls back: this happens if the block raises.
            yield database
            database.execute("COMMIT")
    except sqlite3.Error as error:
        # SQLite's message for SQLITE_FULL; its code is an attribute only from Python 3.11 on.
        full = "disk is full" in str(error)
        raise StorageError(f"the database {path.name} cannot be used: {error}", full=full) from None
