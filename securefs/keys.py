"""File keys: where they come from, how they are named, and who may see them.

A :class:`Keyring` holds the primary key, which seals, and any number of retired ones, which only open. Key bytes
come from the environment or from a file named there, never from code or a command line; a repr shows key ids
only, and a keyring refuses to be pickled. A key that can't be a good key stops the program at start: there is no
default key and no fallback to plaintext.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from typing import TYPE_CHECKING, Final, NoReturn

from securefs.errors import ConfigurationError
from securefs.primitives import hkdf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "KEY_ID_SIZE",
    "KEY_SIZE",
    "PREVIOUS_VARIABLE",
    "PRIMARY_VARIABLE",
    "Keyring",
    "generate_key",
    "key_id",
]

KEY_SIZE: Final = 32  # bytes; a file key K of Format 2
FORMAT_1_KEY_SIZES: Final = (16, 24, 32)  # bytes; AES-128, AES-192, AES-256
KEY_ID_SIZE: Final = 16  # bytes
MAX_KEY_FILE: Final = 64 * 1024  # bytes; over a thousand retired keys
PRIMARY_VARIABLE: Final = "FILE_KEY_BASE64"
PREVIOUS_VARIABLE: Final = "FILE_KEY_BASE64_PREVIOUS"

_KEY_ID_INFO: Final = b"securefs/2 key-id\0"
_HOW: Final = "make a good one with: securefs keygen"


def generate_key() -> str:
    """Return a fresh file key, 32 bytes from the system's CSPRNG, in base64 as ``FILE_KEY_BASE64`` takes it."""
    return base64.b64encode(os.urandom(KEY_SIZE)).decode("ascii")


def key_id(key: bytes) -> bytes:
    """Return the 16 bytes that name ``key`` without revealing it (docs/format.md, "Keys")."""
    return hkdf("sha256", key, b"", _KEY_ID_INFO, KEY_ID_SIZE)


class Keyring:
    """The keys of one environment.

    :param primary: the key that seals new files: 32 bytes. With 16 or 24 bytes the ring serves Format 1 only.
    :param previous: retired keys, which open files and never seal one.
    :raises ConfigurationError: for a key of another length, one that repeats a single byte, and for two keys of different
        lengths that are the same but for zeros at the end.
    """

    __slots__ = ("_by_id", "_primary_id")

    def __init__(self, primary: bytes, previous: Iterable[bytes] = ()) -> None:
        self._by_id: dict[bytes, bytes] = {}
        padded: dict[bytes, tuple[str, int]] = {}
        named = [("the primary key", primary)]
        named += [(f"a previous key (number {number})", key) for number, key in enumerate(previous, 1)]
        for name, given in named:
            key = bytes(given)
            _check_key(key, name, FORMAT_1_KEY_SIZES)
            other, size = padded.setdefault(key.ljust(KEY_SIZE, b"\0"), (name, len(key)))
            if size != len(key):
                # HMAC fills a key with zeros (RFC 2104 section 2), so both make the same Format 1 tags: a file under one
                # of them would verify under the other, and decrypt to something else.
                raise ConfigurationError(
                    f"{name} ({len(key)} bytes) and {other} ({size} bytes) are the same but for zeros at the end, and can't be "
                    "told apart by a Format 1 file's tag: keep the one that the files were written with"
                )
            # A key named twice is one key: the first mention counts, so the primary stays the primary.
            self._by_id.setdefault(key_id(key), key)
        self._primary_id = next(iter(self._by_id))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Keyring:
        """Return the keyring that the environment describes.

        Reads ``FILE_KEY_BASE64`` and ``FILE_KEY_BASE64_PREVIOUS`` (comma-separated), or the files that either name with
        ``_FILE`` appended leads to.

        :raises ConfigurationError: in one line that names the variable and says what to do.
        """
        text = _variable(environ, PRIMARY_VARIABLE)
        if text is None:
            raise ConfigurationError(f"{PRIMARY_VARIABLE} is not set: {_HOW}")
        primary = _decode_key(text, PRIMARY_VARIABLE, (KEY_SIZE,))
        previous = (_variable(environ, PREVIOUS_VARIABLE) or "").split(",")
        retired = [
            _decode_key(item, f"{PREVIOUS_VARIABLE} (key {number})", FORMAT_1_KEY_SIZES)
            for number, item in enumerate(previous, 1)
            if item.strip()
        ]
        return cls(primary, retired)

    @property
    def primary_id(self) -> bytes:
        """The key id (16 bytes) of the key that seals."""
        return self._primary_id

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """All key ids, the primary first, then the retired ones as given."""
        return tuple(self._by_id)

    def sealing_key(self) -> bytes:
        """Return the primary key for writing Format 2; raise :class:`ConfigurationError` where it is too short."""
        key = self._by_id[self._primary_id]
        if len(key) != KEY_SIZE:
            raise ConfigurationError(
                f"the primary key has {len(key)} bytes and can serve Format 1 only; Format 2 needs {KEY_SIZE}: {_HOW}"
            )
        return key

    def find(self, wanted: bytes) -> bytes | None:
        """Return the key that ``wanted`` (16 bytes) names, or None. Keys of 16 and 24 bytes never open Format 2."""
        key = self._by_id.get(wanted)
        return key if key is not None and len(key) == KEY_SIZE else None

    def all_keys(self) -> tuple[bytes, ...]:
        """Return every key, the primary first: Format 1 files do not name theirs."""
        return tuple(self._by_id.values())

    def id_of(self, key: bytes) -> bytes:
        """Return the id of a key that this ring holds."""
        return next(identity for identity, held in self._by_id.items() if held == key)

    def __repr__(self) -> str:
        primary, *previous = (identity.hex() for identity in self._by_id)
        return f"<Keyring primary={primary} previous={previous}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyring holds secret keys and refuses to be pickled or copied")


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return the text of variable ``name``, or of the file that ``name_FILE`` leads to; None where neither is set."""
    direct, path = environ.get(name), environ.get(f"{name}_FILE")
    if direct is not None and path is not None:
        raise ConfigurationError(f"both {name} and {name}_FILE are set: unset one of them")
    return _read_secret(path, f"{name}_FILE") if path is not None else direct


def _read_secret(path: str, variable: str) -> str:
    """Return the text in the file at ``path``. What goes wrong is raised outside the handlers: an OSError has the path."""
    shown = _shown(path)
    try:
        with open(path, "rb", opener=_without_blocking) as file:
            # The opened file is asked, not the path, so that it can't be exchanged in between.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{variable}: {shown} is not a regular file: {_HOW}")
            if status.st_mode & stat.S_IRWXO:
                raise ConfigurationError(f"{variable}: other users can access {shown}: run chmod 600 on it")
            return _key_text(file.read(MAX_KEY_FILE + 1), f"{variable}: {shown}")
    except OSError as error:
        problem = error.strerror
    except ValueError:
        problem = "it holds a NUL byte"
    raise ConfigurationError(f"{variable}: cannot read {shown}: {problem}; {_HOW}")


def _without_blocking(path: str, flags: int) -> int:
    """Open ``path``, but never wait: a FIFO that nobody writes to would hold up the program's start for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _key_text(data: bytes, where: str) -> str:
    if len(data) > MAX_KEY_FILE:
        raise ConfigurationError(
            f"{where} is larger than {MAX_KEY_FILE} bytes and can't be a key file: {_HOW}"
        )
    if not data.isascii():  # asked beforehand: a UnicodeDecodeError would carry the whole text with it
        raise ConfigurationError(f"{where} is not base64 text: {_HOW}")
    return data.decode("ascii").strip()


def _decode_key(text: str, name: str, sizes: tuple[int, ...]) -> bytes:
    """Return the key in ``text``, base64 in the standard or the URL-safe alphabet. No message quotes the text."""
    key = _from_base64(text)
    if key is None:
        raise ConfigurationError(f"{name} is not base64: {_HOW}")
    _check_key(key, name, sizes)
    return key


def _from_base64(text: str) -> bytes | None:
    compact = text.strip().replace("-", "+").replace("_", "/")
    if not compact.isascii():  # asked beforehand: a UnicodeEncodeError would carry the whole text with it
        return None
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error:
        return None


def _shown(path: str) -> str:
    """Return ``path`` for a message, in one line, unless it is a key that someone put where a path is due."""
    key = _from_base64(path)
    return "the path (it looks like a key)" if key and len(key) in FORMAT_1_KEY_SIZES else repr(path)


def _check_key(key: bytes, name: str, sizes: tuple[int, ...]) -> None:
    if len(key) not in sizes:
        wanted = " or ".join(str(size) for size in sizes)
        raise ConfigurationError(f"{name} has {len(key)} bytes where {wanted} are needed: {_HOW}")
    if len(set(key)) == 1:
        raise ConfigurationError(f"{name} repeats one byte and is no key: {_HOW}")
