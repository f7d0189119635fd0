"""The header of a Format 2 file: preamble, slot table, metadata (docs/format.md, "Format 2").

These are pure functions over bytes and know no key: :mod:`securefs.keys.slots` handles the content
of a slot, and :mod:`securefs.metadata` the metadata. The sizes in a header are checked against the
format's limits before anything is allocated for them; a header is at most 98,360 bytes. A parsed
header is only well-formed. It is trusted once a slot unwraps, because the preamble is bound into
every key that is derived from the data encryption key (DEK).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.errors import FormatError, Reason
from securefs.metadata import MAX_TEXT
from securefs.primitives import GCM_TAG_SIZE, KEY_SIZE, view_of
from securefs.suites import TRAILER, Suite

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FILE_ID_SIZE",
    "FIXED_SIZE",
    "MAGIC",
    "MAX_GENERATION",
    "MAX_META_SIZE",
    "MAX_SLOTS",
    "PREAMBLE_SIZE",
    "Header",
    "Slot",
    "build_preamble",
    "claimed_least",
    "claimed_object_id",
    "claimed_suite",
    "fitting_slot_size",
    "header_length",
    "may_have_payload",
    "new_header_size",
    "parse_header",
    "slot_head",
    "slot_table",
]

# A byte with the eighth bit set, "SFS2", CR LF and SUB: any copy in text mode breaks it.
MAGIC: Final = bytes.fromhex("8953465332 0D0A1A")
VERSION: Final = 2
FILE_ID_SIZE: Final = 32  # bytes
PREAMBLE_SIZE: Final = 48  # bytes
SUITE_AT: Final = 9  # offsets in the preamble
FILE_ID_AT: Final = 16
TABLE_HEAD_SIZE: Final = 8  # bytes: count, reserved, slot size, reserved
FIXED_SIZE: Final = PREAMBLE_SIZE + TABLE_HEAD_SIZE  # bytes; enough to know the header's length
SLOT_HEAD_SIZE: Final = 24  # bytes; bound into the wrap
MAX_SLOTS: Final = 8
MIN_SLOT_SIZE: Final = 104  # bytes
MAX_SLOT_SIZE: Final = 4096  # bytes
MAX_GENERATION: Final = 2**32 - 1
MIN_META_SIZE: Final = GCM_TAG_SIZE + 1  # bytes; sealed
MAX_META_SIZE: Final = MAX_TEXT + GCM_TAG_SIZE  # 65,536 bytes; sealed
DEFAULT_SLOTS: Final = 2  # one in use, one free for a rewrap in place
DEFAULT_SLOT_SIZE: Final = 160  # bytes
SLOT_ALIGNMENT: Final = 4  # bytes; the first four bytes of a slot are written whole or not at all

KIND_EMPTY: Final = 0
KIND_FILE_KEY: Final = 1
KIND_KEY_SERVICE: Final = 2
KIND_HPKE: Final = 3
KIND_NAMES: Final = {
    KIND_FILE_KEY: "file key",
    KIND_KEY_SERVICE: "key service",
    KIND_HPKE: "hpke recipient",
}
_KIND_1_PAYLOAD: Final = 32 + KEY_SIZE + GCM_TAG_SIZE  # 80 bytes: salt, DEK, tag
# Payload size of each kind, minimum and maximum, in bytes. Kind 2: a length byte, a provider name,
# a ciphertext; kind 3: enc and ct.
_PAYLOAD_SIZES: Final = {
    KIND_FILE_KEY: (_KIND_1_PAYLOAD, _KIND_1_PAYLOAD),
    KIND_KEY_SERVICE: (3, MAX_SLOT_SIZE),
    KIND_HPKE: (1120 + 48, 1120 + 48),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """One non-empty slot, which lets one key open the file."""

    index: int  # its place in the table
    kind: int
    generation: int
    key_id: bytes
    head: bytes  # the slot's first 24 bytes as stored
    payload: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A well-formed header. ``length`` is the offset in bytes at which the body starts."""

    preamble: bytes
    suite: Suite
    file_id: bytes
    slots: tuple[Slot, ...]
    slot_count: int
    slot_size: int
    sealed_metadata: bytes
    length: int

    @property
    def object_id(self) -> str:
        """The file id in lower-case hex: the name of the file in logs and APIs."""
        return self.file_id.hex()

    def plaintext_bounds(self, file_size: int) -> tuple[int, int]:
        """Return the minimum and maximum bytes of plaintext in a file of ``file_size`` bytes."""
        return self.suite.plaintext_bounds(file_size - self.length - len(TRAILER))

    def may_be_whole(self, file_size: int) -> bool:
        """Return whether a writer may have made a file of this header and size."""
        return self.suite.may_be_whole(file_size - self.length - len(TRAILER))

    def slot_offset(self, index: int) -> int:
        """Return the offset in the file, in bytes, of the slot at ``index`` of the table."""
        return FIXED_SIZE + index * self.slot_size


def header_length(start: bytes) -> int:
    """Return the header's length in bytes, from its first 56 bytes.

    :raises FormatError: they are not the start of a Format 2 header.
    """
    if start[: len(MAGIC)] != MAGIC:
        raise FormatError(
            "not a securefs file: it does not start with the Format 2 magic", Reason.NOT_ENCRYPTED
        )
    if len(start) < FIXED_SIZE:
        raise FormatError(f"the file ends inside its header, after {len(start)} bytes", Reason.TRUNCATED)
    if start[8] != VERSION:
        raise FormatError(f"unknown format version {start[8]}")
    if start[10:12] != b"\0\0":
        raise FormatError("reserved flags are set in the preamble")
    meta_size = int.from_bytes(start[12:16], "big")
    if meta_size and not MIN_META_SIZE <= meta_size <= MAX_META_SIZE:
        raise FormatError(
            f"metadata of {meta_size} bytes; allowed are 0 or {MIN_META_SIZE} to {MAX_META_SIZE}"
        )
    count, slot_size = start[48], int.from_bytes(start[50:52], "big")
    if start[49] or any(start[52:56]):
        raise FormatError("reserved bytes are set in the slot table")
    if not 1 <= count <= MAX_SLOTS or not MIN_SLOT_SIZE <= slot_size <= MAX_SLOT_SIZE:
        raise FormatError(
            f"a slot table of {count} slots of {slot_size} bytes is outside the format's limits"
        )
    return FIXED_SIZE + count * slot_size + meta_size


def parse_header(data: bytes) -> Header:
    """Return the header at the start of ``data``.

    :raises FormatError: ``data`` does not hold the whole of a well-formed header.
    """
    length = header_length(data)
    if len(data) < length:
        raise FormatError(
            f"the file ends inside its header, after {len(data)} of {length} bytes", Reason.TRUNCATED
        )
    try:
        suite = Suite(data[SUITE_AT])
    except ValueError:
        raise FormatError(f"unknown suite {data[SUITE_AT]}") from None
    count, slot_size = data[48], int.from_bytes(data[50:52], "big")
    table_end = FIXED_SIZE + count * slot_size
    slots = [
        _parse_slot(index, data[start : start + slot_size])
        for index, start in enumerate(range(FIXED_SIZE, table_end, slot_size))
    ]
    return Header(
        preamble=data[:PREAMBLE_SIZE],
        suite=suite,
        file_id=data[FILE_ID_AT:PREAMBLE_SIZE],
        slots=tuple(slot for slot in slots if slot is not None),
        slot_count=count,
        slot_size=slot_size,
        sealed_metadata=data[table_end:length],
        length=length,
    )


def may_have_payload(kind: int, size: int) -> bool:
    """Return whether a slot of this kind may have a payload of ``size`` bytes."""
    least, most = _PAYLOAD_SIZES.get(kind, (1, 0))
    return least <= size <= min(most, MAX_SLOT_SIZE - SLOT_HEAD_SIZE)


def _parse_slot(index: int, data: bytes) -> Slot | None:
    kind, payload_size = data[0], int.from_bytes(data[2:4], "big")
    if kind == KIND_EMPTY:
        if any(data):
            raise FormatError("an empty slot holds bytes")
        return None
    if kind not in _PAYLOAD_SIZES:
        raise FormatError(f"unknown slot kind {kind}")
    payload_end = SLOT_HEAD_SIZE + payload_size
    if data[1] or payload_end > len(data) or any(data[payload_end:]):
        raise FormatError("a slot's reserved byte, payload length or filling is wrong")
    if not may_have_payload(kind, payload_size):
        # Without this check, one flipped bit would turn an empty slot into one that no writer
        # makes.
        raise FormatError(f"a slot of kind {kind} can't have a payload of {payload_size} bytes")
    return Slot(
        index=index,
        kind=kind,
        generation=int.from_bytes(data[4:8], "big"),
        key_id=data[8:SLOT_HEAD_SIZE],
        head=data[:SLOT_HEAD_SIZE],
        payload=data[SLOT_HEAD_SIZE:payload_end],
    )


def build_preamble(suite: Suite, file_id: bytes, metadata_size: int) -> bytes:
    """Return the preamble of a file whose metadata text has ``metadata_size`` bytes.

    0 means that the file has no metadata.
    """
    sealed_size = metadata_size + GCM_TAG_SIZE if metadata_size else 0
    return b"".join((MAGIC, bytes([VERSION, suite.value, 0, 0]), sealed_size.to_bytes(4, "big"), file_id))


def slot_head(kind: int, payload_size: int, generation: int, key_id: bytes) -> bytes:
    """Return a slot's first 24 bytes, which are bound into the wrap of its key."""
    return b"".join(
        (bytes([kind, 0]), payload_size.to_bytes(2, "big"), generation.to_bytes(4, "big"), key_id)
    )


def fitting_slot_size(payload_size: int, least: int | None = None) -> int:
    """Return a slot size, in bytes, with room for a payload of ``payload_size`` bytes.

    It is aligned, and at least ``least``, or the usual size if that is None.
    """
    size = max(DEFAULT_SLOT_SIZE if least is None else least, SLOT_HEAD_SIZE + payload_size)
    return size + -size % SLOT_ALIGNMENT


def new_header_size(payload_size: int, metadata_size: int) -> int:
    """Return the size in bytes of a new file's header.

    It follows from the payload size of its one slot and from the size of its metadata text.
    """
    sealed = metadata_size + GCM_TAG_SIZE if metadata_size else 0
    return FIXED_SIZE + DEFAULT_SLOTS * fitting_slot_size(payload_size) + sealed


def claimed_suite(start: bytes) -> Suite | None:
    """Return the suite that a file claims in its first bytes.

    Return None if they are too few or name no suite.
    """
    try:
        return Suite(start[SUITE_AT]) if start[: len(MAGIC)] == MAGIC else None
    except (IndexError, ValueError):
        return None


def claimed_least(start: bytes, file_size: int) -> int:
    """Return the minimum bytes of plaintext in a file of ``file_size`` bytes, by what it claims.

    0 if ``start``, its first :data:`FIXED_SIZE` bytes, is no start of a Format 2 header.
    """
    try:
        length = header_length(start)
        return Suite(start[SUITE_AT]).plaintext_bounds(file_size - length - len(TRAILER))[0]
    except (FormatError, ValueError):
        return 0


def claimed_object_id(start: bytes) -> str | None:
    """Return the object id (64 hex digits) that a stored file claims; None if not Format 2.

    The id is not verified. It is for apps that name stored files by it. See ``docs/format.md``,
    "Preamble".

    :param start: the file's first :data:`PREAMBLE_SIZE` bytes, or more.
    :raises SourceError: it is not bytes.
    """
    start = bytes(view_of(start)[:PREAMBLE_SIZE])
    if start[: len(MAGIC)] != MAGIC or len(start) < PREAMBLE_SIZE:
        return None
    return start[FILE_ID_AT:PREAMBLE_SIZE].hex()


def slot_table(slots: Sequence[bytes], count: int, slot_size: int) -> bytes:
    """Return a table of ``count`` slots of ``slot_size`` bytes: ``slots``, then empty ones."""
    head = bytes([count, 0]) + slot_size.to_bytes(2, "big") + bytes(4)
    return head + b"".join(slot.ljust(slot_size, b"\0") for slot in slots).ljust(count * slot_size, b"\0")
