r"""What the path of a request may be read as, and which patterns it is on.

Servers and frameworks disagree on slashes, dots, percent escapes, parameters, bytes that are no
UTF-8, control characters, punctuation, letter case and ``SCRIPT_NAME``, and some take the path from
a header. docs/paths.md shows what they do. So a rule that protects holds if any reading of the path
matches, and a rule that permits if every reading does.

A path may be made to have very many readings. If it has more than 512, it is on every pattern that
protects and on none that permits.
"""

from __future__ import annotations

import re
import string
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from unicodedata import normalize
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["any_reading_matches", "every_reading_matches", "readings"]

_MOST: Final = 512  # readings of one path

# Headers by which middleware routes a request to another path.
_REWRITES: Final = ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL")
# A header that names a folder in front of the path, from which an app starts to look.
_ROOTS: Final = ("HTTP_X_VHM_ROOT",)
# The target as it was sent, for apps that tell "%2F" from a slash.
_TARGETS: Final = ("RAW_URI", "REQUEST_URI")
# Headers that name the folder under which the app is mounted.
_MOUNTS: Final = ("HTTP_SCRIPT_NAME", "HTTP_X_FORWARDED_PREFIX", "HTTP_X_SCRIPT_NAME")

# A path that is all of this has one reading: nothing to decode, to resolve or to leave out.
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)+")
_ORIGIN: Final = re.compile(r"\A(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)
# "/a;v=1/b" is "/a/b" for frameworks that know matrix parameters.
_PARAMETERS: Final = re.compile(r";[^/]*")
# A regular expression that ends in "$" also matches before a final line feed.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Dots and spaces behind a name; the segments "." and ".." stay.
_TRAILING: Final = re.compile(r"(?<=[^/\\. ])[. ]+(?=[/\\]|\Z)")
_SLASHES: Final = re.compile(r"[/\\]+")
# Where handlers are methods of a class, all punctuation in a name stands for underscores.
_UNDERSCORES: Final = str.maketrans(dict.fromkeys(set(string.punctuation) - {"/"}, "_"))
_SETS_OR_PUNCTUATION: Final = re.compile(
    rf"(\[.[^]]*\])|[{re.escape(''.join(sorted(set(string.punctuation) - set('/*?'))))}]"
)


def any_reading_matches(environ: Mapping[str, Any], patterns: tuple[str, ...]) -> bool:
    """Return whether any reading of the request's path matches a pattern.

    Letter case makes no difference, nor does a slash at the end, nor which punctuation it is.
    """
    if not patterns:
        return False
    found = readings(environ)
    return found is None or any(
        matches(path) or matches(path.casefold()) or matches(path.translate(_UNDERSCORES))
        for matches in map(_matcher, patterns)
        for path in found
    )


def every_reading_matches(
    environ: Mapping[str, Any], patterns: tuple[str, ...], *, within_mount: bool = False
) -> bool:
    """Return whether each reading of SCRIPT_NAME + PATH_INFO matches a pattern, in its letter case.

    What a rule permits on one path must not be permitted on another that only looks like it.

    :param within_mount: whether it is enough if each reading of PATH_INFO does.
    """
    script, info = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    patterns += tuple(normalize("NFKC", pattern) for pattern in patterns)
    if any(environ.get(name) for name in _MOUNTS):
        # A client may have named the mount. Some apps look at PATH_INFO alone, and some at both.
        choices = [{script + info, info}]
    else:
        choices = [{script + info}, {info}] if within_mount else [{script + info}]
    elsewhere = _elsewhere(environ, script, info)
    return any(_all_match(_variants(_texts(paths | elsewhere)), patterns) for paths in choices)


def _all_match(paths: set[str] | None, patterns: tuple[str, ...]) -> bool:
    return paths is not None and all(
        any(fnmatchcase(path, pattern) for pattern in patterns) for path in paths
    )


def readings(environ: Mapping[str, Any]) -> frozenset[str] | None:
    """Return every path that a server or framework may take the request's path for.

    Letter case and punctuation are as they came. None stands for more readings than are looked at.
    """
    script, info = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    given = {info, script + info, _joined(script, info)} | _elsewhere(environ, script, info)
    given |= {_without_query(environ[name]) for name in _TARGETS if environ.get(name)}
    given |= {_joined(environ[name], info) for name in _MOUNTS if environ.get(name)}
    found = _variants(given | _texts(given))
    return None if found is None else frozenset(found | set(map(_without_slash, found)))


def _elsewhere(environ: Mapping[str, Any], script: str, info: str) -> set[str]:
    """Return the paths to which a header may lead the request instead."""
    found = {_without_query(environ[name]) for name in _REWRITES if environ.get(name)}
    for name in _ROOTS:
        if root := environ.get(name):
            found |= {root + info, _joined(root, info), script + root + info}
    return found


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Callable[[str], object]:
    """Return what tells whether a path matches a pattern, in any spelling of either.

    ``re.IGNORECASE`` takes letters for alike that ``casefold`` does not, such as i and a dotless i.
    """
    spellings = {pattern, _without_slash(pattern)}
    spellings |= {normalize("NFKC", spelling) for spelling in spellings}
    spellings |= {spelling.casefold() for spelling in spellings}
    spellings |= {_SETS_OR_PUNCTUATION.sub(lambda found: "?" if found[1] else "_", it) for it in spellings}
    return re.compile("|".join(map(translate, sorted(spellings))), re.IGNORECASE).fullmatch


def _joined(prefix: str, path: str) -> str:
    """Return both with a slash between them, if there is a prefix."""
    return f"{prefix}/{path}" if prefix and not path.startswith("/") else prefix + path


def _without_slash(path: str) -> str:
    return path.rstrip("/") or "/"


def _texts(paths: set[str]) -> set[str]:
    """Return paths as people write them: PEP 3333 gives their bytes as if they were latin-1."""
    given = {path.encode("latin-1", "replace") for path in paths}
    return {path.decode("utf-8", errors) for path in given for errors in ("replace", "ignore")}


def _variants(given: set[str]) -> set[str] | None:
    """Return the paths with all that may be done to them; None if they become too many."""
    if all(map(_PLAIN.fullmatch, given)):
        return given
    found = given
    for changes in _CHANGES:
        found = found | {change(path) for path in found for change in changes}
        if len(found) > _MOST:
            return None
    return found


def _unquoted(path: str) -> str:
    return unquote(path)


def _unquoted_latin_1(path: str) -> str:
    return unquote(path, "latin-1")


def _normalised(path: str) -> str:
    """Return ``path`` with letters and dots in the place of wide, joined and small ones."""
    return path if path.isascii() else normalize("NFKC", path)


def _without_query(path: str) -> str:
    return _QUERY.sub("", path)


def _without_origin(path: str) -> str:
    """Return ``path`` as it is read by what takes it for a whole URL."""
    return _QUERY.sub("", _ORIGIN.sub("", path))


def _without_parameters(path: str) -> str:
    return _PARAMETERS.sub("", path)


def _cleaned(path: str) -> str:
    return _TRAILING.sub("", _CONTROLS.sub("", path))


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


# In the order in which one makes another visible. Each may be done or not.
_CHANGES: Final = (
    (_unquoted, _unquoted_latin_1),
    (_unquoted,),
    (_normalised,),
    (_without_query, _without_origin),
    (_without_parameters,),
    (_cleaned,),
    (_resolved,),
)
