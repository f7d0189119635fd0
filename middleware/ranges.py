"""Byte ranges of a plaintext (RFC 9110 section 14), as spans of a file of known size.

Pure functions. A header that is malformed, or asks for more ranges than allowed, is ignored, as the
RFC permits: the client then gets the whole file. Overlapping ranges are merged, so no header causes
a byte to be read twice.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["UnsatisfiableRangeError", "if_range_holds", "parse_ranges"]

# ranges-specifier = range-unit "=" range-set; the unit is case-insensitive
_SPECIFIER: Final = re.compile(r"bytes=(.*)", re.IGNORECASE | re.DOTALL)
# int-range = first-pos "-" [ last-pos ] / suffix-range = "-" suffix-length; 19 digits hold any
# 63-bit number
_RANGE: Final = re.compile(r"[ \t]*(?:([0-9]{1,19})-([0-9]{1,19})?|-([0-9]{1,19}))[ \t]*")
# RFC 9110 section 5.6.1.2: recipients must accept empty list elements.
_EMPTY_ELEMENT: Final = re.compile(r"[ \t]*")


class UnsatisfiableRangeError(ValueError):
    """The ranges are well-formed, but none of them holds a byte of the file: status 416."""


def parse_ranges(header: str, size: int, limit: int) -> list[range] | None:
    """Return the spans that ``header`` asks for, overlaps merged; None if it must be ignored.

    :param size: the file's size in bytes.
    :param limit: the most ranges that may be requested.
    :raises UnsatisfiableRangeError: none of them lies within the file.
    """
    specifier = _SPECIFIER.fullmatch(header)
    if specifier is None:
        return None
    spans: list[range] = []
    elements = [element for element in specifier[1].split(",") if not _EMPTY_ELEMENT.fullmatch(element)]
    if not 1 <= len(elements) <= limit:
        return None
    for element in elements:
        match = _RANGE.fullmatch(element)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            span = range(max(0, size - int(suffix)), size)
        elif last is not None and int(last) < int(first):
            return None
        else:
            span = range(int(first), size if last is None else min(int(last) + 1, size))
        if span:
            _merge(spans, span)
    if not spans:
        raise UnsatisfiableRangeError(f"no byte of {size} is in the range")
    return spans


def _merge(spans: list[range], span: range) -> None:
    """Add ``span`` to ``spans``, in the place of the first one that it overlaps or touches."""
    position = len(spans)
    for index in reversed(range(len(spans))):
        other = spans[index]
        if other.start <= span.stop and span.start <= other.stop:
            span = range(min(span.start, other.start), max(span.stop, other.stop))
            del spans[index]
            position = index
    spans.insert(min(position, len(spans)), span)


def if_range_holds(condition: str | None, etag: str | None, last_modified: str | None) -> bool:
    """Return whether ``If-Range`` (RFC 9110 section 13.1.5) permits a range; True without one."""
    if condition is None:
        return True
    condition = condition.strip(" \t")
    if condition.startswith(('"', "W/")):
        # Strong comparison: a weak tag does not promise the same bytes.
        return etag is not None and condition == etag.strip(" \t") and not condition.startswith("W/")
    wanted, actual = _date(condition), _date(last_modified)
    return wanted is not None and wanted == actual


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
