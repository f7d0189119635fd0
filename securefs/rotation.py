"""Rotation: :func:`rewrap` lets the new file key open a file, and the old ones no longer, without touching its contents.

What changes is the header's table of slots (docs/format.md, "Changing the slots"). Two rules make that safe in place, with
readers at work and with the power failing at any moment. A slot that opens the file is removed only after another one was read
back and opens it too. And a slot appears with its first four bytes and goes with them, flushed before the rest is written and
after it is zeroed: whatever part of a write has come to the disk, or to a reader, the table is well-formed. Where
a table has no room, or slots that are not aligned to those four bytes, a copy of the file with another table takes the file's place.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from securefs.backend import default_primitives
from securefs.errors import ConfigurationError, FormatError, IntegrityError, Reason
from securefs.files import COPY_SIZE, write_atomically
from securefs.header import (
    FIXED_SIZE,
    KIND_FILE_KEY,
    MAGIC,
    MAX_GENERATION,
    MAX_SLOTS,
    WRAP_SALT_SIZE,
    header_length,
    parse_header,
    slot_table,
    unwrap_dek,
    wrap_slot,
)
from securefs.keys import KEY_ID_SIZE, Keyring

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securefs.files import StrPath
    from securefs.header import Header, Slot
    from securefs.primitives import Primitives

__all__ = ["Rewrapped", "rewrap"]

MARK: Final = 4  # bytes at a slot's start, kind and payload length: small and aligned enough to be written whole or not at all
NOBODY: Final = bytes(KEY_ID_SIZE)  # the key id in a slot that is being made or removed


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What :func:`rewrap` did. Ids are lower-case hex.

    :ivar object_id: the file's id, which stays.
    :ivar key_id: the id of the key that opens the file now, the keyring's primary.
    :ivar removed: the ids of the keys that opened it before and no longer do.
    :ivar changed: False where nothing had to be written.
    """

    object_id: str
    key_id: str
    removed: tuple[str, ...] = ()
    changed: bool = False


def rewrap(path: StrPath, keyring: Keyring, *, primitives: Primitives | None = None) -> Rewrapped:
    """Make the Format 2 file at ``path`` one that the keyring's primary key opens and its previous keys do not.

    Contents, length and object id stay, and so do slots for keys that the keyring does not hold: nobody else is shut out. After
    a crash the file opens as before, and doing it again completes it. The time of last modification becomes now, so
    that backups take the change along. Of two at a time, one waits for the other.

    :raises ConfigurationError: the primary key can't seal, or this is no regular file.
    :raises FormatError: no Format 2 file. Format 1 names no key: such a file can only be encrypted anew.
    :raises UnknownKeyError, IntegrityError: no key of the keyring opens it.
    :raises OSError: it can't be read, locked or written.
    """
    primitives = primitives or default_primitives()
    key = keyring.sealing_key()
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"{os.fsdecode(path)} is not a regular file")
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # before the header is read, which somebody may be changing
        header = _read_header(descriptor)
        dek, used = unwrap_dek(header, keyring, primitives)
        stale = [slot for slot in header.slots if slot is not used and _is_ours(slot, keyring)]
        others = [slot for slot in header.slots if slot is not used and slot not in stale]
        made = used.key_id == keyring.primary_id  # with stale slots beside it: a crash left them
        if made and not stale:
            return Rewrapped(header.object_id, keyring.primary_id.hex())
        new = _stored(used) if made else _new_slot(header, dek, keyring, primitives)
        check = partial(_check_opens, dek=dek, keyring=Keyring(key), primitives=primitives)
        if header.slot_size % MARK or header.slot_count == len(others) + 1:
            _replace_by_copy(descriptor, Path(path), header, [*map(_stored, others), new], check)
        else:
            _remove(descriptor, header, stale)
            if not made:
                _insert(descriptor, header, stale, new)
                check(_read_header(descriptor))
                _remove(descriptor, header, [used])
    finally:
        os.close(descriptor)
    names = {slot.key_id for slot in (used, *stale)} - {keyring.primary_id, NOBODY}
    removed = tuple(sorted(name.hex() for name in names))
    return Rewrapped(header.object_id, keyring.primary_id.hex(), removed, changed=True)


def _read_header(descriptor: int) -> Header:
    start = os.pread(descriptor, FIXED_SIZE, 0)
    if start[: len(MAGIC)] != MAGIC:
        raise FormatError(
            "not a Format 2 file (Format 1 names no key: such a file can only be encrypted anew)",
            Reason.NOT_ENCRYPTED,
        )
    return parse_header(start + os.pread(descriptor, header_length(start) - FIXED_SIZE, FIXED_SIZE))


def _is_ours(slot: Slot, keyring: Keyring) -> bool:
    """Tell whether the slot is of a key that the keyring holds, or was left half made or half removed."""
    return slot.kind == KIND_FILE_KEY and (slot.key_id == NOBODY or keyring.find(slot.key_id) is not None)


def _check_opens(header: Header, dek: bytes, keyring: Keyring, primitives: Primitives) -> None:
    if not hmac.compare_digest(unwrap_dek(header, keyring, primitives)[0], dek):
        raise IntegrityError("the new key slot holds another key than the old one", Reason.IO_ERROR)


def _insert(descriptor: int, header: Header, stale: Sequence[Slot], new: bytes) -> None:
    """Write ``new`` into the first slot that is empty now that ``stale`` ones were removed."""
    taken = {slot.index for slot in header.slots if slot not in stale}
    offset = header.slot_offset(next(index for index in range(header.slot_count) if index not in taken))
    _write(descriptor, offset, new[:MARK])
    _write(descriptor, offset + MARK, new[MARK:])


def _remove(descriptor: int, header: Header, slots: Sequence[Slot]) -> None:
    for slot in slots:
        offset = header.slot_offset(slot.index)
        _write(descriptor, offset + MARK, bytes(header.slot_size - MARK))
        _write(descriptor, offset, bytes(MARK))


def _write(descriptor: int, offset: int, data: bytes) -> None:
    """Write and flush: what is written next must not come to the disk before this."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        offset, data = offset + written, data[written:]
    os.fsync(descriptor)


def _stored(slot: Slot) -> bytes:
    return slot.head + slot.payload


def _new_slot(header: Header, dek: bytes, keyring: Keyring, primitives: Primitives) -> bytes:
    return wrap_slot(
        dek=dek,
        key=keyring.sealing_key(),
        key_id=keyring.primary_id,
        wrap_salt=token_bytes(WRAP_SALT_SIZE),
        generation=min(max(slot.generation for slot in header.slots) + 1, MAX_GENERATION),
        preamble=header.preamble,
        primitives=primitives,
    )


def _replace_by_copy(
    descriptor: int, path: Path, header: Header, slots: Sequence[bytes], check: Callable[[Header], None]
) -> None:
    """Put a copy with ``slots`` and, if the format allows it, an empty one in the place of the file."""
    count = min(MAX_SLOTS, max(header.slot_count, len(slots) + 1))
    table = slot_table(slots, count, header.slot_size + -header.slot_size % MARK)
    start = header.preamble + table + header.sealed_metadata
    check(parse_header(start))
    status = os.fstat(descriptor)
    target = path.resolve()  # a link stays a link
    with write_atomically(target, overwrite=True) as copy:
        os.fchown(copy.fileno(), status.st_uid, status.st_gid)
        os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
        copy.write(start)
        offset = header.length
        while data := os.pread(descriptor, COPY_SIZE, offset):
            copy.write(data)
            offset += len(data)
        if not os.path.samestat(status, target.stat()):
            raise OSError(errno.ESTALE, "the file was replaced meanwhile: do it again", str(path))
