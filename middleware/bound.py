"""The length that is announced for a body before it is known: never too small, and close enough to be filled up.

The app must be told a Content-Length when only the start of the body was read. :class:`Bound`
counts what there was, and says how long the rest can become: data grows by the tags of its
segments, each file that may still come has its overhead, and each part a header that may be longer
than the client's. What the bound is too long by is filled with line ends behind the closing
boundary, where parsers skip them. Limits keep that filling short; a body for which it would be too
long is held instead. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.errors import LimitExceededError
from securefs.metadata import encode_metadata
from securefs.middleware.multipart import MAX_MEDIA_TYPE
from securefs.middleware.servers import MAX_EPILOGUE
from securefs.stream import growth

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.middleware.policy import Policy
    from securefs.middleware.sealing import SealedFile

__all__ = ["Bound"]

# Bytes of fields in a streamed body: each MiB of them costs 1 KiB of filling.
STREAMED_FIELD_BYTES: Final = 32 * 1024 * 1024
# Bytes by which our part headers may be longer than a terse client's.
HEADER_GROWTH: Final = 8 * 1024
# Bytes of the longest metadata that a part's header gives but for its name: a type, each character
# of it escaped.
METADATA_SIZE: Final = len(encode_metadata({"name": "", "type": ""})) + 2 * MAX_MEDIA_TYPE


class Bound:
    """What one multipart body has held so far, and how long the new one can become.

    :param overhead: the most bytes that a file has beyond its data, given the bytes of its
        metadata.
    :param boundary: the new boundary's length in bytes. :param longer: by how much it is longer
        than the client's.
    :ivar parts: how many parts were begun.
    """

    def __init__(self, policy: Policy, overhead: Callable[[int], int], *, boundary: int, longer: int) -> None:
        self._policy = policy
        self._overhead = overhead
        self._boundary, self._longer = boundary, longer
        self._files = self._fields = 0
        self._grown = 0  # bytes by which our headers were longer than the client's
        self._field_bytes = 0  # since the length was announced
        self._announced = False

    @property
    def parts(self) -> int:
        """How many parts were begun."""
        return self._files + self._fields

    def add_file(self) -> None:
        """Count a file; raise :class:`LimitExceededError` where there are too many."""
        self._files += 1
        if self._files > self._policy.max_files:
            raise LimitExceededError(f"more than {self._policy.max_files} files")

    def add_field(self) -> None:
        """Count a field; raise :class:`LimitExceededError` where there are too many."""
        self._fields += 1
        if self._fields > self._policy.max_fields:
            raise LimitExceededError(f"more than {self._policy.max_fields} fields")

    def add_header(self, size: int, theirs: int) -> None:
        """Count a part's header of ``size`` bytes, the client's having ``theirs``; raise where the bound does not hold."""
        self._grown += max(0, size - theirs - self._longer)
        if self._announced and self._grown > HEADER_GROWTH:
            raise LimitExceededError(
                "the body's part headers are too terse to stream; Policy(spool=True) takes them"
            )

    def add_field_bytes(self, size: int) -> None:
        """Count bytes of a field; raise where the bound does not hold."""
        self._field_bytes += size if self._announced else 0
        if self._field_bytes > STREAMED_FIELD_BYTES:
            raise LimitExceededError("too many bytes of fields to stream; Policy(spool=True) takes them")

    def announce(self, rest: int, file: SealedFile | None) -> int:
        """Return the most bytes that may still come of ``rest`` bytes of the client's body. Limits hold from now on.

        :param file: the file whose data is under way, if any.
        """
        self._announced = True
        if file is None:
            return rest + growth(rest) + self._of_parts_to_come
        # As if all the rest were data of that file: of bytes of any kind, those grow the most.
        data = file.taken + rest
        return data + growth(data) - file.given + self._file_overhead + self._of_parts_to_come

    def is_close(self) -> bool:
        """Return whether the filling that :meth:`announce` may lead to is short enough."""
        return self._of_parts_to_come + growth(STREAMED_FIELD_BYTES) <= MAX_EPILOGUE

    @property
    def _file_overhead(self) -> int:
        # A name's own bytes, each of them escaped.
        return self._overhead(METADATA_SIZE + 2 * self._policy.max_filename)

    @property
    def _of_parts_to_come(self) -> int:
        """Bytes by which the rest of the body may grow beyond its data, if it holds as many parts as it may."""
        files = self._policy.max_files - self._files
        parts = files + self._policy.max_fields - self._fields
        return files * self._file_overhead + parts * self._longer + HEADER_GROWTH + self._boundary
