"""What a mutant is, and the correct result of reading one that was made without a key.

Such a mutant opens only if all of these hold, and then with the original plaintext and metadata: it
differs from a valid file in the slot table alone, the table is well-formed, and it has a slot of
that file for a key of the reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torture.sealer import MAGIC, key_id, number

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Opens:
    """What a reader must find in a file. Ids are hex, as the library gives them.

    ``passed_over`` are (number, key id) of the slots that were tried before the one that opened the
    file, and unwrapped.
    """

    plaintext: bytes
    metadata: dict[str, object]
    key_id: str
    object_id: str
    passed_over: tuple[tuple[int, str], ...] = ()


UNDECIDED = Opens(b"", {}, "", "")  # the result is not known: the readers must agree


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file to read, and the correct result. ``expected`` is None if it must be rejected."""

    name: str
    how: str
    data: bytes
    ring: tuple[bytes, ...]  # keys, the primary first
    expected: Opens | None
    genuine: tuple[bytes, ...]  # plaintexts that were sealed: what is given out is a part of one
    context: bytes = b""
    format_1: bool = False
    reason: str = ""  # of the rejection, where the format leaves no choice


def well_formed(slot: bytes) -> bool:
    kind, size = slot[0], number(slot[2:4])
    if kind == 0:
        return not any(slot)
    sizes = {1: range(80, 81), 2: range(3, 4097), 3: range(1168, 1169)}
    return (
        kind in sizes
        and slot[1] == 0
        and size in sizes[kind]
        and 24 + size <= len(slot)
        and not any(slot[24 + size :])
    )


def header_outcome(data: bytes, ring: Sequence[bytes]) -> str:
    """Return why the header of ``data`` is refused before anything is unwrapped, "" if it is not.

    The words are those of "Outcomes" in docs/format.md, the order is that of a reader's steps.
    """
    if data[:8] != MAGIC or len(data) < 56:
        return "truncated" if data[:8] == MAGIC else "not_encrypted"
    meta_len, count, size = number(data[12:16]), data[48], number(data[50:52])
    reserved = any(data[10:12]) or data[49] or any(data[52:56])
    limits = (meta_len == 0 or 17 <= meta_len <= 65_536) and 1 <= count <= 8 and 104 <= size <= 4096
    if data[8] != 2 or reserved or not limits:
        return "bad_header"
    end = 56 + count * size
    if len(data) < end + meta_len:
        return "truncated"
    slots = [data[at : at + size] for at in range(56, end, size)]
    if data[9] not in {1, 2} or not all(map(well_formed, slots)):
        return "bad_header"
    if len(data) < end + meta_len + 56:
        return "truncated"
    held = {key_id(key) for key in ring if len(key) == 32}
    return "" if any(slot[0] == 1 and slot[8:24] in held for slot in slots) else "unknown_key"


def expected_of(
    data: bytes, ring: Sequence[bytes], context: bytes, format_1: bool, files: Sequence
) -> Opens | None:
    """Return the correct result of reading ``data``, which was made of ``files`` without a key."""
    if format_1 and data[:8] != MAGIC:
        for old in files:
            if old.format_1 and old.data == data and old.key in ring:
                return Opens(old.plaintext, {}, key_id(old.key).hex(), "")
        return None
    if header_outcome(data, ring):
        return None
    size = number(data[50:52])
    end = 56 + data[48] * size
    slots = [data[at : at + 104] for at in range(56, end, size)]
    held = {key_id(key) for key in ring if len(key) == 32}
    for file in files:
        if file.format_1 or (file.context, file.start, file.tail) != (context, data[:48], data[end:]):
            continue
        known = ((at, *file.known[slot]) for at, slot in enumerate(slots) if slot in file.known)
        tried = [slot for slot in known if slot[2] in held]
        tried.sort(key=lambda slot: -slot[1])  # stable: equal generations stay in table order
        holds = next((place for place, slot in enumerate(tried) if slot[3] == file.dek), None)
        if holds is not None:
            passed = tuple((at, identity.hex()) for at, _, identity, _ in tried[:holds])
            ids = tried[holds][2].hex(), file.start[16:].hex()
            return Opens(file.plaintext, file.metadata, *ids, passed)
    return None
