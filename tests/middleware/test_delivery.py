"""What is recorded of a file on its way, and sources that misbehave."""

from __future__ import annotations

import hashlib
import io

import pytest
from support.sealing import KEY, OTHER_KEY, SUITES, chosen, pattern, seal, seal_1, slot_of
from support.wsgi_client import call, make_environ

from securefs import ConfigurationError, Encryptor, Keyring, SourceError, Suite
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
    lines = [line for line in journal.records() if line["event"] != "server.start"]
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


@pytest.mark.parametrize("first", [b"x", b"plaintext that is no file of ours", b"\x89SFS"])
def test_expect_holds_for_what_is_written_too(first, journal):
    def app(environ, start_response):
        environ["securefs"].expect("ab" * 32)
        write = start_response("200 OK", [])
        write(first)
        write(b"more")
        return []

    answer = call(SecureFS(app, keyring=RING, journal=journal))
    assert answer.status == 500
    assert b"more" not in answer.body
    assert ("file.integrity_failure", "failure", "not_encrypted") in journal.events()


def test_what_is_written_and_no_file_of_ours_is_never_held(journal, monkeypatch):
    """A page goes straight on, however long it is: nothing of it is written to a disk."""
    monkeypatch.setattr("securefs.middleware.response.Spool", None)

    def app(environ, start_response):
        write = start_response("200 OK", [])
        for _ in range(3):
            write(TEXT)
        return []

    assert call(SecureFS(app, keyring=RING, journal=journal)).body == 3 * TEXT


@pytest.mark.parametrize("data", [None, "text", 5])
def test_what_is_written_and_no_bytes_is_the_app_s_error(data, journal):
    def app(environ, start_response):
        start_response("200 OK", [])(data)
        return []

    with pytest.raises(SourceError):
        call(SecureFS(app, keyring=RING, journal=journal), watched=False)


@pytest.mark.parametrize("verify_first", [0, None])
@pytest.mark.parametrize("good", [1, 10])
def test_an_app_s_own_error_is_recorded_as_one_and_not_as_a_client_that_went_away(
    good, verify_first, journal
):
    stored = seal(TEXT)

    def failing(environ):
        for at in range(0, good * 9000, 9000):
            yield stored[at : at + 9000]
        raise KeyError("the app's own")

    app = SecureFS(
        app_of(failing), keyring=Keyring(KEY), journal=journal, policy=Policy(verify_first=verify_first)
    )
    try:
        got = call(app, watched=False, SERVER_SOFTWARE="gunicorn/27", SERVER_PROTOCOL="HTTP/1.1")
        assert isinstance(got.error, KeyError)
    except KeyError:
        pass
    started = [event for event in journal.events() if event[1] == "started"]
    ended = [event for event in journal.events() if event[1] != "started"]
    assert len(started) == len([event for event in ended if event == ("file.decrypt", "failure", "io_error")])
    assert not [event for event in ended if event[2] == "client_gone"]


def test_no_more_is_drawn_of_a_body_than_was_announced(journal):
    """A part was promised of a body of that length: one that goes on is given up, and not gathered to its end."""
    stored, drawn = seal(TEXT, Suite.GCM), []

    def endless(environ):
        for at in range(0, len(stored), 9000):
            yield stored[at : at + 9000]
        for _ in range(500):
            drawn.append(1)
            yield bytes(9000)

    app = SecureFS(
        app_of(endless, len(stored)), keyring=Keyring(KEY), journal=journal, policy=Policy(verify_first=0)
    )
    got = call(app, watched=False, SERVER_SOFTWARE="gunicorn/27", SERVER_PROTOCOL="HTTP/1.1")
    assert got.error is not None
    assert len(drawn) <= 2


def test_a_keyring_without_file_keys_beside_format_1_stops_the_program(journal):
    class Service:
        kind, key_id, payload_size = 2, bytes(16), 80
        wrap = unwrap = lambda *_: None

    ring = Keyring.of(Service(), Service())
    for policy in (Policy(format=1), Policy(format_1_paths=("/old/*",))):
        with pytest.raises(ConfigurationError, match="holds no file key"):
            SecureFS(app_of(by_list(b"")), keyring=ring, journal=journal, policy=policy)


def changed(stored, at=-1000):
    return stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]


class Unreadable(io.BytesIO):
    """A file on a disk that is broken behind its first bytes."""

    def read(self, size=-1):
        if self.tell() > 0:
            raise OSError(5, "Input/output error")
        return super().read(size)


STARTED = ("file.decrypt", "started", 1, None)


SEVERITIES = {
    "sent": (by_list, seal(TEXT), [STARTED, ("file.decrypt", "success", 1, None)]),
    "changed": (
        by_list,
        changed(seal(TEXT), 1000),
        [STARTED, ("file.integrity_failure", "failure", 4, "tag_mismatch")],
    ),
    "changed at its end": (
        by_list,
        changed(seal(TEXT)),
        [("file.integrity_failure", "failure", 4, "tag_mismatch")],
    ),
    "changed in its header": (
        by_list,
        changed(seal(TEXT), 60),
        [("file.integrity_failure", "failure", 4, None)],
    ),
    "cut": (by_list, seal(TEXT)[:-1], [("file.integrity_failure", "failure", 4, "truncated")]),
    "under a key that is not held": (
        by_list,
        seal(TEXT, ring=Keyring(bytes(range(7, 39)))),
        [("file.integrity_failure", "failure", 3, "unknown_key")],
    ),
    "no header at all": (
        by_list,
        seal(TEXT)[:8] + bytes(100),
        [("file.integrity_failure", "failure", 4, "bad_header")],
    ),
    "on a disk that is broken": (
        lambda stored: lambda environ: environ["wsgi.file_wrapper"](Unreadable(stored)),
        seal(TEXT),
        [("file.decrypt", "failure", 3, "io_error")],
    ),
    "of a source that gives text": (
        lambda stored: lambda environ: iter([stored[:1000], "text"]),
        seal(TEXT),
        [("file.decrypt", "failure", 3, "io_error")],
    ),
}


@pytest.mark.parametrize(("way", "stored", "events"), SEVERITIES.values(), ids=SEVERITIES)
def test_each_event_of_a_download_has_its_severity(way, stored, events, journal):
    """Tampering is flushed to the disk at once; a key that was retired too early is less severe."""
    call(SecureFS(app_of(way(stored)), keyring=RING, journal=journal), watched=False)
    lines = [line for line in journal.records() if line["event"] != "server.start"]
    found = [(line["event"], line["outcome"], line["sev"], line.get("reason")) for line in lines]
    if events[-1][-1] is None and events[-1][1] == "failure":
        # Which of its fields was hit is not what this is about.
        found[-1] = (*found[-1][:3], None)
    assert found == events


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
def test_a_client_that_goes_away_and_an_app_that_fails_are_no_tampering(known, journal):
    stored = seal(TEXT, Suite.GCM)

    def failing(environ):
        yield stored[:100_000]
        raise KeyError("the app's own")

    length = len(stored) if known else None
    policy = Policy(verify_first=0)
    for source, chunks in ((by_generator(stored), 1), (failing, None)):
        app = SecureFS(app_of(source, length), keyring=RING, journal=journal, policy=policy)
        call(app, chunks=chunks, watched=False, SERVER_SOFTWARE="gunicorn/27", SERVER_PROTOCOL="HTTP/1.1")
    lines = [line for line in journal.records() if line["event"] != "server.start"]
    assert [(line["event"], line["outcome"], line["sev"], line.get("reason")) for line in lines] == [
        STARTED,
        ("file.decrypt", "failure", 2, "client_gone"),
        STARTED,
        ("file.decrypt", "failure", 3, "io_error"),
    ]


@pytest.mark.parametrize("at", [1000, -1000], ids=["first segment", "last segment"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suite", SUITES)
def test_what_is_recorded_of_a_failure_is_what_the_file_claims(suite, way, at, journal):
    stored = changed(seal(TEXT, suite), at)
    call(SecureFS(app_of(WAYS[way](stored)), keyring=RING, journal=journal))
    number = 0 if at > 0 else (len(stored) - 433) // suite.sealed_size
    sealed = stored[432:-1][number * suite.sealed_size : (number + 1) * suite.sealed_size]
    expected = {"id": chosen().file_id.hex(), "segment": number, "digest": hashlib.sha256(sealed).hexdigest()}
    if at > 0:
        # It was opened: more is known of it.
        expected |= {"key_id": key_id(KEY).hex(), "format": 2, "suite": suite.label, "size": len(TEXT)}
        expected |= {"start": 0, "stop": len(TEXT)}
    assert journal.records()[-1]["obj"] == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_format_1_file_that_fails_has_no_object_id(way, journal):
    """It has none: bytes of its ciphertext in the journal would look like one."""
    app = SecureFS(
        app_of(WAYS[way](changed(seal_1(TEXT)))),
        keyring=RING,
        journal=journal,
        policy=Policy(format_1_paths=("*",)),
    )
    assert call(app).status == 500
    line = journal.records()[-1]
    assert (line["event"], line["sev"]) == ("file.integrity_failure", 4)
    assert "id" not in line.get("obj", {})


def test_a_format_2_file_that_does_not_open_is_known_by_the_id_that_it_claims(journal):
    stored = changed(seal(TEXT), 70)
    app = SecureFS(app_of(by_file(stored)), keyring=RING, journal=journal)
    assert call(app).status == 500
    assert journal.records()[-1]["obj"]["id"] == chosen().file_id.hex()


@pytest.mark.parametrize("software", ["gunicorn/27", "another"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suite", SUITES)
def test_a_request_for_headers_alone_leaves_no_record(suite, way, software, journal):
    """No content goes out, so that nobody went away before its end either."""
    stored = seal(TEXT, suite)
    app = SecureFS(
        app_of(WAYS[way](stored), len(stored)), keyring=RING, journal=journal, policy=Policy(verify_first=0)
    )
    assert call(app, "HEAD", SERVER_SOFTWARE=software, SERVER_PROTOCOL="HTTP/1.1").status == 200
    assert journal.records() == []


# --- which part of a file, and how much of it


def with_metadata(**metadata):
    encryptor = Encryptor(Keyring(KEY), metadata=metadata)
    return encryptor.update(TEXT) + encryptor.finalize()


NAMED = with_metadata(name="ré\u0301sumé.pdf", type="a/b")


def ranges_of(journal, event="file.decrypt"):
    keys = ("start", "stop", "parts", "sent")
    return [
        (record["outcome"], {key: record["obj"][key] for key in keys if key in record["obj"]})
        for record in journal.records(event)
    ]


@pytest.mark.parametrize("verify_first", [0, None], ids=["streamed", "held"])
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(None, {"start": 0, "stop": 200_000, "sent": 200_000}, id="all"),
        pytest.param("bytes=0-0", {"start": 0, "stop": 1, "sent": 1}, id="a byte"),
        pytest.param("bytes=100000-100009", {"start": 100_000, "stop": 100_010, "sent": 10}, id="amid"),
        pytest.param("bytes=-7", {"start": 199_993, "stop": 200_000, "sent": 7}, id="the end"),
        pytest.param("bytes=200000-", {"sent": 0}, id="nothing"),
    ],
)
def test_a_download_says_which_part_was_asked_for_and_how_much_was_sent(asked, said, verify_first, journal):
    app = SecureFS(
        app_of(by_file(NAMED)), keyring=RING, journal=journal, policy=Policy(verify_first=verify_first)
    )
    answer = call(app, headers=[("Range", asked)] if asked else [])
    assert len(answer.body) == said["sent"]
    begun = {key: value for key, value in said.items() if key != "sent"}
    assert ranges_of(journal) == [("started", begun), ("success", said)]


def test_of_several_ranges_it_says_where_and_how_many(journal):
    app = SecureFS(app_of(by_file(NAMED)), keyring=RING, journal=journal)
    answer = call(app, headers=[("Range", "bytes=90-99,10-19,50-59")])
    said = {"start": 10, "stop": 100, "parts": 3, "sent": len(answer.body)}
    assert ranges_of(journal)[-1] == ("success", said)


@pytest.mark.parametrize("suite", SUITES)
def test_so_does_one_that_is_sent_as_it_is_read(suite, journal):
    """Its length may be known at its end only."""
    policy = Policy(verify_first=0)
    stored = seal(TEXT, suite)
    app = SecureFS(app_of(by_generator(stored), len(stored)), keyring=RING, journal=journal, policy=policy)
    server = {"SERVER_SOFTWARE": "gunicorn/27"}
    assert call(app, **server).body == TEXT
    assert ranges_of(journal) == [
        ("started", {"start": 0}),
        ("success", {"start": 0, "stop": 200_000, "sent": 200_000}),
    ]
    assert call(app, headers=[("Range", "bytes=70000-70009")], **server).body == TEXT[70_000:70_010]
    assert ranges_of(journal)[2:] == [
        ("started", {"start": 70_000, "stop": 70_010}),
        ("success", {"start": 70_000, "stop": 70_010, "sent": 10}),
    ]


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("verify_first", [0, None])
def test_a_range_that_is_held_or_not_granted_is_told_as_it_was_sent(announced, verify_first, journal):
    stored = seal(TEXT)
    app = SecureFS(
        app_of(by_generator(stored), len(stored) if announced else None),
        keyring=RING,
        journal=journal,
        policy=Policy(verify_first=verify_first),
    )
    answer = call(app, headers=[("Range", "bytes=70000-70009")], SERVER_SOFTWARE="gunicorn/27")
    begun, ended = ranges_of(journal)
    if answer.status == 206:
        assert begun == ("started", {"start": 70_000, "stop": 70_010})
        assert ended == ("success", {"start": 70_000, "stop": 70_010, "sent": 10})
    else:
        assert begun[1]["start"] in {0, 70_000}
        assert ended == ("success", {"start": 0, "stop": 200_000, "sent": 200_000})


def test_a_client_that_goes_away_has_what_was_handed_out(journal):
    stored = seal(pattern(3 << 20))
    app = SecureFS(app_of(by_file(stored)), keyring=RING, journal=journal, policy=Policy(verify_first=0))
    answer = app(make_environ("GET", "/"), lambda *_: None)
    got = len(next(iter(answer)))
    answer.close()
    assert ranges_of(journal)[-1] == ("failure", {"start": 0, "stop": 3 << 20, "sent": got})


def test_a_file_that_fails_later_has_what_was_sent_before(journal):
    stored = changed(seal(pattern(3 << 20)))
    app = SecureFS(app_of(by_file(stored)), keyring=RING, journal=journal, policy=Policy(verify_first=0))
    answer = call(app)
    assert answer.error is not None
    assert ranges_of(journal, "file.integrity_failure") == [
        ("failure", {"start": 0, "stop": 3 << 20, "sent": len(answer.body)})
    ]


def test_a_download_has_the_name_that_is_sealed_in_the_file(journal):
    call(SecureFS(app_of(by_file(NAMED)), keyring=RING, journal=journal))
    assert {record["obj"]["name"] for record in journal.records("file.decrypt")} == {"ré\u0301sumé.pdf"}


@pytest.mark.parametrize("metadata", [{}, {"name": ""}, {"name": 5}])
def test_a_file_without_a_name_has_none_in_the_journal(metadata, journal):
    call(SecureFS(app_of(by_file(with_metadata(**metadata))), keyring=RING, journal=journal))
    assert all("name" not in record["obj"] for record in journal.records("file.decrypt"))
