"""Keeps keys and plaintext from leaving by accident: in a traceback, a pickle or a copy.

Error reporters (Sentry, Django's debug page, rich, cgitb, pytest) record the local variables of
each frame that an exception passed. Frames of this library hold keys and plaintext there. So every
public function that handles them is wrapped in :func:`clears_frames`: when it fails, the frames
below it are emptied before the caller gets the exception. Its type, message and lines stay.

Frames of the caller, of its files and of its inspectors stay as they are, and so does a frame that
still runs. A key service is the exception: it is given a data key, and all that it calls may hold
it, so those frames are emptied, too. This is about accidents: who runs code in this process reads
its memory (SECURITY.md).
"""

from __future__ import annotations

from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, SupportsIndex, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["HoldsSecrets", "clear_frames", "clears_all_frames", "clears_frames"]

P = ParamSpec("P")
R = TypeVar("R")

# securefs, and the packages of Python code that it hands keys or plaintext to.
_OURS: Final = frozenset(
    {"Crypto", "base64", "contextlib", "cryptography", "hmac", "json", "securefs", "tempfile"}
)


def clears_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function``; if it fails, this library's frames hold no local variables."""
    return _clearing(function, _is_ours)


def clears_all_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function``; if it fails, no frame below it holds local variables.

    This is for calls that hand a secret of ours to code of the caller.
    """
    return _clearing(function, lambda _: True)


def _clearing(function: Callable[P, R], affected: Callable[[FrameType], bool]) -> Callable[P, R]:
    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            # On any exception: an interrupt can fall into any frame.
            del args, kwargs
            clear_frames(error, affected)
            raise

    return guarded


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _OURS


def clear_frames(error: BaseException, affected: Callable[[FrameType], bool] = _is_ours) -> None:
    """Delete the local variables of the frames in the traceback of ``error``.

    The same is done for every exception that it came from. One that is not to be shown
    (``raise … from None``) is removed, because such exceptions carry data of their own: a
    UnicodeDecodeError carries all of its text.

    :param affected: chooses the frames; unless given, those of this library.
    """
    for link in _chain(error):
        trace = link.__traceback__
        while trace is not None:
            if affected(trace.tb_frame):
                # A frame that still runs, as this function's callers do, can't be cleared.
                with suppress(RuntimeError):
                    trace.tb_frame.clear()
            trace = trace.tb_next


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and all that it came from; remove what is not to be shown."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        link = left.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if link.__suppress_context__:
            link.__context__ = None
        yield link
        left += [link.__cause__, link.__context__]


class HoldsSecrets:
    """A base class of what holds a key, or the state of a cipher: it can't be pickled or copied.

    A pickle would carry the key to a disk or another process. A copy of a half-written file would
    seal two contents under one key and nonce.
    """

    __slots__ = ()

    def __reduce_ex__(self, _protocol: SupportsIndex, /) -> NoReturn:
        public = [kind.__name__ for kind in type(self).__mro__ if not kind.__name__.startswith("_")]
        name = public[0] if public[0] != HoldsSecrets.__name__ else type(self).__name__.lstrip("_")
        raise TypeError(f"{name} holds secret keys and refuses to be pickled or copied")
