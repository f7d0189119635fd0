"""Which bytes of a file go out, and what the headers say of them (RFC 9110 section 14)."""

from __future__ import annotations

import sys

import pytest

from securefs.audit import Journal
from securefs.middleware import Policy
from securefs.middleware.exchange import Exchange
from securefs.middleware.places import Places
from securefs.middleware.ranges import UnsatisfiableRangeError
from securefs.middleware.response import Response
from securefs.middleware.selection import PARTIAL, Selection, content_range, requested

SIZE = 1000
LIMIT = 4  # ranges


def response(status="200 OK", headers=()):
    """Return an app's response, of which the server was told nothing yet."""
    # No record is written, so the journal is never opened.
    exchange = Exchange({}, Journal(stream=sys.__stderr__))
    made = Response(lambda *_: None, exchange, Places(Policy()), must_be_file=False, is_head=False)
    made.start(status, list(headers))
    return made


def get(value, **more):
    return {"REQUEST_METHOD": "GET", "HTTP_RANGE": value, **more}


def chosen(value, **more):
    selection = Selection(SIZE)
    selection.choose(response(), get(value, **more), LIMIT, ["text/plain"])
    return selection


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        pytest.param({"REQUEST_METHOD": "GET"}, "200 OK", id="no range"),
        pytest.param(get("bytes=0-9", REQUEST_METHOD="HEAD"), "200 OK", id="HEAD"),
        pytest.param(get("bytes=0-9", REQUEST_METHOD="POST"), "200 OK", id="POST"),
        pytest.param(get("bytes=0-9"), "404 Not Found", id="another status"),
        pytest.param(get("bytes=0-9"), "206 Partial Content", id="a part already"),
        pytest.param(get("lines=0-9"), "200 OK", id="another unit"),
        pytest.param(get("bytes=0-9", HTTP_IF_RANGE='"old"'), "200 OK", id="of another version"),
    ],
)
def test_what_asks_for_no_part_of_an_ok_gets_all(asked, status):
    assert requested(response(status, [("ETag", '"new"')]), asked, SIZE, LIMIT) is None


def test_if_range_with_the_version_that_is_there_gets_the_part():
    answer = response(headers=[("ETag", '"new"')])
    assert requested(answer, get("bytes=5-9", HTTP_IF_RANGE='"new"'), SIZE, LIMIT) == [range(5, 10)]


def test_a_range_beyond_the_file_raises():
    with pytest.raises(UnsatisfiableRangeError):
        requested(response(), get("bytes=1000-"), SIZE, LIMIT)


def test_a_whole_file_keeps_the_status_of_the_app():
    selection = Selection(SIZE)
    selection.choose(response(), {"REQUEST_METHOD": "GET"}, LIMIT, [])
    assert (selection.status, selection.plan, selection.length) == (None, [range(SIZE)], SIZE)
    assert selection.headers([("ETag", '"e"')]) == [
        ("ETag", '"e"'),
        ("Accept-Ranges", "bytes"),
        ("Content-Length", "1000"),
    ]


def test_one_range_is_sent_as_it_is():
    selection = chosen("bytes=-10")
    assert (selection.status, selection.plan, selection.length) == (PARTIAL, [range(990, 1000)], 10)
    assert selection.headers([("Content-Type", "text/plain")]) == [
        ("Content-Type", "text/plain"),
        ("Content-Range", "bytes 990-999/1000"),
        ("Accept-Ranges", "bytes"),
        ("Content-Length", "10"),
    ]


def test_several_ranges_are_parts_that_say_where_they_belong():
    selection = chosen("bytes=0-4,500-509")
    assert selection.status == PARTIAL
    headers = dict(selection.headers([("Content-Type", "text/plain")]))
    kind, _, boundary = headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    head = "\r\n--{}\r\nContent-Type: text/plain\r\nContent-Range: bytes {}/1000\r\n\r\n"
    assert selection.plan == [
        head.format(boundary, "0-4").encode(),
        range(5),
        head.format(boundary, "500-509").encode(),
        range(500, 510),
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    assert headers["Content-Length"] == str(sum(map(len, selection.plan)))
    assert "Content-Range" not in headers


def test_two_answers_never_share_a_boundary():
    assert chosen("bytes=0-4,6-7").plan[-1] != chosen("bytes=0-4,6-7").plan[-1]


def test_a_range_beyond_the_file_is_416_and_no_byte():
    selection = chosen("bytes=1000-")
    assert (selection.status, selection.length) == ("416 Range Not Satisfiable", 0)
    assert ("Content-Range", "bytes */1000") in selection.headers([])


def test_the_plan_is_taken_in_pieces_of_a_size_and_what_is_between_as_a_whole():
    selection = chosen("bytes=0-9,20-21")
    sent = []
    while selection.plan:
        sent.append(selection.take(4))
    first, second, end = (item for item in sent if isinstance(item, bytes))
    assert sent == [first, range(4), range(4, 8), range(8, 10), second, range(20, 22), end]
    assert selection.length == 0


@pytest.mark.parametrize(
    ("span", "size", "value"),
    [
        (range(5, 10), 1000, "bytes 5-9/1000"),
        (range(5, 10), None, "bytes 5-9/*"),
        (range(0), 1000, "bytes */1000"),
    ],
)
def test_the_value_of_content_range(span, size, value):
    assert content_range(span, size) == value
