"""Reads keys from ``FILE_KEY_BASE64`` and its relatives, or from the private files they name.

Keys never come from code or a command line. An unusable key stops the program at start, with one
line that names the variable and says what to do. No message quotes a key. There is no default key.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Final

from securefs.disk import explain
from securefs.errors import ConfigurationError
from securefs.keys.custody import file_fault, way_fault
from securefs.keys.material import FORMAT_1_KEY_SIZES, HOW, check_key
from securefs.primitives import KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_KEY_FILE", "PREVIOUS_VARIABLE", "PRIMARY_VARIABLE", "generate_key", "keys_from"]

MAX_KEY_FILE: Final = 64 * 1024  # bytes; over a thousand retired keys
PRIMARY_VARIABLE: Final = "FILE_KEY_BASE64"
PREVIOUS_VARIABLE: Final = "FILE_KEY_BASE64_PREVIOUS"


def generate_key() -> str:
    """Return a fresh file key in base64, as ``FILE_KEY_BASE64`` takes it.

    It is 32 bytes from the system's CSPRNG.
    """
    return base64.b64encode(os.urandom(KEY_SIZE)).decode("ascii")


def keys_from(environ: Mapping[str, str]) -> tuple[bytes, list[bytes]]:
    """Return (the primary key, the retired keys) that the environment describes.

    :raises ConfigurationError: one line that names the variable and says what to do.
    """
    text = _variable(environ, PRIMARY_VARIABLE)
    if text is None:
        raise ConfigurationError(f"{PRIMARY_VARIABLE} is not set: {HOW}")
    primary = _decode_key(text, PRIMARY_VARIABLE, (KEY_SIZE,))
    previous = (_variable(environ, PREVIOUS_VARIABLE) or "").split(",")
    retired = [
        _decode_key(item, f"{PREVIOUS_VARIABLE} (key {number})", FORMAT_1_KEY_SIZES)
        for number, item in enumerate(previous, 1)
        if item.strip()
    ]
    return primary, retired


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return the text of variable ``name``, or of the file that ``name_FILE`` names.

    Return None if neither is set.
    """
    direct, path = environ.get(name), environ.get(f"{name}_FILE")
    if direct is not None and path is not None:
        raise ConfigurationError(f"both {name} and {name}_FILE are set: unset one of them")
    return _read_secret(path, f"{name}_FILE") if path is not None else direct


def _read_secret(path: str, variable: str) -> str:
    """Return the text in the file at ``path``, which only root and this user can have changed.

    Errors are raised outside the handlers, because the OSError contains the path.
    """
    shown = _shown(path)
    try:
        if (on_the_way := way_fault(path)) is not None:
            folder, problem, remedy = on_the_way
            raise ConfigurationError(f"{variable}: {folder!r}, on the way to {shown}, {problem}: {remedy}")
        with open(path, "rb", opener=_without_blocking) as file:
            # The opened file is checked, not the path, so that it can't be exchanged in between.
            if (fault := file_fault(os.fstat(file.fileno()))) is not None:
                raise ConfigurationError(f"{variable}: {shown} {fault[0]}: {fault[1]}")
            return _key_text(file.read(MAX_KEY_FILE + 1), f"{variable}: {shown}")
    except OSError as error:
        problem = explain(error)
    except ValueError:
        problem = "it holds a NUL byte"
    raise ConfigurationError(f"{variable}: cannot read {shown}: {problem}; {HOW}")


def _without_blocking(path: str, flags: int) -> int:
    """Open ``path`` without waiting: a FIFO without a writer would block the start for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _key_text(data: bytes, where: str) -> str:
    if len(data) > MAX_KEY_FILE:
        raise ConfigurationError(
            f"{where} is larger than {MAX_KEY_FILE} bytes and can't be a key file: {HOW}"
        )
    if not data.isascii():  # checked first: a UnicodeDecodeError would carry the whole text
        raise ConfigurationError(f"{where} is not base64 text: {HOW}")
    return data.decode("ascii").strip()


def _decode_key(text: str, name: str, sizes: tuple[int, ...]) -> bytes:
    """Return the key in ``text``, base64 in the standard or the URL-safe alphabet.

    No message quotes the text.
    """
    key = _from_base64(text)
    if key is None:
        raise ConfigurationError(f"{name} is not base64: {HOW}")
    check_key(key, name, sizes)
    return key


def _from_base64(text: str) -> bytes | None:
    compact = text.strip().replace("-", "+").replace("_", "/")
    if not compact.isascii():  # checked first: a UnicodeEncodeError would carry the whole text
        return None
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error:
        return None


def _shown(path: str) -> str:
    """Return ``path`` for a message, in one line, unless it looks like keys given by mistake."""
    looks = any(map(_looks_like_a_key, path.split(",")))
    return "the path (it looks like a key)" if looks else repr(path)


def _looks_like_a_key(text: str) -> bool:
    try:
        key: bytes | None = bytes.fromhex(text)
    except ValueError:
        key = _from_base64(text)
    return key is not None and len(key) in FORMAT_1_KEY_SIZES
