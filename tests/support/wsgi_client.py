"""A WSGI server of forty lines: calls an app as PEP 3333 says and gives back what a client would have got.

Whatever is called is watched: by ``wsgiref.validate`` and Werkzeug's lint in front of it, and where
it is our middleware by ``wsgiref.validate`` also behind it, between the middleware and the test's
app.
"""

from __future__ import annotations

import copy
import io
import re
import warnings
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes
from wsgiref.validate import validator

from werkzeug.middleware.lint import HTTPWarning, LintMiddleware, WSGIWarning

from securefs.middleware import SecureFS
from securefs.middleware.file_wrapper import FileWrapper

# wsgiref.validate demands a type of every answer with a body; PEP 3333 does not, and some apps here
# give none.
_NO_TYPE = ("Content-Type", "none/given")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"})


class Input(io.RawIOBase):
    """A request body that gives at most ``step`` bytes at a read, and ends where it is cut."""

    def __init__(self, data: bytes, step: int | None = None) -> None:
        super().__init__()
        self.data = data
        self.position = 0
        self.step = step or max(len(data), 1)
        self.sizes: list[int] = []

    def readable(self):
        return True

    def read(self, size=-1):
        self.sizes.append(size)
        left = len(self.data) - self.position
        size = left if size is None or size < 0 else min(size, left)
        size = min(size, self.step)
        self.position += size
        return self.data[self.position - size : self.position]


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    error: BaseException | None = None  # raised by the app or the middleware after the status line

    @property
    def broken_off(self) -> bool:
        return self.error is not None


def make_environ(method="GET", path="/", body=None, headers=(), length=None, **extra):
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": body if isinstance(body, io.RawIOBase) else Input(body or b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    elif isinstance(body, bytes):
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers:
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    environ.update(extra)
    return environ


def _typed(app):
    """Add a type to an answer without one, for wsgiref.validate."""

    def typed(environ, start_response):
        def start(status, headers, *exc_info):
            given = any(name.lower() == "content-type" for name, _ in headers) or status[:3] in {"204", "304"}
            return start_response(status, headers if given else [*headers, _NO_TYPE], *exc_info)

        return app(environ, start)

    return typed


def _linted(app):
    """Let Werkzeug's lint look at what an app answers; the app gets the server's environ, and not lint's body and file wrapper."""

    def linted(environ, start_response):
        own = environ | {"wsgi.input": _Body(environ["wsgi.input"])}

        def restored(environ, start_response):
            return app(own, start_response)

        return LintMiddleware(restored)(environ, start_response)

    return linted


class _Body:
    """A request body as wsgiref.validate watches it, but for what it lets nobody do: read all at once, and ask a file's other questions."""

    def __init__(self, watched) -> None:
        self._watched = watched

    def __getattr__(self, name):
        return getattr(self._watched if hasattr(self._watched, name) else self._watched.input, name)

    def __iter__(self):
        return iter(self._watched)

    def read(self, size=-1):
        return self._watched.read(size)


def watched_inside(app):
    """Let wsgiref.validate look at what passes between our middleware and the app behind it.

    It wants a string under every name without a dot, which PEP 3333 asks of CGI variables only, so
    ``environ["securefs"]`` goes by another name while it looks. The middleware must see what the
    app returned: files, lists and tuples go past it.
    """

    def renamed(environ, start_response):
        environ["securefs.exchange"] = environ.pop("securefs")

        def restored(environ, start_response):
            environ["securefs"] = environ.pop("securefs.exchange")
            environ["wsgi.input"] = _Body(environ["wsgi.input"])
            return app(environ, start_response)

        def start(status, headers, *exc_info):
            return start_response(status, [pair for pair in headers if pair != _NO_TYPE], *exc_info)

        result = validator(_typed(restored))(environ, start)
        if isinstance(result.original_iterator, (FileWrapper, list, tuple)):
            result.closed = True
            return result.original_iterator
        return result

    return renamed


def _watched(app, environ):
    """Return the app with those that watch it; as it is where the request is one that no server that they know would pass on."""
    length = environ.get("CONTENT_LENGTH", "0")
    if environ["REQUEST_METHOD"] not in _METHODS or not re.fullmatch(r"[0-9]{1,18}", length):
        return app
    if isinstance(app, SecureFS):
        inside = watched_inside(app._app)
        app = copy.copy(app)
        app._app = inside
    return validator(_typed(_linted(app)))


def _drain(result, sent, got, chunks):
    """Take what the app answers; return what was raised meanwhile, as a server would that logs it and breaks off."""
    try:
        for number, chunk in enumerate(result):
            if chunks is not None and number >= chunks:
                break
            assert isinstance(chunk, bytes)
            assert got, "the body began before start_response was called"
            sent.append(chunk)
    except Exception as error:  # noqa: BLE001  # a server catches all
        return error
    finally:
        if hasattr(result, "close"):
            result.close()
    return None


def call(app, method="GET", path="/", body=None, headers=(), length=None, chunks=None, watched=True, **extra):
    """Serve one request; ``chunks`` limits how many chunks the client takes before it goes away.

    ``watched`` False is for an app that itself does what wsgiref.validate or lint would object to.
    """
    environ = make_environ(method, path, body, headers, length, **extra)
    got: dict[str, object] = {}
    sent: list[bytes] = []

    def start_response(status, response_headers, exc_info=None):
        if exc_info and sent:
            raise exc_info[1]
        assert exc_info or not got, "start_response was called twice"
        got["status"], got["headers"] = status, [pair for pair in response_headers if pair != _NO_TYPE]
        return sent.append

    app = _watched(app, environ) if watched else app
    with warnings.catch_warnings(record=True) as findings:
        for category in (HTTPWarning, WSGIWarning):
            warnings.simplefilter("always", category)
        error = _drain(app(environ, start_response), sent, got, chunks)
    if error is None and chunks is None and method != "HEAD":
        # Lint counts what a client took, which tells nothing of one that went away, nor of HEAD.
        assert not findings, [str(finding.message) for finding in findings]
    headers_list = got["headers"]
    return Answer(
        int(got["status"][:3]), {name.lower(): value for name, value in headers_list}, b"".join(sent), error
    )


def multipart(*parts, boundary="XBOUNDARYX"):
    """Return (Content-Type, body): each part is (name, value) or (name, filename, data[, content type])."""
    pieces = []
    for name, *rest in parts:
        lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"']
        if len(rest) > 1:
            filename, data, *kind = rest
            lines[-1] += f'; filename="{filename}"'
            lines.append(f"Content-Type: {kind[0] if kind else 'application/octet-stream'}")
        else:
            data = rest[0] if isinstance(rest[0], bytes) else rest[0].encode()
        pieces.append("\r\n".join([*lines, "", ""]).encode() + data + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(pieces) + f"--{boundary}--\r\n".encode()
