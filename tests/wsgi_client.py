"""A WSGI server of forty lines: calls an app as PEP 3333 says and gives back what a client would have got."""

from __future__ import annotations

import io
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes


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


def call(app, method="GET", path="/", body=None, headers=(), length=None, chunks=None, **extra):
    """Serve one request; ``chunks`` limits how many chunks the client takes before it goes away."""
    environ = make_environ(method, path, body, headers, length, **extra)
    got: dict[str, object] = {}
    sent: list[bytes] = []

    def start_response(status, response_headers, exc_info=None):
        if exc_info and sent:
            raise exc_info[1]
        assert exc_info or not got, "start_response was called twice"
        got["status"], got["headers"] = status, response_headers
        return sent.append

    error: BaseException | None = None
    result = app(environ, start_response)
    try:
        for number, chunk in enumerate(result):
            if chunks is not None and number >= chunks:
                break
            assert isinstance(chunk, bytes)
            assert got, "the body began before start_response was called"
            sent.append(chunk)
    except Exception as raised:  # noqa: BLE001  # a server catches all
        error = raised
    finally:
        if hasattr(result, "close"):
            result.close()
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
