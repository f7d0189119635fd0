"""One hash chain of records that is being written.

Guarantees: each record names the hash of the line before it. After any failure, not one more byte
is appended to that chain. This module does not decide what to do about a failure: it raises
:class:`ChainBrokenError`, and :mod:`securefs.audit.journal` decides.

Implements the section on chains of ``docs/journal.md``.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

from securefs.audit.record import NO_LINE, Entry, Position, Source, build_line, line_hash
from securefs.audit.sink import ChainBrokenError, Sink

__all__ = ["Chain"]


class Chain:
    """A chain that is being written: its position, and whether it may continue.

    :param chain: 32 hex digits. :meth:`random_id` draws them.
    """

    __slots__ = ("_source", "_whole", "pid", "position", "sink")

    def __init__(self, chain: str, source: Source, sink: Sink) -> None:
        self.position = Position(chain)
        self.pid: Final = source.pid
        self.sink: Final = sink
        self._source = source
        self._whole = True

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
        line = build_line(self.position, self._source, time_ns, entry)
        # Between the write and the new position, the state of the chain is undefined: a second
        # record with the same number would look like tampering to a verifier. So the chain is
        # marked unusable first, and usable again last.
        self._whole = False
        self.sink.check()
        self.sink.write(line)
        self.position = Position(self.position.chain, self.position.seq + 1, line_hash(line[:-1]))
        if entry.severity >= flush_from:
            self.sink.flush()
        self._whole = True

    def abandon(self) -> None:
        """Close the file for good, and flush what it holds if that is still possible."""
        self._whole = False
        # The successor names the last record of this chain; after a power cut both must still be
        # there.
        with contextlib.suppress(ChainBrokenError):
            self.sink.flush()
        self.sink.close(discard_empty=self.position.prev == NO_LINE)
