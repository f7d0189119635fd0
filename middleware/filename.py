r"""File names from clients: the last component or a relative path, and never a hidden file.

Whether a name is a Windows path is decided once, on the whole name. In a Windows path both ``/``
and ``\`` separate components. In any other name only ``/`` does: a backslash is a character of the
name, as it is for browsers on Linux. Some parsers cut a Windows path at its last backslash, as
Internet Explorer 6 required; the result is the same whether such a parser ran before or not. A
letter and a colon are a drive only before a separator: ``Q: and A.txt`` is a name.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from securefs.arguments import require

__all__ = ["attachment", "decode", "normalise", "relative", "shortened"]

# After any dots: C:/name, \name, \\server\name, or ?:\name, because parsers that cut a path accept
# any character as a drive; or ..\ anywhere. They decode browsers' percent escapes first.
_WINDOWS_PATH: Final = re.compile(r"\.*(?:[A-Za-z]:[/\\]|\\|(?:%22|%0D|%0A|.):\\)|.*\.\.\\", re.DOTALL)
_SEPARATOR: Final = re.compile(r"[/\\]")
_NAMELESS: Final = "unnamed"
# File systems take no longer name, and a header that is long enough is refused on its way.
MAX_OFFERED: Final = 255  # bytes of UTF-8
_MAX_SUFFIX: Final = 16  # bytes of UTF-8, with the dot
# The beginning of a percent escape at the end of a name.
_CUT_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]?$")


def normalise(filename: str) -> str:
    r"""Return the last component of ``filename`` without leading dots, else ``unnamed``.

    The result is stable: a component that is itself a Windows path, as in ``a/C:\b``, is cut again.
    """
    while (name := _last_component(filename)) != filename:
        filename = name
    return name or _NAMELESS


def _last_component(path: str) -> str:
    name = _SEPARATOR.split(path)[-1] if _WINDOWS_PATH.match(path) else path.rpartition("/")[2]
    return name.lstrip(".")


def relative(filename: str) -> str:
    r"""Return a relative path with each of its components normalised, else the last component.

    A path that is absolute, has a component ``..`` or is one of Windows is none. Folder uploads of
    browsers have such paths. The result is stable.
    """
    while (path := _relative(filename)) != filename:
        filename = path
    return path


def _relative(path: str) -> str:
    components = path.split("/")
    if _WINDOWS_PATH.match(path) or not components[0] or not components[-1] or ".." in components:
        return normalise(path)
    return "/".join(normalise(component) for component in components if component not in {"", "."})


def shortened(name: str, size: int) -> str:
    """Return the beginning and the suffix of a name, at most ``size`` bytes of UTF-8 in all.

    A suffix of more than 16 bytes counts as a part of the name. The name is cut at a character, and
    neither within a browser's escape nor behind a backslash.
    """
    if len(name.encode("utf-8", "replace")) <= size:
        return name
    stem, dot, suffix = name.rpartition(".")
    end = dot + suffix if stem else ""
    if len(end.encode("utf-8", "replace")) > min(_MAX_SUFFIX, size - 1):
        end = ""
    room = size - len(end.encode("utf-8", "replace"))
    start = name.encode("utf-8", "replace")[: max(0, room)].decode("utf-8", "ignore")
    start = _CUT_ESCAPE.sub("", start).rstrip("\\.")
    return start + end if start else _NAMELESS[:size]


def decode(filename: str) -> str:
    """Return the file name without browsers' escape %22 for a double quote (WHATWG HTML)."""
    return filename.replace("%22", '"')


def attachment(name: str) -> str:
    """Return the Content-Disposition for saving a download as ``name`` (RFC 6266, RFC 8187).

    Of a name of more than 255 bytes the beginning and the suffix are offered.
    """
    require("the name of an attachment", name, str, "a str")
    name = shortened(name, MAX_OFFERED)
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    encoded = quote(name, safe="!#$&+-.^_`|~", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
