"""What is declared: in which folders stored files are, and which paths lead to them.

A file that is recognised by its first bytes can be exchanged: who writes to the storage puts
plaintext in its place, and who makes the app repeat bytes has them decrypted. A declaration decides
instead. A response made from a file in a store, or on a protected path, must be ciphertext that
verifies. With either declared, nothing else is ever decrypted (no decryption oracle).

A rule that protects holds if any reading of the path matches, and a rule that permits if every
reading does: servers and frameworks disagree on double slashes, dots, percent escapes, parameters,
letter case and ``SCRIPT_NAME``.
"""

from __future__ import annotations

import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from securefs.errors import ConfigurationError, FormatError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.middleware.policy import Policy

__all__ = ["Places", "any_reading_matches", "every_reading_matches", "readings"]

# "/a;v=1/b" is "/a/b" for frameworks that know matrix parameters.
_PARAMETERS: Final = re.compile(r";[^/]*")
_SLASHES: Final = re.compile(r"[/\\]+")


def readings(environ: Mapping[str, Any]) -> frozenset[str]:
    """Return every path that a server or framework may take the request's path for."""
    info = environ.get("PATH_INFO", "")
    given = {environ.get("SCRIPT_NAME", "") + info, info}
    return _variants(given | {_text(path) for path in given})


def _text(path: str) -> str:
    """Return a path as people write it: PEP 3333 gives its bytes as if they were latin-1."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _variants(given: set[str]) -> frozenset[str]:
    given |= {unquote(path, "latin-1") for path in given} | {unquote(path) for path in given}
    given |= {_PARAMETERS.sub("", path) for path in given}
    given |= {_resolved(path) for path in given}
    return frozenset(given | {path.lower() for path in given})


def _resolved(path: str) -> str:
    """Return ``path`` with single slashes, and without dot segments (RFC 3986 section 5.2.4)."""
    segments: list[str] = []
    for segment in _SLASHES.split(path):
        if segment == "..":
            del segments[-1:]
        elif segment not in {"", "."}:
            segments.append(segment)
    end = "/" if path.endswith(("/", "\\", "/.", "/..")) and segments else ""
    return "/" + "/".join(segments) + end


def any_reading_matches(environ: Mapping[str, Any], patterns: tuple[str, ...]) -> bool:
    """Return whether any reading of the request's path matches a pattern, in any letter case."""
    if not patterns:
        return False
    patterns = (*patterns, *(pattern.lower() for pattern in patterns))
    return any(fnmatchcase(path, pattern) for path in readings(environ) for pattern in patterns)


def every_reading_matches(environ: Mapping[str, Any], patterns: tuple[str, ...]) -> bool:
    """Return whether each reading of SCRIPT_NAME + PATH_INFO matches a pattern, in any letter case.

    What a rule permits on one path must not be permitted on another that only looks like it.
    """
    patterns = tuple(pattern.lower() for pattern in patterns)
    path = _text(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    return all(
        any(fnmatchcase(reading.lower(), pattern) for pattern in patterns) for reading in _variants({path})
    )


class Places:
    """The places that a policy declares.

    :ivar has_stores: whether there is any.
    :raises ConfigurationError: a store is no folder.
    """

    def __init__(self, policy: Policy) -> None:
        self._protected, self._format_1 = policy.protected_paths, policy.format_1_paths
        self._stores = tuple(map(_folder, policy.stores))
        self.has_stores = bool(self._stores)

    @property
    def declared(self) -> bool:
        """Whether ciphertext is decrypted only where it is declared to be."""
        return bool(self._stores or self._protected)

    def format_of(self, environ: Mapping[str, Any]) -> int | None:
        """Return what a file on this path may be: 1 (either format), 2, or None if not declared."""
        if any_reading_matches(environ, self._format_1):
            return 1
        return 2 if any_reading_matches(environ, self._protected) else None

    def holds(self, file: object) -> bool:
        """Return whether an open file is in a store. The open file is asked, not its name alone.

        :raises FormatError: its name is in a store and it is not (a link leads out), or it is no
            regular file.
        """
        try:
            descriptor = file.fileno()  # type: ignore[attr-defined]  # what has none is no file of a store
            status = os.fstat(descriptor)
        except (AttributeError, OSError, ValueError, TypeError):
            return False
        inside = self._is_inside(_opened(descriptor))
        name = getattr(file, "name", None)
        if not inside and isinstance(name, (str, bytes)):
            folder = os.path.realpath(os.path.dirname(os.fsdecode(name)))  # noqa: PTH120  # "" is here
            if self._is_inside(os.path.join(folder, os.path.basename(os.fsdecode(name)))):  # noqa: PTH118, PTH119
                raise FormatError("a link in a store leads out of it", Reason.NOT_ENCRYPTED)
        if inside and not stat.S_ISREG(status.st_mode):
            raise FormatError("what is in a store is no regular file", Reason.NOT_ENCRYPTED)
        return inside

    def _is_inside(self, path: str) -> bool:
        return any(path.startswith(store) for store in self._stores)


def _folder(store: str) -> str:
    """Return the resolved path of a store, with a slash behind it."""
    path = Path(store).resolve()
    if not path.is_dir():
        raise ConfigurationError(
            f"stores (SECUREFS_STORES) names {store}, which is no folder: create it before the app starts"
        )
    return os.path.join(path, "")  # noqa: PTH118  # the slash keeps /a/bc out of /a/b


def _opened(descriptor: int) -> str:
    """Return the path of an open file, links resolved; "" if the system does not tell."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  # no path of ours
    except OSError:
        return ""
    # Also of a file that was removed or replaced meanwhile.
    return path.removesuffix(" (deleted)")
