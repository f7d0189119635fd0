"""Keys for tests, the variables that hold them, and how key bytes would look in a text."""

from __future__ import annotations

import base64

KEY = bytes(range(32))
RETIRED = bytes(range(50, 82))
PRIMARY, PREVIOUS = "FILE_KEY_BASE64", "FILE_KEY_BASE64_PREVIOUS"


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def traces_of(key: bytes) -> list[str]:
    """How key bytes would look in a text."""
    return [
        b64(key).rstrip("="),
        base64.urlsafe_b64encode(key).decode().rstrip("="),
        key.hex(),
        repr(key)[2:-1],
    ]
