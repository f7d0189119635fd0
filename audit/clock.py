"""The writer's clock, and whether somebody set it back.

Guarantees: a step back of the wall clock is noticed at the next record, also if so much time has
passed since the last one that times still rise: the monotonic clock tells how much that was. (It
may stand still while the host sleeps, so of a step back by less than the host has slept since the
last record, nothing is known.)
"""

from __future__ import annotations

import time
from typing import Final

__all__ = ["Clock"]

_TOLERANCE: Final = 500_000_000  # nanoseconds
_DRIFT: Final = 1000  # the wall clock may run slower by a thousandth while it is corrected
_MILLISECOND: Final = 1_000_000  # nanoseconds


class Clock:
    """Reads the wall clock for the records of one process."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        # The wall clock, and the monotonic clock after it was read; nanoseconds.
        self._last: tuple[int, int] | None = None

    def read(self) -> tuple[int, int]:
        """Return (nanoseconds since 1970-01-01 UTC, milliseconds that the clock was set back by).

        The second one is 0 unless it was set back since the last call.
        """
        # The process may be stopped between two of these calls. So the time that has passed for
        # certain is that from the end of the last reading to the begin of this one.
        before = time.monotonic_ns()
        now = time.time_ns()
        after = time.monotonic_ns()
        back = 0
        if self._last is not None:
            last, last_after = self._last
            passed = before - last_after
            gap = passed - (now - last)
            if now < last or gap > passed // _DRIFT + _TOLERANCE:
                back = max(last - now, gap)
        self._last = now, after
        # Rounded up: any step back counts.
        return now, -(-back // _MILLISECOND)
