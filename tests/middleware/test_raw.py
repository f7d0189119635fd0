"""Bodies that are files themselves: PUT and POST on the paths that the policy names."""

from __future__ import annotations

import io
import os

import pytest
from support.uploads import problem_of
from support.wsgi_client import Input, call

from securefs import Keyring, Suite, open_encrypted
from securefs.middleware import FileRefusedError, Policy, SecureFS

KEY = Keyring(bytes(range(32)))
LONG = os.urandom(3 * 1024 * 1024 + 5)


class Store:
    """Keeps the body that a PUT brought, and what it was told of it."""

    def __init__(self):
        self.body = b""
        self.environ = {}

    def __call__(self, environ, start_response):
        self.environ = environ
        self.body = environ["wsgi.input"].read()
        start_response("201 Created", [])
        return [b"stored"]


def put(
    store, journal, data, *, method="PUT", path="/objects/1", length=True, inspect=None, headers=(), **policy
):
    policy = Policy(raw_uploads=("/objects/*",), **policy)
    app = SecureFS(store, keyring=KEY, journal=journal, policy=policy, inspect=inspect)
    if length:
        return call(app, method, path, data, headers)
    return call(app, method, path, Input(data), [("Transfer-Encoding", "chunked"), *headers])


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1_048_576, len(LONG)])
@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("length", [True, False])
def test_a_raw_body_is_encrypted_under_its_exact_length(size, suite, length, journal):
    store = Store()
    kind = [("Content-Type", "image/png")]
    assert put(store, journal, LONG[:size], suite=suite, length=length, headers=kind).status == 201
    assert store.environ["CONTENT_LENGTH"] == str(len(store.body))
    assert store.environ["CONTENT_TYPE"] == "image/png"
    with open_encrypted(io.BytesIO(store.body), KEY) as file:
        assert file.read() == LONG[:size]
        assert file.metadata == {"type": "image/png"}
    (upload,) = store.environ["securefs"].uploads
    assert (upload.object_id, upload.size) == (file.object_id, size)
    assert [event[:2] for event in journal.events()] == [
        ("file.encrypt", "started"),
        ("file.encrypt", "success"),
    ]


def test_whatever_its_type_a_body_there_is_a_file(journal):
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "", "nonsense\x7f"):
        store = Store()
        assert put(store, journal, b"canary", method="POST", headers=[("Content-Type", kind)]).status == 201
        with open_encrypted(io.BytesIO(store.body), KEY) as file:
            assert file.read() == b"canary"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/elsewhere"), ("POST", "/object/1")])
def test_elsewhere_a_body_passes_as_it_is(method, path, journal):
    store = Store()
    assert put(store, journal, b"plain", method=method, path=path).status == 201
    assert store.body == b"plain"


def test_format_1_bodies_are_written_too(journal):
    store = Store()
    assert put(store, journal, LONG, format=1).status == 201
    assert store.environ["CONTENT_LENGTH"] == str(len(store.body))
    with open_encrypted(io.BytesIO(store.body), KEY, format_1=True) as file:
        assert file.read() == LONG


def test_a_stored_ciphertext_posted_again_is_refused_unless_allowed(journal):
    first, second = Store(), Store()
    put(first, journal, b"canary")
    answer = put(second, journal, first.body)
    assert "ciphertext_uploads" in problem_of(answer)["detail"]
    assert journal.events()[-1] == ("file.rejected", "failure", "ciphertext_injection")
    assert b"canary" not in second.body
    put(second, journal, first.body, ciphertext_uploads="allow")
    with open_encrypted(io.BytesIO(second.body), KEY) as file:
        assert file.read() == first.body


def test_an_inspector_looks_at_raw_bodies_too(journal):
    def inspect(part, chunks):
        if b"virus" in b"".join(chunks):
            raise FileRefusedError("found")

    store = Store()
    assert put(store, journal, b"clean", inspect=inspect).status == 201
    bad = Store()
    assert put(bad, journal, b"virus", inspect=inspect).status == 400
    assert bad.body == b""
    assert journal.events()[-1] == ("file.rejected", "failure", "inspection")


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_raw_body_that_the_app_does_not_read_is_no_file_and_has_no_record(method, journal):
    def absent(_environ, start_response):
        start_response("404 Not Found", [])
        return [b"no such object"]

    assert put(absent, journal, LONG, method=method).status == 404
    assert journal.events() == []


@pytest.mark.parametrize("read", [1, len(LONG)])
def test_a_raw_body_that_the_app_reads_in_part_is_a_failure(read, journal):
    def partial(environ, start_response):
        environ["wsgi.input"].read(read)
        start_response("404 Not Found", [])
        return [b"no such object"]

    assert put(partial, journal, LONG).status == 404
    assert journal.events() == [
        ("file.encrypt", "started", None),
        ("file.encrypt", "failure", "io_error"),
    ]


def test_a_raw_body_that_breaks_off_is_refused(journal):
    app = SecureFS(Store(), keyring=KEY, journal=journal, policy=Policy(raw_uploads=("/objects/*",)))
    answer = call(app, "PUT", "/objects/1", LONG, length=len(LONG) + 1)
    assert answer.status == 400
    assert journal.events()[-1] == ("file.rejected", "failure", "client_gone")


@pytest.mark.parametrize("when", ["start", "end"])
def test_a_raw_body_that_cannot_be_recorded_is_not_stored(when, journal):
    journal.check()

    class Losing(Input):
        def read(self, size=-1):
            journal.lose()
            return super().read(size)

    if when == "start":
        journal.lose()
    store = Store()
    app = SecureFS(store, keyring=KEY, journal=journal, policy=Policy(raw_uploads=("/objects/*",)))
    body = Losing(LONG) if when == "end" else Input(LONG)
    assert call(app, "PUT", "/objects/1", body, length=len(LONG)).status == 503
    assert store.body == b""
