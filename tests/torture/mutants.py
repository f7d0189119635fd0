"""Mutants that need no key: valid files, changed by somebody with write access to the storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torture.changes import CHANGES, OLD_CHANGES, Change, put, same
from torture.dice import Dice
from torture.expected import Mutant, expected_of
from torture.pool import SMALL, Family, Pool
from torture.sealer import MAGIC


def _effective(change: Change, dice: Dice, family: Family) -> tuple[str, bytes]:
    """Apply a change to the file of a family, again if it left the bytes as they were."""
    data = family.files[0].data
    for _ in range(4):
        new, how = change(dice, family, data)
        if new != data or change is same:
            break
    return how, new


def _mutant(name: str, how: str, data: bytes, family: Family, **reading) -> Mutant:
    file = family.files[0]
    ring = reading.get("ring", file.ring)
    context = reading.get("context", file.context)
    format_1 = reading.get("format_1", file.format_1)
    expected = expected_of(data, ring, context, format_1, family.files)
    return Mutant(name, how, data, ring, expected, family.genuine, context, format_1)


def changed(name: str, dice: Dice, pool: Pool) -> Mutant:
    _, change, kind = CHANGES[name]
    family = pool.family(dice, kind)
    return _mutant(name, *_effective(change, dice, family), family)


def changed_old(name: str, dice: Dice, pool: Pool) -> Mutant:
    family = pool.old_family(dice)
    return _mutant(name, *_effective(OLD_CHANGES[name][1], dice, family), family)


def other_context(name: str, dice: Dice, pool: Pool) -> Mutant:
    family = pool.family(dice, SMALL)
    context = dice.pick([*family.contexts, dice.bytes(dice.below(40))])
    made = _mutant(name, f"read in context {context.hex()}", family.files[0].data, family, context=context)
    return replace(made, reason="" if made.expected else "commitment_mismatch")


def other_ring(name: str, dice: Dice, pool: Pool) -> Mutant:
    family = pool.family(dice, SMALL)
    file = family.files[0]
    ring = tuple(
        dice.shuffled(
            [*family.strangers[: dice.between(1, 3)], *(key for key in file.ring if dice.one_in(3))]
        )
    )
    made = _mutant(name, f"read with {len(ring)} keys", file.data, family, ring=ring)
    return replace(made, reason="" if made.expected else "unknown_key")


def other_format(name: str, dice: Dice, pool: Pool) -> Mutant:
    """One format read as the other."""
    way = dice.below(4)
    if way < 2:
        family = pool.old_family(dice)
        data = family.files[0].data
        if way == 0:
            return _mutant(name, "Format 1 read as Format 2", data, family, format_1=False)
        data = dice.pick([MAGIC + data, put(data, 0, MAGIC), MAGIC[:7] + data])
        return _mutant(name, "magic before Format 1", data, family)
    family = pool.family(dice, SMALL)
    file = family.files[0]
    if way == 2:
        return _mutant(
            name, "Format 2 where Format 1 is expected", file.data, family, format_1=True, context=b""
        )
    start = dice.pick(
        [1, 8, 48, 56, file.table_end, len(file.data) - len(file.body), len(file.data) - len(file.body) + 56]
    )
    data = file.data[start:-1] if dice.one_in(2) else file.data[start:]
    return _mutant(
        name, f"Format 2 from byte {start} read as Format 1", data, family, format_1=True, context=b""
    )


Maker = Callable[[str, Dice, Pool], Mutant]
KEYLESS: dict[str, tuple[int, Maker]] = {
    **{name: (weight, changed) for name, (weight, _, _) in CHANGES.items()},
    **{name: (weight, changed_old) for name, (weight, _) in OLD_CHANGES.items()},
    "other context": (1, other_context),
    "other keys": (1, other_ring),
    "other format": (2, other_format),
}
