"""Every limit of Policy through the whole middleware: what reaches it is served, what passes it is not, and the journal says so.

A field of Policy that is neither in the tables here nor in the list of choices is a limit without a
test, and fails one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
from support.clock import Clock
from support.hostile_corpus import Expected
from support.uploads import BROWSER_TYPE, KEYRING, MIB, browser_body, field, problem_of, seen_by
from support.wsgi_client import Input, call

from securefs import Encryptor
from securefs.middleware import BodyRefusedError, Policy, intake
from securefs.middleware.source import BodySource
from securefs.middleware.waiting import _GRACE

NAME_LINE = 'Content-Disposition: form-data; name=""'  # a field's shortest header


def file(filename="f", content=b"canary"):
    return Expected("f", content, filename, "text/plain")


@dataclass(frozen=True)
class Upload:
    """A limit on what is sent: parts that reach it, and parts that pass it by one."""

    limit: int
    most: list[Expected]
    above: list[Expected]


UPLOADS = {
    "max_body": Upload(len(browser_body([field()])), [field()], [field(content=b"xx")]),
    "max_files": Upload(2, [file()] * 2, [file()] * 3),
    "max_fields": Upload(2, [field()] * 2, [field()] * 3),
    "max_field_bytes": Upload(4, [field(content=b"1234")], [field(content=b"12345")]),
    "max_part_header": Upload(
        100, [field("n" * (100 - len(NAME_LINE)))], [field("n" * (101 - len(NAME_LINE)))]
    ),
}


@dataclass(frozen=True)
class Pace:
    """A limit on time: a policy under which ``seconds`` are just enough for so many bytes."""

    policy: Policy
    seconds: float


PACES = {
    "body_timeout": lambda received: Pace(Policy(body_timeout=10, min_rate=0), 10),
    "min_rate": lambda received: Pace(Policy(min_rate=received), _GRACE + 1),
}

STORED_SIZE = 2 * MIB  # bytes of plaintext: what is short is verified first whatever the policy says


def sealed() -> bytes:
    encryptor = Encryptor(KEYRING)
    return encryptor.update(bytes(STORED_SIZE)) + encryptor.finalize()


def tampered(stored: bytes) -> bytes:
    changed = bytearray(stored)
    changed[-1000] ^= 1
    return bytes(changed)


@dataclass(frozen=True)
class Download:
    """A limit on what is served: a request, its outcome (status, broken off) at the limit and one above, failures on record.

    ``limits`` are the values that the request just reaches, by the way in which the app gives the
    file.
    """

    stored: bytes
    range: str | None
    limits: dict[str, int]
    reached: tuple[int, bool]
    passed: tuple[int, bool]
    reasons: list[str]


GOOD = sealed()
BAD = tampered(GOOD)
DOWNLOADS = {
    "verify_first": Download(
        # Of what can seek it is the plaintext that counts, of what can't all that is to be held.
        BAD,
        None,
        {"file": STORED_SIZE, "generator": len(BAD)},
        reached=(500, False),
        passed=(200, True),
        reasons=["tag_mismatch"],
    ),
    "max_ranges": Download(
        GOOD,
        "bytes=0-1,4-5,8-9",
        {"file": 3, "generator": 3},
        reached=(206, False),
        passed=(200, False),
        reasons=[],
    ),
}
CHOICES = {
    "keep_paths",
    "chunked_uploads",
    "raw_uploads",
    "restore_metadata",
    "suite",
    "format",
    "format_1_paths",
    "protected_paths",
    "spool",
    "stores",
    "upload_paths",
    "plain_uploads",
    "plain_fields",
    "file_fields",
    "ciphertext_uploads",
    "other_bodies",
    "unbound_format_1",
    "trusted_proxies",
}
SEVERAL_REQUESTS = {"max_waiting"}  # test_waiting.py, and the slow clients of test_campaigns.py
SHORTENED = {"max_filename"}  # no limit of what is sent: test_upload.py
FORMAT_1 = {"max_format_1"}  # test_download_limits.py


def test_no_field_of_the_policy_is_a_limit_without_a_test():
    tables = [UPLOADS.keys(), PACES.keys(), DOWNLOADS.keys(), CHOICES, SEVERAL_REQUESTS, SHORTENED, FORMAT_1]
    assert sorted(name for table in tables for name in table) == sorted(item.name for item in fields(Policy))


def assert_refused(lab, answer, status, reason):
    """The client learns a status, the journal why, and the app that its body is none."""
    assert answer.status == status
    document = problem_of(answer)
    (record,) = lab.records("file.rejected")
    assert (record["reason"], record["http"]["status"]) == (reason, status)
    assert record["req"] == document["request_id"]
    begun = [entry["obj"]["id"] for entry in lab.records("file.encrypt") if entry["outcome"] == "started"]
    ended = [entry["obj"]["id"] for entry in lab.records("file.encrypt") if entry["outcome"] != "started"]
    assert sorted(begun) == sorted(ended), "a file that was begun has an outcome"


# --- what is sent

FRAMINGS = {
    "length": {},
    "byte by byte": {"step": 1},
    "chunked": {"length": "absent"},
}


@pytest.mark.parametrize("name", UPLOADS)
@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_a_limit_may_be_reached_and_not_passed(lab_of, name, framing):
    row = UPLOADS[name]
    policy = Policy(**{name: row.limit})
    lab = lab_of(policy=policy)
    assert lab.post(BROWSER_TYPE, browser_body(row.most), **framing).status == 200
    assert [part.content for part in seen_by(lab.app)] == [part.content for part in row.most]
    assert lab.records("file.rejected") == []
    lab = lab_of(policy=policy)
    answer = lab.post(BROWSER_TYPE, browser_body(row.above), **framing)
    assert_refused(lab, answer, 413, "limit")
    assert lab.app.calls == 0


@pytest.mark.parametrize("name", [name for name in UPLOADS if name != "max_body"])
def test_a_limit_that_is_passed_when_the_app_reads_already_ends_its_reading(lab_of, name):
    """Beyond 1 MiB a body streams. How long it is as a whole is known before."""
    row = UPLOADS[name]
    lead = file(content=bytes(3 * MIB))
    policy = Policy(**{name: row.limit})
    policy = replace(policy, max_files=policy.max_files + 1)
    lab = lab_of(policy=policy)
    assert lab.post(BROWSER_TYPE, browser_body([lead, *row.most])).status == 200
    assert len(seen_by(lab.app)) == 1 + len(row.most)
    lab = lab_of(policy=policy)
    answer = lab.post(BROWSER_TYPE, browser_body([lead, *row.above]))
    assert_refused(lab, answer, 413, "limit")
    assert isinstance(lab.app.error, BodyRefusedError)
    assert len(lab.app.got) > MIB, "the first file was on its way"
    closing = lab.app.content_type.partition("boundary=")[2].encode() + b"--"
    assert closing not in lab.app.got, "nothing that looks complete"


@pytest.mark.parametrize("length", [pytest.param(None, id="length"), pytest.param("absent", id="chunked")])
def test_a_raw_body_has_the_limit_of_all_bodies(lab_of, length):
    policy = Policy(max_body=100, raw_uploads=("/raw",))
    lab = lab_of(policy=policy)
    assert lab.post("image/png", bytes(100), path="/raw", length=length).status == 200
    lab = lab_of(policy=policy)
    assert_refused(lab, lab.post("image/png", bytes(101), path="/raw", length=length), 413, "limit")
    assert lab.app.calls == 0


def test_an_empty_file_input_counts_as_a_field(lab_of):
    lab = lab_of(policy=Policy(max_files=1, max_fields=1))
    body = browser_body([file(filename="", content=b""), file("a.txt")])
    assert lab.post(BROWSER_TYPE, body).status == 200
    assert [part.filename for part in seen_by(lab.app)] == ["", "a.txt"]


# --- how long it takes


class Slow(Input):
    """A body of which the read at ``position`` takes ``seconds``."""

    def __init__(self, data, clock, position, seconds):
        super().__init__(data)
        self.clock, self.slow_at, self.seconds = clock, position, seconds

    def read(self, size=-1):
        if self.position == self.slow_at:
            self.clock.now += self.seconds
        return super().read(size)


@pytest.fixture
def clock(monkeypatch):
    """The clock that every body is timed by: the source takes it as an argument, which the middleware leaves out."""
    clock = Clock()
    monkeypatch.setattr(intake, "BodySource", partial(BodySource, clock=clock))
    return clock


@pytest.mark.parametrize("name", PACES)
@pytest.mark.parametrize(
    ("size", "slow_at", "begun"),
    [pytest.param(1000, 0, False, id="short"), pytest.param(3 * MIB, MIB, True, id="streamed")],
)
def test_a_body_may_take_as_long_as_the_limit_and_no_longer(lab_of, clock, name, size, slow_at, begun):
    body = browser_body([file(content=bytes(size))])
    row = PACES[name](min(slow_at + MIB, len(body)))
    lab = lab_of(policy=row.policy)
    assert lab.post(BROWSER_TYPE, Slow(body, clock, slow_at, row.seconds)).status == 200
    assert len(seen_by(lab.app)) == 1
    assert lab.records("file.rejected") == []
    lab = lab_of(policy=row.policy)
    answer = lab.post(BROWSER_TYPE, Slow(body, clock, slow_at, row.seconds + 0.01))
    assert_refused(lab, answer, 408, "timeout")
    assert bool(lab.app.calls) is begun
    assert isinstance(lab.app.error, BodyRefusedError) is begun


# --- what is served

WAYS = {
    "file": lambda environ, stored: environ["wsgi.file_wrapper"](io.BytesIO(stored), 8192),
    "generator": lambda environ, stored: (stored[at : at + 8192] for at in range(0, len(stored), 8192)),
}


@pytest.mark.parametrize("name", DOWNLOADS)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_served_depends_on_whether_the_limit_is_passed(lab_of, name, way):
    row = DOWNLOADS[name]

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(row.stored)))])
        return WAYS[way](environ, row.stored)

    for limit, outcome in ((row.limits[way], row.reached), (row.limits[way] - 1, row.passed)):
        lab = lab_of(app, policy=Policy(**{name: limit}))
        headers = [] if row.range is None else [("Range", row.range)]
        # A server whose chunks show where an answer breaks off.
        answer = call(lab.wrapped, headers=headers, SERVER_SOFTWARE="gunicorn/27")
        assert (answer.status, answer.broken_off) == outcome
        if answer.status == 200:
            assert (len(answer.body) == STORED_SIZE) is not answer.broken_off
        if answer.status == 500:
            problem_of(answer)
        failures = [record for record in lab.records() if record["event"] == "file.integrity_failure"]
        assert [record["reason"] for record in failures] == row.reasons
