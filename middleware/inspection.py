"""Inspection of uploads before they are accepted: ``SecureFS(app, inspect=…)``.

An inspector is called with each file part and an iterator over its plaintext, as it arrives. It may
read as little of it as it likes. Meanwhile the ciphertext is held (in memory up to 1 MiB, then in a
temporary file), so that the app sees no byte of a refused file. An inspector refuses a file by
raising :class:`FileRefusedError`. Any other error is a failure of the service (503), and the file
is not accepted either.

:class:`FileRules` checks size and type, :class:`ClamAV` asks a virus scanner. Rules can pass a file
on to a scanner::

    rules = FileRules(types=("image/png", "application/pdf"), max_size=10_000_000, then=ClamAV())
    app = SecureFS(app, inspect=rules)
"""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Final

from securefs.arguments import require, require_function, require_items
from securefs.errors import ConfigurationError
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.middleware.exchange import Upload

    Inspector = Callable[[Upload, Iterator[bytes]], None]

__all__ = ["ClamAV", "FileRefusedError", "FileRules", "ScannerError"]

# The first bytes of each type, from its specification: (offset, bytes), one of them must match.
_BEGINNINGS: Final[dict[str, tuple[tuple[int, bytes], ...]]] = {
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/gif": ((0, b"GIF87a"), (0, b"GIF89a")),
    "image/webp": ((8, b"WEBP"),),
    "image/tiff": ((0, b"II*\0"), (0, b"MM\0*")),
    "application/pdf": ((0, b"%PDF-"),),
    "application/zip": ((0, b"PK\x03\x04"), (0, b"PK\x05\x06")),
    "application/gzip": ((0, b"\x1f\x8b"),),
    "video/mp4": ((4, b"ftyp"),),
    "video/webm": ((0, b"\x1a\x45\xdf\xa3"),),
    "audio/mpeg": ((0, b"ID3"), (0, b"\xff\xfb"), (0, b"\xff\xf3"), (0, b"\xff\xf2")),
    "audio/wav": ((8, b"WAVE"),),
}
# Bytes at the beginning of a file that are needed to check its type.
_LOOK: Final = max(offset + len(magic) for each in _BEGINNINGS.values() for offset, magic in each)


class FileRefusedError(Exception):
    """Raised by an inspector to refuse a file. No client gets the message."""


class ScannerError(Exception):
    """The scanner gave no verdict, so the file is not accepted."""


class FileRules:
    """Accepts files of some types, recognised by their first bytes, up to a maximum size.

    The first bytes prove little (a file can be two types at once); they keep out mistakes and
    simple attacks.

    :param types: the allowed media types, from those known here. The part's Content-Type must be
        one of them, and the content must begin as that type does. Empty: any.
    :param max_size: the most bytes of plaintext in a file. None: no limit but the policy's.
    :param then: an inspector for the files that pass these rules.
    :raises ConfigurationError: for a type that is not known here.
    """

    def __init__(
        self, *, types: tuple[str, ...] = (), max_size: int | None = None, then: Inspector | None = None
    ) -> None:
        require_items("FileRules(types=…)", types, "a tuple of media types")
        require("FileRules(max_size=…)", max_size, (int, type(None)), "a number of bytes, or None")
        if then is not None:
            require_function("FileRules(then=…)", then, "an inspector")
        types = tuple(types)
        unknown = [media_type for media_type in types if media_type not in _BEGINNINGS]
        if unknown:
            raise ConfigurationError(f"FileRules knows no {unknown[0]!r}; it knows {', '.join(_BEGINNINGS)}")
        self._types = types
        self._max_size = max_size
        self._then = then

    @clears_frames
    def __call__(self, part: Upload, chunks: Iterator[bytes], /) -> None:
        """Read the file; raise :class:`FileRefusedError` if it breaks a rule."""
        checked = self._checked(part, chunks)
        if self._then is not None:
            self._then(part, checked)
        for _ in checked:
            pass

    def _checked(self, part: Upload, chunks: Iterator[bytes]) -> Iterator[bytes]:
        media_type = part.content_type.partition(";")[0].strip().lower()
        if self._types and media_type not in self._types:
            raise FileRefusedError("its media type is not one that is allowed")
        size, start = 0, b""
        for chunk in chunks:
            size += len(chunk)
            if self._max_size is not None and size > self._max_size:
                raise FileRefusedError(f"it has more than {self._max_size} bytes")
            if self._types and len(start) < _LOOK:
                start += chunk[: _LOOK - len(start)]
                if len(start) == _LOOK:
                    _check_beginning(media_type, start)
            yield chunk
        if self._types and len(start) < _LOOK:
            _check_beginning(media_type, start)


def _check_beginning(media_type: str, start: bytes) -> None:
    if not any(start[offset:].startswith(magic) for offset, magic in _BEGINNINGS[media_type]):
        raise FileRefusedError("it does not begin as a file of its type does")


class ClamAV:
    """Passes every file to clamd with its INSTREAM command (clamd(8)).

    clamd's StreamMaxLength must be at least the largest allowed file, and its MaxFileSize and
    MaxScanSize no less: clamd calls a file longer than MaxFileSize clean without a scan, unless
    AlertExceedsMax is set.

    :param address: the path of clamd's socket, or (host, port). The plaintext is sent there: use a
        socket of this machine.
    :param timeout: seconds for each step of the conversation.
    """

    def __init__(
        self, address: str | tuple[str, int] = "/run/clamav/clamd.ctl", *, timeout: float = 60.0
    ) -> None:
        require("ClamAV(address=…)", address, (str, tuple), "a path, or (host, port)")
        require("ClamAV(timeout=…)", timeout, (int, float), "a number of seconds")
        self._address = address
        self._timeout = timeout

    # The part is the interface's.
    @clears_frames
    def __call__(self, part: Upload, chunks: Iterator[bytes], /) -> None:  # noqa: ARG002
        """Send the file to clamd.

        :raises FileRefusedError: clamd found something. :raises ScannerError: it gave no verdict.
        """
        try:
            verdict = self._ask(chunks)
        except OSError as error:
            raise ScannerError(f"clamd cannot be asked: {error}") from None
        if verdict.endswith(b" FOUND"):
            raise FileRefusedError("clamd found something in it")
        if verdict != b"stream: OK":
            raise ScannerError(f"clamd gave no verdict: {verdict[:80]!a}")

    def _ask(self, chunks: Iterator[bytes]) -> bytes:
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        with closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
            connection.settimeout(self._timeout)
            connection.connect(self._address)
            taken = _send(connection, chunks)
            answer = b""
            while not answer.endswith(b"\0") and (more := connection.recv(4096)):
                answer += more
        answer = answer.removesuffix(b"\0")
        if not taken and not answer.endswith(b" FOUND"):
            # clamd has not seen the rest of the file, whatever it says of the part that it has.
            raise ScannerError(f"clamd hung up before the end of the file: {answer[:80]!a}")
        return answer


def _send(connection: socket.socket, chunks: Iterator[bytes]) -> bool:
    """Send a file; return whether clamd took all of it.

    If StreamMaxLength is exceeded, clamd says so and closes the connection.
    """
    for data in _frames(chunks):
        # Not around the loop: an error of the chunks would then be taken for one of clamd.
        try:
            connection.sendall(data)
        except ConnectionError:  # noqa: PERF203
            return False
    return True


def _frames(chunks: Iterator[bytes]) -> Iterator[bytes]:
    # "z": commands and answers end in a zero byte. Each chunk follows its length, and an empty
    # chunk ends the stream. So an empty chunk from another inspector is dropped, or the rest of the
    # file would pass unscanned.
    yield b"zINSTREAM\0"
    for chunk in filter(None, chunks):
        yield len(chunk).to_bytes(4, "big")
        yield chunk
    yield bytes(4)
