"""Key rotation: :func:`rewrap` replaces the old keys of a file without touching its contents.

It changes the header's slot table (docs/format.md, "Changing the slots"). Three rules keep that
safe in place, while others read, if the power fails at any moment, and if somebody planted slots:

- Before a byte is written, every slot of a key of the ring is unwrapped. All that unwrap must give
  the one DEK under which the metadata and the commitment verify. If one gives another DEK, somebody
  planted that slot, or planted contents that fit a slot of theirs. It can't be told which, so the
  file is not changed. The new table is parsed in memory first.
- A slot that opens the file is removed only after another slot was read back and opens it too.
- The first four bytes of a slot are written first and cleared last, and each step is flushed. So
  the table always parses, whatever part of a write has reached the disk or a reader.

If the table has no room, or its slots are not aligned to those four bytes, the file is replaced by
a copy with another table.
"""

from __future__ import annotations

import hmac
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from securefs.arguments import require, require_path
from securefs.backend import default_primitives
from securefs.disk import check_still_there, locked, open_regular, write_atomically
from securefs.errors import FormatError, IntegrityError, Reason, UnknownKeyError
from securefs.files import COPY_SIZE
from securefs.header import (
    FIXED_SIZE,
    MAGIC,
    MAX_GENERATION,
    MAX_SLOTS,
    SLOT_ALIGNMENT,
    SLOT_HEAD_SIZE,
    fitting_slot_size,
    header_length,
    parse_header,
    slot_table,
)
from securefs.keys import KEY_ID_SIZE, Keyring
from securefs.keys.slots import claimed_slots, new_slot
from securefs.metadata import open_metadata
from securefs.secrecy import clears_frames
from securefs.stream import open_with, split_start
from securefs.suites import BODY_HEAD_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securefs.disk import StrPath
    from securefs.header import Header, Slot
    from securefs.keys import Wrapper
    from securefs.primitives import Primitives

__all__ = ["Rewrapped", "opening_key", "rewrap"]

# The first bytes of a slot (kind and payload length), which are written whole or not at all.
MARK: Final = SLOT_ALIGNMENT  # bytes
NOBODY: Final = bytes(KEY_ID_SIZE)  # the key id in a slot that is being made or removed


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """The result of :func:`rewrap`. Ids are lower-case hex.

    :ivar object_id: the file's id, which does not change.
    :ivar key_id: the id of the key that opens the file now, the keyring's primary.
    :ivar removed: the ids of the keys that opened it before and no longer do.
    :ivar changed: False if nothing had to be written.
    """

    object_id: str
    key_id: str
    removed: tuple[str, ...] = ()
    changed: bool = False


@clears_frames
def rewrap(
    path: StrPath,
    keyring: Keyring,
    context: bytes | None = b"",
    *,
    follow_links: bool = True,
    primitives: Primitives | None = None,
) -> Rewrapped:
    """Let the keyring's primary key, and no previous one, open the Format 2 file at ``path``.

    Contents, length and object id do not change. Slots of keys that the keyring does not hold stay,
    so nobody else is locked out. After a crash the file opens as before, and a second call
    completes the change. The modification time becomes the current time, so that backups include
    the change. Of two calls at a time, one waits for the other.

    :param context: the context that the file was written with. None means that it is not known; the
        commitment, which is bound to it, is then not verified. In that case, a file whose only slot
        was planted gets a slot that the new key unwraps, and still does not open.
    :param follow_links: change the target of a link. If it is False, a link is refused: use that
        for files that were found in a folder that others may write to.
    :raises ConfigurationError: the primary key can't seal.
    :raises FormatError: not a Format 2 file. Format 1 names no key: such a file can only be
        encrypted anew.
    :raises UnknownKeyError: no key of the keyring opens it.
    :raises IntegrityError: the slots of the keyring's keys do not give one DEK under which metadata
        and commitment verify: a slot was planted, the file was changed, or it was written in
        another context. Nothing was written.
    :raises OSError: it can't be read, locked or written.
    :raises SourceError: it is a pipe, a device, a folder, or a link that is not followed.
    """
    require_path("path", path)
    require("keyring", keyring, Keyring, "a Keyring")
    primitives = primitives or default_primitives()
    wrapper = keyring.wrapper()
    with locked(path, os.O_RDWR, follow_links=follow_links) as descriptor:
        header, body_head = split_start(_read_start(descriptor))
        claimed = list(claimed_slots(header, keyring))
        used, dek = _genuine_slot(claimed, header, body_head, context, primitives)
        change = _Change.of(header, [slot for slot, _ in claimed], used, dek, wrapper)
        if change.needed:
            check = partial(_check_opens, new=change.new, dek=dek, keyring=keyring)
            if change.fits:
                _change_in_place(descriptor, change, check)
                check_still_there(descriptor, path)
            else:
                _replace_by_copy(descriptor, Path(path), change, check)
    names = {slot.key_id for slot in (used, *change.stale)} - {wrapper.key_id, NOBODY}
    removed = tuple(sorted(name.hex() for name in names))
    return Rewrapped(header.object_id, wrapper.key_id.hex(), removed, changed=change.needed)


@clears_frames
def opening_key(
    path: StrPath,
    keyring: Keyring,
    context: bytes | None = b"",
    *,
    follow_links: bool = True,
    primitives: Primitives | None = None,
) -> str:
    """Return the id (hex) of the key that the Format 2 file at ``path`` needs.

    It is the primary key's if that opens the file, or else that of the previous key which sealed it
    last. Nothing is written. Only the header and the commitment are verified.

    :param context, follow_links: as for :func:`rewrap`.
    :raises ConfigurationError, FormatError, UnknownKeyError, IntegrityError, OSError, SourceError:
        as :func:`rewrap`.
    """
    primitives = primitives or default_primitives()
    descriptor = open_regular(path, follow_links=follow_links)
    try:
        header, body_head = split_start(_read_start(descriptor))
    finally:
        os.close(descriptor)
    claimed = list(claimed_slots(header, keyring))
    used, _ = _genuine_slot(claimed, header, body_head, context, primitives)
    names = [used.key_id, *(slot.key_id for slot, dek in claimed if dek is not None)]
    return (keyring.primary_id if keyring.primary_id in names else used.key_id).hex()


@dataclass(frozen=True, slots=True)
class _Change:
    """The planned change of a file's slots.

    :ivar used: the newest of the keyring's genuine slots. It is removed last, unless it is the
        primary key's.
    :ivar stale: the keyring's other slots, and the remains of a crash; they are removed first.
    :ivar others: slots of other keys; they stay.
    :ivar made: whether ``used`` is the primary key's already. :ivar new: the primary key's slot, as
        it is stored.
    """

    header: Header
    used: Slot
    stale: tuple[Slot, ...]
    others: tuple[Slot, ...]
    made: bool
    new: bytes

    @classmethod
    def of(cls, header: Header, ours: Sequence[Slot], used: Slot, dek: bytes, wrapper: Wrapper) -> _Change:
        """Sort the slots of a file. ``ours`` are the slots of the keyring's keys."""
        kinds = {wrapper.kind, *(slot.kind for slot in ours)}
        # A slot that was left half written or half removed has the id NOBODY, and is removed like
        # the keyring's own.
        ours = [
            slot for slot in header.slots if slot in ours or (slot.kind in kinds and slot.key_id == NOBODY)
        ]
        stale = tuple(slot for slot in ours if slot is not used)
        others = tuple(slot for slot in header.slots if slot not in ours)
        made = (used.kind, used.key_id) == (wrapper.kind, wrapper.key_id)
        new = _stored(used) if made else _new_slot(header, dek, wrapper)
        return cls(header, used, stale, others, made, new)

    @property
    def needed(self) -> bool:
        """False if the primary key's slot is the only one of the keyring's."""
        return not self.made or bool(self.stale)

    @property
    def fits(self) -> bool:
        """Whether the table has room for the new slot, and for one more at the next rewrap."""
        header = self.header
        aligned = header.slot_size % MARK == 0
        return aligned and len(self.new) <= header.slot_size and header.slot_count > len(self.others) + 1


def _change_in_place(descriptor: int, change: _Change, check: Callable[[Header], None]) -> None:
    """Remove the stale slots, insert the new slot, then remove the one that it replaces.

    At every moment, at least one of them opens the file.
    """
    if change.made:
        _remove(descriptor, change.header, change.stale)
        return
    check(_with_slot(change.header, change.stale, change.new))  # before a byte is written
    _remove(descriptor, change.header, change.stale)
    _insert(descriptor, change.header, change.stale, change.new)
    check(parse_header(_read_start(descriptor)))
    _remove(descriptor, change.header, [change.used])


def _read_start(descriptor: int) -> bytes:
    """Return the header and the body's first 56 bytes, or fewer if the file ends before."""
    start = os.pread(descriptor, FIXED_SIZE, 0)
    if start[: len(MAGIC)] != MAGIC:
        raise FormatError(
            "not a Format 2 file (Format 1 names no key: such a file can only be encrypted anew)",
            Reason.NOT_ENCRYPTED,
        )
    return start + os.pread(descriptor, header_length(start) + BODY_HEAD_SIZE - FIXED_SIZE, FIXED_SIZE)


def _genuine_slot(
    claimed: Sequence[tuple[Slot, bytes | None]],
    header: Header,
    body_head: bytes,
    context: bytes | None,
    primitives: Primitives,
) -> tuple[Slot, bytes]:
    """Return (slot, DEK): the newest of the keyring's slots.

    All slots that unwrap must give the DEK that the file was written with. A slot that its own key
    does not unwrap gives no DEK: a crash left it, or it was damaged, and it is not needed.
    """
    opened = [(slot, dek) for slot, dek in claimed if dek is not None]
    if not opened:
        raise IntegrityError("no key slot unwraps: the preamble or the slot was changed; nothing was written")
    found = [(slot, _fault_of(dek, header, body_head, context, primitives)) for slot, dek in opened]
    planted = [slot for slot, fault in found if fault is not None]
    fitting = [slot for slot, fault in found if fault is None]
    first = found[0][1]
    if first is not None and not fitting:
        raise IntegrityError(f"{_named(planted)}: {first}; nothing was written", first.reason)
    if planted:
        raise IntegrityError(
            f"{_named(planted)} was planted, or the contents were: they do not belong together, while {_named(fitting)} fits. "
            "Somebody else holds one of these file keys; nothing was written. See docs/keys.md, When a key leaks",
            Reason.COMMITMENT_MISMATCH,
        )
    used, genuine = opened[0]
    if not all(hmac.compare_digest(dek, genuine) for _, dek in opened):
        raise IntegrityError(
            f"{_named(fitting)} hold different keys: without the context that the file was written with it "
            "can't be told which one was planted; nothing was written",
            Reason.COMMITMENT_MISMATCH,
        )
    return used, genuine


def _fault_of(
    dek: bytes, header: Header, body_head: bytes, context: bytes | None, primitives: Primitives
) -> FormatError | IntegrityError | None:
    """Return the error of a file under this DEK; None if it verifies. See :func:`rewrap`."""
    try:
        if context is None:
            open_metadata(header.sealed_metadata, dek, header.file_id, header.preamble, primitives)
        else:
            open_with(dek, header, body_head, context, primitives)
    except (FormatError, IntegrityError) as error:
        return error
    return None


def _named(slots: Sequence[Slot]) -> str:
    return ", ".join(
        f"slot {slot.index} (key {slot.key_id.hex()}, generation {slot.generation})" for slot in slots
    )


def _check_opens(header: Header, new: bytes, dek: bytes, keyring: Keyring) -> None:
    with suppress(UnknownKeyError):
        for slot, found in claimed_slots(header, keyring):
            if _stored(slot) == new and found is not None and hmac.compare_digest(found, dek):
                return
    raise IntegrityError("the new key slot does not give the key that was wrapped in it", Reason.IO_ERROR)


def _with_slot(header: Header, stale: Sequence[Slot], new: bytes) -> Header:
    """Return the header as it will be after ``new`` was inserted."""
    slots = [b""] * header.slot_count
    for slot in header.slots:
        if slot not in stale:
            slots[slot.index] = _stored(slot)
    slots[_free_index(header, stale)] = new
    table = slot_table(slots, header.slot_count, header.slot_size)
    return parse_header(header.preamble + table + header.sealed_metadata)


def _free_index(header: Header, stale: Sequence[Slot]) -> int:
    taken = {slot.index for slot in header.slots if slot not in stale}
    return next(index for index in range(header.slot_count) if index not in taken)


def _insert(descriptor: int, header: Header, stale: Sequence[Slot], new: bytes) -> None:
    """Write ``new`` into the first slot that is empty after the ``stale`` ones were removed."""
    offset = header.slot_offset(_free_index(header, stale))
    _write(descriptor, offset, new[:MARK])
    _write(descriptor, offset + MARK, new[MARK:])


def _remove(descriptor: int, header: Header, slots: Sequence[Slot]) -> None:
    for slot in slots:
        offset = header.slot_offset(slot.index)
        _write(descriptor, offset + MARK, bytes(header.slot_size - MARK))
        _write(descriptor, offset, bytes(MARK))


def _write(descriptor: int, offset: int, data: bytes) -> None:
    """Write and flush, so that no later write reaches the disk before this one."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        offset, data = offset + written, data[written:]
    os.fsync(descriptor)


def _stored(slot: Slot) -> bytes:
    return slot.head + slot.payload


def _new_slot(header: Header, dek: bytes, wrapper: Wrapper) -> bytes:
    generation = min(max(slot.generation for slot in header.slots) + 1, MAX_GENERATION)
    return new_slot(wrapper, dek, header.preamble, generation, token_bytes)


def _replace_by_copy(descriptor: int, path: Path, change: _Change, check: Callable[[Header], None]) -> None:
    """Replace the file by a copy with the new slots.

    The copy also has an empty slot if the format allows it.
    """
    header, slots = change.header, [*map(_stored, change.others), change.new]
    count = min(MAX_SLOTS, max(header.slot_count, len(slots) + 1))
    size = fitting_slot_size(len(slots[-1]) - SLOT_HEAD_SIZE, header.slot_size)
    table = slot_table(slots, count, size)
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
        check_still_there(descriptor, path)
