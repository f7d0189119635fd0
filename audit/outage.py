"""What the operator's log is told of a journal that can't be written.

The first failure of an outage is an error there, and its end a warning. A line for each operation
that is refused in between comes from whoever refuses it.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.audit.sink import ChainBrokenError

__all__ = ["Outage"]

_log: Final = logging.getLogger("securefs")


class Outage:
    """Whether records can be written, and what is still to be said about it.

    It is said after the journal was released: whoever handles log lines may be slow, or call the
    journal.
    """

    __slots__ = ("_losses", "_news", "_outage")

    def __init__(self) -> None:
        self._outage = False
        self._news: list[tuple[int, str]] = []
        self._losses: deque[bool] = deque()  # whether each was the first of an outage

    def failed(self, error: ChainBrokenError, consequence: str) -> None:
        """Note that a record could not be written."""
        self._losses.append(not self._outage)
        if not self._outage:
            self._outage = True
            self._news.append((logging.ERROR, f"the audit journal cannot be written: {error}; {consequence}"))

    def ended(self, chain: str) -> None:
        """Note that a record was written."""
        if self._outage:
            self._outage = False
            self._news.append(
                (logging.WARNING, f"the audit journal is written again: chain {chain} says what was lost")
            )

    def note(self, message: str) -> None:
        """Note something else that the operator should know."""
        self._news.append((logging.WARNING, message))

    def report(self, on_loss: Callable[[bool], object] | None) -> None:
        """Call ``on_loss(first)`` for each record that was lost since the last report."""
        # Another thread may report at the same time, and take the last one.
        with suppress(IndexError):
            while True:
                first = self._losses.popleft()
                if on_loss is not None:
                    self._call(on_loss, first)

    def _call(self, on_loss: Callable[[bool], object], first: bool) -> None:
        try:
            on_loss(first)
        except Exception as error:  # noqa: BLE001  # whatever it is, the record was lost
            self.note(f"on_loss failed: {type(error).__name__}: {error}")

    @property
    def pending(self) -> bool:
        """Whether something is to be said."""
        return bool(self._news)

    def tell(self) -> None:
        """Say in the log what is still to be said."""
        while self._news:
            level, message = self._news.pop(0)
            _log.log(level, "%s", ascii(message)[1:-1])
