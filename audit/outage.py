"""What the operator's log is told of a journal that can't be written.

The first failure of an outage is an error there, and its end a warning. A line for each operation
that is refused in between comes from whoever refuses it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from securefs.audit.sink import ChainBrokenError

__all__ = ["Outage"]

_log: Final = logging.getLogger("securefs")


class Outage:
    """Whether records can be written, and what is still to be said about it.

    It is said after the journal was released: whoever handles log lines may be slow, or call the
    journal.
    """

    __slots__ = ("_news", "_outage")

    def __init__(self) -> None:
        self._outage = False
        self._news: list[tuple[int, str]] = []

    def failed(self, error: ChainBrokenError, consequence: str) -> None:
        """Note that a record could not be written."""
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

    @property
    def pending(self) -> bool:
        """Whether something is to be said."""
        return bool(self._news)

    def tell(self) -> None:
        """Say in the log what is still to be said."""
        while self._news:
            level, message = self._news.pop(0)
            _log.log(level, "%s", ascii(message)[1:-1])
