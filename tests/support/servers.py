"""Real servers and real clients on 127.0.0.1 for the tests: started, awaited, stopped by their own process id."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0  # seconds until a server that does not answer, or a process that does not end, is a failure
BOUNDARY = b"----WebKitFormBoundary0123456789abcdef"  # as long as a browser's


@dataclass(slots=True)
class Server:
    """A running server. ``log`` is what it wrote to standard output and error."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to this process alone and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            # Longer than gunicorn gives its workers, so that a slow end is told from none.
            return self.process.wait(2 * DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@dataclass(slots=True)
class Reply:
    """What curl received. Header names are in lower case."""

    status: int
    body: bytes
    headers: dict[str, list[str]] = field(default_factory=dict)

    def json(self) -> dict:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        (value,) = self.headers[name]
        return value


def python_environ(**variables: str) -> dict[str, str]:
    """Return an environment for a child: ours without any securefs setting, plus ``variables``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SECUREFS_", "FILE_KEY_", "GUNICORN_"))
    }
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, **variables}


def wait_until(condition, what: str, deadline: float = DEADLINE):
    """Poll ``condition`` until it returns something true, and return that; fail after ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.02)
    return result


def launch(
    command, log_file: Path, environ=None, port: int = 0, *listeners, cwd: Path | None = None
) -> Server:
    """Start a program that writes to ``log_file``, and that inherits ``listeners`` alone of our sockets."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno() for listener in listeners],
        )
    return Server(process, port, log_file)


def await_start(server: Server, condition, what: str):
    """Return what ``condition`` returns once that is true; fail with the log where the program ends before."""
    found = wait_until(lambda: server.process.poll() is not None or condition(), what)
    assert server.process.poll() is None, server.log
    return found


@contextmanager
def stopped(server: Server):
    """Yield a program that was started; end it afterwards by its own process id."""
    try:
        yield server
    finally:
        server.stop()


def answers(port: int) -> bool:
    """Return whether something on this port answers an HTTP request."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return bool(client.recv(1))
    except OSError:
        return False


@contextmanager
def listening_socket():
    """Yield a listening socket on a port that the system chose: no other process can take it before the server does."""
    # As many may wait as gunicorn asks for where it opens the socket itself.
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as server:
        yield server


@contextmanager
def gunicorn(log_file: Path, environ: dict[str, str], *arguments: str):
    """Yield gunicorn with the repository's configuration, ready to answer; end it afterwards."""
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            str(ROOT / "gunicorn.conf.py"),
            "--bind",
            f"fd://{listener.fileno()}",
            *arguments,
        ]
        server = launch(command, log_file, environ, port, listener, cwd=log_file.parent)
    with stopped(server):
        await_start(server, lambda: answers(port), "an answer of gunicorn")
        yield server


def curl(*arguments: str, data: bytes | None = None) -> Reply:
    """Run curl and return the last response: status, headers, body."""
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        str(DEADLINE),
        "--dump-header",
        "-",
    ]
    done = subprocess.run(
        [*command, *arguments], input=data, capture_output=True, check=False, timeout=2 * DEADLINE
    )
    assert done.returncode == 0, done.stderr.decode()
    head, body = b"", done.stdout
    while body.startswith(b"HTTP/"):
        head, _, body = body.partition(b"\r\n\r\n")
        if b" 100" not in head.split(b"\r\n")[0]:
            break
    lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    return Reply(int(lines[0].split()[1]), body, headers)


def app_environ(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment for the reference app under ``folder``: key in a private file, data and journal folders."""
    key = folder / "file.key"
    if not key.exists():
        key.touch(0o600)
        key.write_bytes(base64.b64encode(os.urandom(32)))
    audit = folder / "journal"
    audit.mkdir(mode=0o700, exist_ok=True)
    ours = {
        "FILE_KEY_BASE64_FILE": str(key),
        "SECUREFS_DATA_DIR": str(folder / "data"),
        "SECUREFS_AUDIT_DIR": str(audit),
        # Three processes more for each server: only in the tests that are about them.
        "SECUREFS_AUDIT_SEAL": "off",
    }
    return python_environ(**(ours | variables))


def multipart(files, fields=()) -> tuple[bytes, str]:
    """Return (body, content type) as a browser would send (name, content) pairs in the field "files", and fields."""
    lines = []
    for name, value in fields:
        lines += [
            b"--" + BOUNDARY,
            f'Content-Disposition: form-data; name="{name}"'.encode(),
            b"",
            value.encode(),
        ]
    for name, content in files:
        head = f'Content-Disposition: form-data; name="files"; filename="{name}"'.encode()
        lines += [b"--" + BOUNDARY, head, b"Content-Type: text/plain", b"", content]
    return b"\r\n".join(
        [*lines, b"--" + BOUNDARY + b"--", b""]
    ), f"multipart/form-data; boundary={BOUNDARY.decode()}"
