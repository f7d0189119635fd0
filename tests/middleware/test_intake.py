"""The request body: which of a form, a file and anything else it is, and what the app reads in its place."""

from __future__ import annotations

import io

import pytest
from support.uploads import KEYRING, problem_of
from support.wsgi_client import Input, call

from securefs import open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS

FORM = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nplaintext\r\n--B--\r\n'


@pytest.fixture
def send(journal):
    """Send a body; return (answer, what the app read, its environ)."""

    def send_it(
        body, content_type="multipart/form-data; boundary=B", method="POST", path="/up", extra=(), **options
    ):
        seen = {}

        def app(environ, start_response):
            seen.update(environ, read=environ["wsgi.input"].read())
            start_response("200 OK", [])
            return [b"ok"]

        wrapped = SecureFS(app, keyring=KEYRING, journal=journal, **options)
        headers = [("Host", "localhost")] + [("Content-Type", content_type)] * (content_type is not None)
        # wsgiref.validate objects to what some servers add.
        answer = call(
            wrapped, method, path, Input(body), headers, len(body), watched=not extra, **dict(extra)
        )
        return answer, seen.get("read"), seen

    return send_it


def test_a_form_is_written_anew(send):
    answer, read, environ = send(FORM)
    assert answer.status == 200
    assert MAGIC in read
    assert b"plaintext" not in read
    assert environ["CONTENT_LENGTH"] == str(len(read))
    assert environ["CONTENT_TYPE"].startswith("multipart/form-data; boundary=")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "PROPPATCH", "GET"])
def test_a_raw_upload_is_one_file_whatever_its_method_and_type(send, method):
    policy = Policy(raw_uploads=("/raw/*",))
    for content_type in ("multipart/form-data; boundary=B", "text/plain", None):
        _, read, environ = send(FORM, content_type, method, "/raw/1", policy=policy)
        assert environ["CONTENT_LENGTH"] == str(len(read))
        assert open_encrypted(io.BytesIO(read), KEYRING).read() == FORM


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
def test_an_empty_raw_upload_is_a_file_too(send, method):
    policy = Policy(raw_uploads=("/raw/*",))
    _, read, environ = send(b"", "text/plain", method, "/raw/1", policy=policy)
    assert environ["CONTENT_LENGTH"] == str(len(read))
    assert open_encrypted(io.BytesIO(read), KEYRING).read() == b""
    for nothing_stored in ("GET", "HEAD", "DELETE", "OPTIONS"):
        _, read, environ = send(b"", None, nothing_stored, "/raw/1", policy=policy)
        assert read == b""


def test_a_raw_upload_seals_the_type_that_it_has(send):
    policy = Policy(raw_uploads=("/raw/*",))
    for content_type, sealed in (
        ("text/plain", {"type": "text/plain"}),
        ("a/" + "b" * 125, {"type": "a/" + "b" * 125}),
        ("a/" + "b" * 126, {}),
        ("a/" + "b" * 70_000, {}),
        ("no type", {}),
    ):
        answer, read, _ = send(b"x", content_type, "PUT", "/raw/1", policy=policy)
        assert answer.status == 200
        assert open_encrypted(io.BytesIO(read), KEYRING).metadata == sealed


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", None])
def test_anything_else_goes_on_as_it_is(send, content_type):
    _, read, environ = send(FORM, content_type)
    assert read == FORM
    assert environ["CONTENT_LENGTH"] == str(len(FORM))


def test_nothing_else_may_start_like_a_container(send):
    answer, _, _ = send(MAGIC + b"...", "text/plain")
    assert problem_of(answer)["status"] == 400


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/mixed; boundary=B",
        "MULTIPART/related; boundary=B",
        "multipart",
        "*/form-data; boundary=B",
        "text/plain, multipart; boundary=B",
        "text/plain; boundary=B",
        "text",
        'text/plain; a="=?utf-8?q?b?="',
        "multipart/form-data; boundary=B; charset=utf-16",
        "text/plain; a=" + "b" * 2000,
    ],
)
def test_what_a_framework_may_take_for_a_form_is_refused_before_a_byte_is_read(journal, content_type):
    stream = Input(FORM)
    app = SecureFS(unreachable, keyring=KEYRING, journal=journal)
    answer = call(app, "POST", "/up", stream, [("Content-Type", content_type)], length=len(FORM))
    assert problem_of(answer)["status"] == 400
    assert stream.sizes == []
    (record,) = journal.records("file.rejected")
    assert record["reason"] == "malformed_multipart"


def unreachable(environ, start_response):
    raise AssertionError("the app was called")


@pytest.mark.parametrize("content_type", ["*/*", "no type", "a" * 5000])
def test_without_a_body_the_type_does_not_matter(journal, content_type):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["CONTENT_TYPE"].encode()]

    wrapped = SecureFS(app, keyring=KEYRING, journal=journal)
    answer = call(wrapped, "GET", "/up", None, [("Content-Type", content_type)])
    assert (answer.status, answer.body) == (200, content_type.encode())


def test_a_copy_of_the_type_and_the_length_is_taken_away(send):
    """CherryPy reads it, and the length at least is another one now."""
    copies = {
        "HTTP_CONTENT_TYPE": "multipart/form-data; boundary=B",
        "HTTP_CONTENT_LENGTH": str(len(FORM)),
    }
    answer, read, environ = send(FORM, extra=copies)
    assert answer.status == 200
    assert MAGIC in read
    assert not copies.keys() & environ.keys()


@pytest.mark.parametrize("content_type", [None, "text/plain"])
@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"HTTP_CONTENT_TYPE": "multipart/form-data; boundary=B"}, id="type"),
        pytest.param({"HTTP_CONTENT_LENGTH": "1"}, id="length"),
    ],
)
def test_a_second_type_or_length_is_refused(send, journal, content_type, second):
    """CherryPy and Django REST framework would read it: a server let ``Content_Type`` through."""
    answer, read, _ = send(FORM, content_type, extra=second)
    assert (answer.status, read) == (400, None)
    assert problem_of(answer)["status"] == 400
    (record,) = journal.records("file.rejected")
    assert record["reason"] == "malformed_multipart"


def test_a_length_under_another_name_alone_is_refused(journal):
    """The server reads no body then, but CherryPy would, off the connection."""
    wrapped = SecureFS(unreachable, keyring=KEYRING, journal=journal)
    answer = call(wrapped, "POST", "/up", None, [], watched=False, HTTP_CONTENT_LENGTH="5")
    assert problem_of(answer)["status"] == 400


DIGESTS = {
    "Content-MD5": "Q2hlY2sgSW50ZWdyaXR5IQ==",
    "Digest": "sha-256=AAAA",
    "Content-Digest": "sha-256=:AAAA:",
    "Repr-Digest": "sha-256=:AAAA:",
}


@pytest.mark.parametrize(
    ("path", "content_type", "kept"),
    [
        pytest.param("/up", "multipart/form-data; boundary=B", False, id="form"),
        pytest.param("/raw", "image/png", False, id="raw"),
        pytest.param("/up", "application/json", True, id="untouched"),
    ],
)
def test_digests_of_a_body_that_is_rewritten_do_not_reach_the_app(journal, path, content_type, kept):
    seen = []

    def app(environ, start_response):
        seen.append({name for name in DIGESTS if f"HTTP_{name.upper().replace('-', '_')}" in environ})
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return []

    wrapped = SecureFS(app, keyring=KEYRING, journal=journal, policy=Policy(raw_uploads=("/raw",)))
    headers = [("Content-Type", content_type), *DIGESTS.items()]
    assert call(wrapped, "POST", path, Input(FORM), headers, length=len(FORM)).status == 200
    assert seen == [set(DIGESTS) if kept else set()]


CHUNKED = b"%x\r\n" % len(FORM) + FORM + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "environ", "status"),
    [
        pytest.param(CHUNKED, {}, 400, id="chunks that nobody decoded"),
        pytest.param(FORM, {}, 200, id="decoded, and not said so"),
        pytest.param(b"\r\n" + FORM, {}, 200, id="an empty line"),
        pytest.param(b"text\r\n" + FORM, {"wsgi.input_terminated": True}, 200, id="decoded, with a preamble"),
    ],
)
def test_the_lengths_of_chunks_are_no_preamble(journal, body, environ, status):
    def app(environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return []

    headers = [("Content-Type", "multipart/form-data; boundary=B"), ("Transfer-Encoding", "chunked")]
    wrapped = SecureFS(app, keyring=KEYRING, journal=journal)
    answer = call(wrapped, "POST", "/up", Input(body), headers, watched=False, **environ)
    assert answer.status == status
