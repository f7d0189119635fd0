"""The files of a log: checkpoints, tiles, keys and the lock, as the sealer writes them.

Guarantees: what was appended is on the disk when the method returns. A file that is replaced has
its old or its new content, whenever the power fails. One sealer holds a log at a time. Refuses: a
folder that no log was begun in, and to begin a second one there.

Implements the section on the log's folder of ``docs/log.md``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.audit.folder import prepare_folder
from securefs.audit.note import Checkpoint, NoteError, VerificationKey, parse_checkpoint, parse_note
from securefs.audit.signing import SigningKey
from securefs.audit.tree import HASH_SIZE
from securefs.disk import (
    explain,
    flush_folder,
    open_regular,
    read_regular,
    share_with_group,
    write_atomically,
)
from securefs.errors import ConfigurationError, SecureFSError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["CHECKPOINTS", "Disk", "LogDamagedError", "LogFolder", "Position", "default_log"]

CHECKPOINTS: Final = "checkpoints"  # the file of them
_flush_to_disk: Final = getattr(os, "fdatasync", os.fsync)
_SIGNATURE: Final = "\N{EM DASH} ".encode()
_MAX_REQUEST: Final = 16 * 1024 * 1024  # bytes
_MAX_SMALL: Final = 64 * 1024  # bytes: no key, origin or checkpoint is larger


class LogDamagedError(SecureFSError):
    """The log's own files do not hold: somebody changed them."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a chain was read: records, bytes of file ``number``, the last record's leaf hash."""

    count: int
    offset: int
    head: bytes
    number: int = 0


def default_log(journal: Path) -> Path:
    """Return the log's folder of a journal unless another one is named."""
    return journal / "log"


class Disk:
    """The changes that the sealer makes to files, one method each."""

    def append(self, path: Path, data: bytes) -> None:
        """Append ``data``; return when the disk has it. The folder's group may read a new file."""
        descriptor = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            if new := os.fstat(descriptor).st_size == 0:
                share_with_group(descriptor, path.parent)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            _flush_to_disk(descriptor)
        finally:
            os.close(descriptor)
        if new:
            flush_folder(path.parent)

    def cut(self, path: Path, size: int) -> None:
        """Cut a file at ``size`` bytes."""
        descriptor = _open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, path: Path, data: bytes, *, secret: bool = False) -> None:
        """Write a whole file, in place of one that is there; a secret one has mode 0600."""
        with write_atomically(path, overwrite=True) as file:
            file.write(data)
            if not secret:
                share_with_group(file.fileno(), path.parent)

    def rewrite(self, path: Path) -> None:
        """Write the content of a file anew, so that it reaches the disk after a flush failed."""
        with read_regular(path, follow_links=False) as old, write_atomically(path, overwrite=True) as new:
            shutil.copyfileobj(old, new)
            share_with_group(new.fileno(), path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file with a key: overwritten, unlinked, and the folder flushed."""
        descriptor = _open(path, os.O_WRONLY)
        try:
            os.write(descriptor, bytes(os.fstat(descriptor).st_size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()
        flush_folder(path.parent)


class LogFolder:
    """The folder of a log that was begun.

    :raises ConfigurationError: it was not.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self.disk = Disk() if disk is None else disk
        self._lock: int | None = None
        origin = self._small("origin")
        if origin is None:
            raise ConfigurationError(
                f"there is no log in {path}: begin one with securefs audit init, as the user who will seal"
            )
        self.origin = origin.decode("utf-8", "replace").strip()

    @classmethod
    def begin(cls, path: Path, origin: str, key: SigningKey, stable: SigningKey | None) -> LogFolder:
        """Begin a log: write its origin, its first key, and the verification key of that.

        :raises ConfigurationError: there is one already, or the folder is not fit for it.
        """
        if (path / "origin").exists():
            raise ConfigurationError(f"there is a log in {path} already: name another folder with --log")
        try:
            parse_checkpoint(Checkpoint(origin, 0, bytes(HASH_SIZE)).text())
        except NoteError as error:
            raise ConfigurationError(f"--origin: {error}") from None
        prepare_folder(path)
        disk = Disk()
        if stable is not None:
            disk.replace(path / "stable.key", stable.pem(), secret=True)
        disk.replace(path / "first.key", key.pem(), secret=True)
        disk.replace(path / "vkey", f"{VerificationKey(origin, key.public)}\n".encode())
        # Last: from here on it is a log.
        disk.replace(path / "origin", f"{origin}\n".encode())
        return cls(path)

    def lock(self) -> None:
        """Hold the log until :meth:`unlock`.

        :raises ConfigurationError: another sealer holds it.
        """
        descriptor = _open(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise ConfigurationError(
                f"another sealer (process {holder or 'unknown'}) holds the log {self.path}: a log has one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def is_held(self) -> bool:
        """Return whether a sealer holds the log, this process included."""
        try:
            descriptor = _open(self.path / "lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def unlock(self) -> None:
        """Let another sealer hold the log."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def vkey(self) -> str:
        """Return the verification key that was to be pinned when the log was begun."""
        return (self._small("vkey") or b"").decode("utf-8", "replace").strip()

    def stable_key(self) -> SigningKey | None:
        """Return the stable key, if there is one."""
        data = self._small("stable.key")
        return None if data is None else SigningKey.from_pem(data, str(self.path / "stable.key"))

    def handed_over(self) -> SigningKey | None:
        """Return the key that a sealer, or ``audit init``, left for the next start."""
        for name in ("next.key", "first.key"):
            # One that was overwritten, and not yet removed when the power failed, is none.
            if (data := self._small(name)) is not None and data.strip(b"\0"):
                return SigningKey.from_pem(data, str(self.path / name))
        return None

    def forget_key(self) -> None:
        """Remove the key that was handed over. What it signs comes after this."""
        for name in ("next.key", "first.key"):
            if (self.path / name).exists():
                self.disk.remove(self.path / name)

    def hand_over(self, pem: bytes) -> None:
        """Leave the next key for the next start."""
        self.disk.replace(self.path / "next.key", pem, secret=True)

    def publish(self, note: bytes) -> None:
        """Append a checkpoint."""
        self.disk.append(self.path / CHECKPOINTS, note + b"\n")

    def last_checkpoint(self) -> tuple[Checkpoint | None, int]:
        """Return the last whole checkpoint, and how many bytes of a torn one were cut off.

        :raises LogDamagedError: what stands there is no checkpoint.
        """
        path = self.path / CHECKPOINTS
        if not path.exists():
            return None, 0
        descriptor = _open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            start = max(0, size - 2 * _MAX_SMALL)
            data = os.pread(descriptor, size - start, start)
        finally:
            os.close(descriptor)
        note, torn = _last_note(data)
        if torn > _MAX_SMALL:
            raise LogDamagedError(f"{path} does not end with a checkpoint, whole or torn")
        if torn:
            self.disk.cut(path, size - torn)
        if not note:
            return None, torn
        try:
            return parse_checkpoint(parse_note(note).text), torn
        except NoteError as error:
            raise LogDamagedError(f"the last checkpoint in {path} is none: {error}") from None

    def positions(self) -> dict[str, Position]:
        """Return where the sealer before was in each chain; nothing where that is not known."""
        try:
            with read_regular(self.path / "positions", follow_links=False) as file:
                found = json.load(file)
            return {
                name: Position(int(count), int(offset), bytes.fromhex(head), int(number))
                for name, (count, offset, head, number) in found.items()
            }
        except (OSError, ValueError, TypeError, AttributeError, SourceError):
            return {}

    def save_positions(self, positions: Mapping[str, Position]) -> None:
        """Keep them for the next start: without them it reads every chain from its beginning."""
        lines = {
            name: (each.count, each.offset, each.head.hex(), each.number) for name, each in positions.items()
        }
        self.disk.replace(self.path / "positions", json.dumps(lines).encode("ascii"))

    def request(self, name: str) -> bytes | None:
        """Return what somebody asks the sealer for, None if nobody does."""
        try:
            with read_regular(self.path / name, follow_links=False) as file:
                return file.read(_MAX_REQUEST)
        except FileNotFoundError:
            return None

    def answer(self, name: str) -> None:
        """Remove a request, which was taken up."""
        (self.path / name).unlink(missing_ok=True)
        flush_folder(self.path)

    def _small(self, name: str) -> bytes | None:
        try:
            descriptor = _open(self.path / name, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"cannot read {self.path / name}: {explain(error)}") from None
        try:
            return os.pread(descriptor, _MAX_SMALL, 0)
        finally:
            os.close(descriptor)


def _last_note(data: bytes) -> tuple[bytes, int]:
    """Return the last whole note at the end of a file of notes, and the size of what follows it.

    An empty line stands in each note, before its signatures, and one behind it.
    """
    end = data.rfind(b"\n\n")
    # The empty line behind a note is the one that follows a signature.
    while end >= 0 and not data[:end].rpartition(b"\n")[2].startswith(_SIGNATURE):
        end = data.rfind(b"\n\n", 0, end)
    if end < 0:
        return b"", len(data)
    middle = data.rfind(b"\n\n", 0, end)
    start = data.rfind(b"\n\n", 0, max(0, middle))
    return data[start + 2 if start >= 0 else 0 : end + 1], len(data) - end - 2


def _open(path: Path, flags: int) -> int:
    return open_regular(path, flags, follow_links=False)
