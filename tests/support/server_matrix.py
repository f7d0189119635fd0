"""WSGI servers as processes of their own with an app, that of :mod:`support.server_app` by default, and an HTTP client that looks at framing.

:func:`running` starts a server on a port that the system chose. :class:`Connection` sends bytes as
they are and reports of each response what RFC 9112 lets a client know: whether it is whole, and how
the connection ended if it did.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import shutil
import site
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest

from support.journals import all_records, told
from support.servers import Server, answers, await_start, launch, listening_socket, python_environ, stopped

SERVERS = (
    "gunicorn sync",
    "gunicorn gthread",
    "gunicorn gevent",
    "waitress",
    "uwsgi",
    "cheroot",
    "werkzeug",
    "wsgiref",
)
TESTS = Path(__file__).resolve().parents[1]
_BOUND = re.compile(r"bound to (?:TCP address )?127\.0\.0\.1:(\d+)")
TIMEOUT = 20.0  # seconds that a client waits for bytes before a test fails


def uwsgi_program() -> str | None:
    """Return the uwsgi of this environment, or Debian's if it runs the same Python; None without one."""
    beside = Path(sys.executable).with_name("uwsgi")
    if beside.exists():
        return str(beside)
    debian = shutil.which("uwsgi_python3")
    if debian is not None:
        told = subprocess.run(
            [debian, "--python-version"], capture_output=True, check=False, text=True
        ).stdout
        if told.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}."):
            return debian
    return None


def version(server: str) -> str | None:
    """Return the version of a server here, None where it is not installed."""
    if server == "wsgiref":
        return f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    if server == "uwsgi":
        program = uwsgi_program()
        if program is None:
            return None
        return subprocess.run(
            [program, "--version"], capture_output=True, check=True, text=True
        ).stdout.strip()
    try:
        return metadata.version(server.partition(" ")[0])
    except metadata.PackageNotFoundError:
        return None


def _uwsgi(program: str, module: str) -> list[str]:
    command = [program, "--http-socket", "127.0.0.1:0", "--module", f"{module}:make_app()", "--die-on-term"]
    command += ["--enable-threads", "--threads", "4", "--need-app"]
    if Path(program).parent == Path(sys.executable).parent:
        return [*command, "--home", sys.prefix]
    folders = [folder for path in site.getsitepackages() for folder in ("--pythonpath", path)]
    return [*command, *folders]


def _gunicorn(worker: str, listener: socket.socket, module: str) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--worker-class",
        worker,
        "--bind",
        f"fd://{listener.fileno()}",
    ]
    # More than one thread would turn a sync worker into a gthread one.
    threads = ["--threads", "4"] if worker == "gthread" else []
    return [*command, *threads, "--no-control-socket", "--keep-alive", "20", f"{module}:make_app()"]


@dataclass(slots=True)
class Site:
    """A server with the app over ``folder``."""

    name: str
    server: Server
    folder: Path
    # Whether each connection comes from an address of its own, of 127.0.0.0/8 (Linux).
    apart: bool = False

    @property
    def url(self) -> str:
        return self.server.url

    def put(self, name: str, data: bytes) -> None:
        """Store ``data`` as it is."""
        (self.folder / "files" / name).write_bytes(data)

    def stored(self) -> set[str]:
        """Return the names of files that look complete."""
        return {path.name for path in (self.folder / "files").iterdir() if not path.name.startswith(".")}

    def requests(self) -> list[list[str]]:
        """Return what the app was asked: method, path, range, status."""
        path = self.folder / "requests.log"
        return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []

    def events(self, path: str | None = None) -> list[tuple]:
        """Return (event, outcome, reason) of the journal's records, of one path if given."""
        records = all_records(self.folder / "journal")
        return told(record for record in records if path in {None, record.get("http", {}).get("path")})

    def connect(self) -> Connection:
        return Connection(self.server.port, next(_ADDRESSES) if self.apart else "127.0.0.1")


@contextmanager
def running(name: str, folder: Path, module: str = "support.server_app", **variables: str):
    """Yield the server ``name`` as a :class:`Site`, ready to answer; end it afterwards by its own process id.

    It serves ``make_app()`` of ``module``, with ``variables`` in its environment.
    """
    if version(name) is None:
        pytest.skip(f"{name} is not installed")
    for part in ("files", "journal"):
        (folder / part).mkdir(mode=0o700)
    kept = {key: value for key, value in python_environ().items() if not key.startswith("COVERAGE_")}
    kept["PYTHONPATH"] = os.pathsep.join([str(TESTS), kept["PYTHONPATH"]])
    environ = {**kept, "MATRIX_DIR": str(folder), "TMPDIR": str(folder), **variables}
    with listening_socket() as listener:
        own = name.startswith("gunicorn")
        port = listener.getsockname()[1]
        if own:
            command = _gunicorn(name.split()[1], listener, module)
        elif name == "uwsgi":
            command = _uwsgi(uwsgi_program() or "", module)
        else:
            command = [sys.executable, "-m", "support.server_app", name, module]
        server = launch(command, folder / "log", environ, port, *([listener] if own else []), cwd=folder)
    with stopped(server):
        if not own:
            server.port = int(await_start(server, lambda: _BOUND.search(server.log), f"{name} listening")[1])
        await_start(server, lambda: answers(server.port), f"{name} answering")
        yield Site(name, server, folder)


@dataclass(slots=True)
class Framed:
    """One response, as a careful client reads it.

    :ivar whole: its framing says that nothing is missing. A body that ends with the connection (RFC
        9112 section 6.3, item 8) counts as whole if the connection was closed, and not if it was
        reset: that is all a client can know.
    :ivar framing: ``length``, ``chunked``, ``close`` or ``none``.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    framing: str
    whole: bool
    interim: list[int] = field(default_factory=list)


_ADDRESSES = (f"127.0.{number >> 8 & 255}.{number & 255}" for number in itertools.count(2))


class Connection:
    """One connection to a server."""

    def __init__(self, port: int, here: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT, source_address=(here, 0))
        self.buffer = b""
        self.end = ""  # "closed" or "reset" once the server ended it

    def __enter__(self):
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; a server that has stopped listening is no error yet, since its answer may be there."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.end = self.end or "sending failed"

    def arrives(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for bytes, and return whether there are any."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"
            return False
        if not data:
            self.end = self.end if self.end == "reset" else "closed"
        self.buffer += data
        return bool(data)

    def _line(self) -> bytes | None:
        while b"\r\n" not in self.buffer:
            if not self._more():
                return None
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def _take(self, size: int) -> bytes:
        pieces, have = [self.buffer], len(self.buffer)
        self.buffer = b""
        while have < size and self._more():
            pieces.append(self.buffer)
            have += len(self.buffer)
            self.buffer = b""
        data = b"".join(pieces)
        self.buffer = data[size:]
        return data[:size]

    def _head(self) -> tuple[int, dict[str, str]] | None:
        start = self._line()
        if start is None:
            return None
        assert re.fullmatch(rb"HTTP/1\.[01] \d{3}.*", start), f"not a status line: {start!r}"
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return int(start.split()[1]), headers

    def receive(self, method: str = "GET") -> Framed | None:
        """Read one response; None where the connection ended before its first line."""
        interim = []
        while (head := self._head()) is not None and head[0] == 100:
            interim.append(100)
        if head is None:
            return None
        status, headers = head
        if method == "HEAD" or status in {204, 304}:
            return Framed(status, headers, b"", "none", whole=True, interim=interim)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, whole = self._chunks()
            return Framed(status, headers, body, "chunked", whole, interim)
        if "content-length" in headers:
            length = int(headers["content-length"])
            body = self._take(length)
            return Framed(status, headers, body, "length", len(body) == length, interim)
        body = self._take(1 << 40)
        return Framed(status, headers, body, "close", self.end == "closed", interim)

    def _chunks(self) -> tuple[bytes, bool]:
        pieces = []
        while (line := self._line()) is not None:
            size = int(line.partition(b";")[0], 16)
            data = self._take(size)
            pieces.append(data)
            if len(data) < size or self._line() != b"":
                break
            if size == 0:
                return b"".join(pieces), True
        return b"".join(pieces), False

    def ask(
        self, method: str, path: str, headers=(), body: bytes = b"", protocol: str = "HTTP/1.1"
    ) -> Framed | None:
        """Send one request and read its response."""
        self.send(request(method, path, headers, body, protocol))
        return self.receive(method)

    def rest(self) -> list[Framed]:
        """Say that no more is sent, and return what is still answered.

        Only then does a server end that reads on before it closes, as Werkzeug's does.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        answers: list[Framed] = []
        while (answer := self.receive()) is not None:
            answers.append(answer)
        return answers

    def still_serves(self) -> str:
        """Ask for the plain page: "kept" where it comes over this connection, "closed" where the server ended it.

        What comes must be that page and nothing else: an answer to anything that was sent before
        would come first.
        """
        self.send(request("GET", "/page/after"))
        answers = self.rest()
        assert [(answer.status, answer.body) for answer in answers] in ([], [(200, b"plain page\n")]), answers
        return "kept" if answers else "closed"


def request(method: str, path: str, headers=(), body: bytes = b"", protocol: str = "HTTP/1.1") -> bytes:
    """Return the bytes of one request. A body has its Content-Length unless a Transfer-Encoding is given."""
    lines = [
        f"{method} {path} {protocol}",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if body and not any(name == "Transfer-Encoding" for name, _ in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(data: bytes, size: int = 50_000) -> bytes:
    """Return ``data`` in chunks, the last one included."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def form(name: str, data: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Return (headers, body) of an upload of one file in the field ``name``."""
    boundary = "-" * 20 + "0123456789abcdef"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="x.bin"\r\n\r\n'.encode()
    body = head + data + f"\r\n--{boundary}--\r\n".encode()
    return [("Content-Type", f"multipart/form-data; boundary={boundary}")], body
