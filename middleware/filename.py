"""File names from clients: the last component only, and never a hidden file."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

__all__ = ["attachment", "decode", "normalise"]

# C:\…, \\server\…, and steps upwards: the backslash is a separator there. Elsewhere it is a character of the name,
# as it is for browsers on Linux.
_WINDOWS_PATH: Final = re.compile(r"[A-Za-z]:|\\|.*\.\.\\")
_NAMELESS: Final = "unnamed"


def normalise(filename: str) -> str:
    """Return the last component of ``filename`` without leading dots; ``unnamed`` where nothing is left.

    What it returns it would not change any more: ``..C:`` is a drive once the dots are gone.
    """
    while (name := _last_component(filename)) != filename:
        filename = name
    return name or _NAMELESS


def _last_component(filename: str) -> str:
    name = filename.rpartition("/")[2]
    if _WINDOWS_PATH.match(name):
        name = re.sub(r"^[A-Za-z]:", "", name.rpartition("\\")[2])
    return name.lstrip(".")


def decode(filename: str) -> str:
    """Return the name that a person gave the file: browsers write a double quote as %22 (WHATWG HTML)."""
    return filename.replace("%22", '"')


def attachment(name: str) -> str:
    """Return the Content-Disposition that offers a download for saving as ``name`` (RFC 6266, RFC 8187)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    encoded = quote(name, safe="!#$&+-.^_`|~", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
