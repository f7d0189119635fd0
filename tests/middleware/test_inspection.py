"""Inspectors: what they see, what they refuse, and that the app sees nothing of a refused file."""

from __future__ import annotations

import os
import socket
import sys
import threading

import pytest
from support.wsgi_client import call, multipart

from securefs import ConfigurationError, Keyring
from securefs.middleware import ClamAV, FileRefusedError, FileRules, Policy, SecureFS

KEY = Keyring(bytes(range(32)))
PNG = b"\x89PNG\r\n\x1a\n"
LONG = os.urandom(3 * 1024 * 1024)


class App:
    """Keeps what it read of the request."""

    def __init__(self):
        self.body = b""
        self.ran = False

    def __call__(self, environ, start_response):
        self.ran = True
        self.body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"stored"]


def post(app, journal, inspect, *parts, **policy):
    kind, body = multipart(*parts, boundary="-" * 40)
    wrapped = SecureFS(app, keyring=KEY, journal=journal, policy=Policy(**policy), inspect=inspect)
    return call(wrapped, "POST", body=body, headers=[("Content-Type", kind)])


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000, len(LONG)])
def test_an_inspector_sees_the_plaintext_and_what_is_known_of_the_part(size, journal):
    seen = []

    def inspect(part, chunks):
        seen.append((part.field, part.filename, part.content_type, b"".join(chunks)))

    app = App()
    answer = post(app, journal, inspect, ("f", "a.png", LONG[:size], "image/png"), ("g", "b", b"second"))
    assert answer.status == 200
    assert seen == [
        ("f", "a.png", "image/png", LONG[:size]),
        ("g", "b", "application/octet-stream", b"second"),
    ]
    assert LONG[:size][:50] not in app.body or size < 2


def close_at_once(part, chunks):
    chunks.close()


def close_after_one(part, chunks):
    next(chunks)
    chunks.close()


@pytest.mark.parametrize("inspect", [close_at_once, close_after_one])
@pytest.mark.parametrize("size", [1000, len(LONG)])
def test_an_inspector_that_closes_its_input_accepts_no_part_of_a_file(inspect, size, journal):
    """What it did not read was not sealed: the rest of the file would be missing, and nobody would notice."""
    app = App()
    answer = post(app, journal, inspect, ("f", "a.png", LONG[:size]))
    assert (answer.status, app.ran) == (503, False)
    assert ("file.rejected", "failure", "inspection") in journal.events()


def swallow(part, chunks):
    try:
        for _ in chunks:
            pass
    except Exception:  # noqa: BLE001  # that is the point
        return


def rename(part, chunks):
    try:
        for _ in chunks:
            pass
    except Exception as error:
        raise RuntimeError("the inspector's own") from error


@pytest.mark.parametrize("inspect", [swallow, rename])
def test_an_error_of_its_input_is_no_error_of_the_inspector_s(inspect, journal):
    """A body that ends too early is refused as one, whatever the inspector makes of it."""
    app = App()
    kind, body = multipart(("f", "a.png", LONG), boundary="-" * 40)
    wrapped = SecureFS(app, keyring=KEY, journal=journal, inspect=inspect)
    answer = call(wrapped, "POST", body=body[:-1000], headers=[("Content-Type", kind)], length=len(body))
    assert (answer.status, app.ran) == (400, False)
    assert ("file.rejected", "failure", "client_gone") in journal.events()


@pytest.mark.parametrize("size", [1000, len(LONG)])
def test_an_inspector_may_look_at_the_beginning_only(size, journal):
    app = App()
    assert post(app, journal, lambda part, chunks: next(chunks)[:1], ("f", "a", LONG[:size])).status == 200
    assert post(app, journal, lambda part, chunks: None, ("f", "a", LONG[:size])).status == 200
    assert len(app.body) > size


@pytest.mark.parametrize("size", [1000, len(LONG)])
@pytest.mark.parametrize("spool", [False, True])
def test_nothing_of_a_refused_file_reaches_the_app(size, spool, journal):
    def inspect(part, chunks):
        if part.field == "bad":
            for _ in chunks:
                pass
            raise FileRefusedError("it smells")

    app = App()
    answer = post(app, journal, inspect, ("good", "a", b"fine"), ("bad", "b", LONG[:size]), spool=spool)
    assert answer.status == 400
    assert b"smells" not in answer.body
    assert app.body == b""
    assert journal.events()[-2:] == [
        ("file.encrypt", "failure", "inspection"),
        ("file.rejected", "failure", "inspection"),
    ]


def test_an_inspector_that_fails_accepts_nothing(journal):
    def inspect(part, chunks):
        raise RuntimeError("no signatures loaded")

    app = App()
    answer = post(app, journal, inspect, ("f", "a", b"data"))
    assert answer.status == 503
    assert not app.ran


def test_what_is_wrong_with_the_body_is_told_through_an_inspector(journal):
    answer = post(App(), journal, lambda part, chunks: list(chunks), ("f", "a", b"data"), max_files=1)
    assert answer.status == 200
    parts = [("f", "a", b"data"), ("g", "b", b"data")]
    assert post(App(), journal, lambda part, chunks: list(chunks), *parts, max_files=1).status == 413
    kind, body = multipart(("f", "a", b"data" * 1000))
    wrapped = SecureFS(
        App(), keyring=KEY, journal=journal, policy=Policy(), inspect=lambda part, chunks: list(chunks)
    )
    assert call(wrapped, "POST", body=body[:-20], headers=[("Content-Type", kind)]).status == 400


@pytest.mark.parametrize(
    ("rules", "part", "accepted"),
    [
        pytest.param({"max_size": 100}, ("f", "a", bytes(100)), True, id="at the limit"),
        pytest.param({"max_size": 100}, ("f", "a", bytes(101)), False, id="one byte more"),
        pytest.param({"types": ("image/png",)}, ("f", "a", PNG + b"x" * 50, "image/png"), True, id="png"),
        pytest.param(
            {"types": ("image/png",)}, ("f", "a", PNG, "image/png; x=y"), True, id="with a parameter"
        ),
        pytest.param({"types": ("image/png",)}, ("f", "a", PNG[:-1], "image/png"), False, id="cut"),
        pytest.param({"types": ("image/png",)}, ("f", "a", b"", "image/png"), False, id="empty"),
        pytest.param(
            {"types": ("image/png",)}, ("f", "a", b"<script>" * 9, "image/png"), False, id="not a png"
        ),
        pytest.param(
            {"types": ("image/png",)}, ("f", "a", PNG + b"x" * 50, "image/gif"), False, id="another type"
        ),
        pytest.param(
            {"types": ("image/gif",)}, ("f", "a", b"GIF89a" + b"x" * 50, "image/gif"), True, id="gif"
        ),
        pytest.param(
            {"types": ("image/webp",)}, ("f", "a", b"RIFF1234WEBPVP8 ", "image/webp"), True, id="at an offset"
        ),
        pytest.param({}, ("f", "a", b"anything"), True, id="no rules"),
    ],
)
def test_file_rules(rules, part, accepted, journal):
    assert (post(App(), journal, FileRules(**rules), part).status == 200) is accepted


def test_file_rules_hand_on_what_passes(journal):
    seen = []
    rules = FileRules(types=("image/png",), then=lambda part, chunks: seen.append(b"".join(chunks)))
    assert post(App(), journal, rules, ("f", "a", PNG + LONG, "image/png")).status == 200
    assert post(App(), journal, rules, ("f", "a", LONG, "image/png")).status == 400
    assert seen == [PNG + LONG]


def test_file_rules_know_their_types():
    with pytest.raises(ConfigurationError, match="image/pgn"):
        FileRules(types=("image/pgn",))


class Clamd(threading.Thread):
    """As much of clamd as one INSTREAM conversation needs, to answer what a test wants: test_clamd.py has a real one.

    :ivar patience: bytes after which it answers and hangs up.
    """

    def __init__(self, server, answer, patience):
        super().__init__()
        self.server, self.answer, self.patience = server, answer, patience
        self.received = b""

    def run(self):
        connection, _ = self.server.accept()
        with connection, connection.makefile("rb") as stream:
            assert stream.read(10) == b"zINSTREAM\0"
            while len(self.received) < self.patience and (size := int.from_bytes(stream.read(4), "big")):
                self.received += stream.read(size)
            for byte in self.answer:
                connection.sendall(bytes([byte]))


@pytest.fixture(params=["unix", "tcp"])
def clamd(request, tmp_path):
    """Return a function that starts a scanner with one answer and gives its inspector."""
    started = []

    def start(answer, patience=sys.maxsize):
        if request.param == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(tmp_path / "clamd"))
            address = str(tmp_path / "clamd")
        else:
            server = socket.socket()
            server.bind(("127.0.0.1", 0))
            address = server.getsockname()
        server.listen()
        thread = Clamd(server, answer, patience)
        thread.start()
        started.append((server, thread))
        return ClamAV(address, timeout=10), thread

    yield start
    for server, thread in started:
        thread.join()
        server.close()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"stream: OK\0", 200, id="clean"),
        pytest.param(b"stream: Win.Test.EICAR_HDB-1 FOUND\0", 400, id="found"),
        pytest.param(b"INSTREAM size limit exceeded. ERROR\0", 503, id="too long for clamd"),
        pytest.param(b"", 503, id="hung up"),
    ],
)
def test_clamd_decides(answer, status, clamd, journal):
    inspector, scanner = clamd(answer)
    app = App()
    assert post(app, journal, inspector, ("f", "a", LONG)).status == status
    scanner.join()
    assert scanner.received == LONG
    assert (app.body == b"") == (status != 200)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"stream: Win.Test.EICAR_HDB-1 FOUND\0", 400, id="found"),
        # What it saw was clean, what it did not see was not looked at.
        pytest.param(b"stream: OK\0", 503, id="clean"),
        pytest.param(b"INSTREAM size limit exceeded. ERROR\0", 503, id="too long for clamd"),
        pytest.param(b"", 503, id="hung up"),
    ],
)
def test_clamd_may_answer_before_the_end(answer, status, tmp_path, journal):
    """Over a socket of this machine: TCP may drop an answer that is behind a broken connection, and that is a 503."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "clamd"))
        server.listen()
        thread = Clamd(server, answer, patience=200_000)
        thread.start()
        app = App()
        got = post(app, journal, ClamAV(str(tmp_path / "clamd"), timeout=10), ("f", "a", LONG)).status
        thread.join()
    assert got == status
    assert len(thread.received) < len(LONG)
    assert not app.body


def test_an_empty_chunk_is_not_the_end_of_a_file(clamd):
    inspector, scanner = clamd(b"stream: OK\0")
    inspector(None, iter([b"a", b"", b"b"]))
    scanner.join()
    assert scanner.received == b"ab"


def test_a_clamd_that_is_not_there_accepts_nothing(journal, tmp_path):
    app = App()
    assert post(app, journal, ClamAV(str(tmp_path / "none")), ("f", "a", b"data")).status == 503
    assert not app.ran
