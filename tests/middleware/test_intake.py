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

    def send_it(body, content_type="multipart/form-data; boundary=B", method="POST", path="/up", **options):
        seen = {}

        def app(environ, start_response):
            seen.update(environ, read=environ["wsgi.input"].read())
            start_response("200 OK", [])
            return [b"ok"]

        wrapped = SecureFS(app, keyring=KEYRING, journal=journal, **options)
        headers = [("Host", "localhost")] + [("Content-Type", content_type)] * (content_type is not None)
        answer = call(wrapped, method, path, Input(body), headers, length=len(body))
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
    "content_type", ["multipart/mixed; boundary=B", "MULTIPART/related; boundary=B", "multipart"]
)
def test_other_multipart_types_are_refused(send, content_type):
    answer, read, _ = send(FORM, content_type)
    assert (answer.status, read) == (400, None)
