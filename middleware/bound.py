"""An upper bound on the length of a new body, announced before the body is known.

The app must be told a Content-Length when only the start of the body was read. :class:`Bound`
counts what has been read, and computes how long the rest can become: data grows by the tags of its
segments, each file that may still follow has its overhead, and each part a header that may be
longer than the client's. The bound is never too small. Its excess is filled with line ends after
the closing boundary, where parsers skip them. Limits keep that filling short; a body that would
need more filling is held instead. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.errors import LimitExceededError
from securefs.metadata import encode_metadata
from securefs.middleware.media_type import MAX_MEDIA_TYPE
from securefs.middleware.servers import MAX_EPILOGUE
from securefs.stream import growth

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.middleware.policy import Policy
    from securefs.middleware.sealing import SealedFile

__all__ = ["Bound"]

# Bytes of fields in a streamed body: each MiB of them costs 1 KiB of filling.
STREAMED_FIELD_BYTES: Final = 32 * 1024 * 1024
# Bytes by which the new part headers may be longer than a terse client's.
HEADER_GROWTH: Final = 8 * 1024
# Bytes of the longest metadata from a part's header, without the name: a type, each character of it
# escaped.
METADATA_SIZE: Final = len(encode_metadata({"name": "", "type": ""})) + 2 * MAX_MEDIA_TYPE


class Bound:
    """Counts the parts of one multipart body; computes how long the new body can become.

    :param overhead: returns the most bytes that a file has beyond its data, from the size of its
        metadata in bytes.
    :param boundary: the new boundary's length in bytes.
    :param longer: by how many bytes it is longer than the client's; negative if it is shorter.
    :ivar parts: the number of parts that were begun.
    """

    def __init__(self, policy: Policy, overhead: Callable[[int], int], *, boundary: int, longer: int) -> None:
        self._policy = policy
        self._overhead = overhead
        self._boundary = boundary
        self._longer, self._shorter = max(0, longer), max(0, -longer)
        self._files = self._fields = 0
        self._grown = 0  # bytes by which the new headers were longer than the client's
        self._field_bytes = 0  # since the length was announced
        self._announced = False

    @property
    def parts(self) -> int:
        """The number of parts that were begun."""
        return self._files + self._fields

    def add_file(self) -> None:
        """Count a file; raise :class:`LimitExceededError` if there are too many."""
        self._files += 1
        if self._files > self._policy.max_files:
            raise LimitExceededError(f"more than {self._policy.max_files} files")

    def add_field(self) -> None:
        """Count a field; raise :class:`LimitExceededError` if there are too many."""
        self._fields += 1
        if self._fields > self._policy.max_fields:
            raise LimitExceededError(f"more than {self._policy.max_fields} fields")

    def add_header(self, size: int, theirs: int) -> None:
        """Count a part's header of ``size`` bytes; raise if the bound does not hold.

        :param theirs: the size in bytes of the client's header.
        """
        self._grown += max(0, size - theirs - self._longer)
        if self._announced and self._grown > HEADER_GROWTH:
            raise LimitExceededError(
                "the body's part headers are too terse to stream; Policy(spool=True) takes them"
            )

    def add_field_bytes(self, size: int) -> None:
        """Count bytes of a field; raise if the bound does not hold."""
        self._field_bytes += size if self._announced else 0
        if self._field_bytes > STREAMED_FIELD_BYTES:
            raise LimitExceededError("too many bytes of fields to stream; Policy(spool=True) takes them")

    def announce(self, rest: int, file: SealedFile | None) -> int:
        """Return the most bytes that can result from ``rest`` more bytes of the client's body.

        From this call on the limits apply.

        :param file: the file whose data is being read, if any.
        """
        self._announced = True
        if file is None:
            return rest + growth(rest) + self._of_parts_to_come
        # The rest is counted as data of that file, because that data grows the most.
        data = file.taken + rest
        return data + growth(data) - file.given + self._file_overhead + self._of_parts_to_come

    def is_close(self) -> bool:
        """Return whether the filling after :meth:`announce` is sure to be short enough."""
        saved = self._shorter * (self._policy.max_files + self._policy.max_fields - self.parts)
        # What may follow the closing boundary is dropped.
        saved += self._policy.max_part_header
        return self._of_parts_to_come + growth(STREAMED_FIELD_BYTES) + saved <= MAX_EPILOGUE

    @property
    def _file_overhead(self) -> int:
        # The bytes of a name, each of them escaped.
        return self._overhead(METADATA_SIZE + 2 * self._policy.max_filename)

    @property
    def _of_parts_to_come(self) -> int:
        """The most bytes by which parts still to come enlarge the body, beyond their data."""
        files = self._policy.max_files - self._files
        parts = files + self._policy.max_fields - self._fields
        return files * self._file_overhead + parts * self._longer + HEADER_GROWTH + self._boundary
