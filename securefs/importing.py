"""Files that are there already become encrypted ones: :func:`encrypt_in_place`.

Guarantees: at every moment there is the old file or the new one, whole
(:mod:`securefs.replacing`). The old one is replaced only after the new one was read back from the
file system, verified, and compared with what was read.

Refuses: a file that is in Format 2 already, so that none is encrypted twice.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from securefs.errors import FormatError, IntegrityError, Reason
from securefs.files import COPY_SIZE
from securefs.header import FIXED_SIZE, MAGIC, header_length, parse_header
from securefs.reader import open_encrypted
from securefs.replacing import replacement, seal_pieces, verified_copy
from securefs.sealer import NewFiles
from securefs.secrecy import clears_frames
from securefs.suites import TRAILER, Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.disk import StrPath
    from securefs.files import FileInfo
    from securefs.keys import Keyring
    from securefs.primitives import Primitives

__all__ = ["check_form", "encrypt_in_place"]


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
    with (
        replacement(path, follow_links=follow_links, break_links=break_links) as new,
        _plaintext(new.descriptor, keyring, format_1=format_1) as source,
    ):
        # No more than there was: otherwise a file that grows all the time would never end.
        pieces = _read(source, most=new.before.st_size)
        digest = seal_pieces(pieces, new.file, sealer, on_bytes)
        return verified_copy(new.file, keyring, context, digest)


def check_form(file: BinaryIO) -> None:
    """Check that a Format 2 file has the form of a whole one: header, length and last byte.

    It needs no key, reads the header and one byte, and verifies nothing.

    :param file: at its start.
    :raises FormatError: the header is cut or malformed.
    :raises IntegrityError: no writer makes a file of this length, or with this last byte.
    """
    start = file.read(FIXED_SIZE)
    start += file.read(header_length(start) - len(start))
    header = parse_header(start)
    size = file.seek(0, os.SEEK_END)
    file.seek(-len(TRAILER), os.SEEK_END)
    if not header.may_be_whole(size) or file.read() != TRAILER:
        raise IntegrityError("the file was cut or extended", Reason.TRUNCATED)


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


def _read(source: BinaryIO, *, most: int) -> Iterator[bytes]:
    """Yield up to ``most`` bytes from ``source``."""
    while data := source.read(min(COPY_SIZE, most)):
        most -= len(data)
        yield data
