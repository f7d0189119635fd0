"""One file takes the place of another: :func:`replacement`.

Guarantees: at every moment there is the old file or the new one, whole. The new one takes its place
in one step, with the old one's owner, group, mode, extended attributes and times. A caller that
raises keeps the old one.

Refuses: a file with other names (hard links), because they would keep what is in it; a file that
changes meanwhile. It can't see a program that holds the old file open and writes to it later: what
that writes is lost.

The old bytes stay on the disk until something overwrites them, and in backups and snapshots.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.disk import check_still_there, keep_attributes, locked, write_atomically
from securefs.errors import IntegrityError, Reason, SourceError
from securefs.files import COPY_SIZE, FileInfo
from securefs.reader import open_encrypted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from securefs.disk import StrPath
    from securefs.keys import Keyring
    from securefs.primitives import StreamSealer

__all__ = [
    "Replacement",
    "check_unchanged",
    "refuse_other_names",
    "replacement",
    "seal_pieces",
    "verified_copy",
]

_OTHER_NAMES: Final = "names (hard links), and the others would keep what is in it"


@dataclass(frozen=True, slots=True)
class Replacement:
    """A file that is being replaced.

    :ivar descriptor: of the old file, open for reading and locked. :ivar before: its status.
    :ivar file: the new one, empty, open for writing and reading.
    """

    descriptor: int
    before: os.stat_result
    file: BinaryIO


@contextmanager
def replacement(
    path: StrPath, *, follow_links: bool = True, break_links: bool = False
) -> Iterator[Replacement]:
    """Yield a new file that takes the place of the one at ``path`` if the block ends without error.

    Of two calls at a time, one waits for the other, and then fails because the file was replaced.

    :param follow_links: replace the target of a link. If it is False, a link is refused.
    :param break_links: accept a file with other names; they keep the old file.
    :raises SourceError: it is not a regular file, has other names, or changed meanwhile.
    :raises OSError: it can't be read or replaced, or an attribute can't be kept.
    """
    with locked(path, os.O_RDONLY, follow_links=follow_links) as descriptor:
        before = os.fstat(descriptor)
        if not break_links:
            refuse_other_names(path, before)
        target = Path(path).resolve()
        with write_atomically(target, overwrite=True) as file:
            yield Replacement(descriptor, before, file)
            keep_attributes(descriptor, file.fileno(), before)
            check_unchanged(path, descriptor, before)
            check_still_there(descriptor, target)


def refuse_other_names(path: StrPath, status: os.stat_result) -> None:
    """Raise :class:`SourceError` if the file at ``path`` has other names (hard links)."""
    if status.st_nlink > 1:
        raise SourceError(f"{os.fsdecode(path)} has {status.st_nlink} {_OTHER_NAMES}")


def check_unchanged(path: StrPath, descriptor: int, before: os.stat_result) -> None:
    """Raise :class:`SourceError` if the open file was written to since ``before``."""
    after = os.fstat(descriptor)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SourceError(f"{os.fsdecode(path)} was changed meanwhile: do it again")


def seal_pieces(
    pieces: Iterable[bytes], target: BinaryIO, sealer: StreamSealer, on_bytes: Callable[[int], object]
) -> bytes:
    """Seal ``pieces`` of plaintext into ``target``; return the SHA-256 of the plaintext.

    :param on_bytes: is called with each number of bytes that were sealed.
    """
    digest = hashlib.sha256()
    for data in pieces:
        digest.update(data)
        target.write(sealer.update(data))
        on_bytes(len(data))
    target.write(sealer.finalize())
    return digest.digest()


def verified_copy(file: BinaryIO, keyring: Keyring, context: bytes, digest: bytes) -> FileInfo:
    """Return what is known of a new file, after all of it was read back and compared.

    :param digest: the SHA-256 of the plaintext that it must hold.
    :raises IntegrityError: it does not.
    """
    found = hashlib.sha256()
    with open_encrypted(file, keyring, context) as opened:
        while data := opened.read(COPY_SIZE):
            found.update(data)
        info = FileInfo.of(opened)
    if found.digest() != digest:
        raise IntegrityError("the new file does not hold what was read", Reason.IO_ERROR)
    return info
