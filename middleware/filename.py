r"""File names from clients: the last component only, and never a hidden file.

Whether a name is a Windows path is decided once, on the whole name. In a Windows path both ``/``
and ``\`` separate components. In any other name only ``/`` does: a backslash is a character of the
name, as it is for browsers on Linux. Some parsers cut a Windows path at its last backslash, as
Internet Explorer 6 required; the result is the same whether such a parser ran before or not.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

__all__ = ["attachment", "decode", "normalise"]

# After any dots: C:name, \name, \\server\name, or ?:\name, because parsers that cut a path accept
# any character as a drive; or ..\ anywhere. They decode browsers' percent escapes first.
_WINDOWS_PATH: Final = re.compile(r"\.*(?:[A-Za-z]:|\\|(?:%22|%0D|%0A|.):\\)|.*\.\.\\", re.DOTALL)
_SEPARATOR: Final = re.compile(r"[/\\]")
_DRIVES_AND_DOTS: Final = re.compile(r"(?:[A-Za-z]:|\.)*")
_NAMELESS: Final = "unnamed"
# File systems take no longer name, and a header that is long enough is refused on its way.
MAX_OFFERED: Final = 255  # bytes of UTF-8
_MAX_SUFFIX: Final = 16  # bytes of UTF-8, with the dot


def normalise(filename: str) -> str:
    r"""Return the last component of ``filename`` without drive and leading dots, else ``unnamed``.

    The result is stable: a component that is itself a Windows path, as in ``a/C:\b``, is cut again.
    """
    while (name := _last_component(filename)) != filename:
        filename = name
    return name or _NAMELESS


def _last_component(path: str) -> str:
    name = _SEPARATOR.split(path)[-1] if _WINDOWS_PATH.match(path) else path.rpartition("/")[2]
    return _DRIVES_AND_DOTS.sub("", name, count=1)


def decode(filename: str) -> str:
    """Return the file name without browsers' escape %22 for a double quote (WHATWG HTML)."""
    return filename.replace("%22", '"')


def attachment(name: str) -> str:
    """Return the Content-Disposition for saving a download as ``name`` (RFC 6266, RFC 8187).

    Of a name of more than 255 bytes the beginning and the suffix are offered.
    """
    name = _shortened(name)
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    encoded = quote(name, safe="!#$&+-.^_`|~", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def _shortened(name: str) -> str:
    encoded = name.encode("utf-8", "replace")
    if len(encoded) <= MAX_OFFERED:
        return name
    _, dot, suffix = encoded.rpartition(b".")
    end = dot + suffix if dot and len(suffix) < _MAX_SUFFIX else b""
    return encoded[: MAX_OFFERED - len(end)].decode("utf-8", "ignore") + end.decode("utf-8", "ignore")
