"""Requests that lie about their length, on gunicorn: nothing is stored that looks complete, and nothing else is taken for a request."""

from __future__ import annotations

import socket
import sys

import pytest
from support.server_matrix import chunked, form, request, running

MIB = 1024 * 1024
WORKERS = ("gunicorn sync", "gunicorn gthread", "gunicorn gevent")
SIZES = [pytest.param(100, id="short"), pytest.param(3 * MIB, id="streamed")]
SMUGGLED = b"GET /page/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", params=WORKERS)
def site(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp("site")) as running_site:
        # The journal sums up what one address has refused.
        running_site.apart = sys.platform == "linux"
        yield running_site


@pytest.fixture
def said(site):
    """A function that tells what the journal says since the test began."""
    before = len(site.events())
    return lambda: site.events()[before:]


@pytest.fixture
def asked(site):
    """A function that tells what was taken for a request since the test began, and how each was answered."""
    before = len(site.requests())
    return lambda: [(method, path, status) for method, path, _, status in site.requests()[before:]]


def half_closed(site, data):
    """Send a request and say that no more will come, as a client may that still waits for its answer."""
    with site.connect() as connection:
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        answer = connection.receive()
        assert connection.rest() == []
    return answer


def assert_gone(site, said, answer, *, begun):
    """The upload was refused as one that broke off; a file that was begun is a failure, and none is stored."""
    assert (answer.status, answer.whole) == (400, True)
    assert site.stored() == set()
    assert said()[-1] == ("file.rejected", "failure", "client_gone")
    assert (("file.encrypt", "started", None) in said()) is begun
    assert (("file.encrypt", "failure", "client_gone") in said()) is begun
    assert ("file.encrypt", "success", None) not in said()


@pytest.mark.parametrize("size", SIZES)
def test_less_than_was_announced_is_no_upload(site, said, size):
    """Cut within the file, by a client that is still there for its answer."""
    headers, body = form("cut", bytes(size))
    length = ("Content-Length", str(len(body)))
    answer = half_closed(site, request("POST", "/upload", [*headers, length]) + body[: size // 2 + 100])
    assert_gone(site, said, answer, begun=True)


@pytest.mark.parametrize("size", SIZES)
def test_a_form_that_is_whole_is_none_where_more_was_announced(site, said, size):
    """To a multipart parser it is complete: only the length tells that something is missing."""
    headers, body = form("whole", bytes(size))
    length = ("Content-Length", str(len(body) + 2))
    answer = half_closed(site, request("POST", "/upload", [*headers, length]) + body)
    assert (answer.status, answer.whole) == (400, True)
    assert site.stored() == set()
    assert said()[-1] == ("file.rejected", "failure", "client_gone")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"", id="no last chunk"),
        pytest.param(b"ff\r\nshort", id="a chunk cut short"),
        pytest.param(b"1" * 40 + b"\r\nshort", id="a chunk of more bytes than there are"),
        pytest.param(b"0\r\n", id="no line end behind the last chunk"),
    ],
)
def test_chunks_without_an_end_are_no_upload(site, said, size, end):
    headers, body = form("chunks", bytes(size))
    data = chunked(body).removesuffix(b"0\r\n\r\n") + end
    answer = half_closed(site, request("POST", "/upload", [*headers, ("Transfer-Encoding", "chunked")], data))
    assert (answer.status, answer.whole) == (400, True)
    assert site.stored() == set()
    assert said()[-1] == ("file.rejected", "failure", "client_gone")


@pytest.mark.parametrize("bad", [b"zz", b"-1", b"0x5", b"5 5", b""])
def test_a_chunk_size_that_is_no_number_ends_the_upload(site, said, asked, bad):
    headers, body = form("size", bytes(100))
    data = chunked(body).removesuffix(b"0\r\n\r\n") + bad + b"\r\n" + SMUGGLED
    with site.connect() as connection:
        answer = connection.ask("POST", "/upload", [*headers, ("Transfer-Encoding", "chunked")], data)
        assert (answer.status, answer.whole) == (400, True)
        assert connection.still_serves() == "closed"
    assert asked() == [("POST", "/upload", "400")]
    assert site.stored() == set()
    assert said()[-1] == ("file.rejected", "failure", "client_gone")


@pytest.mark.parametrize("size", SIZES)
def test_more_than_was_announced_is_no_part_of_the_upload(site, said, asked, size):
    """What follows is the next request (RFC 9112 section 6.3): here none, so that the connection ends."""
    headers, body = form("short", bytes(size))
    length = ("Content-Length", str(len(body) - 30))
    with site.connect() as connection:
        connection.send(request("POST", "/upload", [*headers, length]) + body)
        answer = connection.receive()
        assert (answer.status, answer.whole) == (400, True)
        # The rest is a piece of a boundary.
        assert [other.status for other in connection.rest()] in ([], [400])
    assert site.stored() == set()
    assert said()[-1] == ("file.rejected", "failure", "malformed_multipart")
    assert asked() == [("POST", "/upload", "400")]


def test_what_follows_a_whole_form_is_not_searched_for_files(site, asked):
    """The client announces a form that is whole and appends another file: the app sees one."""
    headers, body = form("first", b"canary")
    other = body[: body.rindex(b"--\r\n")].replace(b'name="first"', b'name="second"')
    length = ("Content-Length", str(len(body)))
    with site.connect() as connection:
        connection.send(request("POST", "/upload", [*headers, length]) + body + other)
        answer = connection.receive()
        assert (answer.status, answer.body) == (200, b"stored 1, fields 0\n")
        assert [other.status for other in connection.rest()] in ([], [400])
    assert asked() == [("POST", "/upload", "200")]
    assert site.stored() == {"first"}
    (site.folder / "files" / "first").unlink()


def test_what_is_announced_as_too_long_is_refused_before_it_is_sent(site, said):
    """A client that waits for 100 Continue may learn before it sends 11 GiB that they are too many."""
    headers, _ = form("long", b"")
    announced = [("Content-Length", str(11 * 1024 * MIB)), ("Expect", "100-continue")]
    with site.connect() as connection:
        connection.send(request("POST", "/upload", [*headers, *announced]))
        answer = connection.receive()
        assert (answer.status, answer.whole) == (413, True)
        assert connection.rest() == []
    assert said() == [("file.rejected", "failure", "limit")]
    with site.connect() as connection:
        assert connection.ask("GET", "/page/").status == 200
