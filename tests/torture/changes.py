"""Changes that need no key: of bits and bytes, lengths, header fields, slots, segments.

Each takes a family and the bytes of its first file, perhaps changed already, and returns (the
changed bytes, a description).
"""

from __future__ import annotations

from collections.abc import Callable

from torture.dice import Dice
from torture.pool import LARGE, SMALL, Family, foreign_slot
from torture.sealer import LAST_GENERATION, MAGIC, STORED, TRAILER, key_id, number, table

Change = Callable[[Dice, Family, bytes], tuple[bytes, str]]


def place(dice: Dice, file, data: bytes) -> int:
    """Return an offset in ``data``. Each region of the file is hit equally often, and its edges too."""
    start, end = dice.pick(file.regions)
    at = dice.pick([start, end - 1, dice.between(start, end - 1), dice.between(start, end - 1)])
    return min(at, max(0, len(data) - 1))


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def same(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    return data, "unchanged"


def bit(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    if not data:
        return data, "empty"
    at, mask = place(dice, family.files[0], data), 1 << dice.below(8)
    return put(data, at, bytes([data[at] ^ mask])), f"byte {at} xor {mask}"


def some_bytes(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    at, size = (
        place(dice, family.files[0], data),
        dice.pick([1, 1, 2, 4, 8, 16, 32, 48, dice.between(1, 200)]),
    )
    new = dice.pick([bytes(size), b"\xff" * size, dice.bytes(size), dice.bytes(1) * size])
    new = new[: len(data) - at]
    return put(data, at, new), f"{len(new)} bytes at {at}: {new[:8].hex()}"


def count_by_one(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    at, size = place(dice, family.files[0], data), dice.pick([1, 2, 4, 8])
    old = data[at : at + size]
    new = (number(old) + dice.pick([-1, 1, 16, -16])) % 256 ** len(old)
    return put(data, at, new.to_bytes(len(old), "big")), f"number of {size} bytes at {at} is now {new}"


def truncated(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    start, end = dice.pick(family.files[0].regions)
    end = dice.pick(
        [start, start + dice.between(-17, 17), dice.between(start, end), dice.below(len(data) + 1)]
    )
    end = max(0, min(end, len(data)))
    more = dice.pick([b"", b"", TRAILER, bytes(16) + TRAILER])
    return data[:end] + more, f"cut at {end}, {more.hex() or 'nothing'} behind it"


def extended(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    size = dice.pick(
        [
            1,
            2,
            15,
            16,
            17,
            63,
            64,
            65,
            dice.between(1, 300),
            16_399,
            16_400,
            *([65_600] if dice.one_in(20) else []),
        ]
    )
    more = dice.pick(
        [
            bytes(size),
            dice.bytes(size),
            b"\r\n",
            TRAILER,
            TRAILER * size,
            data[-size:],
            data[: size + 80],
            data[:200_000],
        ]
    )
    kept = data[:-1] if dice.one_in(2) else data
    end = dice.pick([b"", TRAILER])
    return (
        kept + more + end,
        f"{len(data) - len(kept)} bytes off the end, {len(more)} bytes and {end.hex()} behind it",
    )


def inserted(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    at, size = place(dice, family.files[0], data), dice.pick([1, 2, 16, 16, 32, 160, dice.between(1, 100)])
    new = dice.pick([bytes(size), dice.bytes(size), data[at : at + size]])
    return data[:at] + new + data[at:], f"{len(new)} bytes inserted at {at}"


def removed(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    at, size = (
        place(dice, family.files[0], data),
        dice.pick([1, 2, 16, 16, 32, 64, 160, dice.between(1, 100)]),
    )
    put_back = dice.pick([b"", b"", bytes(size), data[at : at + size]])
    return data[:at] + data[at + size : -1] + put_back + data[
        -1:
    ], f"{size} bytes removed at {at}, {len(put_back)} put near the end"


def moved(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """Two ranges exchanged, or one copied over the other."""
    one, other = place(dice, family.files[0], data), place(dice, family.files[0], data)
    size = dice.pick([1, 16, 16, 24, 32, 48, 104, 160])
    if dice.one_in(2):
        other = one + size * dice.between(1, 3)
    first, second = data[one : one + size], data[other : other + size]
    size = min(len(first), len(second))
    new = put(data, other, first[:size])
    if dice.one_in(3):
        return new, f"{size} bytes at {one} copied to {other}"
    return put(new, one, second[:size]), f"{size} bytes at {one} and {other} exchanged"


FIELDS: tuple[tuple[str, int, int, tuple[int, ...]], ...] = (
    ("magic", 0, 8, (0, number(MAGIC) - 1, number(b"\x89SFSK\r\n\x1a"), number(b"\x89SFS2\n\x1a\0"))),
    ("version", 8, 1, (0, 1, 3, 255)),
    ("suite", 9, 1, (0, 1, 2, 3, 255)),
    ("flags", 10, 2, (1, 256, 0x8000, 0xFFFF)),
    ("meta_len", 12, 4, (0, 1, 16, 17, 18, 28, 32, 65_535, 65_536, 65_537, 2**31, 2**32 - 1)),
    ("count", 48, 1, (0, 1, 2, 3, 4, 7, 8, 9, 16, 255)),
    ("reserved", 49, 1, (1, 128, 255)),
    ("slot_size", 50, 2, (0, 80, 103, 104, 105, 159, 160, 161, 320, 4095, 4096, 4097, 65_535)),
    ("reserved at the end", 52, 4, (1, 2**24, 2**32 - 1)),
)
SLOT_FIELDS: tuple[tuple[str, int, int, tuple[int, ...]], ...] = (
    ("kind", 0, 1, (0, 1, 2, 3, 4, 255)),
    ("reserved", 1, 1, (1, 255)),
    ("payload_len", 2, 2, (0, 1, 2, 3, 79, 80, 81, 136, 137, 1168, 4072, 65_535)),
    ("generation", 4, 4, (0, 1, 2, 2**31, 2**32 - 1)),
)


def header_field(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    file = family.files[0]
    if dice.one_in(3):
        slot = dice.below(len(file.slots))
        name, at, size, values = dice.pick(SLOT_FIELDS)
        name, at = f"{name} of slot {slot}", at + 56 + slot * file.slot_size
    else:
        name, at, size, values = dice.pick(FIELDS)
    value = dice.pick([*values, dice.below(256**size)])
    return put(data, at, value.to_bytes(size, "big")), f"{name} is {value}"


def consistent(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """A length field changed together with the bytes that it counts."""
    file = family.files[0]
    meta = len(file.sealed_text)
    size = dice.pick([0, 17, 28, meta + 1, meta + 16, max(0, meta - 1), 65_536 if dice.one_in(30) else 40])
    text = (file.sealed_text + dice.bytes(size))[:size] if dice.one_in(2) else dice.bytes(size)
    if dice.one_in(2):
        head = data[:12] + size.to_bytes(4, "big") + data[16 : file.table_end]
        return head + text + data[file.table_end + meta :], f"metadata of {size} bytes for {meta}"
    slots, size = (
        [slot.ljust(file.slot_size, b"\0") for slot in file.slots],
        dice.between(100, 4100) if dice.one_in(8) else dice.between(100, 180),
    )
    count = dice.pick([len(slots), 0, 1, 8, 9, 12])
    new = b"".join(slot[:size].ljust(size, b"\0") for slot in (slots + [b""] * 12)[:count])
    head = bytes([count, 0]) + size.to_bytes(2, "big") + bytes(4)
    return data[:48] + head + new + data[file.table_end :], f"a table of {count} slots of {size} bytes"


def grafted(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """Some parts of the file replaced by those of another one."""
    donor = dice.between(1, len(family.files) - 1)
    theirs = family.files[donor].parts
    mine = family.files[0].parts
    if dice.one_in(2):
        chosen = {dice.below(len(mine))}
    else:
        chosen = {part for part in range(len(mine)) if dice.one_in(2)}
    parts = [theirs[part] if part in chosen else mine[part] for part in range(len(mine))]
    return b"".join(parts), f"parts {sorted(chosen)} of file {donor}"


def old_key_or_commitment(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """16, 24 or 32 bytes of another file at the same offset: a salt, a commitment, an IV, a tag."""
    donor = dice.pick(family.files[1:])
    at, size = dice.pick(family.files[0].regions)[0], dice.pick([16, 24, 32])
    return put(
        data, at, donor.data[at : at + size][: len(data) - at]
    ), f"{size} bytes at {at} as in another file"


def segments(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """Whole segments dropped, doubled, exchanged, replaced, shortened or extended."""
    file = family.files[0]
    pieces, how = list(file.segments), []
    for _ in range(dice.pick([1, 1, 2, 3])):
        at, other = dice.below(len(pieces)), dice.below(len(pieces))
        operation = dice.below(9)
        if operation == 0 and len(pieces) > 1:
            del pieces[at]
        elif operation == 1:
            pieces.insert(other, pieces[at])
        elif operation == 2:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif operation == 3:
            pieces[at] = pieces[other]
        elif operation == 4:
            pieces[at] = dice.pick(dice.pick(family.files[1:]).segments)
        elif operation == 5:
            pieces[at] = (dice.pick(family.files[1:]).segments * 9)[at]
        elif operation == 6:
            pieces[at] = pieces[at][
                : dice.pick([0, 16, 64, len(pieces[at]) - 16, dice.below(len(pieces[at]))])
            ]
        elif operation == 7:
            pieces[at] += dice.bytes(dice.pick([1, 16, 32, max(0, STORED[file.suite] - len(pieces[at]))]))
        else:
            pieces = pieces[::-1] if dice.one_in(2) else pieces[1:] + pieces[:1]
        how.append(f"{operation}({at},{other})")
        if not pieces:
            break
    end = b"" if dice.one_in(12) else TRAILER
    return data[: file.table_end + len(file.sealed_text) + 56] + b"".join(
        pieces
    ) + end, "segments " + " ".join(how)


def relaid(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """The same slots in a table of another shape."""
    file = family.files[0]
    used = [slot for slot in file.slots if slot]
    size = max(*map(len, used), dice.pick([104, 105, 160, 161, 200, 1000, 4096 if dice.one_in(8) else 400]))
    slots = dice.shuffled(used + [b""] * dice.below(9 - len(used)))
    return data[:48] + table(slots, size) + data[file.table_end :], f"{len(slots)} slots of {size} bytes"


def other_slots(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """Foreign slots added, removed, changed or moved. The slots of the file itself stay."""
    file = family.files[0]
    own = [slot for slot in file.slots if file.is_own(slot)]
    others = [slot for slot in file.slots if slot and not file.is_own(slot)]
    others += [foreign_slot(dice, file.slot_size) for _ in range(dice.below(9 - len(own) - len(others)))]
    others = [other for other in others if not dice.one_in(4)]
    if others and dice.one_in(2):
        which = dice.below(len(others))
        at = dice.between(4, len(others[which]) - 1)
        others[which] = put(others[which], at, dice.bytes(1))
    slots = dice.shuffled(own + others + [b""] * dice.below(9 - len(own) - len(others)))
    return data[:48] + table(slots, file.slot_size) + data[
        file.table_end :
    ], f"{len(others)} slots of others in {len(slots)}"


def slots(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """Any slots removed, doubled, moved, changed, or replaced by those of other files."""
    file = family.files[0]
    size = file.slot_size
    places, how = [slot.ljust(size, b"\0") for slot in file.slots], []
    for _ in range(dice.pick([1, 1, 2, 3])):
        at, other = dice.below(len(places)), dice.below(len(places))
        operation = dice.below(9)
        if operation == 0:
            places[at] = bytes(size)
        elif operation == 1:
            places[at] = places[other]
        elif operation == 2:
            places[at], places[other] = places[other], places[at]
        elif operation == 3:
            places[at] = dice.pick(dice.pick(family.files).slots)[:size].ljust(size, b"\0")
        elif operation == 4:
            places[at] = foreign_slot(dice, size).ljust(size, b"\0")
        elif operation == 5:
            where = dice.pick([0, 1, 2, 3, 7, 8, 23, 24, 55, 56, 103, size - 1, dice.below(size)])
            places[at] = put(places[at], where, bytes([places[at][where] ^ 1 << dice.below(8)]))
        elif operation == 6:
            places[at] = put(places[at], 4, dice.pick([0, 1, 2, 3, LAST_GENERATION]).to_bytes(4, "big"))
        elif operation == 7:
            known = [bytes(16), *map(key_id, file.ring), *map(key_id, family.strangers)]
            places[at] = put(places[at], 8, dice.pick(known))
        else:
            places[at] = places[at][:4] + bytes(size - 4) if dice.one_in(2) else bytes(4) + places[at][4:]
        how.append(f"{operation}({at},{other})")
    return data[:48] + table(places, size) + data[file.table_end :], "slots " + " ".join(how)


def old_slot(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """A slot that a rewrap removed, put back beside the present slots or instead of them."""
    file, rewrapped = family.files[:2]
    back = dice.pick([slot for slot in rewrapped.slots if file.is_own(slot)])
    kept = [slot for slot in file.slots if slot and len(slot) <= file.slot_size]
    slots = dice.shuffled([back, *dice.pick([kept, []])])[:8]
    return data[:48] + table(slots, max(file.slot_size, 104)) + data[
        file.table_end :
    ], f"an old slot among {len(slots)}"


def several(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    how = []
    for _ in range(dice.between(2, 4)):
        data, what = dice.pick(BYTE_CHANGES)(dice, family, data)
        how.append(what)
        if not data:
            break
    return data, "; ".join(how)


def several_in_segments(dice: Dice, family: Family, data: bytes) -> tuple[bytes, str]:
    """Faults in several segments: all readers must report the same one, wherever they begin."""
    data, how = segments(dice, family, data) if dice.one_in(2) else (data, "")
    body = family.files[0].table_end + len(family.files[0].sealed_text) + 56
    for _ in range(dice.between(1, 3)):
        at = dice.between(min(body, len(data) - 1), len(data) - 1)
        at = dice.pick([at, len(data) - 1, max(0, len(data) - 1 - dice.below(64))])
        data, how = put(data, at, bytes([data[at] ^ dice.between(1, 255)])), f"{how}; byte {at}"
    if dice.one_in(3):
        end = len(data) - dice.below(min(len(data), 70))
        data, how = data[:end] + dice.pick([b"", TRAILER]), f"{how}; cut at {end}"
    return data, how


BYTE_CHANGES: tuple[Change, ...] = (
    bit,
    some_bytes,
    count_by_one,
    truncated,
    extended,
    inserted,
    removed,
    moved,
    old_key_or_commitment,
)


# How often each is made, and in which files.
CHANGES: dict[str, tuple[int, Change, str]] = {
    "same bytes": (1, same, SMALL),
    "one bit": (12, bit, SMALL),
    "some bytes": (7, some_bytes, SMALL),
    "a number off": (3, count_by_one, SMALL),
    "cut": (8, truncated, SMALL),
    "cut, long": (1, truncated, LARGE),
    "extended": (5, extended, SMALL),
    "extended, long": (1, extended, LARGE),
    "inserted": (3, inserted, SMALL),
    "removed": (3, removed, SMALL),
    "moved": (3, moved, SMALL),
    "header field": (9, header_field, SMALL),
    "length and content": (3, consistent, SMALL),
    "grafted": (7, grafted, SMALL),
    "grafted bytes": (4, old_key_or_commitment, SMALL),
    "some bytes, long": (1, some_bytes, LARGE),
    "segments": (4, segments, LARGE),
    "several in segments": (2, several_in_segments, LARGE),
    "table of another shape": (2, relaid, SMALL),
    "slots of others": (3, other_slots, SMALL),
    "slots": (7, slots, SMALL),
    "old slot put back": (1, old_slot, SMALL),
    "several": (10, several, SMALL),
}
OLD_CHANGES: dict[str, tuple[int, Change]] = {
    "format 1: same bytes": (1, same),
    "format 1: one bit": (3, bit),
    "format 1: some bytes": (2, some_bytes),
    "format 1: cut": (2, truncated),
    "format 1: extended": (1, extended),
    "format 1: moved": (1, moved),
    "format 1: grafted": (1, grafted),
    "format 1: several": (2, several),
}
