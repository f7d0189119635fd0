"""An upper bound on the length of a new body, announced before the body is known.

The app must be told a Content-Length when only the start of the body was read. :class:`Bound`
counts what has been read, and computes how long the rest can become: data grows by the tags of its
segments, each file that may still follow has its overhead, and headers and names have a common
allowance. The bound is never too small. Its excess is filled with line ends after the closing
boundary, where parsers skip them. Constants keep that filling short, so that no upload is held
because of a limit that it does not reach. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.errors import LimitExceededError
from securefs.metadata import encode_metadata
from securefs.middleware.filename import shortened
from securefs.middleware.media_type import MAX_MEDIA_TYPE
from securefs.middleware.multipart import MAX_AROUND
from securefs.middleware.servers import MAX_EPILOGUE
from securefs.stream import growth

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.middleware.policy import Policy
    from securefs.middleware.sealing import SealedFile

__all__ = ["Bound"]

# Bytes of fields in a streamed body: each MiB of them costs 1 KiB of filling.
STREAMED_FIELD_BYTES: Final = 32 * 1024 * 1024
# Files that may follow in a streamed body, if the policy allows as many: each costs 1 KiB.
STREAMED_FILES: Final = 300
# Bytes by which all the new boundaries and headers in a streamed body may be longer than a terse
# client's.
HEADER_GROWTH: Final = 64 * 1024
MAX_SEALED_NAME: Final = 1024  # bytes of a name that are sealed with a file
USUAL_NAME: Final = 255  # bytes of UTF-8; file systems take no longer name
# Bytes by which the names in a streamed body may be longer than that, escapes included.
LONG_NAMES: Final = 32 * 1024
_EMPTY: Final = len(encode_metadata({"name": "", "type": ""}))
# Bytes of metadata with a name of 255 bytes and any type: each parameter has two escaped quotes.
USUAL_METADATA: Final = _EMPTY + USUAL_NAME + MAX_MEDIA_TYPE + MAX_MEDIA_TYPE // 2
# Bytes of the longest metadata, each character of it escaped.
LONGEST_METADATA: Final = _EMPTY + 2 * MAX_SEALED_NAME + 2 * MAX_MEDIA_TYPE


class Bound:
    """Counts the parts of one multipart body; computes how long the new body can become.

    :param overhead: returns the most bytes that a file has beyond its data, from the size of its
        metadata in bytes; None if no file is encrypted.
    :param boundary: the new boundary's length in bytes.
    :param longer: by how many bytes it is longer than the client's; negative if it is shorter.
    :ivar parts: the number of parts that were begun.
    """

    def __init__(
        self, policy: Policy, overhead: Callable[[int], int] | None, *, boundary: int, longer: int
    ) -> None:
        self._policy = policy
        self._overhead = overhead or _nothing
        self._growth = growth if overhead else _nothing
        self._boundary = boundary
        self._shorter = max(0, -longer)
        self._files = self._fields = 0
        self._announced = False
        # Since the length was announced:
        self._late_files = 0
        self._grown = 0  # bytes by which the new headers were longer than the client's
        self._long_names = 0  # bytes by which names were longer than usual
        self._field_bytes = 0

    @property
    def parts(self) -> int:
        """The number of parts that were begun."""
        return self._files + self._fields

    def add_file(self) -> None:
        """Count a file; raise :class:`LimitExceededError` if there are too many."""
        self._files += 1
        if self._files > self._policy.max_files:
            raise LimitExceededError(f"more than {self._policy.max_files} files (max_files)")
        self._late_files += self._announced
        if self._late_files > STREAMED_FILES:
            raise LimitExceededError(
                f"more than {STREAMED_FILES} files follow the start of a streamed body; "
                "Policy(spool=True) takes them"
            )

    def add_field(self) -> None:
        """Count a field; raise :class:`LimitExceededError` if there are too many."""
        self._fields += 1
        if self._fields > self._policy.max_fields:
            raise LimitExceededError(f"more than {self._policy.max_fields} fields (max_fields)")

    def add_header(self, size: int, theirs: int) -> None:
        """Count a part's header of ``size`` bytes; raise if the bound does not hold.

        :param theirs: the size in bytes of the client's header.
        """
        self._grown += max(0, size - theirs) if self._announced else 0
        if self._grown > HEADER_GROWTH:
            raise LimitExceededError(
                "the body's part headers are too terse to stream; Policy(spool=True) takes them"
            )

    def sealed_name(self, name: str, media_type: str) -> str:
        """Return what of a file's name is sealed with it, and count it.

        That is the beginning and the suffix, up to 1,024 bytes. If the length was announced, names
        of more than 255 bytes (with escapes) have a common allowance. Beyond it, that much is kept.
        """
        if 2 * len(name.encode("utf-8")) <= USUAL_NAME:
            # Most names, even if each character is escaped: nothing to be counted.
            return name
        kept = shortened(name, MAX_SEALED_NAME)
        size = len(encode_metadata({"name": kept, "type": media_type}))
        beyond = max(0, size - USUAL_METADATA) if self._announced else 0
        if self._long_names + beyond > LONG_NAMES:
            escapes = size - _EMPTY - len(kept.encode("utf-8")) - len(media_type)
            return shortened(name, max(1, USUAL_NAME - escapes))
        self._long_names += beyond
        return kept

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
            return rest + self._growth(rest) + self._of_parts_to_come
        # The rest is counted as data of that file, because that data grows the most.
        data = file.taken + rest
        return (
            data + self._growth(data) - file.given + self._overhead(LONGEST_METADATA) + self._of_parts_to_come
        )

    def is_close(self, rest: int, file: SealedFile | None) -> bool:
        """Return whether the filling after :meth:`announce` is sure to be short enough."""
        if self._policy.max_files - self._files > STREAMED_FILES and self._files > 1:
            # Several files came with the start: as many may follow as the policy allows.
            return False
        parts = self._files_to_come + self._policy.max_fields - self._fields
        # What surrounds the client's form is dropped.
        saved = self._shorter * parts + MAX_AROUND
        unused = self._growth(STREAMED_FIELD_BYTES)
        if self._policy.plain_fields:
            # All of the rest may be plain, and grow by nothing.
            data = rest + (file.taken if file is not None else 0)
            unused = max(unused, self._growth(data)) + self._overhead(LONGEST_METADATA)
        return self._of_parts_to_come + unused + saved <= MAX_EPILOGUE

    @property
    def _files_to_come(self) -> int:
        return min(self._policy.max_files - self._files, STREAMED_FILES)

    @property
    def _of_parts_to_come(self) -> int:
        """The most bytes by which parts still to come enlarge the body, beyond their data."""
        files = self._files_to_come * self._overhead(USUAL_METADATA)
        return files + LONG_NAMES + HEADER_GROWTH + self._boundary


def _nothing(_size: int) -> int:
    return 0
