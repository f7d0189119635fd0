"""Conditional requests (RFC 9110 section 13) for files that the app gave no entity tag.

The tag follows from the object id, which no other content has, so a client that continues or
repeats a download learns whether the file is still the same. Pure functions.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["NOT_MODIFIED", "entity_tag", "failed_condition"]

NOT_MODIFIED: Final = "304 Not Modified"
FAILED: Final = "412 Precondition Failed"
# entity-tag = [ weak ] opaque-tag (RFC 9110 section 8.8.3)
_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def entity_tag(object_id: str) -> str:
    """Return the strong entity tag of a file. It does not tell the object id."""
    return f'"{hashlib.sha256(b"securefs entity tag" + bytes.fromhex(object_id)).hexdigest()[:32]}"'


def failed_condition(asked: Mapping[str, Any], tag: str) -> str | None:
    """Return the status of a GET or HEAD whose condition does not hold, None if all hold.

    :param asked: the server's environ. :param tag: the file's entity tag.
    """
    if asked.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
        return None
    if (wanted := asked.get("HTTP_IF_MATCH")) is not None and not _matches(wanted, tag, weak=False):
        return FAILED
    if (known := asked.get("HTTP_IF_NONE_MATCH")) is not None and _matches(known, tag, weak=True):
        return NOT_MODIFIED
    return None


def _matches(condition: str, tag: str, *, weak: bool) -> bool:
    """Return whether a list of entity tags, or an asterisk, includes ``tag``."""
    if condition.strip(" \t") == "*":
        return True
    return any(found == tag and (weak or not prefix) for prefix, found in _TAG.findall(condition))
