"""Media types: the Content-Type of a request, and that of a file (RFC 9110 section 8.3.1).

Frameworks read a Content-Type each in its own way. One matches asterisks and splits at every
comma, one reads any word ``multipart`` before a slash and decodes RFC 2047 words, one compares
beginnings (``docs/multipart.md`` has their names). What one of them takes for a form it parses, and
the app stores its files. So the type of a request is read once, and strictly: it is a form that the
middleware rewrites, or a type that no framework takes for a form, or it is refused. These rules
hold that:

1. At most 1,024 characters, all of them printable ASCII, but for tabs around a semicolon.
2. One ``token/token``, no asterisk in it, then parameters: ``token=token`` or
   ``token="characters"``, each name once, no asterisk in a name (RFC 2231), no backslash in a
   value. Empty parameters are skipped (RFC 9110 section 5.6.6).
3. Of all multipart types only ``multipart/form-data``, with one boundary, and with no charset
   but one in which ASCII is ASCII. The app does not see it: some frameworks decode names by it.
4. Any other type has no boundary. Not even its values have an asterisk, ``=?`` or the word
   multipart: the app's framework gets this type as it came.

The same rules hold for the type of a field: it is handed on if no framework takes it for a form.
"""

from __future__ import annotations

import re
from typing import Final, TypeGuard

from securefs.errors import Reason, SecureFSError

__all__ = [
    "MAX_MEDIA_TYPE",
    "UNICODE_CHARSETS",
    "MalformedTypeError",
    "charset_of",
    "is_media_type",
    "parse_boundary",
    "type_of_field",
    "type_of_file",
]

MAX_CONTENT_TYPE: Final = 1024  # characters of a request's Content-Type
MAX_MEDIA_TYPE: Final = 127  # characters of the type that is sealed with a file
# RFC 9110 section 5.6.2: token
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN_TOKEN: Final = r"[!#$%&'+\-.^_`|~0-9A-Za-z]+"  # noqa: S105  # a token without asterisk
_NAME: Final = re.compile(f"{_PLAIN_TOKEN}/{_PLAIN_TOKEN}")
# White space and semicolon are matched apart from what follows: if two repetitions can share the
# white space, the time to find no match grows exponentially.
_SEPARATOR: Final = re.compile(r"[ \t]*;[ \t]*")
# An unquoted value is a token. Many clients also leave boundaries unquoted that are none, as
# "----=_Part_1".
_PARAMETER: Final = re.compile(
    rf'({_PLAIN_TOKEN})=(?:"([\x20\x21\x23-\x5b\x5d-\x7e]*)"|([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+))'
)
# RFC 2046 section 5.1.1: bcharsnospace, a space not last; and the other characters of tokens, which
# some clients use. More than its 70 characters, because the app never sees this boundary.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=?!#$%&*^`|~ ]{0,199}[0-9A-Za-z'()+_,\-./:=?!#$%&*^`|~]")
_FORM: Final = "multipart/form-data"
# What the names and the fields of a form are in if it does not say otherwise.
UNICODE_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# In a quoted value: what a framework matches or decodes, and may take for a form.
_AMBIGUOUS: Final = re.compile(r"\*|=\?|multipart", re.IGNORECASE)
# media-type = type "/" subtype parameters
_MEDIA_TYPE: Final = re.compile(
    rf"{_TOKEN.pattern}/{_TOKEN.pattern}"
    rf'(?:[ \t]*;[ \t]*{_TOKEN.pattern}=(?:{_TOKEN.pattern}|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))*'
)
DEFAULT_TYPE: Final = "application/octet-stream"
# Two frameworks read pairs from a part of this type, and one of them to the end of the body.
_PAIRS: Final = "application/x-www-form-urlencoded"
# Charsets in which ASCII is ASCII: one framework decodes names by them. Others raise errors that an
# app does not expect (rot13), or take time that grows with the square of the length (punycode).
_ASCII_CHARSETS: Final = re.compile(
    r"utf-?8|(?:us-)?ascii|iso-8859-(?:[1-9]|1[03-6])|windows-125[0-8]|koi8-[ru]|gb2312|gbk|gb18030"
    r"|big5|shift_jis|euc-(?:jp|kr)",
    re.IGNORECASE,
)


class MalformedTypeError(SecureFSError):
    """Frameworks may differ on what this Content-Type is. The message says which rule it breaks."""

    reason = Reason.MALFORMED_MULTIPART


def is_media_type(text: object) -> TypeGuard[str]:
    """Return whether ``text`` is a media type of at most 127 ASCII characters.

    Only such types are sealed with a file and restored.
    """
    return isinstance(text, str) and len(text) <= MAX_MEDIA_TYPE and bool(_MEDIA_TYPE.fullmatch(text))


def type_of_file(text: str) -> str:
    """Return the type of a file: ``text``, else its type without parameters, else the default.

    Parameters are left out if they are malformed, or longer than 127 characters with the type.
    """
    if is_media_type(text):
        return text
    name = text.partition(";")[0].rstrip(" \t")
    return name if is_media_type(name) else DEFAULT_TYPE


def type_of_field(text: str) -> str:
    """Return the type that a field is handed on with, empty for none.

    Some frameworks decode a field by it. Parameters are left out if the charset is an unusual one.

    :param text: what the client sent, empty for nothing.
    """
    try:
        # A type with a boundary is refused, or is a form.
        is_form = parse_boundary(text) is not None
    except MalformedTypeError:
        return ""
    match = _NAME.match(text)
    if match is None or is_form or match[0].lower() == _PAIRS:
        return ""
    charset = charset_of(text)
    return text if charset is None or _ASCII_CHARSETS.fullmatch(charset) else match[0]


def charset_of(media_type: str) -> str | None:
    """Return the charset that a type names, in lower case, None without one.

    :param media_type: a type that :func:`type_of_field` or :func:`parse_boundary` took.
    """
    text = media_type.strip(" \t")
    charset = _parse_parameters(text, len(text.partition(";")[0].rstrip(" \t"))).get("charset")
    return charset if charset is None else charset.lower()


def parse_boundary(content_type: str) -> bytes | None:
    """Return the boundary of a form, 1 to 200 bytes; None if a body of this type is no form.

    :param content_type: the request's, empty if it has none. No framework takes a body without a
        type for a form with files.
    :raises MalformedTypeError: the type breaks one of this module's rules.
    """
    if len(content_type) > MAX_CONTENT_TYPE:
        raise MalformedTypeError(f"the Content-Type is longer than {MAX_CONTENT_TYPE} characters")
    text = content_type.strip(" \t")
    if not text:
        return None
    match = _NAME.match(text)
    if match is None:
        raise MalformedTypeError("the Content-Type does not begin with one type/subtype")
    parameters = _parse_parameters(text, match.end())
    name = match[0].lower()
    if name == _FORM:
        return _boundary_of_form(parameters)
    if name.startswith("multipart"):
        raise MalformedTypeError("the Content-Type is a multipart type other than form-data")
    if "boundary" in parameters:
        raise MalformedTypeError("the Content-Type has a boundary and is not multipart")
    if _AMBIGUOUS.search(text):
        raise MalformedTypeError(
            "the Content-Type has an asterisk, an encoded word or 'multipart' in its parameters"
        )
    return None


def _parse_parameters(text: str, position: int) -> dict[str, str]:
    """Return the parameters from ``position`` on, by their names in lower case."""
    parameters: dict[str, str] = {}
    while position < len(text):
        separator = _SEPARATOR.match(text, position)
        if separator is None:
            raise MalformedTypeError("the Content-Type is not one type with well-formed parameters")
        match = _PARAMETER.match(text, separator.end())
        # Without a match the parameter is empty, and the next thing is a semicolon or the end.
        position = (match or separator).end()
        if match is None:
            continue
        name, quoted, unquoted = match[1].lower(), match[2], match[3]
        if quoted is None and name != "boundary" and not _TOKEN.fullmatch(unquoted):
            raise MalformedTypeError("the Content-Type has an unquoted value that is no token")
        if name in parameters:
            raise MalformedTypeError("the Content-Type has a parameter twice")
        parameters[name] = unquoted if quoted is None else quoted
    return parameters


def _boundary_of_form(parameters: dict[str, str]) -> bytes:
    if not _BOUNDARY.fullmatch(parameters.get("boundary", "")):
        raise MalformedTypeError("the Content-Type does not name one boundary of 1 to 200 characters")
    if not _ASCII_CHARSETS.fullmatch(parameters.get("charset", "utf-8")):
        raise MalformedTypeError("the Content-Type of a form has an unusual charset")
    return parameters["boundary"].encode("ascii")
