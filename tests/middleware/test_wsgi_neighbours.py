"""Other middleware beside ours: what checks the protocol, what compresses, and apps that cut files by themselves."""

from __future__ import annotations

import gzip
import io
import os

import pytest
from support.wsgi_client import call, multipart
from werkzeug.middleware.lint import LintMiddleware

from securefs import Encryptor
from securefs.middleware import Policy, SecureFS

TEXT = os.urandom(200_000)
HTML = b"<p>" + b"compress me " * 1000


def seal(keyring, data=TEXT):
    encryptor = Encryptor(keyring)
    return encryptor.update(data) + encryptor.finalize()


def serving(kind, stored):
    """An app that serves ``stored`` in one of the ways in which apps do, and takes uploads."""

    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "POST":
            length = int(environ["CONTENT_LENGTH"])
            app.body = environ["wsgi.input"].read(length)
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
            return [b"ok"]
        start_response("200 OK", [("Content-Type", "image/png"), ("Content-Length", str(len(stored)))])
        if kind == "file":
            return environ["wsgi.file_wrapper"](io.BytesIO(stored), 8192)
        return [stored] if kind == "list" else iter([stored[:5], stored[5:]])

    return app


def wrap(app, keyring, journal, **fields):
    return SecureFS(app, keyring=keyring, journal=journal, policy=Policy(**fields))


@pytest.mark.parametrize("kind", ["file", "list", "generator"])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_werkzeugs_lint_finds_nothing(place, kind, keyring, journal):
    """Its findings are warnings, which fail a test here. It takes the length in an answer to HEAD for a wrong one: GET only."""
    for stored in (seal(keyring), HTML):
        app = serving(kind, stored)
        if place == "inside":
            linted = wrap(LintMiddleware(app), keyring, journal)
        else:
            linted = LintMiddleware(wrap(app, keyring, journal))
        expected = HTML if stored is HTML else TEXT
        answer = call(linted, headers=[("Host", "x")])
        assert (answer.status, answer.body, answer.error) == (200, expected, None)
        # Inside, it hides that a file can seek. Of a body that can't, no more is read than the range
        # needs, and it takes that for a wrong length.
        if (kind, place) != ("file", "inside"):
            answer = call(linted, headers=[("Host", "x"), ("Range", "bytes=5-9")])
            # A plain body is sent in part where it is a file.
            assert answer.body == (HTML if stored is HTML and kind != "file" else expected[5:10])
        kind_of, body = multipart(("f", "a.txt", b"canary" * 100))
        answer = call(linted, "POST", body=body, headers=[("Host", "x"), ("Content-Type", kind_of)])
        assert answer.body == b"ok"
        assert b"canary" not in app.body


@pytest.mark.parametrize("refused", ["malformed", "tampered"])
def test_werkzeugs_lint_finds_nothing_in_a_refusal(refused, keyring, journal):
    stored = bytearray(seal(keyring))
    stored[100_000] ^= 1
    app = LintMiddleware(wrap(serving("file", bytes(stored)), keyring, journal))
    if refused == "tampered":
        assert call(app, headers=[("Host", "x")]).status == 500
    else:
        sent = [("Host", "x"), ("Content-Type", "multipart/form-data; boundary=x")]
        answer = call(app, "POST", body=b"garbage", headers=sent)
        assert answer.status == 400
        # A connection is the server's (PEP 3333): waitress and wsgiref refuse an app that speaks of
        # it.
        assert "connection" not in answer.headers


def test_a_refused_chunked_body_ends_the_connection_where_a_server_may_go_on_with_its_rest(keyring, journal):
    app = wrap(serving("list", b""), keyring, journal)
    sent = [("Content-Type", "multipart/form-data; boundary=x"), ("Transfer-Encoding", "chunked")]
    for software, ends in (("Cheroot/11.1.2 Server", True), (None, True), ("gunicorn/27.0.1", False)):
        for method in ("POST", "HEAD"):
            extra = {} if software is None else {"SERVER_SOFTWARE": software}
            answer = call(app, method, body=b"garbage", length="", headers=sent, **extra)
            assert answer.status == 400
            assert (answer.body == b"") == (method == "HEAD")
            assert (type(answer.error) is ConnectionResetError) is ends


def gzipping(app):
    """Compress what an app answers, as such middleware does: whole, with the header that says so."""

    def compressing(environ, start_response):
        got = []
        result = app(environ, lambda status, headers, exc_info=None: got.append((status, headers)))
        try:
            data = gzip.compress(b"".join(result))
        finally:
            if hasattr(result, "close"):
                result.close()
        ((status, headers),) = got
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Encoding", "gzip"), ("Content-Length", str(len(data)))])
        return [data]

    return compressing


@pytest.mark.parametrize("kind", ["file", "list", "generator"])
def test_compression_inside_is_fine_over_pages_and_refused_over_files(kind, keyring, journal):
    policy = {"protected_paths": ("/files/*",)}
    page = call(wrap(gzipping(serving(kind, HTML)), keyring, journal, **policy), path="/page")
    assert gzip.decompress(page.body) == HTML
    assert page.headers["content-encoding"] == "gzip"
    answer = call(wrap(gzipping(serving(kind, seal(keyring))), keyring, journal, **policy), path="/files/1")
    assert answer.status == 500
    assert journal.events() == [("file.decrypt", "failure", "compressed")]


@pytest.mark.parametrize("kind", ["file", "list", "generator"])
def test_compression_outside_compresses_the_plaintext(kind, keyring, journal):
    answer = call(gzipping(wrap(serving(kind, seal(keyring)), keyring, journal)))
    assert gzip.decompress(answer.body) == TEXT


def cutting(stored):
    """An app with an idea of its own of what a part is: the first thousand bytes."""

    def app(environ, start_response):
        headers = [("Content-Range", f"bytes 0-999/{len(stored)}"), ("Content-Length", "1000")]
        start_response("206 Partial Content", headers)
        return [stored[:1000]]

    return app


def test_a_part_that_the_app_cut_is_refused_where_it_is_ciphertext(keyring, journal):
    assert call(wrap(cutting(seal(keyring)), keyring, journal)).status == 500
    protected = wrap(cutting(HTML), keyring, journal, protected_paths=("/files/*",))
    assert call(protected, path="/files/1").status == 500
    answer = call(protected, path="/page")
    assert (answer.status, answer.body) == (206, HTML[:1000])
    assert answer.headers["content-range"] == f"bytes 0-999/{len(HTML)}"


SERVERS_THAT_CHUNK = ("gunicorn/27.0.1", "waitress", "Cheroot/11.1.2 Server")


@pytest.mark.parametrize(
    ("protocol", "software", "held"),
    [
        *(pytest.param("HTTP/1.1", software, False, id=software) for software in SERVERS_THAT_CHUNK),
        *(pytest.param("HTTP/1.0", software, True, id=f"{software}, 1.0") for software in SERVERS_THAT_CHUNK),
        pytest.param("HTTP/1.1", "WSGIServer/0.2 CPython/3.11", True, id="wsgiref"),
        pytest.param("HTTP/1.1", None, True, id="a server without a name"),
        pytest.param("HTTP/2", "gunicorn/27.0.1", True, id="another protocol"),
    ],
)
def test_a_body_whose_end_a_client_could_not_tell_is_held_until_its_length_is_known(
    protocol, software, held, keyring, journal
):
    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([stored[:3], stored[3:9], stored[9:]])

    stored = seal(keyring)
    extra = {} if software is None else {"SERVER_SOFTWARE": software}
    wrapped = wrap(app, keyring, journal, verify_first=0)
    answer = call(wrapped, SERVER_PROTOCOL=protocol, **extra)
    assert answer.body == TEXT
    assert ("content-length" in answer.headers) is held
    # No content is sent, so there is nothing to hold.
    assert "content-length" not in call(wrapped, "HEAD", SERVER_PROTOCOL=protocol, **extra).headers


@pytest.mark.parametrize(
    "server",
    [
        pytest.param({"SERVER_PROTOCOL": "HTTP/1.0"}, id="held"),
        pytest.param({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, id="streamed"),
    ],
)
@pytest.mark.parametrize("cut", [8, 100, 400])
def test_a_body_that_ends_in_its_header_is_refused_held_or_not(cut, server, keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([seal(keyring)[:cut]])

    assert call(wrap(app, keyring, journal, verify_first=0), **server).status == 500


def test_an_app_that_fails_while_its_body_is_held_fails_as_ever(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            yield seal(keyring)[:1000]
            raise KeyError("inside")

        return body()

    with pytest.raises(KeyError, match="inside"):
        call(wrap(app, keyring, journal), SERVER_PROTOCOL="HTTP/1.0")


def test_head_of_a_page_by_a_generator_has_no_length_that_nobody_knows(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([HTML])

    answer = call(wrap(app, keyring, journal), "HEAD")
    assert (answer.status, answer.headers, answer.body) == (200, {}, b"")
