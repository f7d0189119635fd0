"""gunicorn with one of the apps on one core, and a client on another that measures every request."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
KEY = base64.b64encode(os.urandom(32)).decode()
TICK = os.sysconf("SC_CLK_TCK")  # of CPU time, a second
PATIENCE = 300  # seconds for one request
CORES = sorted(
    os.sched_getaffinity(0)
)  # those that we may use; read before own_core() leaves one to the server
DEFAULTS = {"--workers": "1", "--worker-class": "gthread", "--threads": "4", "--log-level": "warning"}
BLOCK = os.urandom(MIB)
BARE, NO_SENDFILE, CBC, GCM = "bare", "bare, without sendfile", "securefs CBC-HMAC", "securefs AES-GCM"
PYCRYPTODOME, NAIVE = "securefs CBC-HMAC, PyCryptodome alone", "naive, in the app"
KINDS = {
    BARE: ("bare", {}, ()),
    NO_SENDFILE: ("bare", {}, ("--no-sendfile",)),
    GCM: ("wrapped", {"SECUREFS_SUITE": "aes-256-gcm"}, ()),
    CBC: ("wrapped", {}, ()),
    PYCRYPTODOME: ("wrapped without fast", {}, ()),
    NAIVE: ("naive", {}, ()),
}


@dataclass
class Server:
    """A running gunicorn and its workers."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def workers(self) -> list[int]:
        """Return the workers' process ids."""
        master = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def cpu(self) -> float:
        """Return the seconds of CPU time that the workers have taken."""
        ticks = 0
        for pid in self.workers:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
        return ticks / TICK


@contextmanager
def serving(
    app: str,
    folder: Path,
    *,
    environ: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    cores: int = 1,
) -> Iterator[Server]:
    """Yield gunicorn with ``bench.apps:APP`` on the first ``cores`` of our cores, its files in ``folder``."""
    folder.mkdir(parents=True)
    (folder / "journal").mkdir(mode=0o700)
    settings = [text for pair in DEFAULTS.items() for text in pair]
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            str(ROOT / "bench" / "gunicorn.conf.py"),
            *settings,
        ]
        process = subprocess.Popen(
            [*command, *options, "--bind", f"fd://{listener.fileno()}", f"bench.apps:{app}"],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("SECUREFS_")},
                "FILE_KEY_BASE64": KEY,
                "SECUREFS_AUDIT_DIR": str(folder / "journal"),
                **(environ or {}),
            },
            pass_fds=[listener.fileno()],
        )
        server = Server(listener.getsockname()[1], process)
    try:
        os.sched_setaffinity(process.pid, CORES[:cores])
        with Client(server.port) as client:
            client.get("/")  # waits in the socket's queue until the server takes it
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def own_core() -> Iterator[None]:
    """Keep this process, the client, off the first core."""
    os.sched_setaffinity(0, CORES[1:] or CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


class Client:
    """One connection, kept alive. A request returns (seconds until the first byte of the answer, seconds in all)."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(MIB)

    def __enter__(self) -> Client:  # noqa: PYI034  # Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def get(self, path: str, headers: str = "") -> tuple[float, float]:
        """Download."""
        start = time.perf_counter()
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        return self._receive(start)

    def post(self, size: int) -> tuple[float, float]:
        """Upload a file of so many bytes, as a browser's form does: with a boundary of its own, for which parsers compile patterns."""
        boundary = "----WebKitFormBoundary" + secrets.token_hex(8)
        before = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        after = f"\r\n--{boundary}--\r\n"
        head = (
            f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={boundary}\r\n"
            f"Content-Length: {len(before) + size + len(after)}\r\n\r\n"
        )
        start = time.perf_counter()
        whole, rest = divmod(size, MIB)
        if whole:
            self._socket.sendall((head + before).encode())
            for _ in range(whole):
                self._socket.sendall(BLOCK)
            self._socket.sendall(BLOCK[:rest] + after.encode())
        else:
            self._socket.sendall((head + before).encode() + BLOCK[:rest] + after.encode())
        return self._receive(start)

    def _receive(self, start: float) -> tuple[float, float]:
        """Read an answer to its end."""
        got = self._socket.recv(64 * KIB)
        first = time.perf_counter() - start
        while b"\r\n\r\n" not in got:
            if not (more := self._socket.recv(64 * KIB)):
                raise OSError(f"the server answered {got[:100]!r}")
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        if head[9:12] not in {b"200", b"206"}:
            raise OSError(f"the server answered {head!r} {body!r}")
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(length.partition(b":")[2]) - len(body)
        while left:
            count = self._socket.recv_into(self._buffer, min(left, MIB))
            if not count:
                raise OSError("the server broke off")
            left -= count
        return first, time.perf_counter() - start
