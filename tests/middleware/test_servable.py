"""Which answers are files to decrypt, and which must not be served at all."""

from __future__ import annotations

import pytest
from support.answers import SOURCES, TEXT, app_of, file_source, seal, seal_format_1, wrap
from support.wsgi_client import call

from securefs.middleware import Policy


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("data", "length"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"", 0, id="nothing announced"),
        pytest.param(b"", 100, id="nothing where more was announced"),
        pytest.param(bytes(5000), 5000, id="zeros"),
        pytest.param(bytes(8), None, id="eight zeros"),
    ],
)
def test_a_file_that_was_emptied_is_refused_and_a_page_without_content_is_not(
    source, data, length, keyring, journal
):
    """What a crash leaves of a file. A list, or what was written, may be a page."""
    answer = call(wrap(app_of(SOURCES[source](data), length=length), keyring, journal), watched=False)
    page = source in {"list of one", "tuple", "write()", "write() and list"}
    refused = not page and bool(source.startswith("file") or data or length)
    assert (answer.status == 500) is refused, answer.status
    assert journal.events() == ([("file.integrity_failure", "failure", "not_encrypted")] if refused else [])


@pytest.mark.parametrize("source", SOURCES)
def test_on_a_format_1_path_what_is_no_good_file_is_refused(source, keyring, journal):
    policy = Policy(format_1_paths=("/old/*",))
    stored = seal_format_1(keyring)
    for bad in (
        b"",
        b"plaintext",
        stored[:-1],
        stored[:-16],
        stored[:-1] + bytes([stored[-1] ^ 1]),
        stored[:40] + bytes([stored[40] ^ 1]) + stored[41:],
    ):
        answer = call(wrap(app_of(SOURCES[source](bad)), keyring, journal, policy=policy), path="/old/x")
        assert answer.status == 500
        assert answer.body.startswith(b'{"type"')
    errors = wrap(
        app_of(SOURCES[source](b"no such file"), status="404 Not Found"), keyring, journal, policy=policy
    )
    assert call(errors, path="/old/x").body == b"no such file"


@pytest.mark.parametrize("source", SOURCES)
def test_on_a_protected_path_plaintext_is_refused(source, keyring, journal):
    policy = Policy(protected_paths=("/files/*",))
    app = wrap(app_of(SOURCES[source](b"plaintext of a forgotten import")), keyring, journal, policy=policy)
    answer = call(app, path="/files/1")
    assert (answer.status, b"forgotten" in answer.body) == (500, False)
    assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]
    expected = 500 if "file" in source else 200
    assert call(app, "POST", path="/files/1").status == expected, "a page may answer it, and no file"


@pytest.mark.parametrize("method", ["POST", "HEAD", ""])
def test_an_app_that_changes_its_environ_is_no_way_around_a_protected_path(method, keyring, journal):
    def app(environ, start_response):
        environ["REQUEST_METHOD"] = method
        environ["PATH_INFO"] = "/other"
        start_response("200 OK", [])
        return [b"plaintext"]

    answer = call(wrap(app, keyring, journal, policy=Policy(protected_paths=("/files/*",))), path="/files/1")
    assert (answer.status, b"plaintext" in answer.body) == (500, False)


@pytest.mark.parametrize(
    "header",
    [
        "X-Accel-Redirect",
        "X-Sendfile",
        "X-Sendfile2",
        "X-LIGHTTPD-send-file",
        "X-LiteSpeed-Location",
        "X-Reproxy-URL",
        "X-Reproxy-File",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_leaving_a_protected_file_to_the_proxy_is_refused(header, method, keyring, journal):
    app = app_of(lambda *_: [], headers=[(header, "/srv/x.enc")])
    for policy in (Policy(protected_paths=("/files/*",)), Policy(format_1_paths=("/files/*",))):
        assert call(wrap(app, keyring, journal, policy=policy), method, "/files/1").status == 500
        assert call(wrap(app, keyring, journal, policy=policy), method, "/other").status == 200


@pytest.mark.parametrize("source", ["list of one", "generator of 7", "file wrapper"])
def test_with_nothing_declared_a_file_may_be_left_to_the_proxy(source, keyring, journal):
    """Some apps announce its length, and have no content beside."""
    app = app_of(SOURCES[source](b""), headers=[("X-Sendfile", "/srv/x.png")], length=100)
    assert call(wrap(app, keyring, journal), watched=False).status == 200
    assert journal.events() == []


def test_no_content_on_a_protected_path_passes(keyring, journal):
    policy = Policy(protected_paths=("/files/*",))
    for status in ("204 No Content", "304 Not Modified", "302 Found", "412 Precondition Failed"):
        app = app_of(lambda *_: [], status=status)
        # Its 204 has a type, which PEP 3333 leaves to the app.
        answer = call(wrap(app, keyring, journal, policy=policy), path="/files/1", watched=False)
        assert answer.status == int(status[:3])


def test_a_part_of_the_ciphertext_that_the_app_cut_is_refused(keyring, journal):
    app = wrap(app_of(file_source(seal(keyring)), status="206 Partial Content"), keyring, journal)
    assert call(app).status == 500
    assert journal.events() == [("file.integrity_failure", "failure", "bad_header")]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("X-Accel-Redirect", "/srv/x.enc")], id="nginx"),
        pytest.param([("X-Sendfile", "/srv/x.enc")], id="apache"),
        pytest.param([("x-sendfile", "/srv/x.enc"), ("x-accel-redirect", "/srv/x.enc")], id="both"),
    ],
)
@pytest.mark.parametrize("bound", ["path", "object"])
@pytest.mark.parametrize("source", ["file wrapper", "list of one", "generator of 7", "write()"])
def test_a_file_that_is_left_to_the_proxy_is_refused_whatever_the_body_is(
    headers, bound, source, keyring, journal
):
    """The proxy sends the file that the header names, and not the body, whatever that is."""
    stored = seal(keyring, TEXT[:1000])
    policy = Policy(protected_paths=("/files/*",) if bound == "path" else ())
    inner = app_of(SOURCES[source](stored), headers=headers)

    def app(environ, start_response):
        if bound == "object":
            environ["securefs"].expect(stored[16:48].hex())
        return inner(environ, start_response)

    assert call(wrap(app, keyring, journal, policy=policy), path="/files/1").status == 500
    assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]
