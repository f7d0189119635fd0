"""Every case of tests/hostile, through the middleware, in front of an app with bad manners."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.hostile_corpus import accepted, load, params, parse, refused
from support.uploads import MIB, Lab, problem_of, seen_by
from support.wsgi_client import Input

from securefs.middleware import BodyRefusedError, Policy


@pytest.fixture
def lab_for(tmp_path):
    labs = []

    def make(case, **options):
        labs.append(Lab(tmp_path, policy=Policy(**case.policy, **options)))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.mark.parametrize("case", params(accepted()))
@pytest.mark.parametrize("spool", [pytest.param(False, id="exact"), pytest.param(True, id="spooled")])
def test_a_good_body_reaches_the_app_with_its_files_encrypted(case, spool, lab_for):
    lab = lab_for(case, spool=spool)
    answer = lab.send(case)
    assert answer.status == 200, answer.body
    assert seen_by(lab.app) == list(case.parts)
    files = [part for part in case.parts if part.filename]
    assert [record["outcome"] for record in lab.records("file.encrypt")] == ["started", "success"] * len(
        files
    )
    assert [(upload.size, upload.filename) for upload in lab.app.environ["securefs"].uploads] == [
        (len(part.content), part.filename.replace("%22", '"')) for part in files
    ]


def assert_refused(lab, answer, case):
    assert answer.status == case.status
    # What was not read of a chunked body is the next request for some servers: there the connection
    # ends.
    assert not answer.broken_off or case.chunked
    document = problem_of(answer)
    (record,) = lab.records("file.rejected")
    assert record["reason"] == case.reason
    assert record["req"] == document["request_id"]
    assert record["http"]["status"] == case.status
    reason = re.compile(case.reason.replace("_", ".?"), re.IGNORECASE)
    told = answer.body + repr(sorted(answer.headers.items())).encode()
    # It is told the rule that it broke, but no code. "limit" is a word of a title, and one code is
    # the name of a setting.
    named = case.reason in {"limit", "chunked_upload"}
    assert named or not reason.search(told.decode()), "the client learns the code"


@pytest.mark.parametrize("case", params(refused()))
def test_a_refused_body_is_answered_by_us_and_journalled(case, lab_for):
    lab = lab_for(case)
    answer = lab.send(case)
    assert_refused(lab, answer, case)
    if lab.app.calls:
        # Bodies that are not parsed are looked at when the app reads.
        assert isinstance(lab.app.error, BodyRefusedError)
    assert lab.app.got == b""


@pytest.mark.parametrize("case", params(refused()))
def test_a_refused_body_is_refused_in_spool_mode_before_the_app_runs(case, lab_for):
    lab = lab_for(case, spool=True)
    assert_refused(lab, lab.send(case), case)
    assert lab.app.got == b""


BEGINS_WELL = [
    case
    for case in load()
    if case.headers == (("Content-Type", "multipart/form-data; boundary=XX"),)
    and case.body.startswith(b"--XX\r\n")
    and not case.policy
]
LONG_BOUNDARY = (
    "XX0123456789abcdefghijklmnopqrstuvwxyz"  # with a short one there may be too much padding to stream
)


def with_a_large_file_before(case):
    """The same case behind a file that is too large to be looked at whole before the app runs."""
    large = b'--XX\r\nContent-Disposition: form-data; name="big"; filename="big"\r\n\r\n%s\r\n' % (
        b"0123456789abcdef" * (MIB // 16)
    )
    return replace(
        case,
        headers=(("Content-Type", f"multipart/form-data; boundary={LONG_BOUNDARY}"),),
        body=(large + case.body).replace(b"--XX", b"--" + LONG_BOUNDARY.encode()),
    )


@pytest.mark.parametrize("case", params([case for case in BEGINS_WELL if case.status]))
def test_an_app_that_streams_never_sees_a_refused_body_complete(case, lab_for):
    long = with_a_large_file_before(case)
    lab = lab_for(long)
    answer = lab.send(long)
    assert_refused(lab, answer, case)
    assert lab.app.calls == 1
    assert isinstance(lab.app.error, BodyRefusedError), "the app's read raised"
    assert len(lab.app.got) < lab.app.length
    boundary = lab.app.content_type.partition("boundary=")[2].encode()
    assert b"--" + boundary + b"--" not in lab.app.got
    assert b"canary" not in lab.app.got or case.name == "name-swallows-filename"
    # The large file was whole; every file that was begun has an outcome.
    outcomes = [record["outcome"] for record in lab.records("file.encrypt")]
    assert outcomes.count("started") == outcomes.count("success") + outcomes.count("failure")


@pytest.mark.parametrize(
    "case", params([case for case in BEGINS_WELL if not case.status and case.name != "chunk-without-file"])
)
def test_an_app_that_streams_sees_a_good_body_whole(case, lab_for):
    long = with_a_large_file_before(case)
    lab = lab_for(long)
    assert lab.send(long).status == 200
    big, *rest = seen_by(lab.app)
    assert (big.filename, len(big.content)) == ("big", MIB)
    assert [
        replace(part, content=part.content.replace(LONG_BOUNDARY.encode(), b"XX")) for part in rest
    ] == list(case.parts)


@pytest.mark.parametrize("case", params(load()))
def test_a_client_that_sends_one_byte_at_a_time_gets_the_same_verdict(case, lab_for):
    if len(case.body) > 2000:
        pytest.skip("long: in test_multipart.py, without the middleware")
    lab = lab_for(case)
    slow = Input(case.body, step=1)
    answer = lab.send(case, slow)
    assert answer.status == (case.status or 200)
    if case.status is None:
        assert seen_by(lab.app) == list(case.parts)


def test_every_row_of_the_design_has_cases():
    assert len(refused()) > 100
    assert len(accepted()) > 60
    assert {case.reason for case in refused()} >= {
        "malformed_multipart",
        "limit",
        "client_gone",
        "ciphertext_injection",
        "chunked_upload",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"# why\nexpect: 400 x\n", "three sections", id="one section"),
        pytest.param(b"expect: 400 x\n\nA: b\n\n", "say in a comment", id="no comment"),
        pytest.param(b"# why\nexpect: refused\n\nA: b\n\nx", "what is", id="unknown expectation"),
        pytest.param(b"# why\nexpect: 400 x\n\nA b\n\nx", "is no header", id="no header"),
        pytest.param(b"# why\nexpect: 400 x\n\nA: b\n\n\\q", "unknown escape", id="unknown escape"),
        pytest.param(b"# why\nexpect: 400 x\n\nA: b\n\n\\", "unknown escape", id="escape at the end"),
    ],
)
def test_a_case_that_is_written_wrongly_says_so(text, message):
    with pytest.raises(ValueError, match=f"nameless: .*{message}"):
        parse("nameless", text)


def test_the_syntax_of_a_case():
    case = parse(
        "nameless",
        b'# one\n# two\npolicy: max_files=3\npolicy: protected_paths=/x\npath: /p\nexpect: field "a" = "\\u00e9"\n\n'
        b"A: b\\x41\nTransfer-Encoding: chunked\n\nx\\0\\r\\n\\t\\\\\\\ny\\{ab*3}\n\nz\n",
    )
    assert case.why == "one two"
    assert case.policy == {"max_files": 3, "protected_paths": ("/x",)}
    assert (case.path, case.headers[0], case.chunked) == ("/p", ("A", "bA"), True)
    assert case.body == b"x\0\r\n\t\\yababab\r\n\r\nz\r\n"
    assert case.parts[0].content == b"\xe9"
