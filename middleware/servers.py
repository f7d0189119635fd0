"""What particular servers and frameworks do; no other module knows their names.

Each fact names the software in which it was observed. ``docs/servers.md`` and ``docs/matrix.md``
show the measurements, and tests check them against the installed versions. If a server does not
show a fact, the worse of the two answers is assumed.
"""

from __future__ import annotations

import array
import fcntl
import io
import termios
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any


__all__ = [
    "EMPTY_BODY",
    "LEAST_READ",
    "MAX_EPILOGUE",
    "OFFLOAD_HEADERS",
    "UPLOAD_READ",
    "InputStream",
    "arrived",
    "beneath",
    "connection",
    "copies_before_parsing",
    "drains",
    "least_opening",
    "shows_breaks",
]

# --- servers


class InputStream(Protocol):
    """The part of ``wsgi.input`` (PEP 3333) that is used here."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...

    def readline(self, size: int = -1, /) -> bytes:
        """Return a line."""
        ...


# Bytes of a request body read at a time: smaller reads make gunicorn copy its read-ahead buffer
# again and again.
UPLOAD_READ: Final = 1024 * 1024
# The fewest bytes that gunicorn waits for, however few are requested.
LEAST_READ: Final = 1024
# The body of a response without content: wsgiref takes an empty iterable without a length for a
# length of zero.
EMPTY_BODY: Final = (b"",)
# Response headers by which an app leaves the sending of a stored file to the proxy in front: nginx;
# Apache and uWSGI; lighttpd; LiteSpeed; H2O and Perlbal.
OFFLOAD_HEADERS: Final = (
    "x-accel-redirect",
    "x-sendfile",
    "x-sendfile2",
    "x-lighttpd-send-file",
    "x-litespeed-location",
    "x-reproxy-url",
    "x-reproxy-file",
)

# SERVER_SOFTWARE of servers that send a body of unknown length in chunks, and omit the last chunk
# if the body is aborted.
_CHUNKING: Final = ("gunicorn/", "waitress", "Cheroot/")
# SERVER_SOFTWARE of servers that read the rest of a chunked body before the next request. cheroot
# takes the rest for that request.
_DRAINING: Final = ("gunicorn/", "waitress")


def shows_breaks(environ: Mapping[str, Any]) -> bool:
    """Return whether a client can detect an aborted response without Content-Length.

    Without chunks, such a body ends with its connection, and looks complete wherever that happens
    (RFC 9112 section 8): to every client of HTTP/1.0, and from every server that is not known to
    send chunks.
    """
    return environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and _is_one_of(environ, _CHUNKING)


def drains(environ: Mapping[str, Any]) -> bool:
    """Return whether the server reads the rest of a chunked body before the next request.

    If not, a client could smuggle a request in it.
    """
    return _is_one_of(environ, _DRAINING)


def _is_one_of(environ: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    software = environ.get("SERVER_SOFTWARE")
    return isinstance(software, str) and software.startswith(names)


def connection(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the client's connection if the server shows it, as gunicorn does."""
    sock: socket.socket | None = environ.get("gunicorn.socket")
    return sock


def arrived(stream: InputStream, sock: socket.socket) -> int | None:
    """Return how many bytes of a body can be read without waiting; None if that is unknown.

    It is unknown for chunks, whose framing counts among the bytes; for TLS, whose records arrive
    whole; and under gevent, where waiting is cheap. gunicorn shows the connection but not its own
    buffers. If those change, bodies are read as on servers that show nothing.
    """
    if type(sock).__module__ != "socket":
        return None
    try:
        # gunicorn has no types.
        reader = stream.reader  # type: ignore[attr-defined]
        if not isinstance(reader.length, int):
            return None
        read_ahead = int(stream.buf.tell() + reader.unreader.buf.getbuffer().nbytes)  # type: ignore[attr-defined]
    except AttributeError:
        return None
    waiting = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, waiting)
    return read_ahead + waiting[0]


# --- files

# Classes outside of the standard library whose objects pass on the bytes of their ``file`` as they
# are: Django's, of which storages return the second.
_PASSING_ON: Final = (
    ("django.core.files.base", "File"),
    ("django.db.models.fields.files", "FieldFile"),
    ("django.db.models.fields.files", "ImageFieldFile"),
)


def beneath(file: object) -> Any:
    """Return the file whose bytes ``file`` gives, None if that isn't known.

    Exact types are compared: a subclass may change the bytes.
    """
    if type(file) in {io.BufferedReader, io.BufferedRandom}:
        return getattr(file, "raw", None)
    if (type(file).__module__, type(file).__name__) in _PASSING_ON:
        return getattr(file, "file", None)
    return None


# --- parsers of forms

# Bytes of line ends that may follow the last boundary of a body. Werkzeug refuses 500,000.
MAX_EPILOGUE: Final = 448 * 1024


def least_opening(boundary: bytes) -> int:
    """Return how many bytes after a part's header must arrive with it in one read.

    Werkzeug 3.1.5 and 3.1.6 take the end of the header for data if a read ends within a boundary's
    length after it.
    """
    return len(boundary) + len(b"\r\n--")


def copies_before_parsing(environ: Mapping[str, object]) -> bool:
    """Return whether the body is copied whole, with full reads, before it is parsed (WebOb).

    WebOb takes a short read for a broken connection; the position at which a read ends does not
    matter to it. WebOb leaves a trace in the environ once it has put its own reader in front of
    this one, before the first read.
    """
    return "webob._body_file" in environ
