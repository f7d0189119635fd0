"""The parser alone: any cut of the input gives the same events, and whatever it takes, another strict parser takes too."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import hostile_corpus
from support.fuzzing import examples
from support.hostile_corpus import accepted, load, params
from support.strict_reader import assert_read_alike
from support.uploads import cut

from securefs.errors import LimitExceededError
from securefs.middleware.media_type import MalformedTypeError, parse_boundary
from securefs.middleware.multipart import (
    Data,
    MalformedBodyError,
    MultipartParser,
    Part,
    PartEnd,
)

MAX_HEADER = 8192
PARSED = [case for case in load() if case.content_type.lower().startswith("multipart/form-data")]


def boundary_of(case):
    try:
        return parse_boundary(case.content_type)
    except MalformedTypeError:
        return None


READABLE = [case for case in PARSED if boundary_of(case) is not None]


def read(pieces, boundary, max_header=MAX_HEADER):
    """Return [(Part, content)], or the error's class and text, of a body in these pieces."""
    parser = MultipartParser(boundary, max_header)
    parts = []
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                if isinstance(event, Part):
                    parts.append((event, bytearray()))
                    ended = False
                elif isinstance(event, Data):
                    assert len(event.data), "never empty"
                    assert not ended
                    parts[-1][1].extend(event.data)
                else:
                    assert isinstance(event, PartEnd)
                    ended = True
        parser.close()
    except (MalformedBodyError, LimitExceededError) as error:
        return type(error), str(error)
    assert parser.complete
    assert not parts or ended
    return [(part, bytes(content)) for part, content in parts]


@pytest.mark.parametrize("case", params(READABLE))
def test_one_byte_at_a_time_is_the_same_as_all_at_once(case):
    boundary = boundary_of(case)
    whole = read([case.body], boundary)
    assert read([case.body[n : n + 1] for n in range(len(case.body))], boundary) == whole


@pytest.mark.parametrize("case", params([case for case in READABLE if len(case.body) < 1000]))
def test_every_cut_in_two_is_the_same_as_all_at_once(case):
    """So every delimiter is split at each of its positions."""
    boundary = boundary_of(case)
    whole = read([case.body], boundary)
    for position in range(1, len(case.body)):
        assert read([case.body[:position], case.body[position:]], boundary) == whole, position


@examples(200)
@given(st.data())
def test_random_cuts_are_the_same_as_all_at_once(data):
    case = data.draw(st.sampled_from(READABLE), label="case")
    positions = data.draw(st.lists(st.integers(0, len(case.body)), max_size=8), label="positions")
    boundary = boundary_of(case)
    assert read(cut(case.body, positions), boundary) == read([case.body], boundary)


def is_taken(body, boundary):
    """Return whether another strict parser takes what we take; fail where it takes it otherwise."""
    ours = read([body], boundary)
    if not isinstance(ours, list):
        return True
    return assert_read_alike([(part.name, part.filename, data) for part, data in ours], body, boundary)


# What we take and it does not. No parser behind us sees any of this.
MORE_LENIENT = {"client-ios", "disposition-attachment", "part-length-wrong", "tab-before-name"}


@pytest.mark.parametrize("case", params(READABLE))
def test_another_strict_parser_takes_what_we_take(case):
    assert is_taken(case.body, boundary_of(case)) is (case.name not in MORE_LENIENT)


# Pieces of which hostile Content-Dispositions are made.
scraps = st.sampled_from(
    [
        *(
            "form-data",
            "name",
            "filename",
            "=",
            ";",
            '"',
            "\\",
            '\\"',
            "a",
            "%22",
            "*",
            "*0",
            " ",
            "\t",
            ",",
            "/",
        ),
        *(
            'name="n"',
            '; filename="f.txt"',
            "; filename=",
            "\r\n ",
            "\0",
            "ä",
            "'",
            "UTF-8''x",
            "filename*=",
            "=?utf-8?q?",
            "?=",
            "attachment",
            "x=y",
            "..",
            "C:\\",
        ),
    ]
)


@examples(400)
@given(st.lists(scraps, max_size=14).map("".join), st.booleans())
@example('; filename="a\\"', True)
@example(';\tfilename="a"', True)
@example("; filename=a/b", True)
@example('; filename="\\"a\\\\\\"b"', True)
def test_no_disposition_is_read_otherwise_by_another_strict_parser(text, well_begun):
    disposition = ('form-data; name="n"' if well_begun else "") + text
    body = f"--B\r\nContent-Disposition: {disposition}\r\n\r\ncanary\r\n--B--\r\n".encode()
    is_taken(body, b"B")


ACCEPTED = [
    case
    for case in accepted()
    if case in READABLE and b"Content-Length" not in case.body and len(case.body) < 2000
]
tokens = st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b"--",
        b"--XX",
        b"--XX--",
        b"\r\n--XX\r\n",
        b"\r\n\r\n",
        b'"',
        b"\\",
        b";",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
    ]
)


@examples(400)
@given(st.data())
def test_no_mutation_is_read_otherwise_by_another_strict_parser(data):
    case = data.draw(st.sampled_from(ACCEPTED), label="case")
    body = mutate(data, case.body)
    is_taken(body, boundary_of(case))


def mutate(data, body):
    """Return ``body`` with a few bytes inserted, removed, doubled or exchanged."""
    for _ in range(data.draw(st.integers(1, 3), label="mutations")):
        start = data.draw(st.integers(0, len(body)), label="at")
        stop = min(len(body), start + data.draw(st.integers(0, 12), label="length"))
        with_ = data.draw(
            st.one_of(tokens, st.just(b""), st.just(body[start:stop] * 2), st.binary(max_size=3))
        )
        body = body[:start] + with_ + body[stop:]
    return body


@examples(100)
@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'),
                min_size=1,
                max_size=20,
            ),
            st.none()
            | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=20),
            st.binary(max_size=200).filter(lambda data: b"--B" not in data),
        ),
        max_size=5,
    )
)
def test_what_a_browser_writes_is_read_as_it_was_meant(parts):
    body = b""
    for name, filename, content in parts:
        body += f'--B\r\nContent-Disposition: form-data; name="{name}"'.encode()
        body += b"" if filename is None else f'; filename="{filename}"\r\nContent-Type: a/b'.encode()
        body += b"\r\n\r\n" + content + b"\r\n"
    found = read([body + b"--B--\r\n"], b"B")
    assert [(part.name, part.filename, content) for part, content in found] == parts
    assert sum(part.size + len(content) for part, content in found) == len(body), "sizes cover the body"


@pytest.mark.parametrize(
    "step", [pytest.param(1, id="bytes"), pytest.param(4096, id="4 KiB"), pytest.param(1 << 20, id="whole")]
)
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\r", id="CR"),
        pytest.param(b"\r\n", id="CR LF"),
        pytest.param(b"\r\n--B", id="near-delimiters"),
        pytest.param(b"\r\n--Bx\r\n--BOUNDARx", id="nearer"),
        pytest.param(b"-", id="hyphens"),
    ],
)
def test_content_that_resembles_delimiters_is_never_kept_back_for_long(content, step):
    """What a feed keeps is scanned again with the next one: bounded by a delimiter, the work is linear."""
    boundary = b"BOUNDARY"
    parser = MultipartParser(boundary, MAX_HEADER)
    list(parser.feed(b'--BOUNDARY\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'))
    size = 1 << (14 if step == 1 else 20)
    body = (content * (size // len(content) + 1))[:size]
    given_back = 0
    for start in range(0, size, step):
        events = list(parser.feed(body[start : start + step]))
        assert len(events) <= 1, "one view for one feed"
        given_back += sum(len(event.data) for event in events)
        assert parser.held <= len(boundary) + 5
    assert given_back + parser.held == size


QUADRATIC = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
from securefs.middleware.multipart import MalformedBodyError, MultipartParser
block = sys.stdin.buffer.read()
for _ in range(1000):
    parser = MultipartParser(b"B", 8192)
    try:
        list(parser.feed(b"--B\\r\\n" + block + b"\\r\\n\\r\\n"))
    except MalformedBodyError:
        pass
"""
DISPOSITION = b'Content-Disposition: form-data; name="n"'


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(DISPOSITION + b"\r\nX: a" + b" " * 8000 + b"b", id="white space in a value"),
        pytest.param(DISPOSITION + b" " * 8000 + b";", id="white space before a semicolon"),
        pytest.param(DISPOSITION + b"; a" * 2600, id="bare parameters"),
        pytest.param(b'Content-Disposition: form-data; name="' + b'\\"' * 4000, id="escaped quotes"),
        pytest.param(b'Content-Disposition: form-data; name="' + b"\\" * 8001, id="backslashes"),
        pytest.param(DISPOSITION + b" " * 8000 + b"x", id="white space before nothing"),
        pytest.param(DISPOSITION + b";" + b" " * 8000 + b";x y", id="white space after a semicolon"),
        pytest.param(DISPOSITION + b"; " * 4000 + b"x y", id="empty parameters"),
        pytest.param(DISPOSITION + b'; filename="' * 650 + b"x", id="file names without end"),
        pytest.param(DISPOSITION + b'; filename="' + b'" ' * 4000 + b"x", id="quotes and spaces"),
        pytest.param(DISPOSITION + b'; filename="a' + b'"' * 8000, id="quotes"),
        pytest.param(DISPOSITION + b'; filename="a"b' + b" " * 7900 + b'"', id="spaces before a quote"),
        pytest.param(DISPOSITION + b'; filename="' + b"=?utf-8?q?" * 790 + b'"', id="encoded words"),
        pytest.param(DISPOSITION + b"; filename*=UTF-8''" + b"%41" * 2600 + b"%", id="escapes"),
        pytest.param(DISPOSITION + b"; filename=" + b"a " * 3900 + b'"', id="an unquoted name"),
        pytest.param(
            DISPOSITION + b"\r\nContent-Type: a/b" + b" ;a=b" * 1600 + b" ", id="parameters of a type"
        ),
        pytest.param(
            b"".join(b"A%d: b\r\n" % n for n in range(1000))[:8000] + DISPOSITION, id="many headers"
        ),
    ],
)
def test_a_thousand_of_the_worst_headers_take_seconds_and_not_minutes(header):
    """A limit of the processor's time ends what is quadratic: 8 KiB took 0.2 s each where two repetitions met."""
    root = Path(hostile_corpus.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", QUADRATIC],
        input=header,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-300:]
    assert resource.RLIMIT_CPU is not None


@pytest.mark.parametrize(
    "step", [pytest.param(1, id="bytes"), pytest.param(3, id="threes"), pytest.param(4096, id="whole")]
)
def test_a_part_s_header_may_be_as_long_as_the_limit_and_no_longer(step):
    block = DISPOSITION + b"\r\nX: y"
    body = b"--B\r\n" + block + b"\r\n\r\nc\r\n--B--"
    pieces = [body[n : n + step] for n in range(0, len(body), step)]
    assert isinstance(read(pieces, b"B", len(block)), list)
    assert read(pieces, b"B", len(block) - 1) == (
        LimitExceededError,
        f"a part's header is longer than {len(block) - 1} bytes (max_part_header)",
    )


def test_a_header_without_end_is_refused_when_the_limit_is_reached():
    fed = []

    def feed_for_ever():
        parser = MultipartParser(b"B", 100)
        list(parser.feed(b"--B\r\nX: "))
        while True:
            list(parser.feed(b"x"))
            fed.append(parser.held)

    with pytest.raises(LimitExceededError):
        feed_for_ever()
    assert max(fed) <= 103


def test_an_event_s_view_shows_the_bytes_that_were_fed_without_a_copy():
    parser = MultipartParser(b"B", MAX_HEADER)
    list(parser.feed(b"--B\r\n" + DISPOSITION + b"\r\n\r\n"))
    data = bytes(1 << 20)
    (event,) = parser.feed(data)
    assert event.data.obj is data


def test_errors_never_quote_content():
    """They go to logs: of a body only its framing may be told, cut to a length."""
    secret = "hunter2" * 100
    body = f'--B\r\nContent-Disposition: form-data; {secret}="a"; {secret}="b"\r\n\r\n'
    kind, message = read([body.encode()], b"B")
    assert kind is MalformedBodyError
    assert len(message) < 150
