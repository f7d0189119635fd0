"""A file gets a new data key: :func:`reencrypt`, for a file key that leaked.

:func:`securefs.rewrap` exchanges who can unwrap a file's data key, and keeps that key. Whoever had
the old file key may have it. This opens the file and writes it anew, under a new data key that the
keyring's primary key alone unwraps.

Guarantees: at every moment there is the old file or the new one, whole
(:mod:`securefs.replacing`). The old one is replaced only after the new one was read back from the
file system, verified, and compared with what was read. Suite, context and metadata stay.

Refuses: a file with a slot that somebody planted, because then it can't be told which contents are
genuine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from securefs.errors import IntegrityError, Reason
from securefs.files import COPY_SIZE, FileInfo
from securefs.header import FIXED_SIZE, header_length, parse_header
from securefs.reader import open_encrypted
from securefs.replacing import replacement, seal_pieces, verified_copy
from securefs.sealer import NewFiles
from securefs.secrecy import clears_frames
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.disk import StrPath
    from securefs.header import Header
    from securefs.keys import Keyring
    from securefs.primitives import Primitives
    from securefs.reader import EncryptedFile

__all__ = ["Before", "Reencrypted", "needs_reencryption", "reencrypt"]


@dataclass(frozen=True, slots=True)
class Before:
    """What a file was, before it is written anew. Ids are lower-case hex.

    :ivar object_id: its id. :ivar key_id: the id of the key that opens it.
    :ivar other_keys: the ids of the keys of its other slots. They will not open the new file.
    :ivar needed: False if its data key was drawn under the primary key, and no other key had it.
    """

    object_id: str
    key_id: str
    other_keys: tuple[str, ...]
    needed: bool


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """The result of :func:`reencrypt`: what the file was, and what is known of the new one."""

    before: Before
    info: FileInfo


@clears_frames
def needs_reencryption(file: BinaryIO, keyring: Keyring, context: bytes = b"") -> Before:
    """Tell what an open Format 2 file is. Header, commitment and final segment are verified.

    A file needs nothing if its only slot is one of generation 1 for the primary key: a rewrap gives
    a slot a higher one (docs/format.md, "Changing the slots"), and the generation is bound into it.

    :raises FormatError, UnknownKeyError, IntegrityError: as :func:`securefs.open_encrypted`, and
        for a slot that somebody planted.
    """
    return _before(_header(file), _opened(file, keyring, context), keyring)


@clears_frames
def reencrypt(
    path: StrPath,
    keyring: Keyring,
    context: bytes = b"",
    *,
    suite: Suite | None = None,
    keep_id: bool = False,
    follow_links: bool = True,
    break_links: bool = False,
    on_bytes: Callable[[int], object] = int,
    primitives: Primitives | None = None,
) -> Reencrypted:
    """Replace the Format 2 file at ``path`` by one with the same contents and a new data key.

    It needs room for a second copy. Slots of other keys are gone, also of keys that the keyring
    does not hold. Of two calls at a time, one waits for the other and then fails.

    :param suite: None keeps the file's.
    :param keep_id: the new file has the old one's object id. Otherwise it gets a new one, and an
        app that recorded the old id must learn it.
    :param follow_links, break_links, on_bytes: as for
        :func:`securefs.importing.encrypt_in_place`.
    :raises ConfigurationError: the primary key can't seal, or the context is too long.
    :raises FormatError, UnknownKeyError, IntegrityError: as :func:`needs_reencryption`, and if the
        contents do not verify. The old file is unchanged.
    :raises OSError, SourceError: as :func:`securefs.importing.encrypt_in_place`.
    """
    with (
        replacement(path, follow_links=follow_links, break_links=break_links) as new,
        os.fdopen(os.dup(new.descriptor), "rb") as stored,
    ):
        opened = _opened(stored, keyring, context)
        before = _before(_header(stored), opened, keyring)
        sealer = NewFiles(keyring, suite=suite or Suite.parse(opened.suite)).sealer(
            context,
            opened.metadata,
            file_id=bytes.fromhex(before.object_id) if keep_id else None,
            primitives=primitives,
        )
        digest = seal_pieces(_pieces(opened), new.file, sealer, on_bytes)
        return Reencrypted(before, verified_copy(new.file, keyring, context, digest))


def _header(file: BinaryIO) -> Header:
    file.seek(0)
    start = file.read(FIXED_SIZE)
    return parse_header(start + file.read(header_length(start) - len(start)))


def _opened(file: BinaryIO, keyring: Keyring, context: bytes) -> EncryptedFile:
    opened = open_encrypted(file, keyring, context)
    if opened.passed_over:
        names = ", ".join(f"slot {index} (key {key_id})" for index, key_id in opened.passed_over)
        raise IntegrityError(
            f"{names} was planted, or the contents were, with key {opened.key_id}: they do not belong together. Somebody else "
            "holds one of these file keys; nothing was written. See docs/keys.md, When a key leaks",
            Reason.COMMITMENT_MISMATCH,
        )
    return opened


def _before(header: Header, opened: EncryptedFile, keyring: Keyring) -> Before:
    wrapper = keyring.wrapper()
    (first, *more) = header.slots
    fresh = not more and (first.kind, first.key_id, first.generation) == (wrapper.kind, wrapper.key_id, 1)
    others = {slot.key_id.hex() for slot in header.slots} - {opened.key_id, wrapper.key_id.hex()}
    return Before(opened.object_id, opened.key_id, tuple(sorted(others)), needed=not fresh)


def _pieces(opened: EncryptedFile) -> Iterator[bytes]:
    while data := opened.read(COPY_SIZE):
        yield data
