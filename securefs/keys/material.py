"""The one type that holds key bytes: it refuses to be printed, copied, pickled or iterated."""

from __future__ import annotations

import hmac
from typing import Final

from securefs.arguments import require
from securefs.errors import ConfigurationError
from securefs.primitives import KEY_SIZE, hkdf
from securefs.secrecy import HoldsSecrets, clears_frames

__all__ = ["FORMAT_1_KEY_SIZES", "HOW", "KEY_ID_SIZE", "KeyMaterial", "check_key", "key_id"]

FORMAT_1_KEY_SIZES: Final = (16, 24, KEY_SIZE)  # bytes; AES-128, AES-192, AES-256
KEY_ID_SIZE: Final = 16  # bytes
HOW: Final = "make a good one with: securefs keygen"

# Of a key of 32 bytes that was not decoded: a good key, which must not be thrown away.
_TEXT: Final = {44: "if it is base64, decode it", 2 * KEY_SIZE: "if it is hex, decode it"}

_KEY_ID_INFO: Final = b"securefs/2 key-id\0"


@clears_frames
def key_id(key: bytes) -> bytes:
    """Return the 16 bytes that name ``key`` without revealing it (docs/format.md, "Keys")."""
    require("a key", key, bytes, "bytes")
    return hkdf("sha256", key, b"", _KEY_ID_INFO, KEY_ID_SIZE)


class KeyMaterial(HoldsSecrets):
    """Secret bytes, which leave this object only as derived keys.

    :meth:`reveal` is for Format 1 alone, which uses the bytes as they are.
    """

    __slots__ = ("__bytes",)

    def __init__(self, secret: bytes) -> None:
        self.__bytes = bytes(secret)

    def derive(self, salt: bytes, info: bytes, length: int) -> bytes:
        """Return ``length`` bytes of HKDF-SHA256 (RFC 5869) of the secret."""
        return hkdf("sha256", self.__bytes, salt, info, length)

    def reveal(self) -> bytes:
        """Return the secret itself."""
        return self.__bytes

    def __len__(self) -> int:
        return len(self.__bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyMaterial) and hmac.compare_digest(self.__bytes, other.__bytes)

    __hash__ = None  # type: ignore[assignment]  # a secret must not be a dictionary key
    __iter__ = None

    def __repr__(self) -> str:
        return f"<KeyMaterial of {len(self)} bytes>"


def check_key(key: bytes, name: str, sizes: tuple[int, ...]) -> None:
    """Raise :class:`ConfigurationError` for a key of a wrong size or that repeats one byte.

    :param name: names the key in the message.
    """
    if len(key) not in sizes:
        wanted = " or ".join(str(size) for size in sizes)
        how = _TEXT.get(len(key), HOW)
        raise ConfigurationError(f"{name} has {len(key)} bytes where {wanted} are needed: {how}")
    if len(set(key)) == 1:
        raise ConfigurationError(f"{name} repeats one byte and is no key: {HOW}")
