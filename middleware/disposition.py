r"""A part's Content-Disposition: its field, and whether it is a file (RFC 7578 section 4.2).

Clients write file names in many ways. What might be a file is a file: the name is read in each way
that is in use, and is sent on in one, that of current browsers (WHATWG HTML, form-data). A header
is refused if it could name no file for one parser and a file for another, or two different fields.
The file name is, in this order:

1. ``filename*`` if it is valid UTF-8 or ISO-8859-1 (RFC 8187), without control characters;
2. ``filename`` if it is one whole encoded word of such a text (RFC 2047 section 2), decoded;
3. ``filename`` as it stands, between quotation marks or not. Quotation marks inside the name are
   accepted if no further parameter follows: the name then ends at the last one.

Any other parameter with an asterisk, a repeated one, and one without value is refused. A tab is
white space behind a semicolon (RFC 9110 section 5.6.6), and refused elsewhere. No I/O.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from securefs.errors import Reason, SecureFSError

__all__ = ["Disposition", "MalformedDispositionError", "parse_disposition"]

# RFC 2183 section 2. Some clients call a file of a form an attachment; frameworks ignore the word.
_KIND: Final = re.compile(r"(form-data|attachment)(?= *(?:;|$))", re.IGNORECASE)
# A value between quotes ends at the first quote that no backslash precedes (RFC 2183 quoted-pair,
# as old curl and Go write) ...
_QUOTED_PAIRS: Final = r'"((?:[^"\\]|\\.)*)"'
# ... unless only the browsers' reading is possible: there a backslash is an ordinary character.
_QUOTED_PLAIN: Final = r'"([^"]*)"'
_PAIRS, _PLAIN = (
    re.compile(rf' *;[ \t]*([A-Za-z0-9_\-*]+)(?:=(?:{quoted}|([^" ;\\][^";\\]*)))?')
    for quoted in (_QUOTED_PAIRS, _QUOTED_PLAIN)
)
_EMPTY: Final = re.compile(r" *;(?=[ \t]*(?:;|$))")
# What may stand without quotes. In a file name, anything: wherever it ends, the part is a file. In
# a name, nothing in which another parser could find a parameter.
_UNQUOTED: Final = {
    "filename": re.compile(r".+"),
    "filename*": re.compile(r"[^ ]+"),
    "name": re.compile(r"[^ =,]+"),
}
# RFC 9110 section 5.6.2: token
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# The beginning of a file name that may have quotes in it that nobody escaped.
_FILENAME: Final = re.compile(r';[ \t]*filename="', re.IGNORECASE)
_NEXT_PARAMETER: Final = re.compile(r'"[ \t]*;')
# RFC 8187 section 3.2: ext-value. Its charsets are the two that all readers must know.
_EXTENDED: Final = re.compile(r"(utf-8|iso-8859-1)'[A-Za-z0-9\-]*'((?:[^%]|%[0-9A-Fa-f]{2})*)", re.IGNORECASE)
# RFC 2047 section 2: encoded-word, of any length, with the language of RFC 2231.
_WORD: Final = re.compile(
    r"=\?(utf-8|iso-8859-1|us-ascii)(?:\*[A-Za-z0-9\-]+)?\?([BQ])\?([!-<>@-~=]*)\?=", re.IGNORECASE
)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class MalformedDispositionError(SecureFSError):
    """Parsers may differ on what this part is. The message says which rule it breaks."""

    reason = Reason.MALFORMED_MULTIPART


@dataclass(frozen=True, slots=True)
class Disposition:
    """A part's names as current browsers write them, ``"`` as ``%22``, other percent signs kept.

    ``filename`` is None for a field.
    """

    name: str
    filename: str | None


def parse_disposition(text: str) -> Disposition:
    """Return the names in the value of a Content-Disposition.

    :raises MalformedDispositionError: it breaks one of this module's rules.
    """
    kind = _KIND.match(text)
    if kind is None:
        raise MalformedDispositionError("a part's disposition is neither form-data nor attachment")
    parameters = _parse(text[kind.end() :])
    if any("\t" in value for value in parameters.values()):
        raise MalformedDispositionError("a part's name or file name holds control characters")
    filename = _filename(parameters)
    if filename is None and kind[1].lower() == "attachment":
        raise MalformedDispositionError("a part is an attachment without a file name")
    if not parameters.get("name"):
        # Some frameworks drop a part with an empty name, some don't.
        raise MalformedDispositionError("a part has no name")
    for value in (parameters["name"], parameters.get("filename", "")):
        if value.endswith("\\"):
            # Doubled or not: some frameworks take the closing quote for an escaped one, and so the
            # file for a field.
            raise MalformedDispositionError("a part's name or file name ends in a backslash")
    return Disposition(_as_browsers(parameters["name"]), filename)


def _parse(text: str) -> dict[str, str]:
    """Return the parameters by their names in lower case, without quotes and escapes."""
    plain = _read(text, _PLAIN)
    # Without a backslash there is one reading only.
    pairs = _read(text, _PAIRS) if "\\" in text else plain
    if plain is None and pairs is not None:
        # Only a client that puts backslashes before quotes writes this: before backslashes, too.
        return {name: re.sub(r'\\(["\\])', r"\1", value) for name, value in pairs.items()}
    if plain is not None and pairs in (None, plain):
        return plain
    if pairs is plain is None and (begin := _FILENAME.search(text)):
        parameters = _parse(text[: begin.start()])
        rest = text[begin.end() :].rstrip(" ;")
        value = rest[:-1]
        if rest.endswith('"') and not _NEXT_PARAMETER.search(value) and "filename*" not in parameters:
            # A single quote at the end is behind the name, and no part of it.
            return parameters | {"filename": re.sub('" *$', "", value).replace(r"\"", '"')}
    raise MalformedDispositionError("a part's Content-Disposition is malformed, or can be read in two ways")


def _read(text: str, pattern: re.Pattern[str]) -> dict[str, str] | None:
    """Return the parameters under one of the two readings of quotes; None if it does not fit."""
    parameters: dict[str, str] = {}
    position, end = 0, len(text.rstrip(" "))
    while position < end:
        empty = _EMPTY.match(text, position)
        match = empty or pattern.match(text, position)
        if match is None or text.startswith("=", match.end()):
            return None
        position = match.end()
        if empty:
            continue
        name, quoted, unquoted = match[1].lower(), match[2], match[3]
        value = quoted if unquoted is None else unquoted.rstrip(" ")
        if value is None or name in parameters or ("*" in name and name != "filename*"):
            # filename*0, a bare filename, a second name: parsers read each of these differently.
            raise MalformedDispositionError(
                f"a part's Content-Disposition has an unusable or repeated {name[:40]!r}"
            )
        if unquoted is not None and not _UNQUOTED.get(name, _TOKEN).fullmatch(value):
            return None
        parameters[name] = value
    return parameters


def _filename(parameters: dict[str, str]) -> str | None:
    """Return the file name as browsers write it; None if there is none."""
    plain, extended = parameters.get("filename"), parameters.get("filename*")
    decoded = (_of_extended(extended) if extended is not None else None) or (plain and _of_word(plain))
    if decoded:
        # A backslash at the end would escape the closing quote for some frameworks.
        return _as_browsers(decoded.rstrip("\\"))
    if plain is None and extended:
        raise MalformedDispositionError("a part's filename* is neither valid UTF-8 nor ISO-8859-1")
    return _as_browsers(plain) if plain is not None else extended


def _of_extended(value: str) -> str | None:
    match = _EXTENDED.fullmatch(value)
    return _text(unquote_to_bytes(match[2]), match[1]) if match else None


def _of_word(value: str) -> str | None:
    match = _WORD.fullmatch(value)
    if match is None:
        return None
    try:
        if match[2] in "Bb":
            data = base64.b64decode(match[3], validate=True)
        else:
            data = binascii.a2b_qp(match[3], header=True)
    except binascii.Error:
        return None
    return _text(data, match[1])


def _text(data: bytes, charset: str) -> str | None:
    """Return the text, None if these bytes are none or have control characters."""
    try:
        text = data.decode(charset)
    except UnicodeDecodeError:
        return None
    return None if _CONTROLS.search(text) else text


def _as_browsers(value: str) -> str:
    return value.replace('"', "%22")
