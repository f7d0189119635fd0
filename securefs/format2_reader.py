"""Format 2 files, opened for reading: only what is needed is read, and what is read is verified.

That is the header, the final segment (so that truncation is detected before byte 0 is returned) and
then the segments that a read covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.errors import IntegrityError, Reason
from securefs.header import FIXED_SIZE, header_length
from securefs.plaintext import READ_SIZE, Plaintext
from securefs.secrecy import clears_frames
from securefs.stream import TRAILER, unlock
from securefs.suites import BODY_HEAD_SIZE, check_index

if TYPE_CHECKING:
    from securefs.keys import Keyring
    from securefs.primitives import Primitives
    from securefs.source import Source

__all__ = ["Format2File"]


class Format2File(Plaintext):
    """A Format 2 file: what a read covers is verified when it is read.

    :raises IntegrityError: the header or the end of the file fails verification.
    """

    format = 2

    def __init__(self, source: Source, keyring: Keyring, context: bytes, primitives: Primitives) -> None:
        super().__init__()
        self._source = source
        start = source.read_at(0, FIXED_SIZE)
        start += source.read_at(FIXED_SIZE, header_length(start) + BODY_HEAD_SIZE - FIXED_SIZE)
        unlocked = unlock(start, keyring, context, primitives)
        self._cipher = unlocked.cipher
        self.passed_over = unlocked.planted
        self.object_id, self.key_id, self.metadata = (
            unlocked.header.object_id,
            unlocked.key_id,
            unlocked.metadata,
        )
        suite = unlocked.header.suite
        self.suite, self.block_size, self._sealed_size = suite.label, suite.segment_size, suite.sealed_size
        self._start = len(start)
        self._buffer = memoryview(b"")  # sealed segments; reused, as the output buffer is
        self._raw = (0, self._buffer)  # the index of the first sealed segment read, and the bytes
        self._last, self._last_size = divmod(
            max(0, source.length - len(TRAILER) - self._start), self._sealed_size
        )
        check_index(self._last)
        # Bytes of its own: the output buffer will hold other runs.
        last = bytes(self._open_last(suite.min_sealed))
        self._final = (self._last * self.block_size, memoryview(last))
        self.size = self._last * self.block_size + len(last)

    def _open_last(self, least: int) -> memoryview:
        """Return the plaintext of the final segment; raise the file's first fault if the end fails.

        A stream meets that fault first, so both ways of reading give the same reason for the same
        file. A file that fails costs one pass over it.
        """
        try:
            self._check_end(least)
            return self._run(self._last, 1)
        except IntegrityError:
            for index in range(self._last):
                self._cipher.check(index, False, self._sealed(index, 1))
            raise

    def _check_end(self, least: int) -> None:
        if self._last_size < least or self._source.read_at(self._source.length - 1, 1) != TRAILER:
            # A full final segment means truncation, and so does any length that no writer produces.
            raise IntegrityError("the file was cut or extended", Reason.TRUNCATED, segment=self._last)

    def _sealed(self, index: int, count: int) -> memoryview:
        """Return stored segments from ``index`` on, at least one and up to ``count`` of them."""
        size = self._sealed_size
        first, raw = self._raw
        behind = first + -(-len(raw) // size)  # the index after the last one read, whole or cut
        if not first <= index < behind:
            # The first read takes only what was requested, the following ones more: a short range
            # costs no long read.
            goes_on = bool(raw) and index == behind
            first, raw = self._raw = index, self._read_stored(index, READ_SIZE if goes_on else count * size)
        offset = (index - first) * size
        return raw[offset : offset + count * size]

    def _read_stored(self, index: int, most: int) -> memoryview:
        """Read into the buffer the stored segments that fit into ``most`` bytes and into READ_SIZE.

        It stops before the last one, which is read alone: its plaintext is kept.
        """
        size = self._sealed_size
        wanted = self._last_size
        if index < self._last:
            wanted = min(min(most, READ_SIZE) // size, self._last - index) * size
        if len(self._buffer) < wanted:
            self._buffer = memoryview(bytearray(wanted))
        return self._buffer[: self._source.read_into(self._start + index * size, self._buffer[:wanted])]

    def _run(self, index: int, count: int) -> memoryview:
        sealed = self._sealed(index, count)
        if len(self._output) < len(sealed):
            self._output = memoryview(bytearray(len(sealed)))
        size = 0
        # At least one turn: if the file was cut since it was opened, an empty segment must be
        # refused.
        for start in range(0, max(1, len(sealed)), self._sealed_size):
            segment = sealed[start : start + self._sealed_size]
            size += self._cipher.open_into(index, index == self._last, segment, self._output[size:])
            index += 1
        return self._output[:size]

    @clears_frames
    def check(self, start: int, stop: int | None) -> None:
        """See :meth:`securefs.EncryptedFile.check`."""
        end = self._last if stop is None else (stop - 1) // self.block_size
        for index in range(start // self.block_size, min(end, self._last) + 1):
            self._cipher.check(index, index == self._last, self._sealed(index, 1))
