"""Much at once, end to end over gunicorn: ten thousand parts, headers without end, files of gigabytes, sixteen uploads together.

Each has an answer that is right to the byte, and a worker process whose memory stays where it was:
the peak of its resident set (VmHWM) is compared with that of the same app without SecureFS.
``SECUREFS_CAMPAIGN=1`` makes the longest ones four times as long. ``pytest -s`` shows the figures.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.hostile_corpus import Expected
from support.journals import all_records
from support.server_matrix import TESTS, Connection, form, request
from support.servers import Server, gunicorn, python_environ, wait_until
from support.uploads import BROWSER_TYPE, browser_body

from securefs.middleware import Policy

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
FULL = os.environ.get("SECUREFS_CAMPAIGN") == "1"
LIMIT = "900"  # seconds that curl may take for an upload
UPLOADS = 16  # at once, each with a thread of the worker
PER_UPLOAD = 4 * MIB  # bytes that SecureFS may take for each upload under way
ALLOWANCE = 8 * MIB  # bytes by which a worker may grow beyond what the bare app grows by with one upload
PER_PART = KIB  # bytes that are kept of each part until the request is done: names, ids, where it begins
# What a server takes before a client hears of a refusal: 1 MiB that is parsed, and what socket
# buffers hold.
HEARD = 32 * MIB
MULTIPART = [("Content-Type", BROWSER_TYPE)]


@dataclass
class Target:
    """gunicorn with one worker of 16 threads over :mod:`support.campaign_app`, and that worker's process id."""

    policy: str
    server: Server
    folder: Path
    worker: int

    @property
    def url(self) -> str:
        return self.server.url + "/upload"

    def connect(self) -> Connection:
        return Connection(self.server.port)

    def memory(self, name: str) -> int:
        """Return VmRSS or VmHWM of the worker in bytes."""
        text = Path(f"/proc/{self.worker}/status").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith(name + ":")]
        return int(line.split()[1]) * KIB

    @contextmanager
    def growth(self, what: str):
        """Yield a list; what is in it afterwards is by how many bytes the worker grew at its peak."""
        with self.connect() as connection:
            # The first upload imports what is imported late.
            assert connection.ask("POST", "/upload", *form("f", b"x")).status == 200
        Path(f"/proc/{self.worker}/clear_refs").write_text(
            "5"
        )  # sets the peak to what there is now (proc(5))
        before = self.memory("VmHWM")
        grown: list[int] = []
        yield grown
        grown.append(self.memory("VmHWM") - before)
        print(f"{what}: {before / MIB:.1f} MiB, at its peak {grown[0] / MIB:.1f} MiB more")

    def records(self, event: str) -> list[dict]:
        """Return the journal's records of one kind."""
        return [record for record in all_records(self.folder / "journal") if record["event"] == event]

    def under_way(self) -> int:
        """Return how many files were begun and have no outcome yet."""
        outcomes = [record["outcome"] for record in self.records("file.encrypt")]
        return 2 * outcomes.count("started") - len(outcomes)

    def rejected(self) -> list[tuple[int, str]]:
        return [(record["http"]["status"], record["reason"]) for record in self.records("file.rejected")]

    def serves(self) -> bool:
        """Return whether another client is served as if nothing had happened."""
        with self.connect() as connection:
            answer = connection.ask("POST", "/upload", *form("f", b"another"))
        return answer.status == 200 and json.loads(answer.body)["size"] == len(b"another")


@contextmanager
def serving(folder: Path, policy: str):
    """Yield gunicorn with the app behind a policy of :mod:`support.campaign_app`, or with the "bare" app."""
    folder.mkdir()
    (folder / "journal").mkdir(mode=0o700)
    environ = {name: value for name, value in python_environ().items() if not name.startswith("COVERAGE_")}
    environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), environ["PYTHONPATH"]])
    environ |= {"CAMPAIGN_DIR": str(folder), "WEB_CONCURRENCY": "1", "TMPDIR": str(folder)}
    app = f'support.campaign_app:make_app("{policy}")'
    # One worker for all of it: its peak is what is measured.
    arguments = ("--threads", str(UPLOADS), "--keep-alive", "20", "--max-requests", "0")
    with gunicorn(folder / "log", environ, *arguments, app) as server:
        master = server.process.pid
        (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        target = Target(policy, server, folder, int(worker))
        yield target
        assert Path(f"/proc/{worker}").exists(), "one worker served all of it"


@pytest.fixture
def target_of(tmp_path):
    return lambda policy: serving(tmp_path / policy, policy)


@pytest.fixture(scope="module")
def bare_growth(tmp_path_factory):
    """By how many bytes the worker grows when one file of 64 MiB comes to the app without SecureFS."""
    folder = tmp_path_factory.mktemp("bare")
    sparse_file(folder / "file", 64 * MIB)
    with serving(folder / "site", "bare") as target, target.growth("bare app, 64 MiB") as grown:
        upload_by_curl(target.url, folder / "file")
    return grown[0]


def sparse_file(path: Path, size: int) -> str:
    """Make a file of zeros that takes no room, with marks in it that tell where they are; return its SHA-256."""
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, 37 * MIB + 11):
            file.seek(at)
            file.write(b"at %d" % at)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def upload_by_curl(url: str, path: Path) -> dict:
    """Upload a file as a browser would, and return the app's answer."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", LIMIT]
    done = subprocess.run(
        [*command, "--form", f"f=@{path}", url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def framed(framing: str, data: bytes) -> bytes:
    """Return ``data`` as it is, or as a chunk."""
    return data if framing == "length" else b"%x\r\n%s\r\n" % (len(data), data)


def pour(connection: Connection, framing: str, block: bytes, size: int) -> int:
    """Send ``block`` again and again, until it was ``size`` bytes or the server answers; return how many were sent."""
    sent = 0
    while sent < size and not connection.end and not connection.arrives(0):
        connection.send(framed(framing, block))
        sent += len(block)
    return sent


# --- parts

PARTS = 10_000
KINDS = {
    "fields": lambda number: Expected("n", b"%0100d" % number),
    "files": lambda number: Expected("f", b"%0100d" % number, "a.txt", "text/plain"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_parts_are_too_many(target_of, bare_growth, kind):
    body = browser_body([KINDS[kind](number) for number in range(PARTS)])
    with target_of("default") as target:
        with target.growth(f"{PARTS} {kind} refused") as grown, target.connect() as connection:
            answer = connection.ask("POST", "/upload", MULTIPART, body)
            assert answer.status == 413
            assert connection.still_serves() == "closed", "the rest of the body was not read"
        assert target.rejected() == [(413, "limit")]
        begun = [r for r in target.records("file.encrypt") if r["outcome"] == "started"]
        assert len(begun) <= Policy().max_files + 1, "those that the limit allows, and the one before them"
        assert target.serves()
    assert grown[0] < bare_growth + ALLOWANCE


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_parts_arrive_where_the_policy_allows_them(target_of, kind):
    parts = [KINDS[kind](number) for number in range(PARTS)]
    body = browser_body(parts)
    peaks = {}
    for policy in ("bare", "wide"):
        with target_of(policy) as target:
            with target.growth(f"{PARTS} {kind}, {policy}") as grown, target.connect() as connection:
                answer = connection.ask("POST", "/upload", MULTIPART, body)
                assert answer.status == 200
                assert connection.still_serves() == "kept"
            files = [part for part in parts if part.filename]
            plaintext = b"".join(part.content for part in files)
            assert json.loads(answer.body) == {
                "files": len(files),
                "fields": PARTS - len(files),
                "size": len(plaintext),
                "sha256": hashlib.sha256(plaintext).hexdigest(),
            }
            done = [r for r in target.records("file.encrypt") if r["outcome"] == "success"]
            assert len(done) == (0 if policy == "bare" else len(files) + 1)
        peaks[policy] = grown[0]
    assert peaks["wide"] < peaks["bare"] + ALLOWANCE + PARTS * PER_PART


# --- no end

FRAMINGS = {"length": ("Content-Length", str(2 * GIB)), "chunked": ("Transfer-Encoding", "chunked")}
HEADER = b'--X\r\nContent-Disposition: form-data; name="f"; filename="f"\r\nX-Padding: '
# Long enough to be under way when the parser comes to what is behind it.
FILE = b'--X\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + bytes(3 * MIB) + b"\r\n"
KIND = ("Content-Type", "multipart/form-data; boundary=X")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    "before", [pytest.param(b"", id="first part"), pytest.param(FILE, id="behind a file")]
)
def test_a_part_header_without_end_is_refused_soon(target_of, bare_growth, framing, before):
    with target_of("default") as target:
        with target.growth(f"header without end, {framing}") as grown, target.connect() as connection:
            connection.send(request("POST", "/upload", [KIND, FRAMINGS[framing]]))
            connection.send(framed(framing, before + HEADER))
            sent = pour(connection, framing, b"x" * MIB, GIB)
            answer = connection.receive()
            assert answer.status == 413
            assert connection.still_serves() == "closed"
        assert sent < HEARD
        assert target.rejected() == [(413, "limit")]
        assert target.under_way() == 0
        assert target.serves()
    assert grown[0] < bare_growth + ALLOWANCE


@pytest.mark.parametrize("framing", FRAMINGS)
def test_line_ends_without_end_behind_the_closing_boundary_are_not_kept(target_of, bare_growth, framing):
    body = FILE + b"--X--\r\n"
    announced = {**FRAMINGS, "length": ("Content-Length", str(len(body) + GIB))}[framing]
    with target_of("default") as target:
        with target.growth(f"1 GiB of line ends, {framing}") as grown, target.connect() as connection:
            connection.send(request("POST", "/upload", [KIND, announced]))
            connection.send(framed(framing, body))
            assert pour(connection, framing, b"\r\n" * (MIB // 2), GIB) == GIB
            if framing == "chunked":
                connection.send(b"0\r\n\r\n")
            answer = connection.receive()
            assert answer.status == 200
            assert json.loads(answer.body)["size"] == 3 * MIB
            assert connection.still_serves() == "kept"
        assert target.serves()
    assert grown[0] < bare_growth + ALLOWANCE


# --- much


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        pytest.param("gcm", 4 * GIB, id="gcm"),
        pytest.param("default", 4 * GIB if FULL else GIB, id="cbc-hmac"),
    ],
)
def test_a_file_of_gigabytes_takes_no_more_memory_than_a_small_one(
    target_of, bare_growth, tmp_path, policy, size
):
    if policy == "default" and not FULL:
        print("1 GiB instead of 4, to save time: SECUREFS_CAMPAIGN=1 takes 4")
    digest = sparse_file(tmp_path / "file", size)
    with target_of(policy) as target:
        with target.growth(f"{size // GIB} GiB, {policy}") as grown:
            answer = upload_by_curl(target.url, tmp_path / "file")
        assert answer == {"files": 1, "fields": 0, "size": size, "sha256": digest}
        assert target.records("file.encrypt")[-1]["obj"]["size"] == size
    assert grown[0] < bare_growth + ALLOWANCE


def upload_together(target: Target, path: Path) -> list[dict]:
    """Send a file over 16 connections, no one's end before each one's start has been read; return the answers."""
    headers, empty = form("f", b"")
    head, tail = empty[: empty.index(b"\r\n\r\n") + 4], empty[empty.index(b"\r\n\r\n") + 4 :]
    size = path.stat().st_size
    length = ("Content-Length", str(len(empty) + size))
    with path.open("rb") as file:
        start = file.read(2 * MIB)
    connections = [target.connect() for _ in range(UPLOADS)]

    def finish(connection):
        with path.open("rb") as file, connection:
            connection.socket.sendfile(file, len(start))
            connection.send(tail)
            answer = connection.receive()
        assert answer.status == 200
        return json.loads(answer.body)

    for connection in connections:
        connection.send(request("POST", "/upload", [*headers, length]) + head + start)
    if target.policy != "bare":
        wait_until(lambda: target.under_way() == UPLOADS, "the start of each upload")
    with ThreadPoolExecutor(UPLOADS) as pool:
        return list(pool.map(finish, connections))


def test_sixteen_uploads_at_once_take_four_mebibytes_each_at_most(target_of, tmp_path):
    size = (256 if FULL else 64) * MIB
    if not FULL:
        print("64 MiB each instead of 256, to save time: SECUREFS_CAMPAIGN=1 takes 256")
    digest = sparse_file(tmp_path / "file", size)
    peaks = {}
    for policy in ("bare", "default", "gcm"):
        with target_of(policy) as target:
            with target.growth(f"{UPLOADS} x {size // MIB} MiB, {policy}") as grown:
                answers = upload_together(target, tmp_path / "file")
            assert answers == [{"files": 1, "fields": 0, "size": size, "sha256": digest}] * UPLOADS
        peaks[policy] = grown[0]
    assert max(peaks["default"], peaks["gcm"]) < peaks["bare"] + UPLOADS * PER_UPLOAD


# --- what was not read


@pytest.mark.parametrize("policy", ["bare", "default"])
def test_a_connection_ends_where_the_body_was_not_read(target_of, policy):
    headers, body = form("f", bytes(3 * MIB))
    with target_of(policy) as target:
        with target.connect() as connection:
            answer = connection.ask("POST", "/ignored", headers, body)
            assert answer.status == 200
            assert connection.still_serves() == "closed"
        with target.connect() as connection:
            assert connection.ask("POST", "/ignored", *form("f", b"short")).status == 200
            assert connection.still_serves() == "kept", "what is short is read and thrown away"
        outcomes = [(r["outcome"], r.get("reason")) for r in target.records("file.encrypt")]
        assert (("failure", "io_error") in outcomes) is (policy == "default")


# --- slow clients


class Dawdlers(threading.Thread):
    """A thousand clients that each send the beginning of an upload, then a byte now and then, until ``enough`` is set.

    A client that was answered or thrown out comes again, at the pace of a crowd: without a limit,
    the test would measure how fast the machine refuses connections, and a slow one would have no
    time left for the good clients.
    """

    COUNT = 1000
    PAUSE = 0.1  # seconds between two bytes of a client
    RETURNS = 25  # clients that come again between two bytes
    LONGEST = 900.0  # seconds after which they go, if the test forgot them; longer than all that it waits for

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.enough = threading.Event()
        self.begun = 0  # uploads whose beginning was sent
        self.answers: Counter[str] = Counter()
        self.away = 0  # clients that were answered and have not come again
        headers, body = form("f", bytes(2 * KIB))
        self.start_of_upload = (
            request("POST", "/upload", [*headers, ("Content-Length", str(MIB))]) + body[:KIB]
        )

    def come(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", self.port))
        self.selector.register(client, selectors.EVENT_WRITE)

    def go(self, client: socket.socket, answer: str) -> None:
        self.answers[answer] += 1
        self.selector.unregister(client)
        client.close()
        self.away += 1

    def serve(self, client: socket.socket, events: int) -> None:
        """Send the beginning over a new connection; hear what comes over an old one."""
        try:
            if events & selectors.EVENT_READ:
                self.go(client, client.recv(4096)[9:12].decode() or "closed")
            else:
                client.sendall(self.start_of_upload)
                self.begun += 1
                self.selector.modify(client, selectors.EVENT_READ)
        except OSError as error:
            self.go(client, type(error).__name__)

    def come_again(self) -> None:
        for _ in range(min(self.away, self.RETURNS)):
            self.away -= 1
            self.come()

    def trickle(self) -> None:
        for key in list(self.selector.get_map().values()):
            if key.events == selectors.EVENT_READ:
                with suppress(OSError):
                    key.fileobj.send(b"x")

    def run(self) -> None:
        end = time.monotonic() + self.LONGEST
        with selectors.DefaultSelector() as self.selector:
            for _ in range(self.COUNT):
                self.come()
            tick = time.monotonic()
            while not self.enough.is_set() and time.monotonic() < end:
                for key, events in self.selector.select(max(0.0, tick - time.monotonic())):
                    self.serve(key.fileobj, events)
                if time.monotonic() >= tick:
                    tick = time.monotonic() + self.PAUSE
                    self.come_again()
                    self.trickle()
            for key in list(self.selector.get_map().values()):
                key.fileobj.close()


def test_others_are_served_while_a_thousand_clients_dawdle(target_of):
    """With the repository's gunicorn.conf.py, whose threads they would take a hundred times over."""
    with target_of("environment") as target:
        dawdlers = Dawdlers(target.server.port)
        with target.growth(f"{Dawdlers.COUNT} slow clients") as grown:
            dawdlers.start()
            try:
                wait_until(lambda: dawdlers.begun >= Dawdlers.COUNT, "a thousand uploads begun")
                for _ in range(20):
                    assert target.serves()
                headers, body = form("f", bytes(3 * MIB))
                # What must be waited for may be told to come again.
                wait_until(lambda: answered(target, headers, body) == 200, "an upload of 3 MiB")
                assert dawdlers.is_alive(), "they were there all the while"
            finally:
                dawdlers.enough.set()
                dawdlers.join()
        print(f"{dawdlers.begun} slow uploads begun, answered {dict(dawdlers.answers)}")
        assert dawdlers.answers.keys() <= {"503", "408", "closed", "ConnectionResetError", "BrokenPipeError"}
        assert grown[0] < ALLOWANCE + UPLOADS * PER_UPLOAD
        assert {reason for _, reason in target.rejected()} <= {"limit", "timeout", "client_gone"}


def answered(target: Target, headers, body) -> int:
    with target.connect() as connection:
        answer = connection.ask("POST", "/upload", headers, body)
    return answer.status if answer else 0
