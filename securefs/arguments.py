"""Refuses arguments of a wrong type, with a sentence that names the argument.

Every message says which argument it is, what it must be, and the type that was given. It never
shows the value, which may be a key.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable

from securefs.errors import ConfigurationError

__all__ = ["is_async", "require", "require_function", "require_items", "require_path"]


def require(name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise :class:`ConfigurationError` unless ``value`` is of one of ``kinds``.

    :param wanted: what it must be, as in "must be a Keyring".
    """
    if not isinstance(value, kinds):
        given = "None" if value is None else type(value).__name__
        raise ConfigurationError(f"{name} must be {wanted}, not {given}")


def require_path(name: str, value: object) -> None:
    """Raise :class:`ConfigurationError` unless ``value`` is a path that this system can have.

    Python takes a number for an open file, and closes it.
    """
    require(name, value, (str, os.PathLike), "a path (str or os.PathLike)")
    try:
        encoded = os.fsencode(value)  # type: ignore[arg-type]  # checked above
    except ValueError:
        raise ConfigurationError(f"{name} has characters that no path on this system has") from None
    if b"\0" in encoded:
        raise ConfigurationError(f"{name} has a NUL character, which no path has")


def require_items(name: str, value: object, wanted: str) -> None:
    """Raise :class:`ConfigurationError` for one item where several belong, such as a str."""
    # These can be iterated, too: a str gives its characters, and bytes give numbers.
    single = isinstance(value, (str, bytes, bytearray, memoryview, os.PathLike))
    require(name, value, () if single else Iterable, wanted)


def require_function(name: str, value: object, wanted: str) -> None:
    """Raise :class:`ConfigurationError` for what can't be called, and for a coroutine function.

    Nobody would await what the latter returns, and it would count as true.
    """
    if not callable(value):
        require(name, value, (), wanted)
    if is_async(value):
        raise ConfigurationError(f"{name} must be {wanted}, and this is a coroutine function (async def)")


def is_async(value: object) -> bool:
    """Return whether a call of ``value`` gives a coroutine, as far as can be told without one."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)
