"""What the app serves: decrypted where it is ours, refused where it was changed, untouched where it is not."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path
from wsgiref.util import FileWrapper as ServerWrapper

import pytest
from support.answers import (
    SOURCES,
    TEXT,
    Closable,
    OneWay,
    app_of,
    file_source,
    pieces,
    seal,
    seal_format_1,
    wrap,
)
from support.wsgi_client import call, make_environ

from securefs import Encryptor, Keyring, SourceError, Suite
from securefs.middleware import Policy

MIB = 1024 * 1024
CHUNKS = {"SERVER_SOFTWARE": "gunicorn/27"}  # a server whose chunks show a break
OK = [
    ("file.decrypt", "started", None),
    ("file.decrypt", "success", None),
]


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("source", SOURCES)
def test_ciphertext_of_any_source_arrives_as_plaintext(source, suite, keyring, journal):
    stored = seal(keyring, TEXT[:70_000] if source == "generator of 7" else TEXT, suite)
    expected = TEXT[:70_000] if source == "generator of 7" else TEXT
    app = wrap(app_of(SOURCES[source](stored), length=len(stored)), keyring, journal)
    answer = call(app, path="/x")
    assert (answer.status, answer.error) == (200, None)
    assert answer.body == expected
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.headers["content-type"] == "image/png"
    assert journal.events() == OK


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100_000])
@pytest.mark.parametrize("source", SOURCES)
def test_plaintext_of_any_source_passes_untouched(source, size, keyring, journal):
    data = TEXT[:size].replace(b"\x89", b"x")
    answer = call(wrap(app_of(SOURCES[source](data), length=size), keyring, journal))
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers == {"content-type": "image/png", "content-length": str(size)}
    assert journal.records() == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_tampered_file_is_a_clean_500_with_no_byte_of_it(source, keyring, journal):
    stored = bytearray(seal(keyring))
    segment = 376 + 56 + 2 * 65_600
    stored[segment + 50] ^= 1
    answer = call(wrap(app_of(SOURCES[source](bytes(stored))), keyring, journal))
    assert answer.status == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"tag" not in answer.body
    assert all(TEXT[i : i + 16] not in answer.body for i in range(0, 1000, 16))
    failures = [line for line in journal.records() if line["event"] == "file.integrity_failure"]
    assert len(failures) == 1
    assert failures[0]["reason"] == "tag_mismatch"
    assert failures[0]["obj"]["segment"] == 2
    assert failures[0]["obj"]["digest"] == hashlib.sha256(stored[segment : segment + 65_600]).hexdigest()
    assert failures[0]["http"]["status"] == 500


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_app_returned_is_closed_once(source, keyring, journal):
    for stored in (seal(keyring), b"plain", seal(keyring)[:-1]):
        app = app_of(SOURCES[source](stored))
        closed = []

        def closing(environ, start_response, app=app, closed=closed):
            result = app(environ, start_response)
            if hasattr(result, "file"):
                result.close = lambda: closed.append(1)
                return result
            counted = Closable(result)
            counted.close = lambda: closed.append(1)
            return counted

        call(wrap(closing, keyring, journal))
        assert closed == [1]


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("verify_first", [0, None], ids=["streamed", "verified first"])
@pytest.mark.parametrize(
    ("size", "step"),
    [
        pytest.param(70_000, 1, id="one byte"),
        pytest.param(200_000, 65_599, id="a segment less one"),
        pytest.param(200_000, 65_600, id="a segment"),
        pytest.param(200_000, 65_601, id="a segment and one"),
        pytest.param(11 * MIB, 10 * MIB, id="10 MiB"),
    ],
)
def test_chunks_of_any_size_with_empty_ones_between_are_one_file(
    size, step, verify_first, known, suite, keyring, journal
):
    data = os.urandom(size)
    stored = seal(keyring, data, suite)

    def chunks(environ, write):
        for piece in pieces(stored, step):
            yield b""
            yield piece
        yield b""

    app = app_of(chunks, length=len(stored) if known else None)
    answer = call(wrap(app, keyring, journal, policy=Policy(verify_first=verify_first)), **CHUNKS)
    assert (answer.status, answer.error, answer.body == data) == (200, None, True)
    assert answer.headers.get("content-length", str(size)) == str(size)
    assert journal.events() == OK


def test_the_list_that_an_app_returned_reaches_the_server_itself(keyring, journal):
    """A server sets Content-Length for a list of one item, and knows nothing of a wrapper's items."""
    given = [b"hello"]
    app = wrap(app_of(lambda environ, write: given), keyring, journal)
    assert app({"REQUEST_METHOD": "GET"}, lambda status, headers, exc_info=None: None) is given


def test_a_plain_file_reaches_the_servers_own_file_wrapper(keyring, journal):
    file = io.BytesIO(b"plain")
    app = wrap(app_of(lambda environ, write: environ["wsgi.file_wrapper"](file, 99)), keyring, journal)
    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": ServerWrapper}
    result = app(environ, lambda status, headers, exc_info=None: None)
    assert isinstance(result, ServerWrapper)
    assert (result.filelike, result.blksize, file.tell()) == (file, 99, 0)


def test_the_servers_environ_is_left_as_it_is(keyring, journal):
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        start_response("200 OK", [])
        return []

    environ = {
        "REQUEST_METHOD": "HEAD",
        "HTTP_RANGE": "bytes=0-1",
        "HTTP_IF_RANGE": "x",
        "wsgi.file_wrapper": ServerWrapper,
    }
    before = dict(environ)
    wrap(app, keyring, journal)(environ, lambda status, headers, exc_info=None: None)
    assert environ == before
    assert not {"HTTP_RANGE", "HTTP_IF_RANGE"} & seen[0].keys()
    assert seen[0]["REQUEST_METHOD"] == "GET"
    assert seen[0]["wsgi.file_wrapper"] is not ServerWrapper


@pytest.mark.parametrize("suite", Suite)
def test_a_long_body_that_comes_once_streams_segment_by_segment(suite, keyring, journal):
    stored = seal(keyring, suite=suite)
    drawn = []

    def source(environ, write):
        for piece in pieces(stored, 1000):
            drawn.append(len(piece))
            yield piece

    policy = Policy(verify_first=0)
    app = wrap(app_of(source, length=len(stored)), keyring, journal, policy=policy)
    answer = call(app, **CHUNKS)
    assert answer.body == TEXT
    assert answer.headers.get("content-length") == (str(len(TEXT)) if suite is Suite.GCM else None)
    drawn.clear()
    assert TEXT.startswith(call(app, chunks=1, **CHUNKS).body)
    assert sum(drawn) < 140_000, "the client took one segment and the next is ready"
    assert journal.events()[-1] == ("file.decrypt", "failure", "client_gone")


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("known", [True, False])
def test_a_failure_in_mid_stream_breaks_off(suite, known, keyring, journal):
    """Neither a full length nor a proper end: no client can take the part for the whole."""
    stored = bytearray(seal(keyring, suite=suite))
    stored[-1000] ^= 1
    chunks = Closable(pieces(bytes(stored), 1000))
    policy = Policy(verify_first=100)
    app = wrap(
        app_of(lambda *_: chunks, length=len(stored) if known else None), keyring, journal, policy=policy
    )
    answer = call(app, **CHUNKS)
    assert answer.broken_off
    assert TEXT.startswith(answer.body)
    assert len(answer.body) < len(TEXT)
    assert chunks.closed == 1
    assert journal.events() == [
        ("file.decrypt", "started", None),
        ("file.integrity_failure", "failure", "tag_mismatch"),
    ]


def test_a_long_seekable_file_knows_its_end_before_its_first_byte(keyring, journal):
    stored = seal(keyring)
    for cut in (1, 65_600, len(stored) - 500):
        answer = call(
            wrap(app_of(file_source(stored[:-cut])), keyring, journal, policy=Policy(verify_first=0))
        )
        assert answer.status == 500


def test_a_long_seekable_file_is_sent_while_it_is_verified(keyring, journal):
    data = os.urandom(3 * MIB)
    stored = bytearray(seal(keyring, data))
    policy = Policy(verify_first=MIB)
    assert call(wrap(app_of(file_source(bytes(stored))), keyring, journal, policy=policy)).body == data
    stored[-100_000] ^= 1
    answer = call(wrap(app_of(file_source(bytes(stored))), keyring, journal, policy=policy))
    assert answer.broken_off
    assert answer.status == 200
    assert data.startswith(answer.body)
    clean = call(wrap(app_of(file_source(bytes(stored))), keyring, journal, policy=Policy(verify_first=None)))
    assert (clean.status, clean.broken_off) == (500, False)


@pytest.mark.parametrize("source", ["file wrapper", "generator with empty chunks", "write()"])
def test_head_gives_the_headers_that_get_would(source, keyring, journal):
    for stored in (seal(keyring), b"plain text"):
        app = wrap(app_of(SOURCES[source](stored), headers=[("ETag", '"x"')]), keyring, journal)
        get, head = call(app), call(app, "HEAD")
        assert (head.status, head.body) == (get.status, b"")
        left_out = get.headers.keys() - head.headers.keys()
        assert head.headers.items() <= get.headers.items()
        # Where a generator ends, only its end tells: HEAD does not read so far.
        unread = source == "generator with empty chunks" and stored != b"plain text"
        assert left_out == ({"content-length", "accept-ranges"} if unread else set())


def test_head_of_a_list_has_the_length_that_a_server_would_count(keyring, journal):
    app = wrap(app_of(lambda *_: [b"four", b"!"]), keyring, journal)
    assert call(app, "HEAD").headers["content-length"] == "5"


def test_head_of_a_broken_file_is_a_500_without_content(keyring, journal):
    answer = call(wrap(app_of(file_source(seal(keyring)[:-1])), keyring, journal), "HEAD")
    assert (answer.status, answer.body) == (500, b"")
    assert journal.events() == [("file.integrity_failure", "failure", "truncated")]


def ranged(app, header, **kwargs):
    return call(app, headers=[("Range", header), *kwargs.pop("headers", ())], **kwargs)


@pytest.mark.parametrize("suite", Suite)
def test_a_range_is_of_the_plaintext(suite, keyring, journal):
    app = wrap(app_of(file_source(seal(keyring, suite=suite)), headers=[("ETag", '"t"')]), keyring, journal)
    answer = ranged(app, "bytes=65530-65550")
    assert (answer.status, answer.body) == (206, TEXT[65_530:65_551])
    assert answer.headers["content-range"] == f"bytes 65530-65550/{len(TEXT)}"
    assert answer.headers["content-length"] == "21"
    assert answer.headers["etag"] == '"t"'
    assert ranged(app, "bytes=-5").body == TEXT[-5:]
    assert ranged(app, "bytes=5-4").body == TEXT
    assert ranged(app, "bytes=0-1", headers=[("If-Range", '"t"')]).status == 206
    assert ranged(app, "bytes=0-1", headers=[("If-Range", '"other"')]).status == 200
    assert ranged(app, "bytes=0-1", method="HEAD").status == 200


def test_several_ranges_come_as_parts(keyring, journal):
    app = wrap(app_of(file_source(seal(keyring))), keyring, journal)
    answer = ranged(app, "bytes=0-3,70000-70003,-2")
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert (answer.status, kind) == (206, "multipart/byteranges")
    parts = [
        b"\r\n--%s\r\nContent-Type: image/png\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
        % (boundary.encode(), first, last - 1, len(TEXT))
        + TEXT[first:last]
        for first, last in [(0, 4), (70_000, 70_004), (len(TEXT) - 2, len(TEXT))]
    ]
    assert answer.body == b"".join(parts) + b"\r\n--%s--\r\n" % boundary.encode()
    assert answer.headers["content-length"] == str(len(answer.body))


def test_a_range_beyond_the_end_is_416(keyring, journal):
    answer = ranged(wrap(app_of(file_source(seal(keyring))), keyring, journal), f"bytes={len(TEXT)}-")
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(TEXT)}"
    assert answer.headers["content-length"] == "0"


def test_a_long_range_is_sent_in_pieces(keyring, journal):
    data = os.urandom(3 * MIB)
    app = wrap(app_of(file_source(seal(keyring, data))), keyring, journal)
    assert ranged(app, "bytes=10-2500000").body == data[10:2_500_001]
    answer = ranged(app, "bytes=0-2000000,2500000-")
    assert answer.body.count(data[:2_000_001]) == answer.body.count(data[2_500_000:]) == 1


def test_only_other_segments_being_broken_does_not_spoil_a_range(keyring, journal):
    stored = bytearray(seal(keyring))
    stored[376 + 56 + 100] ^= 1
    app = wrap(app_of(file_source(bytes(stored))), keyring, journal)
    assert ranged(app, "bytes=-5").body == TEXT[-5:]
    assert ranged(app, "bytes=0-5").status == 500


class Counting(io.BytesIO):
    def __init__(self, data):
        super().__init__(data)
        self.count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


def test_a_range_costs_the_segments_that_it_touches(keyring, journal):
    for size in (4 * MIB, 16 * MIB):
        file = Counting(seal(keyring, bytes(size)))
        app = wrap(
            app_of(lambda environ, write, file=file: environ["wsgi.file_wrapper"](file)), keyring, journal
        )
        assert len(ranged(app, "bytes=-1000").body) == 1000
        assert file.count < 4 * 65_600


@pytest.mark.parametrize(
    "header", ["bytes=" + ",".join(f"{n}-" for n in range(16)), "bytes=0-,0-,0-", "bytes=-1,0-"]
)
def test_no_header_makes_a_file_be_read_more_than_twice(header, keyring, journal):
    stored = seal(keyring, bytes(4 * MIB))
    file = Counting(stored)
    app = wrap(app_of(lambda environ, write: environ["wsgi.file_wrapper"](file)), keyring, journal)
    assert ranged(app, header).status == 206
    assert file.count < 2 * len(stored) + 4 * 65_600


def test_format_1_is_served_where_a_path_says_so(keyring, journal):
    policy = Policy(format_1_paths=("/old/*",))
    stored = seal_format_1(keyring)
    app = wrap(app_of(file_source(stored)), keyring, journal, policy=policy)
    assert call(app, path="/old/x").body == TEXT
    assert ranged(app, "bytes=5-9", path="/old/x").body == TEXT[5:10]
    assert call(app, path="/new/x").body == stored, "elsewhere it is not ours to guess"
    both = wrap(app_of(file_source(seal(keyring))), keyring, journal, policy=policy)
    assert call(both, path="/old/x").body == TEXT, "Format 2 is told by its magic"


def test_headers_that_describe_the_ciphertext_are_dropped(keyring, journal):
    stale = ["Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"]
    kept = [
        ("ETag", '"e"'),
        ("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT"),
        ("Content-Encoding", "identity"),
    ]
    app = app_of(file_source(seal(keyring)), headers=[*((name, "x") for name in stale), *kept])
    headers = call(wrap(app, keyring, journal)).headers
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"] == '"e"'
    assert not {"content-md5", "digest", "content-digest", "repr-digest"} & headers.keys()


def test_an_unknown_key_is_its_own_reason(keyring, journal):
    other = Keyring(os.urandom(32))
    assert call(wrap(app_of(file_source(seal(other))), keyring, journal)).status == 500
    assert journal.events() == [("file.integrity_failure", "failure", "unknown_key")]


def test_a_retired_key_opens(keyring, journal):
    stored = seal(Keyring(bytes(range(1, 33))))
    assert call(wrap(app_of(file_source(stored)), keyring, journal)).body == TEXT


def test_a_context_must_match(keyring, journal):
    app = app_of(file_source(seal(keyring, context=b"alice")))
    for name, status in (("alice", 200), ("bob", 500)):
        wrapped = wrap(app, keyring, journal, context=lambda environ, name=name: name.encode())
        assert call(wrapped).status == status
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "commitment_mismatch")


def test_the_file_that_the_app_expects_is_served_and_no_other(keyring, journal):
    encryptor = Encryptor(keyring)
    stored = encryptor.update(TEXT) + encryptor.finalize()

    def app_expecting(object_id, body):
        def app(environ, start_response):
            environ["securefs"].expect(object_id)
            start_response("200 OK", [])
            return [body]

        return wrap(app, keyring, journal)

    assert call(app_expecting(encryptor.object_id, stored)).body == TEXT
    assert call(app_expecting("0" * 64, stored)).status == 500
    assert call(app_expecting(encryptor.object_id, b"plain")).status == 500
    streaming = replace(Policy(), verify_first=0)
    app = wrap(
        app_of(lambda environ, write: (environ["securefs"].expect("0" * 64), iter([stored]))[1]),
        keyring,
        journal,
        policy=streaming,
    )
    assert call(app).status == 500
    reasons = [event[2] for event in journal.events() if event[1] == "failure"]
    assert reasons == ["wrong_object", "not_encrypted", "wrong_object"]


@pytest.mark.parametrize("lengths", ["12", "-1", "x", None])
def test_the_length_that_an_app_claims_of_its_ciphertext_is_no_matter(lengths, keyring, journal):
    app = app_of(lambda *_: iter([seal(keyring)]), headers=[("Content-Length", lengths)] if lengths else [])
    answer = call(wrap(app, keyring, journal))
    assert (answer.body, answer.headers["content-length"]) == (TEXT, str(len(TEXT)))


def test_a_stream_that_ends_in_its_header_is_refused(keyring, journal):
    stored = seal(keyring)
    for cut in (8, 20, 56, 400, 432):
        app = app_of(lambda *_, cut=cut: iter([stored[:cut]]))
        assert call(wrap(app, keyring, journal, policy=Policy(verify_first=0))).status == 500


def test_a_file_that_cannot_be_read_is_a_500(keyring, journal):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 400:
                raise OSError(5, "Input/output error")
            return super().read(size)

    app = wrap(
        app_of(lambda environ, write: environ["wsgi.file_wrapper"](Broken(seal(keyring)))), keyring, journal
    )
    assert call(app).status == 500
    assert journal.events() == [("file.decrypt", "failure", "io_error")]


def test_metadata_is_restored_where_the_policy_says_so(keyring, journal):
    stored = seal(keyring, metadata={"name": 'übel "x".html', "type": "text/html"})
    app = app_of(
        file_source(stored), headers=[("Content-Disposition", "inline"), ("X-Content-Type-Options", "x")]
    )
    plain = call(wrap(app, keyring, journal)).headers
    assert (plain["content-type"], plain["content-disposition"]) == ("image/png", "inline")
    policy = Policy(restore_metadata=True)
    for method, header in (("GET", None), ("HEAD", None), ("GET", "bytes=0-1")):
        headers = call(
            wrap(app, keyring, journal, policy=policy), method, headers=[("Range", header)] if header else []
        ).headers
        assert headers["content-type"] == "text/html"
        assert headers["content-disposition"].startswith(
            "attachment; filename=\"_bel _x_.html\"; filename*=UTF-8''%C3%BCbel"
        )
        assert headers["x-content-type-options"] == "nosniff"
    parts = ranged(wrap(app, keyring, journal, policy=policy), "bytes=0-1,100-101")
    assert parts.body.count(b"\r\nContent-Type: text/html\r\n") == 2
    for metadata in ({}, {"name": 5, "type": 5}, {"type": "text/html\r\nX: y", "name": ""}):
        app = wrap(app_of(file_source(seal(keyring, metadata=metadata))), keyring, journal, policy=policy)
        assert call(app).headers["content-type"] == "image/png"


def test_a_client_that_goes_away_is_noted(keyring, journal):
    data = bytes(3 * MIB)
    answer = call(wrap(app_of(file_source(seal(keyring, data))), keyring, journal), chunks=1)
    assert len(answer.body) < len(data)
    assert journal.events() == [("file.decrypt", "started", None), ("file.decrypt", "failure", "client_gone")]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [5, 3 * MIB])
def test_a_server_that_refuses_the_headers_leaves_no_start_without_an_outcome(source, size, keyring, journal):
    """gunicorn and wsgiref raise for header values with line ends, and close nothing."""

    def start_response(status, headers, exc_info=None):
        raise ValueError("an invalid header")

    wrapped = wrap(app_of(SOURCES[source](seal(keyring, bytes(size)))), keyring, journal)
    with pytest.raises(ValueError, match="an invalid header"):
        wrapped(make_environ(), start_response)
    assert journal.events() == [("file.decrypt", "started", None), ("file.decrypt", "failure", "io_error")]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_keeps_to_the_protocol(source, keyring, journal):
    """PEP 3333 as wsgiref.validate checks it, inside and outside of the middleware: wsgi_client lets it watch every call."""
    for stored in (seal(keyring), b"plain text"):
        for method in ("GET", "HEAD"):
            answer = call(wrap(app_of(SOURCES[source](stored)), keyring, journal), method)
            assert (answer.status, answer.error) == (200, None)


def test_a_second_start_response_is_an_error_of_the_app(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with pytest.raises(AssertionError, match="twice"):
        call(wrap(app, keyring, journal))


def test_an_error_page_may_replace_what_was_not_sent_yet(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [("X-A", "1")])
        try:
            raise KeyError("inside")
        except KeyError as error:
            start_response("500 Oops", [("X-B", "2")], (KeyError, error, error.__traceback__))
        return [b"sorry"]

    answer = call(wrap(app, keyring, journal))
    assert (answer.status, answer.headers, answer.body) == (500, {"x-b": "2"}, b"sorry")


def test_an_answer_with_a_file_may_replace_one_that_was_not_sent_yet(keyring, journal):
    def app(environ, start_response):
        start_response("500 Oops", [("Content-Encoding", "gzip"), ("Content-Length", "5")])
        try:
            raise KeyError("inside")
        except KeyError as error:
            start_response("200 OK", [("ETag", '"e"')], (KeyError, error, error.__traceback__))
        return [seal(keyring)]

    answer = call(wrap(app, keyring, journal), headers=[("Range", "bytes=1-4")])
    assert (answer.status, answer.body, answer.headers["etag"]) == (206, TEXT[1:5], '"e"')
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("written", [8, 1000, 150_000])
def test_an_error_after_a_part_of_a_file_was_written_shows_nothing_of_it(written, keyring, journal):
    """What is written of a ciphertext is held, so an error can still take its place: as a clean 500, ours or the app's."""
    stored = seal(keyring)

    def app(environ, start_response):
        start_response("200 OK", [])(stored[:written])
        try:
            raise KeyError("inside")
        except KeyError as error:
            start_response("500 Oops", [], (KeyError, error, error.__traceback__))
        return [b"sorry"]

    answer = call(wrap(app, keyring, journal))
    assert (answer.status, answer.error) == (500, None)
    assert b"SFS" not in answer.body
    assert TEXT[:16] not in answer.body


def test_an_error_after_the_first_bytes_is_the_servers_to_handle(keyring, journal):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"begun")
        try:
            raise KeyError("inside")
        except KeyError as error:
            start_response("500 Oops", [], (KeyError, error, error.__traceback__))
        return []

    with pytest.raises(KeyError):
        call(wrap(app, keyring, journal))


def test_the_apps_own_errors_pass_through(keyring, journal):
    def app(environ, start_response):
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        call(wrap(app, keyring, journal))


def test_a_generator_that_fails_before_its_first_bytes_is_closed(keyring, journal):
    closed = []

    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            try:
                raise KeyError("inside")
                yield b""
            finally:
                closed.append(1)

        return body()

    with pytest.raises(KeyError):
        call(wrap(app, keyring, journal))
    assert closed == [1]


def test_the_journal_failing_at_the_start_holds_every_byte_back(keyring, journal, tmp_path):
    app = wrap(app_of(file_source(seal(keyring))), keyring, journal)
    assert call(app).body == TEXT
    journal.lose()
    answer = call(app)
    assert answer.status == 503
    assert b"Nothing was done" in answer.body


def test_the_journal_failing_at_the_end_holds_the_last_bytes_back(keyring, journal):
    data = os.urandom(3 * MIB)
    app = wrap(app_of(file_source(seal(keyring, data))), keyring, journal)
    result = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *args: None)
    iterator = iter(result)
    got = [next(iterator) for _ in range(11)]
    journal.lose()
    with pytest.raises(Exception, match=r"journal|chain|record"):
        next(iterator)
    result.close()
    assert b"".join(got) == data[: -MIB // 4]


def test_the_journal_failing_at_a_failure_is_a_503(keyring, journal):
    journal.check()
    journal.lose()
    assert call(wrap(app_of(file_source(seal(keyring)[:-1])), keyring, journal)).status == 503


def test_a_download_needs_little_memory(keyring, journal, tmp_path):
    import tracemalloc

    path = tmp_path / "big.enc"
    encryptor = Encryptor(keyring, Suite.GCM)
    with path.open("wb") as file:
        for _ in range(32):
            file.write(encryptor.update(bytes(MIB)))
        file.write(encryptor.finalize())

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](Path(path).open("rb"))

    wrapped = wrap(app, keyring, journal)
    tracemalloc.start()
    result = wrapped({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *args: None)
    total = sum(map(len, result))
    result.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 32 * MIB
    assert peak < 4 * MIB


def test_a_body_that_fails_while_it_is_held_is_closed(keyring, journal):
    stored = seal(keyring)

    def source(environ, write):
        yield stored[:1000]
        raise KeyError("inside")

    with pytest.raises(KeyError):
        call(wrap(app_of(source), keyring, journal))


@pytest.mark.parametrize("step", [1, 9, 10, 47, 48, 1000, 10**6])
@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("suite", Suite)
def test_where_no_client_sees_a_break_only_a_length_that_is_known_lets_a_stream_begin(
    suite, known, step, keyring, journal
):
    """Suite 1 pads: its plaintext's length is not known before the end, so the body is held."""
    stored = bytearray(seal(keyring, suite=suite))
    stored[-1000] ^= 1
    head = pieces(bytes(stored[:2000]), step)
    drawn = []

    def source(environ, write):
        for piece in [*head, *pieces(bytes(stored[2000:]), 9000)]:
            drawn.append(len(piece))
            yield piece

    for policy in (Policy(verify_first=0), Policy(verify_first=100)):
        app = wrap(app_of(source, length=len(stored) if known else None), keyring, journal, policy=policy)
        drawn.clear()
        answer = call(app, SERVER_PROTOCOL="HTTP/1.0")
        if suite is Suite.GCM and known:
            assert (answer.status, answer.headers["content-length"]) == (200, str(len(TEXT)))
            assert answer.broken_off
            assert TEXT.startswith(answer.body)
            assert len(answer.body) < len(TEXT)
        else:
            assert (answer.status, answer.error) == (500, None)
            assert sum(drawn) == len(stored)
        assert call(app, "HEAD", SERVER_PROTOCOL="HTTP/1.0").status == 200


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
def test_where_no_client_sees_a_break_a_good_stream_arrives_whole(suite, known, keyring, journal):
    stored = seal(keyring, suite=suite)
    app = app_of(lambda *_: iter(pieces(stored, 9000)), length=len(stored) if known else None)
    answer = call(wrap(app, keyring, journal, policy=Policy(verify_first=0)), SERVER_PROTOCOL="HTTP/1.0")
    assert (answer.status, answer.body == TEXT) == (200, True)
    assert answer.headers["content-length"] == str(len(TEXT))
    assert journal.events() == OK


def headers_of(app, header):
    """Return the status line and the headers, each as often as it is there."""
    got = []
    environ = make_environ("GET", "/", None, [("Range", header)] if header else [])
    body = app(environ, lambda status, headers, exc_info=None: got.extend((status, headers)))
    sent = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return got[0], got[1], sent


KEPT = [("ETag", '"t"'), ("Cache-Control", "private"), ("X-Own", "a"), ("X-Own", "b")]


STALE = [
    ("Accept-Ranges", "none"),
    ("Content-MD5", "x"),
    ("Digest", "x"),
    ("Repr-Digest", "x"),
    ("Content-Digest", "x"),
]


FORMS = {
    "one": ("bytes=0-3", 206, "image/png"),
    "two": ("bytes=0-1,5-6", 206, "multipart/byteranges; boundary="),
    "suffix and open end": ("bytes=-2,0-0,100-200", 206, "multipart/byteranges; boundary="),
    "two that are one": ("bytes=5-6,0-4", 206, "image/png"),
    "beyond the end": (f"bytes={len(TEXT)}-", 416, "image/png"),
    "all": (None, 200, "image/png"),
    "malformed": ("bytes=x", 200, "image/png"),
}


@pytest.mark.parametrize(("header", "status", "kind"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "plain"])
def test_an_answer_in_parts_has_the_app_s_headers_and_each_of_its_own_once(
    header, status, kind, encrypted, keyring, journal
):
    stored = seal(keyring) if encrypted else TEXT
    stale = STALE if encrypted else []
    app = wrap(app_of(file_source(stored), headers=[*KEPT, *stale], length=len(stored)), keyring, journal)
    line, headers, sent = headers_of(app, header)
    assert int(line[:3]) == status
    names = [name.lower() for name, _ in headers]
    assert [pair for pair in headers if pair in KEPT] == KEPT
    assert not [pair for pair in headers if pair in stale]
    for name in ("content-type", "content-length"):
        assert names.count(name) == 1
    found = {name.lower(): value for name, value in headers}
    assert found["content-type"].startswith(kind)
    assert found["content-length"] == str(len(sent))
    if encrypted or status != 200:
        assert names.count("accept-ranges") == 1
        assert found["accept-ranges"] == "bytes"
    assert names.count("content-range") == (status in {206, 416} and not kind.startswith("multipart"))
    if status == 416:
        assert (found["content-range"], sent) == (f"bytes */{len(TEXT)}", b"")


def test_the_parts_of_a_file_without_a_type_have_none(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [("content-LENGTH", "1")])
        return environ["wsgi.file_wrapper"](io.BytesIO(seal(keyring)))

    _, headers, sent = headers_of(wrap(app, keyring, journal), "bytes=0-0,5-5")
    found = {name.lower(): value for name, value in headers}
    assert found["content-type"].startswith("multipart/byteranges")
    assert b"Content-Type" not in sent
    assert sent.count(b"Content-Range: bytes ") == 2


def of_a_disk():
    with Path(__file__).open("rb") as file:
        return file


@pytest.mark.parametrize(
    ("file", "error"),
    [
        pytest.param(lambda: closed(io.BytesIO(b"bytes")), SourceError, id="closed"),
        pytest.param(of_a_disk, SourceError, id="closed file"),
        pytest.param(lambda: Bare(b"bytes"), None, id="no seekable()"),
        pytest.param(lambda: OneWay(b"bytes"), None, id="can't seek"),
        pytest.param(lambda: Untold(b"bytes"), None, id="tell() fails"),
    ],
)
def test_a_file_that_does_not_say_where_it_stands_is_read_as_it_comes(file, error, keyring, journal):
    """One that was closed too: that is a fault of the app's, under a name of ours."""
    app = wrap(app_of(lambda environ, write: environ["wsgi.file_wrapper"](file())), keyring, journal)
    if error is None:
        assert call(app).body == b"bytes"
    else:
        with pytest.raises(error, match="closed file"):
            call(app)


def closed(file):
    file.close()
    return file


class Bare:
    """A file that knows read() alone."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


class Untold(io.BytesIO):
    def tell(self):
        raise OSError("not on this device")
