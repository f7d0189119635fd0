"""The body that the app reads: its declared length is met to the byte, and no boundary is cut by a read."""

from __future__ import annotations

import io
import itertools
import re
import tracemalloc
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.hostile_corpus import Expected
from support.uploads import KEYRING, MIB, canonical_parts, line, opened, refusal_of
from support.wsgi_client import Input

from securefs import Keyring, Suite, open_encrypted
from securefs.audit import Journal
from securefs.errors import Reason
from securefs.middleware import BodyRefusedError, Policy
from securefs.middleware.body import RewrittenBody, _padded, prepare
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import Piece
from securefs.middleware.servers import MAX_EPILOGUE, UPLOAD_READ
from securefs.middleware.spool import HELD_IN_MEMORY
from securefs.middleware.upload import MIN_BOUNDARY

LONG = b"----geckoformboundary00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    with Journal_closed(tmp_path_factory.mktemp("journal")) as journal:
        yield journal


class Journal_closed:  # noqa: N801  # reads as what it is
    def __init__(self, folder):
        self.journal = Journal(folder)

    def __enter__(self):
        return self.journal

    def __exit__(self, *_):
        self.journal.close()


def client_body(parts, boundary: bytes, *, terse: bool = False) -> bytes:
    """Return a client's body: as browsers write it, or with the shortest headers that are legal."""
    body = bytearray()
    for part in parts:
        name, filename, kind = part.name, part.filename, part.content_type
        if terse:
            head = f"content-disposition:form-data;name={name}" + (
                "" if filename is None else f";filename={filename}"
            )
        else:
            head = f'Content-Disposition: form-data; name="{name}"'
            head += "" if filename is None else f'; filename="{filename}"\r\nContent-Type: {kind}'
        body += b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + part.content + b"\r\n"
    return bytes(body) + b"--" + boundary + b"--\r\n"


SIZES = [0, 1, 15, 16, 17, 100, 16383, 16384, 16385, 65535, 65536, 65537, 131072]
names = st.sampled_from("aXbY") | st.text(st.sampled_from("abcXYZ019._-"), min_size=1, max_size=40)
parts_strategy = st.lists(
    st.builds(
        Expected,
        name=names,
        content=(st.sampled_from(SIZES) | st.integers(0, 3000)).map(bytes),
        filename=st.none() | names.map(lambda name: "f" + name),
        content_type=st.sampled_from(["a/b", "application/octet-stream", "text/plain; x=" + "y" * 100]),
    ),
    min_size=0,
    max_size=6,
)
boundaries = st.integers(1, 70).map(lambda length: (b"Boundary0123456789" * 4)[:length])
styles = st.booleans()
policies = st.sampled_from(
    [
        Policy(suite=Suite.CBC_HMAC),
        Policy(suite=Suite.GCM),
        Policy(format=1),
        Policy(plain_fields=("a", "X"), file_fields=("b", "Y")),
    ]
)


def is_file(part, policy):
    return part.filename is not None or part.name in policy.file_fields


def drain(body):
    while body.read(65536):
        pass


@examples(150)
@given(parts_strategy, boundaries, styles, policies, st.integers(1, 70_000), st.data())
@example([Expected("a", b"xxxxx", "f", "a/b")], b"B", True, Policy(format=1), 49, None)
def test_at_no_moment_is_the_bound_below_what_comes(journal, parts, boundary, terse, policy, step, data):
    """With the tightest limits that admit the body, and asked for after every read."""
    files = sum(is_file(part, policy) for part in parts)
    tight = replace(policy, max_files=max(1, files), max_fields=max(1, len(parts) - files), max_filename=41)
    body = client_body(parts, boundary, terse=terse)
    assume(len(body) // step < 3000)
    flow = line(body, boundary, journal, tight, step=step)
    refusal = None
    bounds = []

    def ask():
        bounds.extend(flow.pipeline.upper_bound() for piece in flow.pipeline.pieces() if piece is None)

    try:
        ask()
    except Refusal as raised:
        refusal = raised
    if refusal is None:
        assert min(bounds) >= flow.pipeline.produced
    else:
        assert (refusal.status, terse) == (413, True)


def test_a_header_that_was_read_and_not_handed_on_yet_is_counted(journal):
    """The first read may end with a part's header: what the app is told must hold that header."""
    name = '\\"' * 4000  # grows by half when it is written as browsers do
    head = (
        f'--{LONG.decode()}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode()
    )
    body = head + bytes(3000) + b"\r\n--" + LONG + b"--\r\n"
    policy = Policy(max_files=1, max_fields=1, max_filename=10)
    flow = line(body, LONG, journal, policy, step=len(head))
    pieces = flow.pipeline.pieces()
    assert next(pieces) is None
    bound = flow.pipeline.upper_bound()
    list(pieces)
    assert flow.pipeline.produced > len(head) + 4000 + 3000
    assert bound >= flow.pipeline.produced


@examples(60)
@given(parts_strategy, styles, policies, st.integers(32, 70), st.integers(1, 3 * MIB), st.data())
def test_a_streamed_body_has_the_declared_length_and_little_padding(
    journal, parts, terse, policy, boundary_length, extra, data
):
    boundary = (b"Boundary0123456789" * 4)[:boundary_length]
    large = Expected("large", bytes(extra), "large.bin", "a/b")
    at = data.draw(st.integers(0, len(parts)))
    parts = [*parts[:at], large, *parts[at:]]
    body = client_body(parts, boundary, terse=terse)
    flow = line(body, boundary, journal, policy)
    rewritten = prepare(flow.pipeline, spool=False)
    got = read_in_random_ways(rewritten, data)
    assert len(got) == rewritten.length, "met to the byte"
    padding = rewritten.length - flow.pipeline.produced
    assert 0 <= padding <= MAX_EPILOGUE
    if len(body) <= UPLOAD_READ:
        assert padding == 0, "exact"
    check_parts(flow, got, parts, policy)
    rewritten.close()


@examples(60)
@given(parts_strategy, styles, policies, boundaries, st.integers(0, 2 * MIB), st.booleans(), st.data())
def test_a_spooled_body_has_its_exact_length(journal, parts, terse, policy, boundary, extra, chunked, data):
    parts = [*parts, Expected("large", bytes(extra), "large.bin", "a/b")]
    body = client_body(parts, boundary, terse=terse)
    flow = line(body, boundary, journal, policy, length="absent" if chunked else None)
    rewritten = prepare(flow.pipeline, spool=not chunked)
    got = read_in_random_ways(rewritten, data)
    assert len(got) == rewritten.length == flow.pipeline.produced
    check_parts(flow, got, parts, policy)
    rewritten.close()


def check_parts(flow, got, parts, policy):
    found = canonical_parts(f"multipart/form-data; boundary={flow.pipeline.boundary}", got)
    if policy.format == 1:
        assert [(part.name, part.filename) for part in found] == [
            (part.name, part.filename) for part in parts
        ]
        assert [u.size for u in flow.exchange.uploads] == [
            len(p.content) for p in parts if p.filename is not None
        ]
        return
    for got_part, part in zip(found, parts, strict=True):
        plain = part.name in policy.plain_fields
        seen = got_part if plain else opened(got_part)
        if is_file(part, policy):
            name = part.name if part.filename is None else part.filename
            assert seen == replace(part, filename=name, content_type=got_part.content_type)
        else:
            assert seen == replace(part, content_type=None)


def test_a_line_is_no_longer_than_was_asked_for_however_it_is_pieced_together():
    """A reader that Python gives us takes as much of each piece as it may take in all."""
    pieces = [
        Piece(b"ab", atomic=True),
        Piece(memoryview(b"cdef\ng")),
        Piece(b"hi\n"),
        Piece(b"\n"),
        Piece(b"j"),
    ]
    body = RewrittenBody(None, iter(()), deque(pieces), sum(len(piece.data) for piece in pieces))
    assert [body.readline(5), body.readline(0), body.readline(3), body.readline(2)] == [
        b"abcde",
        b"",
        b"f\n",
        b"gh",
    ]
    assert [body.readline(None), body.readline(1), body.readline(100), body.readline()] == [
        b"i\n",
        b"\n",
        b"j",
        b"",
    ]


def read_in_random_ways(body, data):
    """Read to the end by calls that ``data`` draws; none of them comes back empty before the end."""
    got = bytearray()
    ways = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["read", "read1", "readline", "readinto"]),
                st.sampled_from([1, 100, 4096, 65536, MIB]),
            ),
            min_size=1,
            max_size=6,
        ),
        label="ways",
    )
    for _ in range(10):
        for way, size in ways:
            piece = read_once(body, way, size)
            assert len(piece) <= size
            got += piece
            assert piece or len(got) == body.length
    rest = data.draw(st.sampled_from(["all", "more", "lines", "pieces"]), label="rest")
    if rest == "all":
        got += body.read()
    elif rest == "more":
        got += body.read(10 * MIB)
    elif rest == "lines" and body.length - len(got) < 300_000:
        for text in body:
            got += text
    else:
        while piece := body.read(65536):
            got += piece
    assert body.read(1) == body.read() == body.readline() == body.read1() == b""
    return bytes(got)


def read_once(body, way, size):
    if way == "readinto":
        buffer = bytearray(size)
        return bytes(buffer[: body.readinto(buffer)])
    return getattr(body, way)(size)


def body_for(journal, parts, *, environ=None, policy=None, spool=False):
    body = client_body(parts, LONG)
    flow = line(body, LONG, journal, policy or Policy(suite=Suite.GCM))
    rewritten = prepare(flow.pipeline, spool=spool, environ=environ or {})
    return flow, rewritten


PARTS = [
    Expected("a", b"x" * 500, None, None),
    Expected("f", bytes(70_000), "f.bin", "a/b"),
    Expected("b", b"", None, None),
    Expected("g", bytes(5), "g.bin", "a/b"),
]


def atomic_spans(flow, got):
    """Return (start, end) of what no read may end within, in the body that the app got.

    Those are each boundary's line, and each header with the data behind it up to a boundary's
    length, or to the end of the next boundary's line.
    """
    boundary = flow.pipeline.boundary.encode()
    lines = [match.span() for match in re.finditer(rb"(?:\r\n)?--" + boundary + rb"(?:--)?\r\n", got)]
    openings = []
    for (_, start), (next_start, next_end) in itertools.pairwise(lines):
        data = got.index(b"\r\n\r\n", start) + 4
        enough = data + len(boundary) + 4
        openings.append((start, enough if enough <= next_start else next_end))
    return lines + openings


@pytest.mark.parametrize("spool", [pytest.param(False, id="exact"), pytest.param(True, id="spooled")])
@pytest.mark.parametrize(
    ("large", "sizes"),
    [
        pytest.param(0, range(300, 600, 3), id="small"),
        pytest.param(2 * MIB, range(4096, 4096 + 60 * 53, 53), id="large"),
    ],
)
def test_no_read_cuts_a_boundary_or_a_header_or_the_first_data(journal, sizes, spool, large):
    """For many sizes of reads, of which several would end within one of them."""
    would_cut = 0
    for size in sizes:
        flow, body = body_for(journal, [*PARTS, Expected("h", bytes(large), "h", "a/b")], spool=spool)
        got, edges = bytearray(), set()
        while piece := body.read(size):
            assert len(piece) <= size
            got += piece
            edges.add(len(got))
        body.close()
        spans = atomic_spans(flow, bytes(got))
        assert len(spans) == 6 + 5
        assert not [edge for edge in edges for start, end in spans if start < edge < end]
        would_cut += any(start // size != (end - 1) // size for start, end in spans)
    assert would_cut > 1


def test_webob_which_takes_a_short_read_for_a_lost_connection_gets_none(journal):
    environ = {}
    _, body = body_for(journal, [*PARTS, Expected("h", bytes(2 * MIB), "h", "a/b")], environ=environ)
    environ["webob._body_file"] = (object(), body)
    left = body.length
    while left:
        piece = body.read(8192)
        assert len(piece) == min(8192, left)
        left -= len(piece)
    body.close()


def test_a_read_that_is_smaller_than_a_header_goes_on_all_the_same(journal):
    _, body = body_for(journal, PARTS)
    got = b"".join(iter(lambda: body.read(7), b""))
    assert len(got) == body.length
    body.close()


def test_peek_takes_nothing(journal):
    _, body = body_for(journal, PARTS)
    assert body.readable()
    seen = body.peek()
    assert body.peek(1) == seen != b""
    assert body.read().startswith(seen)
    assert body.peek() == b""
    assert body.read(0) == b""
    body.close()


def test_a_body_that_was_closed_says_so(journal):
    _, body = body_for(journal, [*PARTS, Expected("h", bytes(2 * MIB), "h", "a/b")])
    body.read(100)
    body.close()
    body.close()
    with pytest.raises(ValueError, match="closed"):
        body.read(1)


def test_a_bound_that_does_not_hold_is_an_error_and_not_a_cut_body(journal):
    """It can't be exceeded; were it, the app must not take what fits for the whole."""
    body = client_body([Expected("f", bytes(2 * MIB), "f", "a/b")], LONG)
    flow = line(body, LONG, journal)
    pieces = flow.pipeline.pieces()
    padded = RewrittenBody(flow.pipeline, _padded(flow.pipeline, pieces, MIB), deque(), MIB)
    with pytest.raises(BodyRefusedError):
        drain(padded)
    assert padded.refusal.reason is Reason.LIMIT


def test_an_unforeseen_error_is_not_taken_for_the_end(journal):
    def context():
        raise ZeroDivisionError

    body = client_body([Expected("a", bytes(MIB), None, None), Expected("f", b"x", "f", "a/b")], LONG)
    flow = line(body, LONG, journal, Policy(max_field_bytes=2 * MIB), context=context)
    rewritten = prepare(flow.pipeline, spool=False)
    with pytest.raises(ZeroDivisionError):
        rewritten.read()
    with pytest.raises(BodyRefusedError):
        rewritten.read()
    rewritten.close()


def test_an_error_while_spooling_leaves_no_file_open(journal):
    body = client_body([Expected("f", bytes(2 * MIB), "f", "a/b")], LONG)[:-5]
    flow = line(body, LONG, journal)
    refusal = refusal_of(lambda: prepare(flow.pipeline, spool=True))
    assert refusal.reason is Reason.MALFORMED_MULTIPART


@pytest.mark.parametrize("length", [1, 2, 8, MIN_BOUNDARY - 1])
def test_a_short_boundary_costs_too_much_padding_to_stream(journal, length):
    boundary = b"B" * length
    body = client_body([Expected("f", bytes(2 * MIB), "f", "a/b")], boundary)
    flow = line(body, boundary, journal)
    rewritten = prepare(flow.pipeline, spool=False)
    got = rewritten.read()
    assert len(got) == rewritten.length
    exact = rewritten.length == flow.pipeline.produced
    assert exact or rewritten.length - flow.pipeline.produced <= MAX_EPILOGUE
    assert flow.pipeline.streamable() is not exact
    rewritten.close()


def test_headers_that_are_too_terse_to_stream_are_refused_and_can_be_spooled(journal):
    parts = [Expected("n", b"", None, None)] * 900 + [Expected("f", bytes(2 * MIB), "f", "a/b")]
    parts += [Expected('\\"' * 3000, b"", None, None)] * 23
    body = client_body(parts, LONG)
    flow = line(body, LONG, journal)
    rewritten = prepare(flow.pipeline, spool=False)
    with pytest.raises(BodyRefusedError):
        rewritten.read()
    assert (rewritten.refusal.status, rewritten.refusal.reason) == (413, Reason.LIMIT)
    assert "spool=True" in str(rewritten.refusal)
    rewritten.close()
    flow = line(body, LONG, journal)
    rewritten = prepare(flow.pipeline, spool=True)
    assert len(rewritten.read()) == rewritten.length
    rewritten.close()


def test_too_many_bytes_of_fields_to_stream_are_refused(journal):
    parts = [Expected("f", bytes(2 * MIB), "f", "a/b")]
    parts += [Expected("n", bytes(MIB), None, None)] * 33
    body = client_body(parts, LONG)
    flow = line(body, LONG, journal)
    rewritten = prepare(flow.pipeline, spool=False)
    with pytest.raises(BodyRefusedError):
        drain(rewritten)
    assert (rewritten.refusal.status, rewritten.refusal.reason) == (413, Reason.LIMIT)
    rewritten.close()


class Generated(io.RawIOBase):
    """A client's body made while it is read: ``head``, ``size`` zero bytes, ``tail``."""

    def __init__(self, head, size, tail):
        super().__init__()
        self.left = [head, size, tail]
        self.length = len(head) + size + len(tail)
        self.given = 0

    def read(self, size=-1):
        head, middle, tail = self.left
        if head:
            piece, self.left[0] = head[:size], head[size:]
        elif middle:
            piece = bytes(min(middle, size))
            self.left[1] -= len(piece)
        else:
            piece, self.left[2] = tail[:size], tail[size:]
        self.given += len(piece)
        return piece


def generated(size, head_extra=b""):
    head, tail = client_body([Expected("f", b"\0SPLIT\0", "f", "a/b")], LONG).split(b"\0SPLIT\0")
    return Generated(head_extra + head, size, tail)


def flow_of(stream, journal, policy, *, length):
    flow = line(b"", LONG, journal, policy)
    flow.source._stream = stream
    flow.source.length = length
    return flow


@pytest.mark.parametrize("spool", [pytest.param(False, id="streamed"), pytest.param(True, id="spooled")])
@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_memory_for_one_upload_stays_under_four_mebibytes(journal, spool, suite):
    stream = generated(64 * MIB)
    flow = flow_of(stream, journal, Policy(suite=suite), length=None if spool else stream.length)
    tracemalloc.start()
    body = prepare(flow.pipeline, spool=spool)
    count = 0
    while piece := body.read(65536):
        count += len(piece)
    del piece
    body.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == body.length > 64 * MIB
    assert peak < 4 * MIB, f"{peak / MIB:.2f} MiB"


def test_a_gibibyte_of_header_is_refused_at_its_first_kibibytes(journal):
    stream = Generated(b"--" + LONG + b"\r\nX: ", 1 << 30, b"")
    flow = flow_of(stream, journal, Policy(), length=stream.length)
    tracemalloc.start()
    body = prepare(flow.pipeline, spool=False)
    with pytest.raises(BodyRefusedError):
        body.read(65536)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (body.refusal.status, body.refusal.reason) == (413, Reason.LIMIT)
    body.close()
    assert stream.given <= 2 * MIB
    assert peak < 4 * MIB


def test_what_is_spooled_to_a_file_is_sealed_under_a_key_of_its_own(journal, tmp_path, monkeypatch):
    """Names and fields are in it: nobody who reads the disk reads them, and nobody changes them unnoticed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parts = [
        Expected("field-canary", b"value-canary", None, None),
        Expected("f", b"content-canary" + bytes(2 * HELD_IN_MEMORY), "name-canary", "a/b"),
    ]
    flow, body = body_for(journal, parts, spool=True)
    (spool,) = body._resources
    held, file = spool._held, spool._spool.finish()
    stored = file.read()
    assert len(stored) > 2 * HELD_IN_MEMORY
    for canary in (
        b"field-canary",
        b"value-canary",
        b"content-canary",
        b"name-canary",
        flow.pipeline.boundary.encode(),
    ):
        assert canary not in stored
    with pytest.raises(Exception, match="key"):
        open_encrypted(io.BytesIO(stored), KEYRING)
    file.seek(len(stored) // 2)
    file.write(b"changed")
    with pytest.raises(Exception, match="tag"):
        body.read()
    body.close()
    assert file.closed
    assert held.closed


def test_the_pieces_of_a_body_can_be_empty(journal):
    flow, _ = body_for(journal, [])
    body = RewrittenBody(flow.pipeline, iter([Piece(b""), None, Piece(b"x")]), deque(), 1)
    assert body.read(5) == b"x"
    assert Input(b"").read() == b""
    assert Keyring(bytes(range(32))).primary_id


@pytest.mark.parametrize("spool", [pytest.param(False, id="streamed"), pytest.param(True, id="spooled")])
def test_no_read_cuts_what_follows_a_large_file(journal, spool):
    """A long file in pieces of a mebibyte: the boundaries, headers and data behind it stay whole."""
    would_cut = 0
    for shift in range(0, 700, 31):
        flow, body = body_for(journal, [Expected("h", bytes(2 * MIB), "h", "a/b"), *PARTS], spool=spool)
        got = bytearray(body.read(2 * MIB + shift))
        edges = {len(got)}
        while piece := body.read(400):
            got += piece
            edges.add(len(got))
        body.close()
        assert len(got) == body.length
        spans = atomic_spans(flow, bytes(got))
        assert not [edge for edge in edges for start, end in spans if start < edge < end]
        would_cut += any((start - shift) // 400 != (end - 1 - shift) // 400 for start, end in spans)
    assert would_cut > 1


WAYS = {
    "read(1)": lambda body: body.read(1),
    "read(10)": lambda body: body.read(10),
    "read1(1)": lambda body: body.read1(1),
    "read1(700)": lambda body: body.read1(700),
    "read1": lambda body: body.read1(),
    "readline": lambda body: body.readline(),
    "readline(10)": lambda body: body.readline(10),
    "readinto": lambda body: read_once(body, "readinto", 100),
    "peek": lambda body: body.read(len(body.peek())),
}


FIELDS = [Expected("a", b"x" * size, None, None) for size in range(90)]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("large", "spool"),
    [
        pytest.param(0, False, id="exact"),
        pytest.param(2 * MIB, False, id="streamed"),
        pytest.param(0, True, id="spooled"),
    ],
)
def test_a_read_is_never_empty_before_the_end(journal, way, large, spool):
    """Pieces without data are passed over: an empty read is the end to every parser."""
    parts = [*FIELDS, Expected("f", bytes(100), "f", "a/b"), *FIELDS[:3]]
    if large:
        parts.insert(0, Expected("h", bytes(large), "h", "a/b"))
    flow, body = body_for(journal, parts, spool=spool)
    if large:
        # Of the large file one byte is left for what follows to be read in small steps.
        while flow.pipeline.produced < large:
            assert body.read(65536)
    left = body.length - flow.pipeline.produced if large else body.length
    got = bytearray()
    while piece := way(body):
        got += piece
    assert len(got) >= left
    assert got.count(b"form-data") == len(parts) - bool(large)
    assert body.read() == b""
    body.close()


@pytest.mark.parametrize("spool", [pytest.param(False, id="exact"), pytest.param(True, id="spooled")])
def test_a_line_is_whole_and_of_the_length_that_was_asked_for(journal, spool):
    _, body = body_for(journal, FIELDS, spool=spool)
    lines = list(iter(body.readline, b""))
    assert all(text.endswith(b"\n") and text.count(b"\n") == 1 for text in lines)
    assert sum(map(len, lines)) == body.length
    body.close()


@pytest.mark.parametrize("size", [0, 1, 50, 1000])
def test_read1_gives_no_more_than_was_asked_for(journal, size):
    _, body = body_for(journal, PARTS)
    first = body.read1(size)
    assert len(first) <= size
    assert bool(first) is bool(size)
    assert len(first) + len(body.read()) == body.length
    body.close()
