"""Files that are there already become encrypted ones: :func:`encrypt_in_place`.

Guarantees: at every moment there is the old file or the new one, whole. The old one is replaced
only after the new one was read back from the file system, verified, and compared with what was
read. Owner, group, mode, extended attributes and the time of last modification stay.

Refuses: a file that is in Format 2 already, so that none is encrypted twice; a file with other
names (hard links), because they would keep the plaintext; a file that changes meanwhile. It can't
see a program that holds the old file open and writes to it later: what that writes is lost.

The old bytes stay on the disk until something overwrites them, and in backups and snapshots.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from securefs.disk import check_still_there, keep_attributes, locked, write_atomically
from securefs.errors import FormatError, IntegrityError, Reason, SourceError
from securefs.files import COPY_SIZE, FileInfo
from securefs.header import MAGIC
from securefs.reader import open_encrypted
from securefs.sealer import NewFiles
from securefs.secrecy import clears_frames
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.disk import StrPath
    from securefs.keys import Keyring
    from securefs.primitives import Primitives, StreamSealer

__all__ = ["encrypt_in_place", "refuse_other_names"]


@clears_frames
def encrypt_in_place(
    path: StrPath,
    keyring: Keyring,
    context: bytes = b"",
    *,
    suite: Suite = Suite.CBC_HMAC,
    format_1: bool = False,
    follow_links: bool = True,
    break_links: bool = False,
    on_bytes: Callable[[int], object] = int,
    primitives: Primitives | None = None,
) -> FileInfo:
    """Replace the regular file at ``path`` by a Format 2 file with the same contents.

    It needs room for a second copy. Of two calls at a time, one waits for the other and then finds
    that the file was replaced. After a crash, the file is the old or the new one.

    :param format_1: the file is in Format 1 under a key of the keyring, and is decrypted.
    :param follow_links: replace the target of a link. If it is False, a link is refused.
    :param break_links: accept a file with other names; they keep the old file.
    :param on_bytes: is called with each number of bytes of plaintext that were sealed.
    :raises ConfigurationError: the primary key can't seal, or the context is too long.
    :raises FormatError: the file is in Format 2 already.
    :raises IntegrityError: the Format 1 file does not verify, or the new file is not what it should
        be. The old one is unchanged.
    :raises SourceError: it is not a regular file, has other names, or changed meanwhile.
    :raises OSError: it can't be read or replaced, or an attribute can't be kept.
    """
    sealer = NewFiles(keyring, suite=suite).sealer(context, primitives=primitives)
    with locked(path, os.O_RDONLY, follow_links=follow_links) as descriptor:
        before = os.fstat(descriptor)
        if not break_links:
            refuse_other_names(path, before)
        target = Path(path).resolve()
        with (
            _plaintext(descriptor, keyring, format_1=format_1) as source,
            write_atomically(target, overwrite=True) as sealed,
        ):
            # No more than there was: otherwise a file that grows all the time would never end.
            digest = _seal(source, sealed, sealer, on_bytes, most=before.st_size)
            info = _verified(sealed, keyring, context, digest)
            keep_attributes(descriptor, sealed.fileno(), before)
            after = os.fstat(descriptor)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise SourceError(f"{os.fsdecode(path)} was changed meanwhile: do it again")
            check_still_there(descriptor, target)
    return info


def refuse_other_names(path: StrPath, status: os.stat_result) -> None:
    """Raise :class:`SourceError` if the file at ``path`` has other names (hard links)."""
    if status.st_nlink > 1:
        raise SourceError(
            f"{os.fsdecode(path)} has {status.st_nlink} names (hard links), and the others would keep what is in it"
        )


@contextmanager
def _plaintext(descriptor: int, keyring: Keyring, *, format_1: bool) -> Iterator[BinaryIO]:
    with os.fdopen(os.dup(descriptor), "rb") as stored:
        if stored.read(len(MAGIC)) == MAGIC:
            raise FormatError("it is encrypted already")
        stored.seek(0)
        if not format_1:
            yield stored
            return
        with open_encrypted(stored, keyring, format_1=True) as opened:
            yield cast("BinaryIO", opened)


def _seal(
    source: BinaryIO, target: BinaryIO, sealer: StreamSealer, on_bytes: Callable[[int], object], *, most: int
) -> bytes:
    """Seal up to ``most`` bytes from ``source`` into ``target``; return the plaintext's SHA-256."""
    digest = hashlib.sha256()
    while data := source.read(min(COPY_SIZE, most)):
        most -= len(data)
        digest.update(data)
        target.write(sealer.update(data))
        on_bytes(len(data))
    target.write(sealer.finalize())
    return digest.digest()


def _verified(file: BinaryIO, keyring: Keyring, context: bytes, digest: bytes) -> FileInfo:
    """Return what is known of a new file, after all of it was read and compared."""
    found = hashlib.sha256()
    with open_encrypted(file, keyring, context) as opened:
        while data := opened.read(COPY_SIZE):
            found.update(data)
        info = FileInfo.of(opened)
    if found.digest() != digest:
        raise IntegrityError("the new file does not hold what was read", Reason.IO_ERROR)
    return info
