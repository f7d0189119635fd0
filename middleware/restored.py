"""The headers of a download whose name and type come from its sealed metadata.

The uploader chose both. Guarantees: a browser saves the file and shows nothing of it, and if
something makes it show the file after all, it runs nothing of it. No name and no type that can be
sealed makes a header that a server, a proxy or a client would refuse. No I/O.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from securefs.middleware.filename import attachment, normalise
from securefs.middleware.headers import values_of, without
from securefs.middleware.media_type import is_media_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.middleware.headers import Headers

__all__ = ["restored"]

# Not in any origin, without scripts, plug-ins, forms and further requests.
_POLICY: Final = "sandbox; default-src 'none'"
# A script or a style sheet is no document: the policy of the page that names it counts, and so does
# no Content-Disposition. So the browser gets another type, and with nosniff it refuses to use it.
# The script types are those of the WHATWG MIME Sniffing Standard, section 4.6.
_USED_BY_PAGES: Final = re.compile(
    r"(?:(?:application|text)/(?:x-)?(?:java|ecma)script|text/javascript1\.[0-5]|text/jscript|text/livescript|text/css)"
    r"(?:[ \t;].*)?",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN_TEXT: Final = "text/plain"


def restored(headers: Headers, metadata: Mapping[str, object]) -> Headers:
    """Return ``headers`` with the name and the type in ``metadata``, for saving.

    A name or a type that is missing or unusable leaves the app's, but for a disposition other than
    ``attachment``. A Content-Security-Policy of the app stays: of two, a browser enforces both.
    """
    added = [("Content-Disposition", _disposition(headers, metadata.get("name")))]
    media_type = metadata.get("type")
    if is_media_type(media_type):
        added.append(("Content-Type", _PLAIN_TEXT if _USED_BY_PAGES.fullmatch(media_type) else media_type))
    # The type is the uploader's claim: a browser must not sniff another one from the bytes.
    added.append(("X-Content-Type-Options", "nosniff"))
    kept = without(headers, {name.lower() for name, _ in added})
    if _POLICY not in values_of(kept, "content-security-policy"):
        added.append(("Content-Security-Policy", _POLICY))
    return kept + added


def _disposition(headers: Headers, name: object) -> str:
    if isinstance(name, str) and name:
        # An upload's name is normalised when it is sealed; other writers may seal any text.
        return attachment(normalise(name))
    own = values_of(headers, "content-disposition")
    is_attachment = len(own) == 1 and own[0].partition(";")[0].strip(" \t").lower() == "attachment"
    return own[0] if is_attachment else "attachment"
