"""Header fields of requests and responses: reading, replacing, Content-Length. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.errors import Reason
from securefs.middleware.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from typing import Any

    Headers = list[tuple[str, str]]

__all__ = [
    "STALE",
    "content_length",
    "drop_copies",
    "has_body",
    "is_identity",
    "length_in",
    "value_of",
    "values_of",
    "without",
]

# They describe the ciphertext (RFC 9530, RFC 1864), or ranges of it.
STALE: Final = frozenset(
    {
        "content-length",
        "content-md5",
        "content-digest",
        "repr-digest",
        "digest",
        "accept-ranges",
        "content-range",
    }
)
# What PEP 3333 has in CONTENT_TYPE and CONTENT_LENGTH alone.
_COPIES: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")
_MAX_DIGITS: Final = 19  # digits of a Content-Length; int() fails at 4,301


def value_of(headers: Headers, name: str) -> str | None:
    """Return the first value of header ``name`` (lower case), None if there is none."""
    return next((value for key, value in headers if key.lower() == name), None)


def values_of(headers: Headers, name: str) -> list[str]:
    """Return all values of header ``name`` (lower case)."""
    return [value for key, value in headers if key.lower() == name]


def without(headers: Headers, names: Container[str]) -> Headers:
    """Return the headers except ``names`` (lower case)."""
    return [(name, value) for name, value in headers if name.lower() not in names]


def is_identity(coding: str | None) -> bool:
    """Return whether a Content-Encoding is absent or ``identity`` (RFC 9110 section 8.4)."""
    return (coding or "identity").strip(" \t").lower() == "identity"


def length_in(text: object) -> int | None:
    """Return a Content-Length in bytes (RFC 9110 section 8.6: ``1*DIGIT``), None if invalid.

    A sign and an underscore are refused, although int() accepts them.
    """
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    return None


def content_length(environ: Mapping[str, object]) -> int | None:
    """Return the request's Content-Length in bytes, None if it has none.

    :raises Refusal: it is not a number, or there is a Transfer-Encoding too.
    """
    text = environ.get("CONTENT_LENGTH")
    if text is None or text == "":
        return None
    length = length_in(text)
    if length is None:
        if isinstance(text, str) and text.isascii() and text.isdigit():
            raise Refusal(413, Reason.LIMIT, f"a Content-Length of {len(text)} digits (max_body)")
        raise Refusal(400, Reason.MALFORMED_MULTIPART, "the Content-Length is not a number")
    if "HTTP_TRANSFER_ENCODING" in environ:
        # RFC 9112 section 6.3: two lengths are an attempt at request smuggling. A body with a
        # Content-Length of 0 would not be inspected.
        raise Refusal(400, Reason.MALFORMED_MULTIPART, "a Content-Length beside a Transfer-Encoding")
    return length


def has_body(environ: Mapping[str, object]) -> bool:
    """Return whether the request may have a body."""
    length = environ.get("CONTENT_LENGTH", "")
    if length not in {"", "0"} or "HTTP_TRANSFER_ENCODING" in environ or "HTTP_CONTENT_LENGTH" in environ:
        return True
    # In HTTP/1 the absence of both headers means no body (RFC 9112 section 6.3). In later versions
    # it means nothing: a form without a Content-Length would reach the app, and be stored, in
    # plaintext.
    return length == "" and not str(environ.get("SERVER_PROTOCOL", "HTTP/1.1")).startswith("HTTP/1")


def drop_copies(environ: dict[str, Any]) -> None:
    """Remove a second Content-Type and Content-Length under the names of other headers.

    A few servers put a copy there, and a few pass on what a client calls ``Content_Type``. Some
    frameworks read it: what is no form for the middleware is one for them.

    :raises Refusal: it is no copy, but says something else.
    """
    for name in _COPIES:
        copy = environ.pop(f"HTTP_{name}", None)
        if copy is not None and copy != environ.get(name, ""):
            raise Refusal(400, Reason.MALFORMED_MULTIPART, f"a second {name}, under the name HTTP_{name}")
