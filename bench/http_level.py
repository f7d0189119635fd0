"""HTTP level: one gunicorn worker, one client on loopback, the same Werkzeug app bare and wrapped."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .measure import Row

MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parent.parent
KEY = base64.b64encode(os.urandom(32)).decode()
_HEAD = (
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n"
)
CONTENDERS = {"bare": "bare", "securefs, CBC-HMAC": "aes-256-cbc-hmac-sha256", "securefs, GCM": "aes-256-gcm"}


@contextmanager
def _server(kind: str, folder: Path) -> Iterator[int]:
    """Yield the port of gunicorn with bench.apps:make(kind)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            "/dev/null",
            "--workers",
            "1",
            "--log-level",
            "warning",
        ]
        command += ["--bind", f"fd://{listener.fileno()}", "--worker-class", "gthread", "--threads", "4"]
        environ = {**os.environ, "FILE_KEY_BASE64": KEY, "SECUREFS_AUDIT_DIR": str(folder / "journal")}
        if kind != "bare":
            environ["SECUREFS_SUITE"] = kind
        process = subprocess.Popen(
            [*command, f"bench.apps:make({kind != 'bare'!r}, {str(folder)!r})"],
            cwd=ROOT,
            env=environ,
            pass_fds=[listener.fileno()],
        )
    try:
        for _ in range(500):
            try:
                _request(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [])
                break
            except OSError:
                time.sleep(0.02)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _request(port: int, head: bytes, body: list[bytes]) -> int:
    """Send a request, read the answer to its end, return how many bytes it had."""
    total, start = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as client:
        client.sendall(head)
        for piece in body:
            client.sendall(piece)
        buffer = bytearray(MIB)
        while count := client.recv_into(buffer):
            start = start or bytes(buffer[:12])
            total += count
    if start[9:12] != b"200":
        raise OSError(f"the server answered {start!r}")
    return total


def _upload(port: int, data: list[bytes]) -> Callable[[], object]:
    def run() -> int:
        # As every client does, a boundary of its own for each request: parsers compile patterns for it.
        boundary = b"----WebKitFormBoundary" + secrets.token_hex(8).encode("ascii")
        before = (
            b"--" + boundary + b'\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n"
        )
        after = b"\r\n--" + boundary + b"--\r\n"
        length = len(before) + sum(map(len, data)) + len(after)
        return _request(port, _HEAD % (boundary, length), [before, *data, after])

    return run


def _download(port: int, path: bytes = b"/file") -> Callable[[], object]:
    return lambda: _request(port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [])


def _times(count: int, run: Callable[[], object]) -> Callable[[], object]:
    def repeat() -> None:
        for _ in range(count):
            run()

    return repeat


def run(size: int, turns: int, requests: int) -> dict[str, list[Row]]:
    """Return the rows for uploads and downloads of ``size`` bytes, and for small ones and pages."""
    block = os.urandom(MIB)
    large = [block] * (size // MIB)
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        servers = {name: _server(kind, Path(folder, kind)) for name, kind in CONTENDERS.items()}
        for kind in CONTENDERS.values():
            Path(folder, kind).mkdir()
            Path(folder, kind, "journal").mkdir(mode=0o700)
        opened = {}
        try:
            ports = {}
            for name, server in servers.items():
                ports[name] = server.__enter__()
                opened[name] = server
            label = f"{size // MIB} MiB"
            for title, make in ((f"Upload {label}", _upload_of(large)), (f"Download {label}", _download)):
                found[title] = take_turns(
                    {name: make(port) for name, port in ports.items()}, size / 1e6, "MB", turns
                )
            small = [block[:4096]]
            for title, make in (
                ("Upload 4 KiB", _upload_of(small)),
                ("Download 4 KiB", _download),
                ("A page that is neither", lambda port: _download(port, b"/")),
            ):
                runs = {name: _times(requests, make(port)) for name, port in ports.items()}
                found[title] = take_turns(runs, requests, "requests", turns)
        finally:
            for server in opened.values():
                server.__exit__(None, None, None)
    return found


def _upload_of(data: list[bytes]) -> Callable[[int], Callable[[], object]]:
    return lambda port: _upload(port, data)
