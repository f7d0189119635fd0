"""What a client is told of a refusal: a status and an id."""

from __future__ import annotations

import io
import json

import pytest
from support.journals import file_size_limit
from support.sealing import RING, seal
from support.uploads import BROWSER_TYPE, MIB, browser_body, file
from support.wsgi_client import Input, call

from securefs import Keyring
from securefs.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    JournalError,
    LimitExceededError,
    Reason,
    UnknownKeyError,
)
from securefs.middleware import Policy, SecureFS
from securefs.middleware.refusal import Problem, Refusal

CLIENTS_FAULT = {
    Reason.CHUNKED_UPLOAD,
    Reason.CIPHERTEXT_INJECTION,
    Reason.CLIENT_GONE,
    Reason.INSPECTION,
    Reason.LIMIT,
    Reason.MALFORMED_MULTIPART,
    Reason.TIMEOUT,
    Reason.UNDECLARED,
}


STATUSES = [400, 401, 408, 413, 415, 500, 503, 507]


@pytest.mark.parametrize("status", STATUSES)
def test_a_problem_document_says_a_status_and_an_id(status):
    line_, headers, body = Problem(status, None, "request-1").answer({})
    found = dict(headers)
    assert line_.startswith(f"{status} ")
    assert json.loads(body)["request_id"] == found["X-Request-ID"] == "request-1"
    assert found["Cache-Control"] == "no-store"
    assert ("WWW-Authenticate" in found) is (status == 401)


@pytest.mark.parametrize("status", STATUSES)
def test_a_page_and_a_document_have_the_same_headers_but_for_type_length_and_style(status):
    answers = [
        Problem(status, "why", "request-1").answer({"HTTP_ACCEPT": accept}) for accept in ("text/html", "*/*")
    ]
    of_page, of_document = (dict(headers) for _, headers, _ in answers)
    assert of_page.keys() == of_document.keys()
    different = {name for name, value in of_page.items() if value != of_document[name]}
    assert different == {"Content-Type", "Content-Length", "Content-Security-Policy"}
    assert of_page["Content-Length"] == str(len(answers[0][2]))
    assert of_page["Content-Security-Policy"].startswith(of_document["Content-Security-Policy"])


@pytest.mark.parametrize("reason", [None, *Reason])
@pytest.mark.parametrize("status", STATUSES)
def test_a_client_is_told_its_own_faults_and_nothing_else(status, reason):
    """Whatever has to do with a stored file, a key or the journal is a reason of the other kind."""
    told = Refusal(status, reason, "which rule").told
    if status >= 500 or reason not in CLIENTS_FAULT:
        assert told is None
    elif reason is Reason.INSPECTION:
        assert told == "a file was refused by an inspection", "the inspector's words are not for clients"
    else:
        assert told == "which rule"


def test_a_problem_document_tells_the_rule():
    _, _, body = Problem(413, 'more than 3 "files" \x85 (max_files)', "request-1").answer({})
    assert body.isascii()
    assert json.loads(body)["detail"] == 'more than 3 "files" \x85 (max_files)'


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        pytest.param(JournalError("x"), 503, Reason.JOURNAL_ERROR, id="journal"),
        pytest.param(IntegrityError("x"), 500, Reason.TAG_MISMATCH, id="integrity"),
        pytest.param(FormatError("x"), 500, Reason.BAD_HEADER, id="format"),
        pytest.param(UnknownKeyError("x"), 500, Reason.UNKNOWN_KEY, id="key"),
        pytest.param(LimitExceededError("x"), 500, Reason.LIMIT, id="limit"),
        pytest.param(ConfigurationError("x"), 500, Reason.IO_ERROR, id="another"),
    ],
)
def test_an_error_of_the_core_has_a_status(error, status, reason):
    refusal = Refusal.of(error)
    assert (refusal.status, refusal.reason) == (status, reason)
    assert refusal.recorded is isinstance(error, JournalError)


# --- what the operator is told

PROTECTED = Policy(protected_paths=("/files/*",))
STORED = seal(b"x" * 1000)


def answering(body, *, status="200 OK", headers=()):
    def app(environ, start_response):
        start_response(status, [("Content-Type", "a/b"), *headers])
        return body(environ)

    return app


def expecting(environ):
    environ["securefs"].expect("ab" * 32)
    return [b"page"]


def of_store(environ):
    return environ["wsgi.file_wrapper"](open("store/f", "rb"))  # noqa: PTH123  # the server closes it


FAULTS = {
    "a page on a protected path": ({"policy": PROTECTED}, answering(lambda _: [b"page"]), "protected_paths"),
    "a page on a path of Format 1": (
        {"policy": Policy(format_1_paths=("/files/*",), max_format_1=1)},
        answering(lambda _: [bytes(96)]),
        "max_format_1",
    ),
    "a page that is expected to be a file": ({}, answering(expecting), "expect()"),
    "ciphertext from elsewhere": (
        {"policy": Policy(protected_paths=("/other/*",))},
        answering(lambda _: [STORED]),
        "SECUREFS_PROTECTED_PATHS",
    ),
    "a file left to the proxy": (
        {"policy": PROTECTED},
        answering(lambda _: [b""], headers=[("X-Accel-Redirect", "/x")]),
        "SECUREFS_PROTECTED_PATHS",
    ),
    "an empty file": (
        {},
        answering(lambda environ: environ["wsgi.file_wrapper"](io.BytesIO())),
        "SECUREFS_STORES",
    ),
    "plaintext in a store": ({"stores": ["store"]}, answering(of_store), "SECUREFS_STORES"),
    "a link out of a store": ({"stores": ["store"]}, answering(of_store), "SECUREFS_STORES"),
    "a device in a store": ({"stores": ["/dev"]}, answering(of_store), "SECUREFS_STORES"),
    "a key that is not there": (
        {"keyring": Keyring(bytes(range(1, 33))), "policy": PROTECTED},
        answering(lambda _: [STORED]),
        "FILE_KEY_BASE64_PREVIOUS",
    ),
    "nobody": ({"authorize": lambda environ: None}, answering(lambda _: []), "authorize"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_an_operator_may_have_caused_names_the_setting(fault, journal, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "securefs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    target = {"a link out of a store": tmp_path / "f", "a device in a store": "/dev/null"}
    (tmp_path / "f").write_bytes(b"page")
    (tmp_path / "store" / "f").symlink_to(target[fault]) if fault in target else (
        tmp_path / "store" / "f"
    ).write_bytes(b"page")
    options, app, named = FAULTS[fault]
    wrapped = SecureFS(app, **{"keyring": RING, "journal": journal, "policy": Policy(), **options})
    caplog.clear()
    answer = call(wrapped, path="/files/1")
    assert answer.status in {401, 500}
    assert "detail" not in json.loads(answer.body)
    (message,) = caplog.messages
    assert named in message


def upload(journal, **options):
    def app(environ, start_response):
        while environ["wsgi.input"].read(65_536):
            pass
        start_response("200 OK", [])
        return [b""]

    wrapped = SecureFS(app, keyring=RING, journal=journal, policy=Policy(spool=True), **options)
    body = Input(browser_body([file(content=bytes(5 * MIB))]))
    return call(wrapped, "POST", "/", body, [("Content-Type", BROWSER_TYPE)], length=len(body.data))


def test_what_cannot_be_held_or_recorded_names_the_setting(journal, caplog):
    journal.check()
    with file_size_limit(2 * MIB):
        assert upload(journal).status in {500, 507}
    assert "TMPDIR" in caplog.messages[-1]
    journal.lose()
    assert upload(journal).status == 503
    assert "SECUREFS_AUDIT_DIR" in caplog.messages[-1]
