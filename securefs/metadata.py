"""The metadata of a Format 2 file (docs/format.md, "Metadata"): one strict JSON object.

JSON readers differ in what else they accept: a byte order mark, UTF-16, ``NaN``, a name that occurs
twice, half of a surrogate pair, nesting as deep as their stack. Each of these is refused here, when
metadata is written and when it is read, so that no file opens in one program and not in another.
These are pure functions over bytes.

Sealed metadata is one AES-GCM message under a key that is derived from the file's data encryption
key (DEK) and its preamble.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final, NoReturn

from securefs.errors import ConfigurationError, FormatError
from securefs.primitives import GCM_NONCE_SIZE, KEY_SIZE, hkdf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.primitives import Primitives

__all__ = [
    "MAX_DEPTH",
    "MAX_NUMBER",
    "MAX_TEXT",
    "decode_metadata",
    "encode_metadata",
    "open_metadata",
    "seal_metadata",
]

MAX_TEXT: Final = 65_520  # bytes; with the 16-byte tag, the 65,536 that a header holds
MAX_DEPTH: Final = 32  # levels of objects and arrays; the outermost object is the first
MAX_NUMBER: Final = 64  # characters of a number: readers differ in the length that they accept

_META_INFO: Final = b"securefs/2 meta\0"
# A string of RFC 8259 section 7, with any escapes. An unterminated string extends to the end of the
# text; otherwise the match would be tried again from each quote.
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.?)*"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")


def seal_metadata(text: bytes, dek: bytes, file_id: bytes, preamble: bytes, primitives: Primitives) -> bytes:
    """Return the sealed text, or nothing for no text.

    Use it only once for each DEK, because key and nonce are derived from it.
    """
    if not text:
        return b""
    key, nonce = _keys(dek, file_id, preamble)
    return primitives.gcm(key).seal(nonce, text)


def open_metadata(
    sealed: bytes, dek: bytes, file_id: bytes, preamble: bytes, primitives: Primitives
) -> dict[str, object]:
    """Return the sealed metadata; an empty dict if there is none.

    :raises IntegrityError: it was changed.
    :raises FormatError: its tag is valid, and it is still not metadata.
    """
    if not sealed:
        return {}
    key, nonce = _keys(dek, file_id, preamble)
    return decode_metadata(primitives.gcm(key).open(nonce, sealed))


def _keys(dek: bytes, file_id: bytes, preamble: bytes) -> tuple[bytes, bytes]:
    okm = hkdf("sha256", dek, file_id, _META_INFO + preamble, KEY_SIZE + GCM_NONCE_SIZE)
    return okm[:KEY_SIZE], okm[KEY_SIZE:]


def encode_metadata(metadata: Mapping[str, object]) -> bytes:
    """Return the metadata text, at most 65,520 bytes of UTF-8; empty for an empty mapping.

    :raises ConfigurationError: the format can't hold it. So no file is written that no reader
        opens.
    """
    if not metadata:
        return b""
    try:
        text = _ENCODER.encode(dict(metadata)).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError("metadata must be a mapping of names to JSON values") from None
    if len(text) > MAX_TEXT:
        raise ConfigurationError(f"metadata of {len(text)} bytes; at most {MAX_TEXT} fit")
    try:
        decode_metadata(text)
    except FormatError as error:
        raise ConfigurationError(f"no reader would accept this metadata: {error}") from None
    return text


def decode_metadata(text: bytes) -> dict[str, object]:
    """Return the object in a metadata text.

    :raises FormatError: the text is not in the format's form.
    """
    try:
        characters = text.decode("utf-8")
        _check_depth(characters)
        metadata = _DECODER.decode(characters)
        if "\\u" in characters:
            # An escaped half of a surrogate pair is not a character. Python keeps it, and can't
            # write it as UTF-8.
            json.dumps(metadata, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise _refused("it is not JSON in UTF-8") from None
    if not isinstance(metadata, dict):
        raise _refused("it is another JSON value")
    return metadata


def _refused(why: str) -> FormatError:
    return FormatError(f"the metadata is not a JSON object of this format though its tag is good: {why}")


def _check_depth(text: str) -> None:
    """Refuse text that is nested too deeply, before a parser that recurses sees it."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise _refused(f"it is nested more than {MAX_DEPTH} levels deep")


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _refused("a name occurs twice in one object")
    return members


def _integer(text: str) -> int:
    _number(text)
    return int(text)


def _number(text: str) -> float:
    if len(text) > MAX_NUMBER or not math.isfinite(number := float(text)):
        raise _refused(f"a number has more than {MAX_NUMBER} characters, or is beyond a double")
    return number


def _constant(text: str) -> NoReturn:
    raise _refused(f"it holds {text}")


# Made once: the metadata of a file is a few words, and making these objects takes longer than using
# them.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
