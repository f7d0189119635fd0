"""What a download may cost: the bytes read of a file, the memory held, and no header of a client's that makes either grow."""

from __future__ import annotations

import io
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import LIBRARIES, chosen, pattern
from support.wsgi_client import make_environ

from securefs import Encryptor, Suite
from securefs.middleware import Policy, SecureFS
from securefs.stream import TRAILER, _header
from securefs.suites import body_context, derive

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
OVERHEAD = 3 * 65_600  # bytes: header, last segment, and a segment that a range only touches


class OnDemand(io.RawIOBase):
    """A stored file of any length whose segments are sealed when they are read, with the real cipher."""

    def __init__(self, size, suite, keyring):
        super().__init__()
        random = chosen()
        preamble, header = _header(keyring, suite, b"", random, LIBRARIES[1])
        context = body_context(preamble, b"")
        self.cipher, commitment = derive(
            suite, random.dek, random.body_salt, context, LIBRARIES[1], random.draw_iv
        )
        self.start = header + random.body_salt + commitment
        self.suite = suite
        self.full, self.rest = divmod(size, suite.segment_size)
        self.length = len(header) + suite.body_length(size) + 1
        self.position = self.count = 0

    def close(self):
        """Stay open: the next request reads on."""

    def seekable(self):
        return True

    def tell(self):
        return self.position

    def seek(self, offset, whence=0, /):
        self.position = offset + {0: 0, 1: self.position, 2: self.length}[whence]
        return self.position

    def plaintext(self, index):
        size = self.rest if index == self.full else self.suite.segment_size
        return pattern(64, str(index)).ljust(size, b"\0")[:size]

    def read(self, size=-1, /):
        end = self.length if size < 0 else min(self.position + size, self.length)
        pieces = []
        while self.position < end:
            at = self.position - len(self.start)
            if at < 0:
                piece, offset = self.start, self.position
            elif self.position == self.length - 1:
                piece, offset = TRAILER, 0
            else:
                index, offset = divmod(at, self.suite.sealed_size)
                piece = self.cipher.seal(index, index == self.full, self.plaintext(index))
            piece = piece[offset : offset + end - self.position]
            pieces.append(piece)
            self.position += len(piece)
        data = b"".join(pieces)
        self.count += len(data)
        return data


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def close(self):
        """Stay open: the next request reads on."""

    def read(self, size=-1, /):
        data = super().read(size)
        self.count += len(data)
        return data


def serving(file):
    def app(environ, start_response):
        file.seek(0)
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("ETag", '"e"')])
        return environ["wsgi.file_wrapper"](file, 8192)

    return app


def wrap(app, keyring, journal, **fields):
    return SecureFS(app, keyring=keyring, journal=journal, policy=Policy(**fields))


def drain(app, environ):
    """Serve a request and keep nothing of it: (status, headers, how many bytes)."""
    got = []
    result = app(environ, lambda status, headers, exc_info=None: got.append((status, dict(headers))))
    try:
        length = sum(map(len, result))
    finally:
        if hasattr(result, "close"):
            result.close()
    ((status, headers),) = got
    return int(status[:3]), headers, length


@pytest.mark.parametrize("suite", Suite)
def test_a_file_made_on_demand_is_a_real_one(suite, keyring, journal):
    for size in (0, 1, suite.segment_size, 5 * suite.segment_size + 9):
        file = OnDemand(size, suite, keyring)
        app = wrap(serving(file), keyring, journal)
        status, headers, length = drain(app, make_environ())
        assert (status, headers["Content-Length"], length) == (200, str(size), size)


@pytest.mark.parametrize("suite", Suite)
def test_a_range_costs_the_same_wherever_it_lies_and_however_long_the_file(suite, keyring, journal):
    counts = {}
    for size in (4 * MIB, 4 * GIB):
        file = OnDemand(size, suite, keyring)
        app = wrap(serving(file), keyring, journal)
        for header in (f"bytes=-{MIB}", f"bytes=0-{MIB - 1}", f"bytes={size // 2}-{size // 2 + MIB - 1}"):
            file.count = 0
            status, headers, length = drain(app, make_environ(headers=[("Range", header)]))
            assert (status, length) == (206, MIB)
            assert headers["Content-Range"].endswith(f"/{size}")
            counts.setdefault(size, []).append(file.count)
    for short, long in zip(counts[4 * MIB], counts[4 * GIB], strict=True):
        assert long < 1.05 * short
    assert max(counts[4 * GIB]) < MIB + MIB // 256 + OVERHEAD


@pytest.mark.parametrize("suite", Suite)
def test_what_is_not_asked_for_is_neither_read_nor_sent(suite, keyring, journal):
    file = OnDemand(4 * GIB, suite, keyring)
    app = wrap(serving(file), keyring, journal)
    for method, header, status in (("HEAD", "bytes=0-", 200), ("GET", f"bytes={4 * GIB}-", 416)):
        file.count = 0
        assert drain(app, make_environ(method, headers=[("Range", header)]))[::2] == (status, 0)
        assert file.count < OVERHEAD


SIZE = 6 * MIB + 1
number = st.one_of(st.integers(0, SIZE + 2), st.integers(0, 10**25), st.sampled_from([65_535, 65_536, SIZE]))
element = st.one_of(
    st.tuples(number, number).map("{0[0]}-{0[1]}".format),
    st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    number.map("{}-".format),
    number.map("-{}".format),
    st.text(alphabet="0123456789-, \t", max_size=6),
)
# What may stand in an environ: any text that was Latin-1 on the wire.
wire = st.text(st.characters(min_codepoint=9, max_codepoint=255, exclude_characters="\r\n"), max_size=60)
range_header = st.one_of(
    wire,
    wire.map("bytes={}".format),
    st.lists(element, min_size=1, max_size=20).map(lambda elements: "bytes=" + ",".join(elements)),
    st.sampled_from(["bytes=" + "0-," * 30_000, "bytes=" + "9" * 100_000 + "-", "bytes=" + "-" * 100_000]),
    st.sampled_from(["bytes=" + " \t" * 50_000, "bytes=" + "0-0," * 16, "bytes=0-" + "\t" * 50_000 + "x"]),
)
headers = st.fixed_dictionaries(
    {"Range": range_header},
    optional={
        "If-Range": st.one_of(
            wire, st.sampled_from(['"e"', "Mon, 23 Nov 2026 10:00:00 GMT", "1 Jan 99999 25:61"])
        ),
        "If-None-Match": wire,
        "Accept-Encoding": wire,
        "X-Request-ID": wire,
        "X-Forwarded-For": wire,
        "Host": wire,
    },
)


@pytest.fixture(scope="module")
def stored(keyring):
    encryptor = Encryptor(keyring)
    return encryptor.update(os.urandom(SIZE)) + encryptor.finalize()


@pytest.mark.parametrize("seekable", [True, False], ids=["file", "generator"])
def test_no_header_makes_a_download_cost_more_than_twice_the_file_or_4_mib(
    seekable, stored, keyring, journal
):
    """Whatever the header says: a status of ours, the length that was announced, and no exception."""
    file = Counting(stored)

    def generator(environ, start_response):
        file.seek(0)
        start_response("200 OK", [("Content-Length", str(len(stored)))])
        while data := file.read(8192):
            yield data

    app = wrap(serving(file) if seekable else generator, keyring, journal)

    @examples(150)
    @given(headers, st.sampled_from(["GET", "GET", "HEAD"]))
    def costs_little(sent, method):
        file.count = 0
        environ = make_environ(method, headers=sent.items())
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        status, answered, length = drain(app, environ)
        peak = tracemalloc.get_traced_memory()[1] - before
        assert status in {200, 206, 416}
        assert method == "HEAD" or answered["Content-Length"] == str(length)
        assert length <= SIZE + 16 * 200
        assert file.count < 2 * len(stored) + OVERHEAD
        assert peak < 4 * MIB

    tracemalloc.start()
    try:
        costs_little()
    finally:
        tracemalloc.stop()


@examples(150)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "Content-Type",
                "Content-Length",
                "Transfer-Encoding",
                "Content-Encoding",
                "Expect",
                "Range",
                "Cookie",
            ]
        ),
        st.one_of(
            wire,
            st.sampled_from(["chunked", "multipart/form-data; boundary=x", "5", "0", "-1", "multipart/x"]),
        ),
    ),
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "get", ""]),
    st.binary(max_size=40),
)
def test_no_header_of_a_request_gets_past_us_as_an_exception(keyring, journal, sent, method, body):
    def app(environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"plain"]

    wrapped = wrap(app, keyring, journal)
    environ = make_environ(method, body=body, headers=sent.items(), SERVER_SOFTWARE="gunicorn/27.0.1")
    status, _, _ = drain(wrapped, environ)
    assert status in {200, 400, 413}
