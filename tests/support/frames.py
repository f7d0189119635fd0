"""What an error reporter would find: the local variables of every frame that an exception passed."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

TESTS = str(Path(__file__).resolve().parents[1])
LIBRARIES = {"Crypto", "cryptography", "securefs"}
DEPTH = 6  # levels of containers
# Variables that may stay: what a wrapper wraps, and what is no secret in frames that are not wrapped,
# because they run often.
MAY_STAY = {
    *(("securefs.secrecy.guarded", name) for name in ("function", "affected")),
    *(("securefs.reader.read", name) for name in ("self", "size", "left", "__class__")),
    *(("securefs.reader.read1", name) for name in ("self", "size", "__class__")),
    *(("securefs.reader.check", name) for name in ("self", "start", "stop")),
}


def chain(error: BaseException) -> list[BaseException]:
    """An error and all that led to it, shown or not."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        link = left.pop()
        if link is not None and link not in found:
            found.append(link)
            left += [link.__cause__, link.__context__]
    return found


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """Yield every frame of every traceback, but for those of the tests, which stand for the caller's."""
    for link in chain(error):
        trace = link.__traceback__
        while trace is not None:
            if not trace.tb_frame.f_code.co_filename.startswith(TESTS):
                yield trace.tb_frame
            trace = trace.tb_next


def name_of(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"


def variables_of(error: BaseException) -> list[str]:
    """The variables in frames of the library, a name for each, but for those that may stay."""
    return [
        f"{name_of(frame)}: {name}"
        for frame in frames_of(error)
        if name_of(frame).partition(".")[0] in LIBRARIES
        for name in frame.f_locals
        if (name_of(frame), name) not in MAY_STAY
    ]


def texts_of(value: object, depth: int = DEPTH) -> Iterator[str]:
    """Yield how a value may be shown: its repr, and the bytes behind it."""
    try:
        yield repr(value)
    except Exception as error:  # noqa: BLE001  # a repr may raise anything
        yield repr(error)
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            yield bytes(value).decode("latin-1")
        except ValueError:
            return  # a view that was released
    elif isinstance(value, str):
        yield value
    elif depth and isinstance(value, dict):
        for item in [*value, *value.values()]:
            yield from texts_of(item, depth - 1)
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from texts_of(item, depth - 1)
    elif depth and isinstance(value, BaseException):
        yield from texts_of(vars(value), depth - 1)
        yield from texts_of(value.args, depth - 1)


def spellings(secret: bytes) -> set[str]:
    """How bytes look in a text."""
    return {
        secret.decode("latin-1"),
        repr(secret)[2:-1],
        repr(bytearray(secret))[12:-2],
        secret.hex(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
    }


def secrets_in(error: BaseException, secrets: Iterable[bytes]) -> list[str]:
    """Where a secret stands: in a variable of a frame, or in an exception itself."""
    wanted = set().union(*map(spellings, secrets))
    places = [
        (name_of(frame), name, value) for frame in frames_of(error) for name, value in frame.f_locals.items()
    ]
    places += [(type(link).__name__, "itself", link) for link in chain(error)]
    return [
        f"{where}: {name}"
        for where, name, value in places
        if any(secret in text for text in texts_of(value) for secret in wanted)
    ]
