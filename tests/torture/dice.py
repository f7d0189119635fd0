"""Random choices that a seed decides, the same in every process and version of Python.

All of them are drawn from ``random.Random.getrandbits``. The methods above it, ``randrange`` or
``shuffle``, have changed between versions.
"""

from __future__ import annotations

import hashlib
import random


class Dice:
    """A source of random choices. Any values are a seed: ``Dice(1, "mutant", 17)``."""

    def __init__(self, *seed: object) -> None:
        name = "/".join(map(str, seed)).encode()
        self._bits = random.Random(int.from_bytes(hashlib.sha256(name).digest(), "big")).getrandbits

    def below(self, limit: int) -> int:
        """Return a number from 0 to ``limit`` - 1."""
        return self._bits(32) * limit >> 32

    def between(self, least: int, most: int) -> int:
        return least + self.below(most - least + 1)

    def one_in(self, count: int) -> bool:
        return self.below(count) == 0

    def pick(self, things):
        return things[self.below(len(things))]

    def bytes(self, size: int) -> bytes:
        return self._bits(8 * size).to_bytes(size, "big") if size else b""

    def shuffled(self, things) -> list:
        """Return the same things in another order (Fisher and Yates)."""
        order = list(things)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
