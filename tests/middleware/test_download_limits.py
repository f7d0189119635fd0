"""What a download may cost: the bytes read of a file, the memory held, and no header of a client's that makes either grow."""

from __future__ import annotations

import io
import itertools
import os
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import LIBRARIES, chosen, pattern
from support.wsgi_client import call, make_environ

from securefs import Encryptor, Keyring, Suite
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


class Watched(io.BytesIO):
    """A file that tells how often each of its bytes was read."""

    def __init__(self, data):
        super().__init__(data)
        self.reads = []

    def close(self):
        """Stay open: the next request reads on."""

    def read(self, size=-1, /):
        start = self.tell()
        data = super().read(size)
        self.reads.append((start, start + len(data)))
        return data

    def most_reads(self, start):
        """Return how often the byte behind offset ``start`` that was read most often was read."""
        steps = sorted(
            (at, step) for a, b in self.reads for at, step in ((max(a, start), 1), (max(b, start), -1))
        )
        return max(itertools.accumulate((step for _, step in steps), initial=0))


PLAIN = pattern(5 * MIB + 99)
KINDS = [pytest.param(suite, id=suite.label) for suite in Suite] + [pytest.param(None, id="format-1")]
SPREAD = [range(at * 300_000, at * 300_000 + 200_000) for at in range(16)]
EDGES = [range(at * 70_000, at * 70_000 + 69_000) for at in range(16)]
SMALL = [range(at * 50, at * 50 + 9) for at in range(16)]
FAR = [range(at % 2 * 4 * MIB + at * 20, at % 2 * 4 * MIB + at * 20 + 9) for at in range(16)]
# Sixteen ranges of 65 KiB are more than 1 MiB, fifteen are not.
NEAR_KEPT = [range(at * 66_000, at * 66_000 + 65_000) for at in range(16)]
SPANS = {
    "all": [range(len(PLAIN))],
    "one": [range(65_000, 3 * MIB)],
    "the end": [range(4 * MIB - 70_000, len(PLAIN))],
    "spread": SPREAD,
    "spread, reversed": SPREAD[::-1],
    "sharing segments": EDGES,
    "sharing segments, reversed": EDGES[::-1],
    "sharing segments, every other": EDGES[::2] + EDGES[1::2],
    "in one segment": SMALL,
    "in one segment, reversed": SMALL[::-1],
    "to and fro": FAR,
    "to and fro, with a long one": [*FAR[:15], range(MIB, 3 * MIB)],
    "about what is kept": NEAR_KEPT[::-1],
    "just less than is kept": NEAR_KEPT[:0:-1],
    "overlapping": [range(at * 300_000, at * 300_000 + 400_000) for at in (3, 1, 2, 9, 8, 7, 0)],
    "touching": [range(at * 100_000, at * 100_000 + 100_000) for at in (9, 8, 7, 3, 2, 1)],
    "the end first": [range(len(PLAIN) - 9, len(PLAIN)), *SPREAD[:15]],
    "the end in between": [*SMALL[:7], range(len(PLAIN) - 9, len(PLAIN)), *SPREAD[8:]],
}


def parts_of(sent, content_type):
    """Return the parts of a multipart/byteranges body as (start, bytes)."""
    boundary = content_type.partition("boundary=")[2].encode()
    head = re.compile(
        rb"\r\n--" + boundary + rb"\r\n(?:[^\r]+\r\n)*?Content-Range: bytes (\d+)-(\d+)/\d+\r\n\r\n"
    )
    found, at = [], 0
    while match := head.match(sent, at):
        start, last = map(int, match.groups())
        at = match.end() + last + 1 - start
        found.append((start, sent[match.end() : at]))
    assert sent[at:] == b"\r\n--" + boundary + b"--\r\n"
    return found


def seal_as(suite, keyring):
    encryptor = keyring.format_1_sealer() if suite is None else Encryptor(keyring, suite)
    return encryptor.update(PLAIN) + encryptor.finalize()


def merged(spans):
    """Return the spans in order, those joined that overlap or touch."""
    found = []
    for span in sorted(spans, key=lambda span: span.start):
        if found and span.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


@pytest.mark.parametrize("verify_first", [0, 64 * MIB, None])
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("suite", KINDS)
def test_no_stored_byte_is_read_more_than_twice_whatever_the_ranges(
    suite, spans, verify_first, keyring, journal
):
    """Once to verify it and once to send it. Behind the header; of Format 1, that is the first IV."""
    file = Watched(seal_as(suite, keyring))
    app = wrap(
        serving(file),
        keyring,
        journal,
        verify_first=verify_first,
        format_1_paths=("/1",) if suite is None else (),
    )
    start = (
        16
        if suite is None
        else len(Encryptor(keyring, suite).update(bytes(suite.segment_size))) - suite.sealed_size
    )
    header = "bytes=" + ",".join(f"{span.start}-{span.stop - 1}" for span in spans)
    answer = call(app, path="/1", headers=[("Range", header)])
    assert (answer.status, answer.error) == (206, None)
    if len(spans) > 1 and answer.headers["content-type"].startswith("multipart/"):
        parts = parts_of(answer.body, answer.headers["content-type"])
    else:
        parts = [(int(answer.headers["content-range"].split()[1].partition("-")[0]), answer.body)]
    assert all(data == PLAIN[at : at + len(data)] for at, data in parts)
    assert merged(range(at, at + len(data)) for at, data in parts) == merged(spans)
    assert 1 <= file.most_reads(start) <= 2
    assert file.most_reads(0) <= 4


OLD = seal_as(None, Keyring(bytes(range(32))))
GIVEN = {
    "file": lambda environ, write, file: environ["wsgi.file_wrapper"](file, 8192),
    "generator": lambda environ, write, file: iter(lambda: file.read(8192), b""),
    "write()": lambda environ, write, file: [write(data) for data in iter(lambda: file.read(8192), b"")][:0],
}


def giving(file, way, length=None):
    def app(environ, start_response):
        file.seek(0)
        announced = [] if length is None else [("Content-Length", str(length))]
        write = start_response("200 OK", [("Content-Type", "image/png"), *announced])
        return GIVEN[way](environ, write, file)

    return app


def reasons(journal):
    return [
        (record["event"], record["reason"]) for record in journal.records() if record["outcome"] == "failure"
    ]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unannounced"])
@pytest.mark.parametrize("way", GIVEN)
def test_a_format_1_file_may_reach_the_limit_and_not_pass_it(way, announced, keyring, journal):
    for limit, status in ((len(OLD), 200), (None, 200), (len(OLD) - 1, 500)):
        file = Counting(OLD)
        app = giving(file, way, len(OLD) if announced else None)
        wrapped = wrap(app, keyring, journal, format_1_paths=("/1",), max_format_1=limit)
        answer = call(wrapped, path="/1")
        assert (answer.status, answer.body == PLAIN) == (status, status == 200)
        if status == 500 and way != "write()":
            most = len(OLD) if way == "generator" and not announced else 8192
            assert file.count <= most, "no more than the first bytes, or what had to be drawn to know"
        known = announced or way == "file"
        assert call(wrapped, "HEAD", path="/1").status == (status if known else 200)
    assert set(reasons(journal)) == {("file.decrypt", "limit")}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_sparse_file_costs_nothing(method, tmp_path, keyring, journal):
    """Whoever can write to the storage has it for nothing, and each request would read all of it."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(GIB + 16)

    class Real(io.FileIO):
        count = 0

        def read(self, size=-1, /):
            data = super().read(size)
            self.count += len(data)
            return data

    file = Real(tmp_path / "sparse")
    answer = call(wrap(giving(file, "file"), keyring, journal, format_1_paths=("/1",)), method, path="/1")
    assert answer.status == 500
    assert file.count <= 2 * 8, "its first bytes, which are no magic"
    assert reasons(journal) == [("file.decrypt", "limit")]


def test_of_a_body_that_goes_on_for_ever_no_more_is_held_than_the_limit(keyring, journal):
    drawn = []

    def app(environ, start_response):
        start_response("200 OK", [])
        while True:
            drawn.append(8192)
            yield bytes(8192)

    wrapped = wrap(app, keyring, journal, format_1_paths=("/1",), max_format_1=MIB)
    assert call(wrapped, path="/1").status == 500
    assert MIB < sum(drawn) <= MIB + 2 * 8192
    drawn.clear()
    assert call(wrapped, "HEAD", path="/1").status == 200
    assert drawn == [8192]


def test_a_format_2_file_is_not_limited_where_format_1_is_allowed(keyring, journal):
    stored = seal_as(Suite.GCM, keyring)
    fields = {"format_1_paths": ("/1",), "max_format_1": 1000, "verify_first": MIB}
    for way in GIVEN:
        answer = call(
            wrap(giving(io.BytesIO(stored), way, len(stored)), keyring, journal, **fields), path="/1"
        )
        assert (answer.status, answer.body == PLAIN) == (200, True)
        # And it is streamed like elsewhere, for it need not be held as a whole.
    drawn = Counting(stored)
    wrapped = wrap(giving(drawn, "generator", len(stored)), keyring, journal, **fields)
    result = wrapped(make_environ(path="/1"), lambda *_: None)
    next(iter(result))
    assert drawn.count < MIB
    result.close()


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unannounced"])
@pytest.mark.parametrize("way", ["file", "generator"])
def test_head_of_a_format_1_file_reads_its_first_bytes_and_promises_no_length(
    way, announced, keyring, journal
):
    changed = OLD[:-1] + bytes([OLD[-1] ^ 1])
    for stored in (OLD, changed):
        file = Counting(stored)
        app = wrap(
            giving(file, way, len(OLD) if announced else None), keyring, journal, format_1_paths=("/1",)
        )
        head = call(app, "HEAD", path="/1")
        assert file.count <= 8192
        assert (head.status, head.body, head.error) == (200, b"", None)
        assert head.headers == {"content-type": "image/png", "accept-ranges": "bytes"}
        get = call(app, path="/1")
        assert get.status == (200 if stored is OLD else 500)
        if stored is OLD:
            assert head.headers.items() <= get.headers.items()
    assert reasons(journal) == [("file.integrity_failure", "tag_mismatch")]


def test_head_of_a_file_of_a_length_that_format_1_never_has_is_refused(keyring, journal):
    for length in (0, 63, len(OLD) - 1):
        app = wrap(giving(io.BytesIO(OLD[:length]), "file"), keyring, journal, format_1_paths=("/1",))
        assert call(app, "HEAD", path="/1").status == 500
    assert reasons(journal) == [("file.integrity_failure", "truncated")] * 3


def test_a_format_1_file_in_the_place_of_one_with_an_object_id_is_not_read(keyring, journal):
    file = Counting(OLD)

    def app(environ, start_response):
        environ["securefs"].expect("0" * 64)
        return giving(file, "file")(environ, start_response)

    wrapped = wrap(app, keyring, journal, format_1_paths=("/1",))
    for method in ("GET", "HEAD"):
        assert call(wrapped, method, path="/1").status == 500
    assert file.count == 2 * 8
    assert reasons(journal) == [("file.integrity_failure", "wrong_object")] * 2


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
