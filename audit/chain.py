"""One hash chain of records that is being written.

Guarantees: each record names the hash of the line before it, also over files: a chain goes on in
another one at :data:`MAX_SIZE` bytes and at midnight UTC. The next file is locked before the one
before it is let go, so a living writer always holds a lock; what was closed is never written again.
After any failure, not one more byte is appended to that chain. This module does not decide what to
do about a failure: it raises :class:`ChainBrokenError`, and :mod:`securefs.audit.journal` decides.

Implements the section on chains of ``docs/journal.md``.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from securefs.audit.record import MAX_LINE, Entry, Position, Source, build_line, line_hash
from securefs.audit.sink import ChainBrokenError, Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Following = Callable[[int], tuple[Sink, Mapping[str, str | int]]]

__all__ = ["MAX_SIZE", "Chain"]

MAX_SIZE: Final = 64 * 1024 * 1024  # bytes of one file
_DAY: Final = 24 * 60 * 60 * 1_000_000_000  # nanoseconds


class Chain:
    """A chain that is being written: its position, and whether it may continue.

    :param chain: 32 hex digits. :meth:`random_id` draws them.
    :param following: opens the file with a number, and says what its first record tells beside
        that. None: the chain has one file.
    """

    __slots__ = (
        "_following",
        "_number",
        "_size",
        "_source",
        "_start",
        "_until",
        "_whole",
        "pid",
        "position",
        "sink",
    )

    def __init__(self, chain: str, source: Source, sink: Sink, following: Following | None = None) -> None:
        self.position = Position(chain)
        self.pid: Final = source.pid
        self.sink = sink
        self._source = source
        self._whole = True
        self._following = following
        self._number = 0  # of the file
        self._start = self._size = 0  # bytes before this file, and in it
        self._until = 0  # the end of the day in which this file began, nanoseconds

    @staticmethod
    def random_id() -> str:
        """Return a new chain id."""
        return secrets.token_hex(16)

    @property
    def usable(self) -> bool:
        """False after a failure, or after an exception (from a signal, say) cut an append short."""
        return self._whole

    def append(self, entry: Entry, time_ns: int, *, flush_from: int) -> None:
        """Write the next record.

        :param flush_from: severity, 1 to 5. From this severity on, the method returns only once the
            record is on the disk.
        :raises ValueError: the entry is not a record; nothing was written and the chain stays
            usable.
        :raises ChainBrokenError: the record was not written whole, or not flushed; the chain must
            be abandoned.
        """
        if not self._size:
            self._until = (time_ns // _DAY + 1) * _DAY
        elif time_ns >= self._until or self._size > MAX_SIZE - MAX_LINE:
            self._go_on(entry, time_ns)
        line = build_line(self.position, self._source, time_ns, entry)
        # Between the write and the new position, the state of the chain is undefined: a second
        # record with the same number would look like tampering to a verifier. So the chain is
        # marked unusable first, and usable again last.
        self._whole = False
        self._write(line)
        if entry.severity >= flush_from:
            self.sink.flush()
        self._whole = True

    def _write(self, line: bytes) -> None:
        self.sink.check()
        self.sink.write(line)
        self.position = Position(self.position.chain, self.position.seq + 1, line_hash(line[:-1]))
        self._size += len(line)

    def _go_on(self, entry: Entry, time_ns: int) -> None:
        """Go on in another file, whose first record links back."""
        if self._following is None:
            return
        # What is no record is refused before anything is written.
        build_line(self.position, self._source, time_ns, entry)
        self._whole = False
        self.sink.check()
        # A power cut must not take the end of a file that another one follows.
        self.sink.flush()
        number, start = self._number + 1, self._start + self._size
        sink, obj = self._following(number)
        # The old file is let go last: whoever looks finds the new one locked.
        before, self.sink = self.sink, sink
        try:
            first = Entry("audit.segment", obj={**obj, "segment": number, "start": start})
            self._size = 0
            self._write(build_line(self.position, self._source, time_ns, first))
        finally:
            before.close()
        self._number, self._start, self._until = number, start, (time_ns // _DAY + 1) * _DAY
        self._whole = True

    def abandon(self) -> None:
        """Close the file for good, and flush what it holds if that is still possible."""
        self._whole = False
        # The successor names the last record of this chain; after a power cut both must still be
        # there.
        with contextlib.suppress(ChainBrokenError):
            self.sink.flush()
        # A file in which nothing was ever written tells nothing.
        self.sink.close(discard_empty=True)
