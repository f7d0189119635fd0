"""Ranges of what can't seek, and of what is not encrypted: the app never sees a Range, so both are ours to serve."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.wsgi_client import call

from securefs import Encryptor, Suite
from securefs.errors import Reason
from securefs.middleware import Policy, SecureFS
from securefs.middleware.response import SEND_SIZE
from securefs.stream import Decryptor
from securefs.suites import _Opener

KIB = 1024
TEXT = os.urandom(5 * 65_536 + 100)
STREAMED = Policy(verify_first=0)  # nothing is held: what can't seek goes through as it comes
CHUNKS = {"SERVER_SOFTWARE": "gunicorn/27"}


def seal(keyring, data=TEXT, suite=Suite.GCM):
    encryptor = Encryptor(keyring, suite)
    return encryptor.update(data) + encryptor.finalize()


class OneWay(io.BytesIO):
    """A stored file that comes once; it counts what was read of it."""

    count = 0

    def seekable(self):
        return False

    def read(self, size=-1, /):
        data = super().read(size)
        self.count += len(data)
        return data


def app_of(body, *, length=None, headers=(), status="200 OK"):
    """Return an app that serves ``body`` as a file; ``length`` is its Content-Length, None for none."""

    def app(environ, start_response):
        assert "HTTP_RANGE" not in environ
        sent = [("Content-Type", "video/mp4"), *headers]
        start_response(status, sent if length is None else [*sent, ("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](body, 8 * KIB)

    return app


def ask(app, keyring, journal, header, *, policy=STREAMED, method="GET", headers=(), watched=True):
    wrapped = SecureFS(app, keyring=keyring, journal=journal, policy=policy)
    return call(wrapped, method, headers=[("Range", header), *headers], watched=watched, **CHUNKS)


def stream_of(keyring, data=TEXT, suite=Suite.GCM, **options):
    stored = seal(keyring, data, suite)
    return app_of(OneWay(stored), length=len(stored), **options)


@pytest.mark.parametrize("start", [0, 1, 16_383, 16_384, 65_536, 200_000, len(TEXT) - 1])
@pytest.mark.parametrize("size", [1, 100, 16_384, 100_000])
@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_a_range_of_what_cannot_seek(suite, size, start, keyring, journal):
    answer = ask(stream_of(keyring, suite=suite), keyring, journal, f"bytes={start}-{start + size - 1}")
    if start + size >= len(TEXT) - (4 if suite is Suite.CBC_HMAC else 0):
        # Whether the file ends there, or up to four bytes earlier (padding), is known when its last
        # segment has come.
        assert (answer.status, answer.body) == (200, TEXT)
        return
    part = TEXT[start : start + size]
    assert (answer.status, answer.body) == (206, part)
    assert answer.headers.get("content-range") == f"bytes {start}-{start + len(part) - 1}/*"
    assert answer.headers.get("content-length") == str(len(part))
    assert journal.events()[-1] == ("file.decrypt", "success", None)


@given(st.data())
@examples(60)
def test_any_range_over_any_chunks(keyring, journal, data):
    suite = data.draw(st.sampled_from(list(Suite)))
    size = data.draw(st.sampled_from([0, 1, 100, suite.segment_size, 3 * suite.segment_size + 7]))
    text = TEXT[:size]
    stored = seal(keyring, text, suite)
    step = data.draw(st.integers(1, 40_000))
    start = data.draw(st.integers(0, size + 2))
    stop = data.draw(st.integers(start, size + 20))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(stored)))])
        return (stored[at : at + step] for at in range(0, len(stored), step))

    answer = ask(app, keyring, journal, f"bytes={start}-{stop}")
    if answer.status == 206:
        assert answer.body == text[start : stop + 1]
        assert answer.headers.get("content-range") == f"bytes {start}-{stop}/*"
        assert stop + 1 < size
    else:
        assert (answer.status, answer.body) == (200, text)
        assert stop + 1 >= size - (15 if suite is Suite.CBC_HMAC else 0)


@pytest.mark.parametrize("header", ["bytes=100000-", "bytes=-1000", "bytes=0-"])
@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_open_ends_and_suffixes_are_served_of_what_is_held_until_its_end_is_known(
    suite, header, keyring, journal
):
    whole = ask(stream_of(keyring, suite=suite), keyring, journal, header)
    assert (whole.status, whole.body) == (200, TEXT)
    first, last = header[6:].split("-")
    policy = Policy(verify_first=None)
    answer = ask(stream_of(keyring, suite=suite), keyring, journal, header, policy=policy)
    assert (answer.status, answer.body) == (206, TEXT[int(first) :] if first else TEXT[-int(last) :])
    assert answer.headers.get("content-range").endswith(f"/{len(TEXT)}")


def test_segments_before_the_range_are_not_opened_and_those_behind_it_not_asked_for(
    keyring, journal, monkeypatch
):
    """Counted where every segment is opened, of either suite, by whoever reads it."""
    opened = []
    for cipher in _Opener.__subclasses__():
        original = cipher.open_into

        def counting(self, index, final, sealed, out, original=original):
            opened.append(index)
            return original(self, index, final, sealed, out)

        monkeypatch.setattr(cipher, "open_into", counting)
    for suite in Suite:
        stored = seal(keyring, suite=suite)
        body = OneWay(stored)
        opened.clear()
        start = 2 * 65_536 + 10
        answer = ask(app_of(body, length=len(stored)), keyring, journal, f"bytes={start}-{start + 99}")
        assert answer.body == TEXT[start : start + 100]
        # The first chunk, which has the header, may bring a segment with it.
        assert set(opened) <= {0, start // suite.segment_size}
        assert body.count < len(stored) - 65_536


def test_a_range_within_what_came_with_the_header(keyring, journal):
    stored = seal(keyring)

    def app(environ, start_response):
        headers = [("Content-Type", "video/mp4"), ("Content-Length", str(len(stored)))]
        start_response("200 OK", headers)
        return iter([stored[:100_000], stored[100_000:]])

    answer = ask(app, keyring, journal, "bytes=5-70000")
    assert (answer.status, answer.body) == (206, TEXT[5:70_001])


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_what_is_verified_before_it_is_sent_arrives_in_all_its_pieces(suite, keyring, journal):
    stored = seal(keyring, suite=suite)
    assert len(TEXT) > SEND_SIZE
    for headers, expected in (([], TEXT), ([("Range", "bytes=1-")], TEXT[1:])):
        app = app_of(io.BytesIO(stored), length=len(stored))
        answer = call(SecureFS(app, keyring=keyring, journal=journal), headers=headers)
        assert answer.body == expected


def test_several_ranges_of_what_cannot_seek_are_the_whole_file(keyring, journal):
    answer = ask(stream_of(keyring), keyring, journal, "bytes=0-1,5-6")
    assert (answer.status, answer.body) == (200, TEXT)
    # A client that resumes asks for an open range, and that is not served.
    assert answer.headers.get("accept-ranges") is None


def test_what_cannot_seek_and_has_no_length_is_sent_whole(keyring, journal):
    answer = ask(app_of(OneWay(seal(keyring))), keyring, journal, "bytes=0-1")
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers.get("accept-ranges") is None


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_a_range_that_no_byte_is_in(suite, keyring, journal):
    for header in (f"bytes={len(TEXT) + 100}-", f"bytes={len(TEXT)}-{len(TEXT) + 9}", "bytes=-0"):
        whole = ask(stream_of(keyring, suite=suite), keyring, journal, header)
        assert (whole.status, whole.body) == (200, TEXT)
        assert whole.headers.get("content-range") is None


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_a_change_within_the_range_is_found(suite, keyring, journal):
    stored = bytearray(seal(keyring, suite=suite))
    start = 200_000
    index, within = divmod(start, suite.segment_size)
    stored[376 + 56 + index * suite.sealed_size + 16 + within] ^= 1
    app = app_of(OneWay(bytes(stored)), length=len(stored))
    answer = ask(app, keyring, journal, f"bytes={start}-{start + 9}")
    assert answer.status == 500
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "tag_mismatch")
    # What is not in the range is not looked at.
    app = app_of(OneWay(bytes(stored)), length=len(stored))
    assert ask(app, keyring, journal, "bytes=0-9").body == TEXT[:10]


def test_a_file_that_is_shorter_than_announced_breaks_off(keyring, journal):
    stored = seal(keyring)
    longer = len(stored) + 5 * 16_400
    answer = ask(app_of(OneWay(stored), length=longer), keyring, journal, f"bytes=300000-{len(TEXT) + 5000}")
    assert answer.status == 206
    assert answer.error is not None
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "truncated")


def test_a_cut_file_breaks_off_within_the_range(keyring, journal):
    stored = seal(keyring)
    last = len(TEXT) - 2
    app = app_of(OneWay(stored[:-30_000]), length=len(stored))
    answer = ask(app, keyring, journal, f"bytes=5-{last}")
    assert answer.status == 206
    assert len(answer.body) < last - 4
    assert answer.error is not None
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "truncated")


def test_a_decryptor_passes_over_what_is_not_wanted(keyring):
    for suite in Suite:
        stored = seal(keyring, suite=suite)
        decryptor = Decryptor(keyring)
        decryptor.skip_to(2)
        got = decryptor.update(stored[:100_000]) + decryptor.update(stored[100_000:]) + decryptor.finalize()
        assert got == TEXT[2 * suite.segment_size :]


# --- plain files


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("bytes=0-0", TEXT[:1], id="first byte"),
        pytest.param("bytes=300000-", TEXT[300_000:], id="open"),
        pytest.param("bytes=-7", TEXT[-7:], id="suffix"),
        pytest.param(f"bytes=5-{len(TEXT) + 9}", TEXT[5:], id="beyond the end"),
    ],
)
def test_a_plain_file_is_sent_in_part(header, expected, keyring, journal):
    answer = ask(app_of(io.BytesIO(TEXT), length=len(TEXT)), keyring, journal, header)
    assert (answer.status, answer.body) == (206, expected)
    assert answer.headers.get("content-length") == str(len(expected))
    first = TEXT.find(expected[:8])
    assert answer.headers.get("content-range") == f"bytes {first}-{first + len(expected) - 1}/{len(TEXT)}"
    assert answer.headers.get("content-type") == "video/mp4"
    assert journal.events() == []


def test_several_ranges_of_a_plain_file(keyring, journal):
    answer = ask(app_of(io.BytesIO(TEXT), length=len(TEXT)), keyring, journal, "bytes=0-1,100-104")
    assert answer.status == 206
    boundary = answer.headers.get("content-type").partition("boundary=")[2].encode()
    parts = answer.body.split(b"--" + boundary)
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:3]] == [
        TEXT[:2] + b"\r\n",
        TEXT[100:105] + b"\r\n",
    ]
    assert answer.headers.get("content-length") == str(len(answer.body))


def test_a_plain_file_has_no_byte_there(keyring, journal):
    answer = ask(app_of(io.BytesIO(b"abc"), length=3), keyring, journal, "bytes=3-")
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers.get("content-range") == "bytes */3"


@pytest.mark.parametrize(
    ("options", "method", "headers"),
    [
        pytest.param({"length": None}, "GET", [], id="no Content-Length"),
        pytest.param({"length": 10}, "GET", [], id="not all of the file is the body"),
        pytest.param({"length": 3, "status": "404 Not Found"}, "GET", [], id="404"),
        pytest.param({"length": 3, "status": "206 Partial Content"}, "GET", [], id="206 of the app's own"),
        pytest.param(
            {"length": 3, "headers": [("Accept-Ranges", "none")]}, "GET", [], id="Accept-Ranges: none"
        ),
        pytest.param(
            {"length": 3, "headers": [("ETag", '"a"')]}, "GET", [("If-Range", '"b"')], id="If-Range"
        ),
        pytest.param({"length": 3}, "POST", [], id="POST"),
    ],
)
def test_what_is_not_sent_in_part(options, method, headers, keyring, journal):
    app = app_of(io.BytesIO(b"abc"), **options)
    # An app that says 10 bytes and gives 3 breaks the rules that are watched for.
    extra = {"method": method, "headers": headers, "watched": options["length"] != 10}
    answer = ask(app, keyring, journal, "bytes=0-0", **extra)
    assert answer.body == b"abc"
    assert answer.headers.get("content-range") is None


def test_what_is_sent_whole_is_untouched(keyring, journal):
    answer = call(SecureFS(app_of(io.BytesIO(b"abc"), length=3), keyring=keyring, journal=journal))
    assert (answer.status, answer.body, answer.headers.get("accept-ranges")) == (200, b"abc", None)


def test_a_plain_file_that_becomes_shorter_breaks_off(keyring, journal):
    class Shrinking(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(size) if size <= 8 else b""

    answer = ask(app_of(Shrinking(TEXT), length=len(TEXT)), keyring, journal, "bytes=0-99")
    assert answer.status == 206
    assert isinstance(answer.error, OSError)


def test_a_protected_path_serves_no_part_of_a_plain_file(keyring, journal):
    answer = ask(
        app_of(io.BytesIO(TEXT), length=len(TEXT)),
        keyring,
        journal,
        "bytes=0-1",
        policy=Policy(protected_paths=("*",)),
    )
    assert answer.status == 500
    assert journal.events()[-1][2] == Reason.NOT_ENCRYPTED.value


def test_the_file_is_closed(keyring, journal):
    file = io.BytesIO(TEXT)
    assert ask(app_of(file, length=len(TEXT)), keyring, journal, "bytes=0-1").status == 206
    assert file.closed
