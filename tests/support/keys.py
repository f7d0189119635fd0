"""Keys for tests, the variables that hold them, and how key bytes would look in a text."""

from __future__ import annotations

import base64

from support.frames import chain

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


def assert_tells_no_key(error: BaseException, *secrets: str) -> None:
    """Hold an error, and all that led to it, to what it may say."""
    for link in chain(error):
        text = f"{link!s} {link!r} {link.args!r} {vars(link)!r}"
        for secret in secrets:
            assert secret not in text


def write_key(path, data: bytes, mode: int = 0o600) -> str:
    """Write a key file; return its path as a variable holds it."""
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)
