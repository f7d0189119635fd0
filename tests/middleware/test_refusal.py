"""What a client is told of a refusal: a status and an id."""

from __future__ import annotations

import json
import re

import pytest

from securefs.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    JournalError,
    LimitExceededError,
    Reason,
    UnknownKeyError,
)
from securefs.middleware.refusal import Problem, Refusal, request_id

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
    ("given", "taken"),
    [
        pytest.param("abcd-EF.12_", True, id="well-formed"),
        pytest.param("short", False, id="too short"),
        pytest.param("x" * 64, True, id="longest"),
        pytest.param("x" * 65, False, id="too long"),
        pytest.param("abcdefgh\n", False, id="line end"),
        pytest.param("abcdefg<", False, id="markup"),
        pytest.param(None, False, id="none"),
    ],
)
def test_a_client_may_name_its_request(given, taken):
    assert (request_id(given) == given) is taken
    assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", request_id(given))


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
