"""The valid files that mutants are made of: families of a file and its donors, of all layouts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from torture.dice import Dice
from torture.sealer import (
    LAST_GENERATION,
    PLAIN,
    STORED,
    TRAILER,
    Body,
    cut,
    key_id,
    number,
    padded,
    preamble,
    seal_format_1,
    seal_metadata,
    slot_head,
    table,
    wrap,
)

SMALL, LARGE = "small", "large"  # families: of one segment, of several
TEXTS = (
    (b"", {}),
    (b'{"name":"a"}', {"name": "a"}),
    (b'{"name":"b","n":[1,2.5,null]}', {"name": "b", "n": [1, 2.5, None]}),
)


@dataclass(frozen=True)
class File:
    """A valid Format 2 file and its parts.

    ``known`` are the slots that unwrap under its preamble, with what they stand for: (generation,
    key id, DEK).
    """

    suite: int
    start: bytes
    slots: list[bytes]  # without the zeros behind them; b"" for an empty one
    slot_size: int
    sealed_text: bytes
    body: bytes  # with the trailer
    plaintext: bytes
    metadata: dict[str, object]
    context: bytes
    dek: bytes
    known: dict[bytes, tuple[int, bytes, bytes]]
    ring: tuple[bytes, ...]
    format_1 = False

    def is_own(self, slot: bytes) -> bool:
        """Tell whether the slot gives the DEK of this file."""
        return slot in self.known and self.known[slot][2] == self.dek

    @cached_property
    def tail(self) -> bytes:
        return self.sealed_text + self.body

    @cached_property
    def data(self) -> bytes:
        return self.start + table(self.slots, self.slot_size) + self.tail

    @cached_property
    def table_end(self) -> int:
        return 56 + len(self.slots) * self.slot_size

    @cached_property
    def segments(self) -> list[bytes]:
        size, end = STORED[self.suite], len(self.body) - 1
        return [self.body[at : min(at + size, end)] for at in range(56, end, size)]

    @cached_property
    def parts(self) -> list[bytes]:
        body = self.body
        return [
            self.start,
            self.data[48 : self.table_end],
            self.sealed_text,
            body[:24],
            body[24:56],
            body[56:-1],
            body[-1:],
        ]

    @cached_property
    def regions(self) -> list[tuple[int, int]]:
        """Return (start, end) of each field of the file. Half of them are behind the slot table."""
        before = list(pairwise([0, 8, 9, 10, 12, 16, 48, 49, 50, 52, 56]))
        for at, slot in zip(range(56, self.table_end, self.slot_size), self.slots, strict=True):
            edges = [0, 4, 8, 24, 56, 104, self.slot_size] if slot else [0, self.slot_size]
            before += [(at + one, at + other) for one, other in pairwise(edges) if one < other]
        body, end = self.table_end + len(self.sealed_text), len(self.data)
        edges = [self.table_end, body, body + 24, body + 56]
        for at in range(body + 56, end - 1, STORED[self.suite]):
            behind = min(at + STORED[self.suite], end - 1)
            edges += [at + 16, behind - 32, behind - 16, behind] if behind - at > 48 else [behind]
        behind = [(one, other) for one, other in pairwise([*edges, end]) if one < other]
        return before + behind * max(1, len(before) // len(behind))


@dataclass(frozen=True)
class OldFile:
    """A valid Format 1 file."""

    data: bytes
    plaintext: bytes
    key: bytes
    ring: tuple[bytes, ...]
    context = b""
    format_1 = True

    @cached_property
    def parts(self) -> list[bytes]:
        return [self.data[:16], self.data[16:-32], self.data[-32:]]

    @cached_property
    def regions(self) -> list[tuple[int, int]]:
        end = len(self.data)
        edges = sorted({0, 16, 32, end - 48, end - 32, end})
        return list(pairwise(edges))


@dataclass(frozen=True)
class Family:
    """A file to change, ``files[0]``, and donors: files from which parts may come."""

    files: list
    contexts: tuple[bytes, ...] = (b"",)  # others than the file's own
    strangers: tuple[bytes, ...] = ()  # keys that open nothing here

    @cached_property
    def genuine(self) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(file.plaintext for file in self.files))


def foreign_slot(dice: Dice, size: int) -> bytes:
    """Return a well-formed slot of at most ``size`` bytes that the reader has no key for."""
    kind = dice.pick([1, 1, 1, 2, 2, 3] if size >= 1192 else [1, 1, 2])
    payload = {1: 80, 2: dice.between(3, min(size - 24, dice.pick([3, 60, 120, 4096]))), 3: 1168}[kind]
    generation = dice.pick([0, 1, 2, LAST_GENERATION, dice.below(2**32)])
    identity = bytes(16) if dice.one_in(6) else dice.bytes(16)
    return slot_head(kind, payload, generation, identity) + dice.bytes(payload)


def layout(dice: Dice, own: list[bytes]) -> tuple[list[bytes], int]:
    """Return (slots, slot size) of a table with the slots ``own`` and perhaps foreign ones."""
    if dice.one_in(2):
        return ([*own, b""])[:2], 160
    size = dice.pick([104, 105, 107, 108, 160, 160, 160, 200, 400, 1192, 4096 if dice.one_in(4) else 1200])
    others = [foreign_slot(dice, size) for _ in range(dice.below(3))]
    slots = own + others + [b""] * dice.below(9 - len(own) - len(others))
    return dice.shuffled(slots), size


def family(dice: Dice, suite: int, full: int) -> Family:
    """Return a Format 2 file with ``full`` full segments, and its donors."""
    primary, retired, stranger = (dice.bytes(32) for _ in range(3))
    ring = dice.pick([(primary,), (primary, retired), (primary, dice.bytes(16), retired, dice.bytes(24))])
    holders = dice.pick([[primary], [primary], [ring[-1]], [primary, retired]])
    holders = [key for key in holders if key in ring and len(key) == 32] or [primary]
    context = dice.pick([b"", b"", b"tenant 7", dice.bytes(dice.below(80))])
    text, metadata = dice.pick(TEXTS)
    file_id, dek, salt = dice.bytes(32), dice.bytes(32), dice.bytes(24)
    rest = dice.pick([0, 0, 1, 15, 16, 17, 5, 60, dice.below(300), 0 if not full else PLAIN[suite] - 1])
    plaintext = dice.bytes(full * PLAIN[suite] + rest)
    start = preamble(suite, file_id, len(text) + 16 if text else 0)

    known: dict[bytes, dict[bytes, tuple[int, bytes, bytes]]] = {}  # slots by preamble

    def table_of(holders: list[bytes], dek: bytes, start: bytes) -> tuple[list[bytes], int]:
        generation, made = dice.pick([1, 1, 2, 7, LAST_GENERATION]), {}
        for key in holders:
            made[wrap(key, dek, dice.bytes(32), generation, start)] = (generation, key_id(key), dek)
            generation = min(generation + dice.below(2), LAST_GENERATION)
        known.setdefault(start, {}).update(made)
        return layout(dice, list(made))

    def make(**other) -> File:
        v = {"start": start, "dek": dek, "salt": salt, "context": context, "plaintext": plaintext, **other}
        slots, size = table_of(holders, v["dek"], v["start"])
        sealed = seal_metadata(v["dek"], v["start"], text) if text else b""
        body = Body(suite, v["dek"], v["salt"], v["start"], v["context"])
        stored = body.seal_all(cut(v["plaintext"], suite), dice.bytes) + TRAILER
        sealed_with = v["plaintext"], metadata, v["context"], v["dek"], known[v["start"]], ring
        return File(suite, v["start"], slots, size, sealed, stored, *sealed_with)

    another = preamble(suite, dice.bytes(32), number(start[12:16]))
    file = make()
    slots, size = table_of([ring[0]], dek, start)
    files = [
        file,
        replace(file, slots=slots, slot_size=size),  # as before or after a rewrap
        make(start=another, dek=dice.bytes(32), salt=dice.bytes(24), plaintext=dice.bytes(len(plaintext))),
        make(
            salt=dice.bytes(24), plaintext=dice.bytes(len(plaintext))
        ),  # no writer does that: one DEK, two bodies
        make(dek=dice.bytes(32), salt=dice.bytes(24)),  # nor that: one file id, two DEKs
        make(start=another, dek=dek),
        make(context=context + b"2"),
    ]
    contexts = (b"", b"tenant 8", context + b"\0", context[:-1])
    return Family(
        files, tuple(c for c in contexts if c != context), (stranger, dice.bytes(32), dice.bytes(16))
    )


def old_family(dice: Dice) -> Family:
    """A family of Format 1."""
    keys = [dice.bytes(dice.pick([16, 24, 32])) for _ in range(3)]
    ring = tuple(keys[: dice.between(1, 3)])

    def make(key: bytes) -> OldFile:
        plaintext = dice.bytes(dice.pick([0, 1, 15, 16, 17, 31, 40, dice.below(300)]))
        return OldFile(seal_format_1(key, dice.bytes(16), padded(plaintext)), plaintext, key, ring)

    key = dice.pick(ring)
    return Family([make(key), make(key), make(dice.pick(keys))], strangers=(dice.bytes(32), dice.bytes(16)))


class Pool:
    """The families of one part of a campaign, made on first use. The seed decides all of them."""

    def __init__(self, *seed: object) -> None:
        self.seed = seed
        self.made: dict[tuple[object, ...], Family] = {}

    def family(self, dice: Dice, kind: str) -> Family:
        suite = dice.between(1, 2)
        if kind == LARGE:
            suite = 1 if dice.one_in(8) else 2
            full = dice.pick([1, 2, 3]) if suite == 2 else dice.pick([1, 1, 2])
            name = (kind, suite, full, dice.below(2))
        else:
            full = 0
            name = (kind, suite, dice.below(12))
        if name not in self.made:
            self.made[name] = family(Dice(*self.seed, *name), suite, full)
        return self.made[name]

    def old_family(self, dice: Dice) -> Family:
        name = ("format 1", dice.below(8))
        if name not in self.made:
            self.made[name] = old_family(Dice(*self.seed, *name))
        return self.made[name]
