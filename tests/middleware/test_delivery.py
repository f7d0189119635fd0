"""What is recorded of a file on its way, and sources that misbehave."""

from __future__ import annotations

import io

import pytest
from sealing import KEY, OTHER_KEY, SUITES, chosen, pattern, seal, slot_of
from wsgi_client import call

from securefs import Keyring, SourceError, Suite
from securefs.header import slot_table
from securefs.keys import key_id
from securefs.middleware import Policy, SecureFS

TEXT = pattern(200_000)
RING = Keyring(OTHER_KEY, [KEY])


def by_file(stored):
    return lambda environ: environ["wsgi.file_wrapper"](io.BytesIO(stored))


def by_generator(stored):
    return lambda environ: iter([stored[at : at + 9000] for at in range(0, len(stored), 9000)])


def by_list(stored):
    return lambda environ: [stored]


WAYS = {"file": by_file, "generator": by_generator, "list": by_list}


def app_of(source, length=None):
    def app(environ, start_response):
        headers = [] if length is None else [("Content-Length", str(length))]
        start_response("200 OK", headers)
        return source(environ)

    return app


def planted(suite: Suite, *slots: tuple[bytes, bytes, int]) -> bytes:
    data = seal(TEXT, suite)
    table = [slot_of(key, data[:48], dek, generation) for key, dek, generation in slots]
    return data[:48] + slot_table(table, max(2, len(table)), 160) + data[376:]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("verify_first", [0, None])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suite", SUITES)
def test_a_planted_slot_is_in_the_journal_and_the_file_is_served(suite, way, verify_first, method, journal):
    stored = planted(suite, (OTHER_KEY, chosen().dek, 1), (KEY, bytes(range(32)), 9), (KEY, bytes(32), 4))
    app = SecureFS(
        app_of(WAYS[way](stored), len(stored)),
        keyring=RING,
        journal=journal,
        policy=Policy(verify_first=verify_first),
    )
    answer = call(app, method, SERVER_SOFTWARE="gunicorn/27", SERVER_PROTOCOL="HTTP/1.1")
    assert (answer.status, answer.body) == (200, TEXT if method == "GET" else b"")
    lines = [line for line in journal.lines() if line["event"] != "server.start"]
    found = [line for line in lines if line["event"] == "file.integrity_failure"]
    assert [(line["obj"]["slot"], line["sev"], line["reason"]) for line in found] == [
        (1, 4, "commitment_mismatch"),
        (2, 4, "commitment_mismatch"),
    ]
    assert {line["obj"]["key_id"] for line in found} == {key_id(KEY).hex()}
    assert {line["obj"]["id"] for line in found} == {chosen().file_id.hex()}
    assert lines[:2] == found, "before anything is said of the file itself"
    if method == "GET":
        assert [line["outcome"] for line in lines[2:]] == ["started", "success"]
        assert {line["obj"]["key_id"] for line in lines[2:]} == {key_id(OTHER_KEY).hex()}
    assert call(app, "GET").status == 200


def test_a_planted_slot_that_can_t_be_recorded_is_a_503(journal):
    stored = planted(Suite.GCM, (OTHER_KEY, chosen().dek, 1), (KEY, bytes(range(32)), 9))
    app = SecureFS(app_of(by_file(stored)), keyring=RING, journal=journal)
    journal.close()
    answer = call(app)
    assert answer.status == 503
    assert TEXT[:50] not in answer.body


class Odd(io.BytesIO):
    """Answers its first reads as a file does, then with what no file may give."""

    def __init__(self, data, answer, good):
        super().__init__(data)
        self.answer, self.good = answer, good

    def read(self, size=-1, /):
        data = super().read(size)
        self.good -= 1
        return data if self.good >= 0 else self.answer


ODD = [None, "text", -1, [1, 2], bytes(10**6)]


@pytest.mark.parametrize("answer", ODD, ids=lambda answer: repr(answer)[:10])
@pytest.mark.parametrize("good", range(1, 6))
@pytest.mark.parametrize("suite", SUITES)
def test_a_file_that_misbehaves_is_a_clean_500_or_broken_off(suite, answer, good, journal):
    stored = seal(TEXT, suite)
    app = SecureFS(
        app_of(lambda environ: environ["wsgi.file_wrapper"](Odd(stored, answer, good))),
        keyring=Keyring(KEY),
        journal=journal,
    )
    got = call(app)
    assert got.status in {200, 500}
    if got.status == 500:
        assert got.headers["content-type"] == "application/problem+json"
        assert ("file.decrypt", "failure", "io_error") in journal.events()
    else:
        assert got.body == TEXT


@pytest.mark.parametrize("answer", ODD[:4], ids=repr)
@pytest.mark.parametrize("good", [1, 5, 20])
@pytest.mark.parametrize("verify_first", [0, None])
@pytest.mark.parametrize("suite", SUITES)
def test_a_generator_that_gives_no_bytes_is_refused_or_broken_off(suite, answer, good, verify_first, journal):
    stored = seal(TEXT, suite)
    chunks = [stored[at : at + 9000] for at in range(0, len(stored), 9000)]
    chunks[good:good] = [answer]
    app = SecureFS(
        app_of(lambda environ: iter(chunks)),
        keyring=Keyring(KEY),
        journal=journal,
        policy=Policy(verify_first=verify_first),
    )
    got = call(app, watched=False, SERVER_SOFTWARE="gunicorn/27", SERVER_PROTOCOL="HTTP/1.1")
    assert got.status == 500 or isinstance(got.error, SourceError)
    assert ("file.decrypt", "failure", "io_error") in journal.events()
    assert TEXT.startswith(got.body) or got.status == 500


def test_a_first_chunk_that_is_no_bytes_is_the_app_s_error(journal):
    app = SecureFS(app_of(lambda environ: iter(["text"])), keyring=Keyring(KEY), journal=journal)
    with pytest.raises(SourceError, match="str"):
        call(app, watched=False)
