"""One request in flight: what the app may see of it, and that everything is closed once, whatever happens."""

from __future__ import annotations

import gc
import io
import sys
import weakref
from contextlib import suppress

import pytest
from support.sealing import seal
from support.uploads import BROWSER_TYPE, KEYRING, MIB, browser_body, file
from support.wsgi_client import call

from securefs.middleware import Policy, SecureFS

PAGE_CALLS = 52  # of Python functions, for a page that passes unchanged (Python 3.11; later ones inline some)


class Body:
    """A response body that counts how often it is closed."""

    def __init__(self, chunks=(b"text",), error=None):
        self.chunks, self.error, self.closed = chunks, error, 0

    def __iter__(self):
        yield from self.chunks
        if self.error is not None:
            raise self.error

    def close(self):
        self.closed += 1


@pytest.fixture
def wrapped(journal):
    def wrap(app, **options):
        return SecureFS(app, keyring=KEYRING, journal=journal, **options)

    return wrap


def answering(body, seen=None, status="200 OK"):
    def app(environ, start_response):
        if seen is not None:
            seen.update(environ)
        start_response(status, [])
        return body

    return app


def test_the_app_hears_of_no_range_and_the_servers_environ_stays_as_it_is(wrapped):
    seen, given = {}, {}

    def server(environ, start_response):
        given.update(environ)
        before = dict(environ)
        result = wrapped(answering([b"text"], seen))(environ, start_response)
        assert environ == before
        return result

    call(server, "HEAD", headers=[("Range", "bytes=0-1"), ("If-Range", '"a"')])
    assert "HTTP_RANGE" in given
    assert "HTTP_IF_RANGE" in given
    assert seen.keys() - given.keys() == {"securefs"} | ({"wsgi.file_wrapper"} - given.keys())
    assert given.keys() - seen.keys() == {"HTTP_RANGE", "HTTP_IF_RANGE"}
    assert (given["REQUEST_METHOD"], seen["REQUEST_METHOD"]) == ("HEAD", "GET")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", ["/", "/protected"])
def test_what_the_app_returns_is_closed_once(wrapped, method, path):
    body = Body()
    call(wrapped(answering(body), policy=Policy(protected_paths=("/protected",))), method, path)
    assert body.closed == 1


@pytest.mark.parametrize("error", [ValueError("of the app"), KeyboardInterrupt(), SystemExit(1)])
def test_what_the_app_returns_is_closed_where_it_fails(wrapped, error):
    body = Body((), error)
    app = wrapped(answering(body))
    with pytest.raises(type(error)):
        app({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}, lambda *_: None)
    assert body.closed == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_app_returns_is_closed_once_where_closing_fails(wrapped, method):
    body = Body([])

    def close():
        body.closed += 1
        raise ValueError("of the app")

    body.close = close
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
    with pytest.raises(ValueError, match="of the app"):
        wrapped(answering(body))(environ, lambda *_: None).close()
    assert body.closed == 1


class ReadsOn:
    """A response that reads the rest of the request when it is closed, as some frameworks do."""

    def __init__(self, environ, error):
        self.environ, self.error = environ, error

    def __iter__(self):
        return iter([b"page"])

    def close(self):
        if self.error is not None:
            raise self.error
        self.environ["wsgi.input"].read()


@pytest.mark.parametrize("error", [None, ValueError("of the app\nGET '/': all is well")])
def test_a_refusal_is_answered_and_recorded_where_closing_fails(error, wrapped, journal, caplog):
    def app(environ, start_response):
        with suppress(OSError):
            while environ["wsgi.input"].read(65_536):
                pass
        start_response("200 OK", [("Content-Type", "text/plain")])
        return ReadsOn(environ, error)

    cut = browser_body([file(content=bytes(3 * MIB))])[:-10]
    answer = call(wrapped(app), "POST", "/", cut, [("Content-Type", BROWSER_TYPE)], watched=False)
    assert answer.status == 400
    assert journal.events() == [
        ("file.encrypt", "started", None),
        ("file.encrypt", "failure", "malformed_multipart"),
        ("file.rejected", "failure", "malformed_multipart"),
    ]
    assert all(message.isprintable() for message in caplog.messages)
    assert "can't be closed" in caplog.text


@pytest.mark.parametrize("sent", [1, 3 * MIB], ids=["before the status line", "in mid-stream"])
@pytest.mark.parametrize("kind", [BROWSER_TYPE, "a/b"])
def test_a_body_that_is_refused_while_a_file_is_sent_is_recorded(sent, kind, wrapped, journal):
    stored = seal(bytes(4 * MIB))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(stored)))])

        def body():
            yield stored[:sent]
            while environ["wsgi.input"].read(65_536):
                pass
            yield stored[sent:]

        return body()

    form = browser_body([file(content=bytes(3 * MIB))])[:-10]
    answer = call(
        wrapped(app, policy=Policy(verify_first=0)),
        "POST",
        body=form if kind == BROWSER_TYPE else seal(b"stolen"),
        headers=[("Content-Type", kind)],
        watched=False,
        SERVER_SOFTWARE="gunicorn/27",
    )
    assert answer.status == 400 or answer.broken_off
    reason = "malformed_multipart" if kind == BROWSER_TYPE else "ciphertext_injection"
    assert journal.events().count(("file.rejected", "failure", reason)) == 1
    if sent > MIB:
        assert answer.broken_off
        assert ("file.decrypt", "failure", "io_error") in journal.events()


def test_nobody_is_let_in_without_a_principal(wrapped, journal):
    asked = []

    def authorize(environ):
        asked.append(environ["PATH_INFO"])
        return {"/mine": "alice"}.get(environ["PATH_INFO"])

    calls = []

    def app(environ, start_response):
        calls.append(environ["securefs"].principal)
        start_response("200 OK", [])
        return []

    guarded = wrapped(app, authorize=authorize)
    assert call(guarded, path="/mine").status == 200
    assert call(guarded, path="/other").status == 401
    assert (asked, calls) == (["/mine", "/other"], ["alice"])
    denied = [record for record in journal.records() if record["event"] == "auth.denied"]
    assert [(record["sev"], record["http"]["status"]) for record in denied] == [(3, 401)]


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_request_leaves_nothing_to_the_garbage_collector(size, lab_of):
    """Whatever it held is freed when the server has closed the response, and not some time later."""
    held = []

    def app(environ, start_response):
        held.extend(map(weakref.ref, (environ["wsgi.input"], environ["securefs"])))
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"stored"]

    lab = lab_of(app)
    gc.disable()
    try:
        assert lab.post(BROWSER_TYPE, browser_body([file(content=bytes(size))])).status == 200
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("stored", [b"<p>a page</p>", seal(b"a file")], ids=["page", "file"])
def test_a_response_leaves_nothing_to_the_garbage_collector(method, stored, lab_of):
    held = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        wrapper = environ["wsgi.file_wrapper"](io.BytesIO(stored))
        held.extend(map(weakref.ref, (wrapper, environ["securefs"])))
        return wrapper

    lab = lab_of(app)
    gc.disable()
    try:
        assert call(lab.wrapped, method).status == 200
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


def test_a_page_costs_few_calls(wrapped):
    """Most requests are pages. What one costs is told by the bench; this notices a step that is added to each."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "", "wsgi.input": io.BytesIO()}
    headers = [("Content-Type", "text/html"), ("Content-Length", "4")]

    def app(environ, start_response):
        start_response("200 OK", headers)
        return [b"text"]

    server, calls = wrapped(app), []

    def serve():
        response = server(dict(environ), lambda *_: None)
        assert b"".join(response) == b"text"

    serve()  # the first request imports, and fills caches
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        serve()
    finally:
        sys.setprofile(None)
    assert len(calls) <= PAGE_CALLS, calls
