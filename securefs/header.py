"""The header of a Format 2 file: preamble, slot table, metadata (docs/format.md, "Format 2").

Pure functions over bytes. Parsing allocates nothing that a header's own numbers ask for before they are checked
against the format's limits; a header is at most 98,360 bytes. What parses is only well-formed: it is trusted from the moment that
a slot unwraps, since every key derived from the data encryption key (DEK) has the preamble bound into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.errors import FormatError, IntegrityError, Reason, UnknownKeyError
from securefs.keys import KEY_SIZE
from securefs.metadata import MAX_TEXT, decode_metadata
from securefs.primitives import GCM_NONCE_SIZE, GCM_TAG_SIZE, hkdf
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from securefs.keys import Keyring
    from securefs.primitives import Primitives

__all__ = [
    "FILE_ID_SIZE",
    "FIXED_SIZE",
    "MAGIC",
    "MAX_GENERATION",
    "MAX_META_SIZE",
    "MAX_SLOTS",
    "Header",
    "Slot",
    "build_header",
    "header_length",
    "open_metadata",
    "parse_header",
    "slot_table",
    "unwrap_slots",
    "wrap_slot",
]

MAGIC: Final = bytes.fromhex(
    "8953465332 0D0A1A"
)  # an eighth bit, "SFS2", CR LF and SUB: any text-mode copy breaks it
VERSION: Final = 2
FILE_ID_SIZE: Final = 32  # bytes
PREAMBLE_SIZE: Final = 48  # bytes
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

KIND_EMPTY: Final = 0
KIND_FILE_KEY: Final = 1
KIND_KEY_SERVICE: Final = 2
KIND_HPKE: Final = 3
WRAP_SALT_SIZE: Final = 32  # bytes
_KIND_1_PAYLOAD: Final = WRAP_SALT_SIZE + KEY_SIZE + GCM_TAG_SIZE  # 80 bytes
# Payload bytes, least and most, of each kind. Kind 2: a length byte, a provider name, a ciphertext; kind 3: enc and ct.
_PAYLOAD_SIZES: Final = {
    KIND_FILE_KEY: (_KIND_1_PAYLOAD, _KIND_1_PAYLOAD),
    KIND_KEY_SERVICE: (3, MAX_SLOT_SIZE),
    KIND_HPKE: (1120 + 48, 1120 + 48),
}

_WRAP_INFO: Final = b"securefs/2 wrap\0"
_META_INFO: Final = b"securefs/2 meta\0"


@dataclass(frozen=True, slots=True)
class Slot:
    """One non-empty slot: who can open the file."""

    index: int  # its place in the table
    kind: int
    generation: int
    key_id: bytes
    head: bytes  # the slot's first 24 bytes as stored
    payload: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A well-formed header. ``length`` is the offset at which the body starts, in bytes."""

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

    def slot_offset(self, index: int) -> int:
        """Return where in the file the slot at ``index`` of the table begins, in bytes."""
        return FIXED_SIZE + index * self.slot_size


def header_length(start: bytes) -> int:
    """Return the header's length in bytes, from its first 56 bytes, or raise :class:`FormatError`."""
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
    """Return the header at the start of ``data``, which must hold all of it; raise :class:`FormatError` otherwise."""
    length = header_length(data)
    if len(data) < length:
        raise FormatError(
            f"the file ends inside its header, after {len(data)} of {length} bytes", Reason.TRUNCATED
        )
    try:
        suite = Suite(data[9])
    except ValueError:
        raise FormatError(f"unknown suite {data[9]}") from None
    count, slot_size = data[48], int.from_bytes(data[50:52], "big")
    table_end = FIXED_SIZE + count * slot_size
    slots = [
        _parse_slot(index, data[start : start + slot_size])
        for index, start in enumerate(range(FIXED_SIZE, table_end, slot_size))
    ]
    return Header(
        preamble=data[:PREAMBLE_SIZE],
        suite=suite,
        file_id=data[16:PREAMBLE_SIZE],
        slots=tuple(slot for slot in slots if slot is not None),
        slot_count=count,
        slot_size=slot_size,
        sealed_metadata=data[table_end:length],
        length=length,
    )


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
    least, most = _PAYLOAD_SIZES[kind]
    if not least <= payload_size <= most:
        # Without this, one flipped bit would turn an empty slot into one that no writer makes.
        raise FormatError(f"a slot of kind {kind} can't have a payload of {payload_size} bytes")
    return Slot(
        index=index,
        kind=kind,
        generation=int.from_bytes(data[4:8], "big"),
        key_id=data[8:SLOT_HEAD_SIZE],
        head=data[:SLOT_HEAD_SIZE],
        payload=data[SLOT_HEAD_SIZE:payload_end],
    )


def build_header(
    *,
    suite: Suite,
    file_id: bytes,
    dek: bytes,
    key: bytes,
    key_id: bytes,
    wrap_salt: bytes,
    metadata_text: bytes,
    primitives: Primitives,
) -> tuple[bytes, bytes]:
    """Return (preamble, whole header) of a new file with one file-key slot of generation 1 and one empty slot.

    Deterministic: all that must be random (``file_id``, ``dek``, ``wrap_salt``, 32 bytes each) is an argument.
    """
    meta_size = len(metadata_text) + GCM_TAG_SIZE if metadata_text else 0
    preamble = b"".join((MAGIC, bytes([VERSION, suite.value, 0, 0]), meta_size.to_bytes(4, "big"), file_id))
    slot = wrap_slot(
        dek=dek,
        key=key,
        key_id=key_id,
        wrap_salt=wrap_salt,
        generation=1,
        preamble=preamble,
        primitives=primitives,
    )
    table = slot_table([slot], DEFAULT_SLOTS, DEFAULT_SLOT_SIZE)
    sealed = b""
    if metadata_text:
        meta_key, meta_nonce = _metadata_keys(dek, file_id, preamble)
        sealed = primitives.gcm(meta_key).seal(meta_nonce, metadata_text)
    return preamble, preamble + table + sealed


def wrap_slot(
    *,
    dek: bytes,
    key: bytes,
    key_id: bytes,
    wrap_salt: bytes,
    generation: int,
    preamble: bytes,
    primitives: Primitives,
) -> bytes:
    """Return a file-key slot, 104 bytes without the zeros behind it, through which ``key`` gives ``dek``.

    :param wrap_salt: 32 bytes, fresh at every wrap: no pair of key and nonce is used twice then.
    """
    head = b"".join(
        (
            bytes([KIND_FILE_KEY, 0]),
            _KIND_1_PAYLOAD.to_bytes(2, "big"),
            generation.to_bytes(4, "big"),
            key_id,
        ),
    )
    wrap_key, nonce = _wrap_keys(key, wrap_salt, preamble + head)
    return head + wrap_salt + primitives.gcm(wrap_key).seal(nonce, dek)


def slot_table(slots: Sequence[bytes], count: int, slot_size: int) -> bytes:
    """Return a table of ``count`` slots of ``slot_size`` bytes: ``slots``, and empty ones."""
    head = bytes([count, 0]) + slot_size.to_bytes(2, "big") + bytes(4)
    return head + b"".join(slot.ljust(slot_size, b"\0") for slot in slots).ljust(count * slot_size, b"\0")


def unwrap_slots(header: Header, keyring: Keyring, primitives: Primitives) -> Iterator[tuple[Slot, bytes]]:
    """Yield (slot, DEK) for each slot of a key that the keyring holds, as far as it unwraps.

    The highest generation comes first, and of equal ones the first in the table. A DEK is only what a holder of that key
    put there: whether it is the file's own, the commitment tells.

    :raises UnknownKeyError: no slot names a key of the keyring.
    """
    candidates = [
        (slot, key)
        # Sorting is stable: equal generations stay in the order of the table.
        for slot in sorted(header.slots, key=lambda slot: slot.generation, reverse=True)
        if slot.kind == KIND_FILE_KEY and (key := keyring.find(slot.key_id)) is not None
    ]
    if not candidates:
        names = tuple(slot.key_id.hex() for slot in header.slots)
        raise UnknownKeyError(
            f"no key of the keyring opens this file; it names {', '.join(names) or 'none'}", names
        )
    for slot, key in candidates:
        wrap_key, nonce = _wrap_keys(key, slot.payload[:WRAP_SALT_SIZE], header.preamble + slot.head)
        try:
            dek = primitives.gcm(wrap_key).open(nonce, slot.payload[WRAP_SALT_SIZE:])
        except IntegrityError:
            continue
        yield slot, dek


def open_metadata(header: Header, dek: bytes, primitives: Primitives) -> dict[str, object]:
    """Return the sealed metadata, an empty dict where there is none.

    :raises IntegrityError: it was changed. :raises FormatError: its tag is good, and it is no metadata all the same.
    """
    if not header.sealed_metadata:
        return {}
    meta_key, nonce = _metadata_keys(dek, header.file_id, header.preamble)
    return decode_metadata(primitives.gcm(meta_key).open(nonce, header.sealed_metadata))


def _wrap_keys(key: bytes, wrap_salt: bytes, bind: bytes) -> tuple[bytes, bytes]:
    okm = hkdf("sha256", key, wrap_salt, _WRAP_INFO + bind, KEY_SIZE + GCM_NONCE_SIZE)
    return okm[:KEY_SIZE], okm[KEY_SIZE:]


def _metadata_keys(dek: bytes, file_id: bytes, preamble: bytes) -> tuple[bytes, bytes]:
    okm = hkdf("sha256", dek, file_id, _META_INFO + preamble, KEY_SIZE + GCM_NONCE_SIZE)
    return okm[:KEY_SIZE], okm[KEY_SIZE:]
