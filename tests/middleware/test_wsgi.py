"""The four gates of SecureFS: who asks, what comes in, what the app made of it, what goes out."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
import tempfile

import pytest
from support.sealing import keys_of, seal, seal_1
from support.servers import DEADLINE, app_environ
from support.wsgi_client import call, make_environ, multipart

from securefs import ConfigurationError, Keyring
from securefs.middleware import BodyRefusedError, Policy, SecureFS

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello " + (environ["securefs"].principal or "nobody").encode()]


def reading(environ, start_response):
    """An app that stores what it is sent, in memory."""
    reading.body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"stored"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"format": 1}, "SECUREFS_FORMAT", id="new files"),
        pytest.param({"format_1_paths": ("/old/*",)}, "SECUREFS_FORMAT_1_PATHS", id="old files"),
        pytest.param({"format": 1, "format_1_paths": ("/old/*",)}, "SECUREFS_FORMAT", id="both"),
    ],
)
def test_a_context_is_never_ignored(fields, named, keyring, journal):
    """Format 1 binds none: a tenant's file would open for every other."""

    def context(environ):
        return environ["tenant"].encode()

    with pytest.raises(ConfigurationError, match=f"{named}.*Policy.unbound_format_1=True") as caught:
        SecureFS(hello, keyring=keyring, journal=journal, context=context, policy=Policy(**fields))
    assert "SECUREFS_UNBOUND_FORMAT_1" in str(caught.value)
    SecureFS(hello, keyring=keyring, journal=journal, policy=Policy(**fields))
    SecureFS(hello, keyring=keyring, journal=journal, context=context, policy=Policy())
    policy = Policy(**fields, unbound_format_1=True)
    SecureFS(hello, keyring=keyring, journal=journal, context=context, policy=policy)


def test_files_that_are_said_to_be_unbound_open_beside_bound_ones(keyring, journal):
    bound = seal(b"content", ring=keyring, context=b"ann")
    files = {"/old/1": seal_1(b"content", keys_of(keyring)[0]), "/old/2": bound, "/2": bound}

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(files[environ["PATH_INFO"]]))

    policy = Policy(format_1_paths=("/old/*",), unbound_format_1=True)
    for tenant, opened in (("ann", {"/old/1", "/old/2", "/2"}), ("bob", {"/old/1"})):
        wrapped = SecureFS(
            app, keyring=keyring, journal=journal, context=lambda _, t=tenant: t.encode(), policy=policy
        )
        assert {path for path in files if call(wrapped, path=path).status == 200} == opened


def test_all_settings_come_from_the_environment_where_none_are_given(monkeypatch, capfd):
    monkeypatch.setenv("FILE_KEY_BASE64", KEY)
    monkeypatch.setenv("SECUREFS_SUITE", "aes-256-gcm")
    monkeypatch.delenv("SECUREFS_AUDIT_DIR", raising=False)
    app = SecureFS(reading)
    kind, body = multipart(("f", "a.txt", b"canary" * 100))
    assert call(app, "POST", body=body, headers=[("Content-Type", kind)]).status == 200
    assert b"canary" not in reading.body
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == [
        "server.start",
        "file.encrypt",
        "file.encrypt",
        "request.answered",
    ]
    assert lines[1]["obj"]["suite"] == "aes-256-gcm"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({}, "FILE_KEY_BASE64", id="no key"),
        pytest.param({"FILE_KEY_BASE64": "AAAA"}, "FILE_KEY_BASE64", id="short key"),
        pytest.param({"FILE_KEY_BASE64": KEY, "SECUREFS_SUITE": "rot13"}, "SECUREFS_SUITE", id="suite"),
        pytest.param({"FILE_KEY_BASE64": KEY, "SECUREFS_FORMAT": "3"}, "SECUREFS_FORMAT", id="format"),
        pytest.param(
            {"FILE_KEY_BASE64": KEY, "SECUREFS_AUDIT_DIR": "/nowhere/at/all"},
            "SECUREFS_AUDIT_DIR",
            id="journal",
        ),
    ],
)
def test_a_bad_setting_stops_the_program_in_one_line(variables, message, monkeypatch):
    for name in ("FILE_KEY_BASE64", "SECUREFS_SUITE", "SECUREFS_FORMAT", "SECUREFS_AUDIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message) as caught:
        SecureFS(hello)
    assert "\n" not in str(caught.value)
    assert variables.get("FILE_KEY_BASE64", "?") not in str(caught.value)


def test_a_key_that_cannot_seal_is_found_at_start(journal):
    short = Keyring(bytes(range(16)))
    with pytest.raises(ConfigurationError, match="Format 1 only"):
        SecureFS(hello, keyring=short, journal=journal, policy=Policy())
    SecureFS(hello, keyring=short, journal=journal, policy=Policy(format=1))


def test_no_principal_is_a_401_before_the_app_runs(keyring, journal):
    def never(environ, start_response):
        raise AssertionError("the app ran")

    app = SecureFS(never, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: None)
    for method in ("GET", "HEAD", "POST"):
        answer = call(app, method)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert (answer.body == b"") == (method == "HEAD")
    assert [event[:2] for event in journal.events()] == [("auth.denied", "failure")] * 3


@pytest.mark.parametrize("principal", [False, True, 0, 1, b"ann", ["ann"], {}], ids=repr)
def test_what_is_no_name_is_no_principal(principal, keyring, journal):
    """A predicate in the place of a function that names would let everybody in."""

    def never(environ, start_response):
        raise AssertionError("the app ran")

    app = SecureFS(
        never, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: principal
    )
    with pytest.raises(ConfigurationError, match="what authorize returns must be a str or None, not "):
        call(app)


def test_an_empty_name_is_nobody(keyring, journal):
    app = SecureFS(hello, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: "")
    assert call(app).status == 401


def test_a_principal_reaches_app_and_journal(keyring, journal):
    app = SecureFS(
        hello, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: "alice"
    )
    assert call(app).body == b"hello alice"
    kind, body = multipart(("f", "a.txt", b"data"))
    app = SecureFS(
        reading, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: "alice"
    )
    call(app, "POST", body=body, headers=[("Content-Type", kind)])
    assert {line["actor"]["id"] for line in journal.records()[1:]} == {"alice"}


def test_an_app_that_does_its_own_login_names_the_principal(keyring, journal):
    def app(environ, start_response):
        environ["securefs"].principal = "bob"
        return reading(environ, start_response)

    kind, body = multipart(("f", "a.txt", bytes(3 * 1024 * 1024)), boundary="-" * 40)
    call(
        SecureFS(app, keyring=keyring, journal=journal, policy=Policy()),
        "POST",
        body=body,
        headers=[("Content-Type", kind)],
    )
    assert journal.records()[-1]["actor"] == {"id": "bob"}


def test_a_denial_that_cannot_be_recorded_is_a_503(keyring, journal):
    journal.check()
    journal.lose()
    app = SecureFS(hello, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: None)
    assert call(app).status == 503


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("trace-0123456789", id="well-formed"),
        pytest.param("x" * 65, id="long"),
        pytest.param("x" * 5000, id="very long"),
        pytest.param('a"b\r\nX: y 0123456789', id="hostile"),
        pytest.param("", id="empty"),
    ],
)
def test_a_request_id_is_ours_and_the_clients_stands_beside_it(given, keyring, journal):
    """Two requests of one id could not be told apart, and a client chooses its ids."""
    app = SecureFS(hello, keyring=keyring, journal=journal, policy=Policy(), authorize=lambda environ: None)
    answer = call(app, headers=[("X-Request-ID", given)])
    named = json.loads(answer.body)["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", named)
    record = journal.records()[-1]
    assert answer.headers["x-request-id"] == named == record["req"]
    assert record.get("client_req", "") == given[:256]
    assert record.get("client_req_len", len(given)) == len(given)


def test_a_request_without_a_body_is_not_touched(keyring, journal):
    """Some clients send a multipart Content-Type with GET."""
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        return hello(environ, start_response)

    wrapped = SecureFS(app, keyring=keyring, journal=journal, policy=Policy())
    for length in (None, 0):
        assert call(wrapped, headers=[("Content-Type", "multipart/form-data")], length=length).status == 200
    assert {environ["CONTENT_TYPE"] for environ in seen} == {"multipart/form-data"}


@pytest.mark.parametrize(
    "kind", ["multipart/mixed; boundary=x", "multipart/related", "multipart", "text/plain, multipart/x"]
)
def test_another_multipart_type_is_refused(kind, keyring, journal):
    """Bottle and CherryPy read forms from any of them, and would store the files in plaintext."""
    app = SecureFS(reading, keyring=keyring, journal=journal, policy=Policy())
    assert call(app, "POST", "/", body=b"data", headers=[("Content-Type", kind)]).status == 400
    assert journal.events() == [("file.rejected", "failure", "malformed_multipart")]


def test_an_answer_begun_with_write_breaks_off_when_the_request_is_refused(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [])(b"begun")
        environ["wsgi.input"].read()
        return []

    kind, body = multipart(("f", "a.txt", bytes(3 * 1024 * 1024)), boundary="-" * 40)
    wrapped = SecureFS(app, keyring=keyring, journal=journal, policy=Policy())
    with pytest.raises(BodyRefusedError):
        call(wrapped, "POST", body=body[:-5], headers=[("Content-Type", kind)])
    assert journal.events()[-1] == ("file.rejected", "failure", "malformed_multipart")


@pytest.fixture
def small_disk():
    """Let no file of this process grow beyond 1.5 MiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 512 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_to_hold_an_upload_is_a_507(keyring, journal, small_disk):
    kind, body = multipart(("f", "a.txt", bytes(3 * 1024 * 1024)), boundary="-" * 40)
    wrapped = SecureFS(reading, keyring=keyring, journal=journal, policy=Policy(spool=True))
    assert call(wrapped, "POST", body=body, headers=[("Content-Type", kind)]).status == 507
    assert ("file.rejected", "failure", "io_error") in journal.events()


def test_no_temporary_folder_is_a_500_without_a_traceback(keyring, journal, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    kind, body = multipart(("f", "a.txt", bytes(3 * 1024 * 1024)), boundary="-" * 40)
    wrapped = SecureFS(reading, keyring=keyring, journal=journal, policy=Policy(spool=True))
    answer = call(wrapped, "POST", body=body, headers=[("Content-Type", kind)])
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")


class Gone(BaseException):
    """As a server's own timeout is: no Exception, so that no app catches it by mistake."""


class Answering:
    """What an app returns: fails at one of its steps, and notes that it was closed."""

    def __init__(self, error, step):
        self.error, self.step = error, step
        self.closed = 0

    def __iter__(self):
        if self.step == "iter":
            raise self.error
        return self

    def __next__(self):
        if self.step == "next":
            raise self.error
        return b"a page of plaintext"

    def close(self):
        self.closed += 1
        if self.step == "close":
            raise self.error


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), Gone(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()], ids=repr
)
@pytest.mark.parametrize(
    ("step", "head"),
    [
        pytest.param("iter", False, id="POST-iter"),
        pytest.param("next", False, id="POST-next"),
        pytest.param("start_response", False, id="POST-start_response"),
        pytest.param("close", False, id="POST-close"),
        pytest.param("iter", True, id="HEAD-iter"),
        pytest.param("next", True, id="HEAD-next"),
        pytest.param("start_response", True, id="HEAD-start_response"),
    ],
)
def test_the_app_s_answer_and_the_upload_are_closed_whatever_ends_the_request(
    error, step, head, keyring, journal
):
    """The server gets an error in place of an answer, so that it has nothing to close."""
    answering, bodies = Answering(error, step), []

    def app(environ, start_response):
        bodies.append(environ["wsgi.input"])
        start_response("200 OK", [])
        return answering

    def start_response(status, headers, exc_info=None):
        if step == "start_response":
            raise error
        return lambda data: None

    kind, body = multipart(("f", "a.bin", bytes(3 * 1024 * 1024)), boundary="-" * 40)
    environ = make_environ("POST", "/", body, [("Content-Type", kind)])
    if head:
        environ = make_environ("HEAD", "/") | {
            name: environ[name] for name in ("CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.input")
        }
    wrapped = SecureFS(app, keyring=keyring, journal=journal, policy=Policy())
    with pytest.raises(type(error)):
        wrapped(environ, start_response).close()
    assert answering.closed == 1
    assert bodies[0].closed
    assert [event[:2] for event in journal.events()] == [
        ("file.encrypt", "started"),
        ("file.encrypt", "failure"),
    ]


def test_a_record_of_the_app_s_own_is_a_success_of_the_least_severity(keyring, journal):
    def app(environ, start_response):
        environ["securefs"].record("file.encrypt", about={"name": "n", "field": None, "role": ""})
        return hello(environ, start_response)

    assert call(SecureFS(app, keyring=keyring, journal=journal, policy=Policy()), path="/a").status == 200
    line = journal.records()[-1]
    assert (line["event"], line["outcome"], line["sev"]) == ("file.encrypt", "success", 1)
    assert line["obj"] == {"name": "n"}, "what is None or empty is left out"
    assert line["http"] == {"method": "GET", "path": "/a"}


CHECKED = """
from securefs.middleware import SecureFS


def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]


app = SecureFS(app)
"""


@pytest.mark.server
@pytest.mark.parametrize("declared", [False, True])
def test_a_check_of_the_configuration_tells_an_app_that_declares_nothing(declared, tmp_path):
    """`gunicorn --check-config` loads the app, and so an operator reads the warning before the first request."""
    (tmp_path / "checked.py").write_text(CHECKED)
    stores = {"SECUREFS_STORES": str(tmp_path)} if declared else {}
    checked = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config", "checked:app"],
        env=app_environ(tmp_path, **stores),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert checked.returncode == 0, checked.stderr
    assert ("no store is declared" in checked.stderr) is not declared
