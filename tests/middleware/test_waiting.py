"""Slow clients: what has arrived is read at once, what has not is waited for in time, and never by all threads."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader
from support.clock import Clock
from support.servers import wait_until
from support.uploads import MIB, refusal_of

from securefs import ConfigurationError
from securefs.errors import Reason
from securefs.middleware import Policy
from securefs.middleware.refusal import Refusal
from securefs.middleware.servers import arrived
from securefs.middleware.source import BodySource
from securefs.middleware.waiting import WaitingRoom


class Upload:
    """One body as gunicorn gives it: ``held`` came with the request's head, the rest comes through the connection."""

    def __init__(self, length, held=b"", policy=None, room=None):
        self.server, self.client = socket.socketpair()
        unreader = SocketUnreader(self.server)
        unreader.unread(held)
        self.clock = Clock()
        self.source = BodySource(
            Body(LengthReader(unreader, length)),
            length,
            policy or Policy(),
            sock=self.server,
            room=room,
            clock=self.clock,
        )
        self.outcome: bytes | Refusal | None = None
        self.thread = threading.Thread(target=self.read)

    def read(self):
        try:
            self.outcome = self.source.read()
        except Refusal as refusal:
            self.outcome = refusal

    def wait_for_bytes(self):
        """Let a thread of its own read, and return when it has its place in the room."""
        self.thread.start()
        wait_until(lambda: self.source._client in self.source._client._room._inside, "a place")

    def close(self):
        self.source.close()
        self.server.close()
        self.client.close()


@pytest.fixture
def upload():
    made = []

    def make(*arguments, **options):
        made.append(Upload(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.client.close()
        if one.thread.ident is not None:
            one.thread.join()
        one.close()


class Wrapped(socket.socket):
    """A socket that is not the standard library's own."""


def test_what_gunicorn_holds_is_seen():
    """Where gunicorn changes inside, this says so; the middleware then reads as from servers that show nothing."""
    server, client = socket.socketpair()
    with closing(server), closing(client):
        unreader = SocketUnreader(server)
        unreader.unread(b"x" * 3000)
        body = Body(LengthReader(unreader, 5000))
        assert arrived(body, server) == 3000
        assert body.read(1) == b"x"
        assert arrived(body, server) == 2999
        client.sendall(b"yz")
        assert arrived(body, server) == 3001
        assert arrived(Body(ChunkedReader(None, SocketUnreader(server))), server) is None
        assert arrived(client.makefile("rb"), server) is None
        # TLS and gevent have sockets of their own.
        with Wrapped(fileno=os.dup(server.fileno())) as wrapped:
            assert arrived(body, wrapped) is None
        # A server with a reader of its own, that names no length.
        assert arrived(SimpleNamespace(reader=SimpleNamespace(length=None)), server) is None


def test_what_has_arrived_is_read_without_waiting_for_more(upload):
    one = upload(MIB)
    for data in (b"a" * 1024, b"b" * 70_000):
        one.client.sendall(data)
        assert one.source.read() == data


def test_less_than_gunicorn_would_wait_for_is_waited_for_here(upload):
    """gunicorn reads a KiB or nothing: its read must not be entered for less."""
    one = upload(MIB)
    one.client.sendall(b"a" * 1000)
    one.wait_for_bytes()
    one.client.sendall(b"a" * 24)
    one.thread.join()
    assert one.outcome == b"a" * 1024


def test_a_client_that_trickles_is_given_up_by_its_rate(upload):
    one = upload(MIB, policy=Policy(min_rate=1000))
    one.client.sendall(b"a" * 1000)
    one.wait_for_bytes()
    one.clock.now += 5.1
    one.client.sendall(b"a")
    one.thread.join()
    assert "slower than 1000 bytes" in str(one.outcome)


def test_a_body_that_came_with_its_head_needs_no_waiting(upload):
    room = WaitingRoom(1)
    one = upload(7, held=b"abcdefg", room=room)
    assert one.source.read() == b"abcdefg"
    assert room._inside == set()
    assert one.source.read() == b""


def test_the_part_that_came_with_the_head_is_not_waited_for_again(upload):
    one = upload(7, held=b"abc")
    one.client.sendall(b"defg")
    assert one.source.read() == b"abcdefg"
    two = upload(6000, held=b"x" * 3000)
    assert two.source.read() == b"x" * 3000
    two.client.sendall(b"y" * 3000)
    assert two.source.read() == b"y" * 3000
    assert two.source.read() == b""


def test_it_waits_until_bytes_come(upload):
    one = upload(MIB)
    one.wait_for_bytes()
    one.client.sendall(b"x" * 2000)
    one.thread.join()
    assert one.outcome == b"x" * 2000


def test_a_client_that_goes_away_while_it_is_waited_for_is_gone(upload):
    one = upload(MIB)
    one.wait_for_bytes()
    one.client.close()
    one.thread.join()
    assert (one.outcome.status, one.outcome.reason) == (400, Reason.CLIENT_GONE)


def test_the_time_in_all_is_over_while_a_client_is_waited_for(upload):
    one = upload(MIB, policy=Policy(body_timeout=300, min_rate=0))
    one.clock.now += 300.5
    refusal = refusal_of(one.source.read)
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)
    assert "longer than 300" in str(refusal)
    assert one.server.recv(1) == b"", "a server that reads on finds the end and does not wait"
    one.server.sendall(b"the answer still goes out")


def test_the_rate_holds_while_a_client_is_waited_for(upload):
    """One byte does not buy more time than the rate gives for it."""
    one = upload(MIB, policy=Policy(min_rate=1000))
    one.client.sendall(b"x" * 2000)
    assert len(one.source.read()) == 2000
    one.clock.now += 7.1  # five seconds of grace, two for what has come
    refusal = refusal_of(one.source.read)
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)
    assert "slower than 1000 bytes" in str(refusal)


def test_a_full_room_refuses_who_must_be_waited_for(upload):
    room = WaitingRoom(1)
    first, second, third = upload(MIB, room=room), upload(MIB, room=room), upload(3, room=room)
    first.wait_for_bytes()
    refusal = refusal_of(second.source.read)
    assert (refusal.status, refusal.reason) == (503, Reason.LIMIT)
    third.client.sendall(b"abc")
    assert third.source.read() == b"abc", "who need not be waited for is served"
    first.client.sendall(b"x" * 1024)
    first.thread.join()
    assert first.outcome == b"x" * 1024, "the first was not disturbed"


def test_a_place_is_kept_until_the_body_ends_and_free_after(upload):
    room = WaitingRoom(1)
    first, second = upload(MIB, room=room), upload(MIB, room=room)
    first.wait_for_bytes()
    first.client.sendall(b"x" * 1024)
    first.thread.join()
    assert refusal_of(second.source.read).status == 503
    first.source.close()
    third = upload(MIB, room=room)
    third.wait_for_bytes()


def test_a_client_that_ends_within_a_kibibyte_is_gone(upload):
    one = upload(MIB)
    one.client.sendall(b"a" * 10)
    one.wait_for_bytes()
    one.client.close()
    one.thread.join()
    assert one.outcome == b"a" * 10
    assert refusal_of(one.source.read).reason is Reason.CLIENT_GONE


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        pytest.param(b"", 1.5, id="slower than the rate after a second"),
        pytest.param(b"x" * 100_000, 2.5, id="fast at first, then silent"),
    ],
)
def test_who_dawdles_gives_its_place_to_another(sent, seconds, upload):
    room = WaitingRoom(1)
    first, second = upload(MIB, room=room), upload(MIB, room=room)
    if sent:
        first.client.sendall(sent)
        assert first.source.read() == sent
    first.wait_for_bytes()
    first.clock.now += seconds
    second.wait_for_bytes()
    first.thread.join()
    assert (first.outcome.status, first.outcome.reason) == (408, Reason.TIMEOUT)
    assert "while others waited" in str(first.outcome)
    second.client.sendall(b"y" * 1024)
    second.thread.join()
    assert second.outcome == b"y" * 1024


def test_who_keeps_pace_keeps_its_place(upload):
    room = WaitingRoom(1)
    first, second = upload(MIB, room=room), upload(MIB, room=room)
    first.client.sendall(b"x" * 100_000)
    assert len(first.source.read()) == 100_000
    first.wait_for_bytes()
    first.clock.now += 1.9
    assert refusal_of(second.source.read).status == 503
    first.client.sendall(b"x" * 1024)
    first.thread.join()
    assert first.outcome == b"x" * 1024


def test_chunks_whose_end_cannot_be_seen_take_a_place_too(upload):
    room = WaitingRoom(1)
    first, second = upload(MIB, room=room), upload(MIB, room=room)
    blind = BodySource(
        Body(ChunkedReader(None, SocketUnreader(first.server))), None, Policy(), sock=first.server, room=room
    )
    first.source = blind
    first.wait_for_bytes()
    assert refusal_of(second.source.read).status == 503
    blind._client.put_out()
    first.thread.join()
    assert first.outcome.status == 408
    assert "while others waited" in str(first.outcome)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "9" * 5000, "٣"])
def test_a_limit_that_is_no_number_stops_the_program(text):
    with pytest.raises(ConfigurationError, match="SECUREFS_MAX_WAITING"):
        Policy.from_env({"SECUREFS_MAX_WAITING": text})


def test_the_limit_comes_from_the_environment():
    assert Policy.from_env({"SECUREFS_MAX_WAITING": "12"}).max_waiting == 12
    assert Policy.from_env({}).max_waiting is None
    with pytest.raises(ConfigurationError, match="max_waiting"):
        Policy(max_waiting=0)
