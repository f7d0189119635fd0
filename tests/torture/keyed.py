"""Mutants made by a key holder: their tags are good, and still no writer makes such files.

A key holder can write any plaintext, so the original is no measure here. All readers must agree,
and for most classes the format decides the result: those give it (``expected``, ``reason``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torture.changes import BYTE_CHANGES, put
from torture.expected import UNDECIDED, Mutant, Opens
from torture.pool import Family, foreign_slot
from torture.sealer import (
    LAST_GENERATION,
    MAGIC,
    PLAIN,
    TRAILER,
    Body,
    Segment,
    cut,
    key_id,
    padded,
    preamble,
    seal_format_1,
    seal_metadata,
    slot_head,
    table,
    wrap,
    wrap_below,
)
from torture.texts import BAD, GOOD, any_text

if TYPE_CHECKING:
    from torture.dice import Dice

TAG, COMMITMENT, TRUNCATED, HEADER, UNKNOWN = (
    "tag_mismatch",
    "commitment_mismatch",
    "truncated",
    "bad_header",
    "unknown_key",
)
LONG = 2000  # bytes of a metadata text
TEXT, METADATA = b'{"name":"a"}', {"name": "a"}


@dataclass
class Plan:
    """A file to seal. :meth:`of` gives a good one with one slot, the makers below change it."""

    suite: int
    ring: tuple[bytes, ...]
    file_id: bytes
    dek: bytes
    salt: bytes
    plaintext: bytes
    context: bytes = b""
    text: bytes = b""
    metadata: dict[str, object] = field(default_factory=dict)
    slots: list[bytes] = field(default_factory=list)
    slot_size: int = 160
    segments: list[Segment] = field(default_factory=list)
    commitment: bytes = b""
    trailer: bytes = TRAILER
    odd: tuple[int, bytes] = (0, b"")  # bytes that stand at some offset of the preamble

    @classmethod
    def of(cls, dice: Dice, suite: int = 0, size: int | None = None, text: bytes | None = None) -> Plan:
        suite = suite or dice.between(1, 2)
        ring = tuple(dice.bytes(32) for _ in range(dice.between(1, 3)))
        plaintext = dice.bytes(dice.pick([0, 1, 15, 16, 17, dice.below(200)]) if size is None else size)
        plan = cls(suite, ring, dice.bytes(32), dice.bytes(32), dice.bytes(24), plaintext)
        plan.text = text if text is not None else dice.pick([b"", TEXT])
        plan.metadata = METADATA if plan.text == TEXT else {}
        plan.slots = [wrap(ring[0], plan.dek, dice.bytes(32), 1, plan.start), b""]
        plan.segments = cut(plaintext, suite)
        return plan

    @property
    def start(self) -> bytes:
        start = preamble(self.suite, self.file_id, len(self.text) + 16 if self.text else 0)
        return put(start, *self.odd)

    def seal(self, dice: Dice, metadata_dek: bytes = b"") -> bytes:
        body = Body(self.suite, self.dek, self.salt, self.start, self.context)
        stored = body.seal_all(self.segments, dice.bytes)
        if self.commitment:
            stored = put(stored, 24, self.commitment)
        sealed = seal_metadata(metadata_dek or self.dek, self.start, self.text) if self.text else b""
        return self.start + table(self.slots, self.slot_size) + sealed + stored + self.trailer

    def opens(self, by: bytes = b"", passed_over: tuple[tuple[int, str], ...] = ()) -> Opens:
        identity = key_id(by or self.ring[0]).hex()
        return Opens(self.plaintext, self.metadata, identity, self.file_id.hex(), passed_over)

    def mutant(
        self, name: str, how: str, data: bytes, expected: Opens | None, reason: str = "", **reading
    ) -> Mutant:
        reading = {"context": self.context, **reading}
        return Mutant(name, how, data, self.ring, expected, (self.plaintext,), reason=reason, **reading)


# Slots.


@dataclass(frozen=True)
class _Slot:
    stored: bytes
    generation: int = 0
    key: bytes = b""  # one of the reader's, or none
    dek: bytes = b""  # what it unwraps to, if it does


def _own_slot(dice: Dice, plan: Plan, dek: bytes, generation: int, strangers: list[bytes]) -> _Slot:
    """Return a slot that names a key of the reader. One in three does not unwrap."""
    key, salt, flaw = dice.pick([key for key in plan.ring if len(key) == 32]), dice.bytes(32), dice.below(9)
    if flaw == 0:  # names one key and is wrapped under another
        other = dice.pick([*strangers, *plan.ring])
        stored = wrap(other, dek, salt, generation, plan.start, key_id(key))
        return _Slot(stored, generation, key, dek if other == key else b"")
    stored = wrap(key, dek, salt, generation, plan.start)
    if flaw == 1:
        at = dice.between(24, 103)
        return _Slot(put(stored, at, bytes([stored[at] ^ dice.between(1, 255)])), generation, key)
    if flaw == 2:  # the generation is under the tag
        return _Slot(put(stored, 4, (generation ^ 1).to_bytes(4, "big")), generation ^ 1, key)
    return _Slot(stored, generation, key, dek)


def _slot(dice: Dice, plan: Plan, deks: list[bytes], generations: list[int], strangers: list[bytes]) -> _Slot:
    kind, dek, generation = dice.below(12), dice.pick(deks), dice.pick(generations)
    if kind == 0:
        return _Slot(b"")
    if kind == 1:
        return _Slot(foreign_slot(dice, plan.slot_size))
    if kind == 2:  # of a key that is too short to open Format 2, or that the reader does not hold
        key = dice.pick([key for key in plan.ring if len(key) != 32] or strangers)
        return _Slot(wrap(key, dek, dice.bytes(32), generation, plan.start))
    if kind == 3:  # being filled or emptied
        return _Slot(wrap(plan.ring[0], dek, dice.bytes(32), generation, plan.start, bytes(16)))
    return _own_slot(dice, plan, dek, generation, strangers)


def slots(name: str, dice: Dice) -> Mutant:
    """Slots of several keys with several DEKs, in any order, generations equal or not."""
    plan = Plan.of(dice, text=dice.pick([b"", TEXT, TEXT, dice.pick(BAD)[:100]]))
    spoilt = plan.text not in {b"", TEXT}
    plan.ring += dice.pick([(), (dice.bytes(16),), (dice.bytes(24), dice.bytes(16))])
    plan.slot_size = dice.pick([104, 105, 160, 160, 1192, 4096 if dice.one_in(8) else 161])
    deks = [plan.dek, *(dice.bytes(32) for _ in range(dice.below(3)))]
    body_dek, metadata_dek = dice.pick([plan.dek, deks[-1]]), dice.pick([plan.dek, plan.dek, deks[-1]])
    generations = dice.pick(
        [[1], [1, 2], [0, 1, LAST_GENERATION], [LAST_GENERATION], [dice.below(2**32) for _ in range(8)]]
    )
    strangers = [dice.bytes(32), dice.bytes(32)]
    made = [_slot(dice, plan, deks, generations, strangers) for _ in range(dice.between(1, 8))]
    plan.slots, plan.dek = [slot.stored for slot in made], body_dek
    data = plan.seal(dice, metadata_dek)
    tried = sorted((at for at, slot in enumerate(made) if slot.key), key=lambda at: -made[at].generation)
    unwrapped = [at for at in tried if made[at].dek]
    how = f"{len(made)} slots, {len(tried)} to try, {len(unwrapped)} unwrap"
    for place, at in enumerate(unwrapped):
        if made[at].dek == body_dek and not spoilt and (not plan.text or made[at].dek == metadata_dek):
            passed = tuple((other, key_id(made[other].key).hex()) for other in unwrapped[:place])
            return plan.mutant(name, how, data, plan.opens(made[at].key, passed))
    if not tried:
        reason = UNKNOWN
    elif not unwrapped or (plan.text and made[unwrapped[0]].dek != metadata_dek):
        reason = TAG
    else:
        reason = HEADER if spoilt else COMMITMENT
    return plan.mutant(name, how, data, None, reason)


def shapes(name: str, dice: Dice) -> Mutant:
    """Any number of slots of any size, within the limits and beyond; the good slot at any place."""
    plan = Plan.of(dice)
    count, size = (
        dice.between(0, 10),
        dice.pick([dice.between(100, 110), dice.between(104, 4096), 4095, 4096, 4097, 103, 104]),
    )
    if size > 200 and dice.below(4):
        size = dice.between(104, 200)
    slots, at = [b""] * count, dice.below(max(1, count))
    if count:
        slots[at] = plan.slots[0]
    plan.slots, plan.slot_size = slots, size
    data = plan.seal(dice)
    good = 1 <= count <= 8 and 104 <= size <= 4096
    return plan.mutant(
        name, f"{count} slots of {size} bytes", data, plan.opens() if good else None, "" if good else HEADER
    )


def other_kinds(name: str, dice: Dice) -> Mutant:
    """Slots of kinds 2, 3 and unknown ones, payloads of any size, alone or beside a good slot."""
    plan = Plan.of(dice)
    plan.slot_size = dice.pick([160, 200, 1192, 1193, 1300])
    kind, room = dice.pick([2, 2, 3, 3, 4, 1, 255]), plan.slot_size - 24
    payload = min(room, dice.pick([0, 1, 2, 3, 4, 80, 81, room, 1167, 1168, 1169, dice.below(room)]))
    stored = slot_head(kind, payload, dice.pick([0, 1, LAST_GENERATION]), dice.bytes(16)) + dice.bytes(
        payload
    )
    alone = dice.one_in(3)
    plan.slots = dice.shuffled([stored, b"", *([] if alone else plan.slots[:1])])
    data = plan.seal(dice)
    good = kind in {1, 2, 3} and {1: payload == 80, 2: payload >= 3, 3: payload == 1168}[kind]
    reason = "" if good and not alone else UNKNOWN if good else HEADER
    return plan.mutant(
        name, f"kind {kind}, payload of {payload}", data, plan.opens() if not reason else None, reason
    )


PREAMBLE_VALUES = (
    *((0, magic, "not_encrypted") for magic in (MAGIC[:7] + b"\0", b"\x89SFSK\r\n\x1a", bytes(8))),
    *((8, bytes([version]), HEADER) for version in (0, 1, 3, 255)),
    *((9, bytes([suite]), HEADER) for suite in (0, 3, 255)),
    *((10, flags, HEADER) for flags in (b"\0\1", b"\1\0", b"\x80\0", b"\xff\xff")),
)
SLOT_VALUES = ((0, b"\3"), (0, b"\4"), (0, b"\xff"), (1, b"\1"), (1, b"\x80"), (2, b"\0\x51"), (2, b"\0\x4f"))


def forbidden_preamble(name: str, dice: Dice) -> Mutant:
    """A value that no preamble may have, in one that all keys of the file are derived with."""
    plan = Plan.of(dice)
    at, value, reason = dice.pick(PREAMBLE_VALUES)
    plan.odd = at, value
    plan.slots[0] = wrap(plan.ring[0], plan.dek, dice.bytes(32), 1, plan.start)
    return plan.mutant(name, f"{value.hex()} at {at}", plan.seal(dice), None, reason)


def forbidden_slot(name: str, dice: Dice) -> Mutant:
    """A value that no slot may have, in one that unwraps."""
    plan = Plan.of(dice)
    at, value = dice.pick(SLOT_VALUES)
    head = put(slot_head(1, 80, 1, key_id(plan.ring[0])), at, value)
    plan.slots[0] = wrap_below(head, plan.ring[0], plan.dek, dice.bytes(32), plan.start)
    return plan.mutant(name, f"{value.hex()} at {at} of the slot", plan.seal(dice), None, HEADER)


def metadata_size(name: str, dice: Dice) -> Mutant:
    """Metadata of the least and the most bytes, and of one byte less or more."""
    size = dice.pick([0, 1, 2, 3, *([65_519, 65_520, 65_521] if dice.one_in(2) else [])])
    plan = Plan.of(dice, text=(b"{}" + b" " * size)[:size])
    if size:
        good = 2 <= size <= 65_520
        return plan.mutant(
            name, f"{size} bytes", plan.seal(dice), plan.opens() if good else None, "" if good else HEADER
        )
    # The tag of an empty text, which is not the same as no metadata.
    plan.odd = 12, (16).to_bytes(4, "big")
    plan.slots[0] = wrap(plan.ring[0], plan.dek, dice.bytes(32), 1, plan.start)
    data, end = plan.seal(dice), 56 + 2 * plan.slot_size
    data = data[:end] + seal_metadata(plan.dek, plan.start, b"") + data[end:]
    return plan.mutant(name, "a tag alone", data, None, HEADER)


# Metadata.


def metadata(name: str, dice: Dice) -> Mutant:
    """Texts that the format allows, and texts that it does not though JSON readers take them."""
    text, value = dice.pick(GOOD) if dice.one_in(3) else (dice.pick(BAD), None)
    if len(text) > LONG and dice.below(8):
        text, value = b'{"":null}', {"": None}  # a long one takes the time of fifty others
    plan = Plan.of(dice, text=text)
    data = plan.seal(dice)
    if value is None:
        return plan.mutant(name, repr(text[:80]), data, None, HEADER)
    plan.metadata = value
    return plan.mutant(name, repr(text[:80]), data, plan.opens())


def any_json(name: str, dice: Dice) -> Mutant:
    """Texts made by a grammar of JSON, some of them damaged. Only agreement is checked."""
    text = any_text(dice)
    plan = Plan.of(dice, size=0, text=text)
    return plan.mutant(name, repr(text[:300]), plan.seal(dice), UNDECIDED)


# Bodies.


def context(name: str, dice: Dice) -> Mutant:
    """Contexts of any length, read in the same context or another one."""
    plan = Plan.of(dice)
    size = 65_535 if dice.one_in(40) else dice.pick([0, 1, 4, 32, 200])
    plan.context = dice.pick([bytes(size), dice.bytes(size)])
    data = plan.seal(dice)
    read = dice.pick(
        [plan.context, plan.context, plan.context + b"\0", plan.context[1:], b"", bytes(4), plan.start]
    )[:65_535]
    same = read == plan.context
    how = f"{len(plan.context)} bytes, read with {len(read)}"
    return plan.mutant(
        name, how, data, plan.opens() if same else None, "" if same else COMMITMENT, context=read
    )


def commitment(name: str, dice: Dice) -> Mutant:
    """A wrong commitment in front of good segments."""
    plan = Plan.of(dice)
    right = Body(plan.suite, plan.dek, plan.salt, plan.start, plan.context).head[24:]
    other = Body(plan.suite, dice.bytes(32), plan.salt, plan.start, plan.context).head[24:]
    bit = put(right, at := dice.below(32), bytes([right[at] ^ 1 << dice.below(8)]))
    plan.commitment = dice.pick([bytes(32), other, bit, right[::-1], right])
    same = plan.commitment == right
    data = plan.seal(dice)
    return plan.mutant(
        name,
        "as it should be" if same else "wrong",
        data,
        plan.opens() if same else None,
        "" if same else COMMITMENT,
    )


def bad_padding(dice: Dice, size: int) -> bytes:
    """Return blocks without PKCS#7 padding, as many as a text of ``size`` bytes is padded to."""
    length = size - size % 16 + 16
    ends = (b"\0", b"\x11", b"\x20", b"\xff", b"\2\3\3", b"\1\2", bytes(15) + b"\x10", b"\1" + b"\x10" * 15)
    end = dice.pick(ends)
    return dice.bytes(length - len(end)) + end


def one_segment(name: str, dice: Dice) -> Mutant:
    """A body of one segment with one fault under a good tag."""
    plan = Plan.of(dice)
    text = plan.plaintext
    faults: dict[str, tuple[Segment, str]] = {
        "none": (Segment(text), ""),
        "index 1": (Segment(text, index=1), TAG),
        "another index": (Segment(text, index=dice.pick([2, 256, 2**32 - 1, 2**32, 2**63])), TAG),
    }
    if plan.suite == 1:
        count = len(padded(text)) - len(text)
        faults |= {
            "not final": (Segment(text, final=False), TAG),
            "padding": (Segment(text, blocks=bad_padding(dice, len(text))), TAG),
            "no ciphertext": (Segment(text, bare=True), TRUNCATED),
            "half a block more": (Segment(text, tail=dice.bytes(dice.between(1, 15))), TRUNCATED),
            "a count too large": (
                Segment(text, blocks=padded(text)[:-1] + bytes([count + 1 if count > 1 else 17])),
                TAG,
            ),
        }
    fault = dice.pick(list(faults))
    segment, reason = faults[fault]
    plan.segments = [segment]
    return plan.mutant(name, fault, plan.seal(dice), None if reason else plan.opens(), reason)


def many_segments(name: str, dice: Dice) -> Mutant:
    """A body of full segments and a final one, some of them with a fault under a good tag."""
    suite = 1 if dice.one_in(4) else 2
    full = 1 if suite == 1 else dice.between(1, 3)
    plan = Plan.of(
        dice, suite, full * PLAIN[suite] + dice.pick([0, 1, 16, PLAIN[suite] - 1, dice.below(200)])
    )
    pieces, how, reason = list(plan.segments), [], ""
    for _ in range(dice.pick([0, 1, 1, 1, 2])):
        at, size = dice.below(len(pieces)), PLAIN[suite]
        piece, last = pieces[at], at == len(pieces) - 1
        fault = dice.below(9)
        if fault == 0:
            piece = Segment(piece.text, index=dice.pick([at + 1, max(0, at - 1), 0, 2**32]))
        elif fault == 1:
            piece = Segment(piece.text, final=not last)
        elif fault == 2:
            piece = Segment(piece.text[:-1])
        elif fault == 3:
            piece = Segment((piece.text + dice.bytes(size + 20))[: size + dice.between(1, 16)])
        elif fault == 4:
            piece = Segment((piece.text + dice.bytes(size))[:size])
        elif fault == 5 and suite == 1:
            piece = Segment(piece.text, blocks=bad_padding(dice, len(piece.text)))
        elif fault == 6:
            pieces.insert(at, Segment(dice.pick([b"", dice.bytes(size)])))
            how.append(f"{fault} at {at}")
            continue
        elif fault == 7 and len(pieces) > 1:
            del pieces[at]
            how.append(f"{fault} at {at}")
            continue
        else:
            piece = Segment(dice.bytes(len(piece.text)))
        pieces[at] = piece
        how.append(f"{fault} at {at}")
    plan.segments = pieces
    plan.plaintext = b"".join(piece.text for piece in pieces)
    plan.trailer = dice.pick([TRAILER] * 8 + [b"", b"\x5b", TRAILER * 2])
    good = _good(pieces, suite) and plan.trailer == TRAILER
    if not how and plan.trailer == b"\x5b":
        reason = TRUNCATED
    made = plan.mutant(name, ", ".join(how), plan.seal(dice), plan.opens() if good else None, reason)
    # A seekable reader finds a segment by its number, also behind one that holds too much.
    by_place = (
        b"".join(piece.text[: PLAIN[suite]].ljust(PLAIN[suite], b"\0") for piece in pieces[:-1])
        + pieces[-1].text
    )
    return replace(made, genuine=(plan.plaintext, by_place))


def _good(pieces: list[Segment], suite: int) -> bool:
    """Tell whether a writer would cut and seal this plaintext in the same way."""
    *full, last = pieces
    for at, piece in enumerate(pieces):
        final = piece is last
        if piece.index not in {None, at} or piece.blocks is not None:
            return False
        if suite == 1 and piece.final not in {None, final}:
            return False
    return all(len(piece.text) == PLAIN[suite] for piece in full) and len(last.text) < PLAIN[suite]


def full_only(name: str, dice: Dice) -> Mutant:
    """Full segments only: the end is missing, whatever the final flag says.

    With an empty segment behind them the file is whole.
    """
    suite = 1 if dice.one_in(6) else 2
    plan = Plan.of(dice, suite, PLAIN[suite] * (1 if suite == 1 else dice.between(1, 3)))
    pieces = plan.segments[:-1]
    *rest, last = pieces
    ending = dice.pick(["final flag", "no flag", "nothing", "an empty segment"])
    if ending == "final flag":
        plan.segments = [*rest, Segment(last.text, final=True)]
    elif ending == "no flag":
        plan.segments = [*rest, Segment(last.text, final=False)]
    elif ending == "nothing":
        plan.segments = []
    good = ending == "an empty segment"
    # The first segment that does not hold is reported: in suite 1 the one with the wrong flag.
    reason = "" if good else TAG if ending == "final flag" and suite == 1 else TRUNCATED
    return plan.mutant(
        name, f"{len(pieces)} full, {ending}", plan.seal(dice), plan.opens() if good else None, reason
    )


# Format 1.


def old(name: str, dice: Dice) -> Mutant:
    """Format 1 under keys of all sizes, held or not, with good and bad paddings and lengths."""
    keys = [dice.bytes(dice.pick([16, 24, 32])) for _ in range(dice.between(1, 4))]
    key, text = dice.pick(keys), dice.bytes(dice.pick([0, 1, 15, 16, 17, dice.below(300)]))
    ring, expected = tuple(keys), Opens(text, {}, key_id(key).hex(), "")
    iv, fault = (
        dice.bytes(16),
        dice.pick(["none", "none", "padding", "half a block", "nothing", "magic", "no key", "all padding"]),
    )
    data = seal_format_1(key, iv, padded(text))
    reason = TAG
    if fault == "padding":
        data = seal_format_1(key, iv, bad_padding(dice, len(text)))
    elif fault == "half a block":
        data, reason = seal_format_1(key, iv, padded(text), dice.bytes(dice.between(1, 15))), TRUNCATED
    elif fault == "nothing":
        data, reason = seal_format_1(key, iv, b""), TRUNCATED
    elif fault == "magic":  # is then read as Format 2, which it is not
        data, reason = seal_format_1(key, MAGIC + iv[8:], padded(text)), ""
    elif fault == "no key":
        ring = (dice.bytes(32), dice.bytes(16))
    elif fault == "all padding":
        text = b""
        data = seal_format_1(key, iv, b"\x10" * 16)
        expected = Opens(b"", {}, key_id(key).hex(), "")
    if fault in {"none", "all padding"}:
        return Mutant(name, fault, data, ring, expected, (text,), format_1=True)
    return Mutant(name, fault, data, ring, None, (text,), format_1=True, reason=reason)


def zeros_behind_a_key(name: str, dice: Dice) -> Mutant:
    """Two keys of which one is the other with zeros behind it.

    HMAC pads keys with zeros, so both make the same tags, and no reader may hold both.
    """
    short = dice.bytes(dice.pick([16, 24]))
    long = short.ljust(dice.pick([24, 32] if len(short) == 16 else [32]), b"\0")
    ring, key = tuple(dice.shuffled([short, long, dice.bytes(32)])), dice.pick([short, long])
    text = dice.bytes(dice.below(100))
    data = seal_format_1(key, dice.bytes(16), padded(text))
    return Mutant(
        name,
        f"sealed by {len(key)} bytes of {len(short)} and {len(long)}",
        data,
        ring,
        None,
        (text,),
        format_1=True,
    )


# Together.


def several(name: str, dice: Dice) -> Mutant:
    """A mutant of a key holder, changed once more without a key. Only agreement is checked."""
    made = dice.pick(BASES)("", dice)
    made.data[:56]
    regions = sorted(
        {0, 16, 48, 56, 80, 160, 376, 400, 432, len(made.data) - 65, len(made.data) - 17, len(made.data)}
    )
    edges = [edge for edge in regions if 0 <= edge <= len(made.data)]
    around = _Around(
        made.data, [(one, other) for one, other in itertools.pairwise(edges) if one < other] or [(0, 1)]
    )
    data, how = dice.pick(BYTE_CHANGES)(dice, Family([around, around]), made.data)
    expected = made.expected if data == made.data else UNDECIDED
    return Mutant(
        name, f"{made.how}; {how}", data, made.ring, expected, made.genuine, made.context, made.format_1
    )


@dataclass(frozen=True)
class _Around:
    data: bytes
    regions: list[tuple[int, int]]


BASES: tuple[Callable[[str, Dice], Mutant], ...] = (
    slots,
    metadata,
    one_segment,
    many_segments,
    full_only,
    old,
)

KEYED: dict[str, tuple[int, Callable[[str, Dice], Mutant]]] = {
    "key holder: slots": (4, slots),
    "key holder: shape of the table": (2, shapes),
    "key holder: other kinds": (2, other_kinds),
    "key holder: forbidden preamble": (1, forbidden_preamble),
    "key holder: forbidden slot": (1, forbidden_slot),
    "key holder: size of metadata": (1, metadata_size),
    "key holder: metadata": (3, metadata),
    "key holder: any JSON": (4, any_json),
    "key holder: context": (1, context),
    "key holder: commitment": (1, commitment),
    "key holder: one segment": (3, one_segment),
    "key holder: many segments": (2, many_segments),
    "key holder: full segments only": (1, full_only),
    "key holder: format 1": (3, old),
    "key holder: format 1, zeros behind a key": (1, zeros_behind_a_key),
    "key holder: several": (4, several),
}
