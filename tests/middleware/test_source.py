"""Reading request bodies: the length announced, the deadline, the rate; and bodies that only pass by."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import Clock
from support.fuzzing import examples
from support.uploads import MIB, refusal_of
from support.wsgi_client import Input

from securefs.errors import Reason
from securefs.header import MAGIC
from securefs.middleware import BodyRefusedError, Policy, waiting
from securefs.middleware.headers import content_length, has_body
from securefs.middleware.refusal import Refusal
from securefs.middleware.servers import UPLOAD_READ
from securefs.middleware.source import BodySource, GuardedInput


def drain(source):
    got = bytearray()
    while data := source.read():
        got += data
    return bytes(got)


def test_it_reads_a_mebibyte_at_a_time_and_stops_at_the_length():
    stream = Input(bytes(2 * MIB + 5) + b"the next request")
    source = BodySource(stream, 2 * MIB + 5, Policy())
    assert len(drain(source)) == 2 * MIB + 5
    assert stream.sizes == [MIB, MIB, 5], "nothing beyond the body is asked for"
    assert source.received == 2 * MIB + 5


def test_without_a_length_it_reads_to_the_end():
    stream = Input(b"abc", step=2)
    assert drain(BodySource(stream, None, Policy())) == b"abc"
    assert set(stream.sizes) == {UPLOAD_READ}


def test_a_body_that_ends_early_is_no_body():
    source = BodySource(Input(b"abc"), 4, Policy())
    assert source.read() == b"abc"
    refusal = refusal_of(source.read)
    assert (refusal.status, refusal.reason) == (400, Reason.CLIENT_GONE)
    assert "3 of 4 bytes" in str(refusal)


@pytest.mark.parametrize("announced", [pytest.param(True, id="announced"), pytest.param(False, id="chunked")])
def test_a_body_may_be_as_long_as_the_limit_and_no_longer(announced):
    policy = Policy(max_body=10)
    assert drain(BodySource(Input(b"x" * 10), 10 if announced else None, policy)) == b"x" * 10
    stream = Input(b"x" * 11)
    refusal = refusal_of(lambda: drain(BodySource(stream, 11 if announced else None, policy)))
    assert (refusal.status, refusal.reason) == (413, Reason.LIMIT)
    assert bool(stream.sizes) is not announced, "what is announced as too long is not read at all"


def test_it_may_take_as_long_as_the_limit_and_no_longer():
    clock = Clock()
    source = BodySource(Input(bytes(1000), step=500), 1000, Policy(body_timeout=10, min_rate=0), clock=clock)
    clock.now += 10
    assert len(source.read()) == 500
    clock.now += 0.001
    refusal = refusal_of(source.read)
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)


def test_after_five_seconds_the_average_rate_counts():
    clock = Clock()
    source = BodySource(Input(bytes(3000), step=1000), 3000, Policy(min_rate=1000), clock=clock)
    clock.now += 6
    assert len(source.read()) == 1000, "1,000 bytes in one second after the first five"
    clock.now += 1
    source.read()
    clock = Clock()
    source = BodySource(Input(bytes(3000), step=999), 3000, Policy(min_rate=1000), clock=clock)
    clock.now += 6
    refusal = refusal_of(source.read)
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)


class Broken:
    def __init__(self, error) -> None:
        self.error = error

    def read(self, size=-1):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ConnectionResetError(104, "Connection reset by peer"), id="reset"),
        pytest.param(OSError("no errno"), id="a server's own OSError"),
        pytest.param(ValueError("bad chunk"), id="a server's own error"),
    ],
)
def test_a_stream_that_fails_is_a_client_that_went_away(error):
    refusal = refusal_of(BodySource(Broken(error), 5, Policy()).read)
    assert (refusal.status, refusal.reason) == (400, Reason.CLIENT_GONE)


@pytest.fixture
def connection():
    server, client = socket.socketpair()
    with closing(server), closing(client), server.makefile("rb") as stream:
        yield server, client, stream


def test_a_client_that_stalls_is_given_up_at_the_deadline(connection):
    server, _, stream = connection
    server.settimeout(77)
    source = BodySource(stream, 5, Policy(body_timeout=0.05), sock=server)
    refusal = refusal_of(source.read)
    source.close()
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)
    assert server.gettimeout() == 77, "the server's own setting is back"


def test_a_client_that_trickles_is_given_up_at_the_deadline(connection):
    """A byte now and then satisfies every socket timeout, and the server's read waits for all bytes."""
    server, client, stream = connection
    over, outlasted = threading.Event(), threading.Event()

    def trickle():
        # For as long as ten seconds, a hundred times the deadline.
        for _ in range(1000):
            if over.wait(0.01):
                return
            client.send(b"x")
        outlasted.set()
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=trickle)
    thread.start()
    source = BodySource(stream, MIB, Policy(body_timeout=0.1), sock=server)
    refusal = refusal_of(source.read)
    over.set()
    thread.join()
    source.close()
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)
    assert not outlasted.is_set(), "the read waited for all that the client had"
    server.sendall(b"the answer still goes out")


def test_a_server_whose_read_fails_when_its_connection_is_shut_gets_the_same_answer(connection):
    server, _, _ = connection

    class Server:
        """Reads to the end, as for a chunked body, and has an error of its own for an end that comes early."""

        def read(self, size=-1):
            server.settimeout(20)  # where the deadline does not work, this test fails and does not wait
            while server.recv(1):
                pass
            raise ValueError("no last chunk")

    source = BodySource(Server(), None, Policy(body_timeout=0.05), sock=server)
    refusal = refusal_of(source.read)
    source.close()
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)
    assert "longer than 0.05" in str(refusal), "the deadline's, not a socket's timeout"


def test_a_body_in_time_leaves_no_deadline_behind(connection):
    server, client, _ = connection
    with server.makefile("rb", buffering=0) as stream:
        source = BodySource(stream, 5, Policy(body_timeout=300), sock=server)
        client.sendall(b"ab")
        assert source.read() == b"ab"
        deadline = source._client._timer
        client.sendall(b"cde")
        assert drain(source) == b"cde"
    assert source._client._timer is deadline, "one for the whole body"
    assert deadline.is_alive()
    source.close()
    deadline.join(10)
    assert not deadline.is_alive()
    client.sendall(b"next")
    assert server.recv(4) == b"next", "the connection still receives"


@pytest.mark.parametrize("trickling", [False, True], ids=["silent", "trickling"])
def test_without_a_total_a_read_ends_when_the_rate_would_be_too_low(connection, trickling, monkeypatch):
    """So a client can't hold a thread for ever in a read that waits for all bytes."""
    monkeypatch.setattr(waiting, "_GRACE", 0.1)
    server, client, stream = connection
    over, outlasted = threading.Event(), threading.Event()

    def trickle():
        for _ in range(1000):
            if over.wait(0.01):
                return
            with suppress(OSError):  # the other side may have shut it before `over` is set
                client.send(b"x" * trickling)
        outlasted.set()
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=trickle)
    thread.start()
    source = BodySource(stream, MIB, Policy(min_rate=100 * MIB), sock=server)
    refusal = refusal_of(source.read)
    over.set()
    thread.join()
    source.close()
    assert (refusal.status, refusal.reason) == (408, Reason.TIMEOUT)
    assert "slower than" in str(refusal) or not trickling, "a socket's timeout ends a silent one, too"
    assert not outlasted.is_set(), "the read waited for all that the client had"


@pytest.mark.parametrize("policy", [Policy(), Policy(min_rate=0)], ids=["rate", "no limit"])
def test_without_a_total_each_read_has_its_own_time_and_leaves_none_behind(connection, policy):
    server, client, _ = connection
    with server.makefile("rb", buffering=0) as stream:
        source = BodySource(stream, 5, policy, sock=server)
        for data in (b"ab", b"cde"):
            client.sendall(data)
            assert source.read() == data
            assert source._client._timer is None
        source.close()


def test_a_body_of_any_duration_is_read_while_its_rate_is_good():
    clock = Clock()
    source = BodySource(Input(bytes(10 * MIB), step=MIB), 10 * MIB, Policy(), clock=clock)
    for _ in range(9):
        clock.now += 1000
        assert len(source.read()) == MIB
    clock.now += 2000
    assert refusal_of(source.read).status == 408


def test_a_deadline_after_the_connection_is_gone_harms_nobody(connection):
    """Its descriptor may be another connection's by then."""
    server, client, stream = connection
    source = BodySource(stream, 5, Policy(), sock=server)
    with socket.socket(fileno=server.detach()) as another:
        source._client._expire()
        client.sendall(b"next")
        assert another.recv(4) == b"next", "the connection still receives"


@pytest.mark.parametrize(
    ("environ", "length"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"CONTENT_LENGTH": ""}, None, id="empty"),
        pytest.param({"CONTENT_LENGTH": "0"}, 0, id="zero"),
        pytest.param({"CONTENT_LENGTH": "0012"}, 12, id="leading zeros"),
        pytest.param({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, None, id="chunked"),
        pytest.param({"CONTENT_LENGTH": "9" * 19}, int("9" * 19), id="19 digits"),
    ],
)
def test_a_content_length_is_a_number(environ, length):
    assert content_length(environ) == length


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        pytest.param({"CONTENT_LENGTH": "-1"}, 400, id="minus"),
        pytest.param({"CONTENT_LENGTH": "+1"}, 400, id="plus"),
        pytest.param({"CONTENT_LENGTH": "1_0"}, 400, id="underscore"),
        pytest.param({"CONTENT_LENGTH": " 1"}, 400, id="space"),
        pytest.param({"CONTENT_LENGTH": "\u0661"}, 400, id="another script"),
        pytest.param({"CONTENT_LENGTH": 5}, 400, id="no text"),
        pytest.param({"CONTENT_LENGTH": "1" * 20}, 413, id="20 digits"),
        pytest.param({"CONTENT_LENGTH": "1" * 5000}, 413, id="5,000 digits"),
        pytest.param({"CONTENT_LENGTH": "1", "HTTP_TRANSFER_ENCODING": "chunked"}, 400, id="two lengths"),
    ],
)
def test_what_is_no_number_is_refused(environ, status):
    assert refusal_of(lambda: content_length(environ)).status == status


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, False, id="nothing"),
        pytest.param({"CONTENT_LENGTH": ""}, False, id="empty length"),
        pytest.param({"CONTENT_LENGTH": "0"}, False, id="zero"),
        pytest.param({"CONTENT_LENGTH": "1"}, True, id="length"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "chunked"}, True, id="chunked"),
        pytest.param({"HTTP_CONTENT_LENGTH": "1"}, True, id="length under another name"),
        pytest.param({"CONTENT_LENGTH": "0", "HTTP_TRANSFER_ENCODING": "chunked"}, True, id="both"),
        pytest.param({"SERVER_PROTOCOL": "HTTP/1.0"}, False, id="nothing in HTTP/1.0"),
        pytest.param({"SERVER_PROTOCOL": "HTTP/2.0"}, True, id="nothing in HTTP/2"),
        pytest.param({"SERVER_PROTOCOL": "HTTP/3", "CONTENT_LENGTH": ""}, True, id="nothing in HTTP/3"),
        pytest.param({"SERVER_PROTOCOL": "HTTP/2.0", "CONTENT_LENGTH": "0"}, False, id="zero in HTTP/2"),
    ],
)
def test_a_body_is_announced_by_either_header_and_possible_without_in_http_2(environ, expected):
    assert has_body(environ) is expected


class Odd:
    """A server's stream that answers its second read with what no stream may give."""

    def __init__(self, answer, first=b"abc"):
        self.answer, self.first = answer, first

    def read(self, size=-1):
        first, self.first = self.first, None
        return self.answer if first is None else first[: None if size is None or size < 0 else size]

    readline = read


ODD = [None, "text", -1, [1], bytearray(b"x"), b"far more than was asked for"]


@pytest.mark.parametrize("answer", ODD, ids=repr)
@pytest.mark.parametrize("length", [9, None])
def test_what_a_server_s_stream_may_not_give_refuses_the_body(answer, length):
    source = BodySource(Odd(answer), length, Policy())
    assert source.read() == b"abc"
    if length is None and answer == ODD[-1]:
        assert source.read() == answer  # not more than the mebibyte that was asked for
        return
    refusal = refusal_of(source.read)
    assert (refusal.status, refusal.reason) == (400, Reason.CLIENT_GONE)


@pytest.mark.parametrize("answer", ODD, ids=repr)
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(lambda body: body.read(9), id="read"),
        pytest.param(lambda body: body.read(4), id="read a little"),
        pytest.param(lambda body: body.readline(9), id="readline"),
        pytest.param(lambda body: body.read1(9), id="read1"),
    ],
)
@pytest.mark.parametrize("first", [b"", b"abc", b"abcdefgh"])
def test_what_a_server_s_stream_may_not_give_ends_the_app_s_reading(answer, way, first):
    """Also where it comes with the first bytes, which we look at: it must not hide a ciphertext."""
    body = GuardedInput(Odd(answer, first) if first else Odd(answer, None), 20)

    def several():
        for _ in range(3):
            way(body)

    with pytest.raises(BodyRefusedError):
        several()
    assert (body.refusal.status, body.refusal.reason) == (400, Reason.CLIENT_GONE)


def test_ciphertext_that_comes_with_more_than_was_asked_for_does_not_pass():
    body = GuardedInput(Odd(MAGIC + b"stolen", None), 20)
    with pytest.raises(BodyRefusedError):
        body.read(9)


READS = {
    "read()": lambda body: body.read(),
    "read(1)": lambda body: b"".join(iter(lambda: body.read(1), b"")),
    "read(3)": lambda body: b"".join(iter(lambda: body.read(3), b"")),
    "read(None)": lambda body: body.read(None),
    "read1": lambda body: b"".join(iter(body.read1, b"")),
    "read1(2)": lambda body: b"".join(iter(lambda: body.read1(2), b"")),
    "readline": lambda body: b"".join(iter(body.readline, b"")),
    "readline(1)": lambda body: b"".join(iter(lambda: body.readline(1), b"")),
    "readline(None)": lambda body: b"".join(iter(lambda: body.readline(None), b"")),
    "readlines": lambda body: b"".join(body.readlines()),
    "iteration": b"".join,
    "readinto": lambda body: read_into(body, 5),
}


def read_into(body, size):
    got, buffer = b"", bytearray(size)
    while count := body.readinto(buffer):
        got += buffer[:count]
    return got


@pytest.mark.parametrize("way", READS.values(), ids=READS)
@pytest.mark.parametrize("length", [pytest.param(True, id="length"), pytest.param(False, id="chunked")])
def test_ciphertext_does_not_pass_by_whichever_way_it_is_read(way, length):
    data = MAGIC + b"stolen\nciphertext"
    body = GuardedInput(Input(data, step=1), len(data) if length else None)
    with pytest.raises(BodyRefusedError):
        way(body)
    assert body.refusal.reason is Reason.CIPHERTEXT_INJECTION
    assert body.refusal.status == 400
    with pytest.raises(BodyRefusedError):
        body.read(100)


class Trickle(io.BytesIO):
    """A server's stream that gives ``step`` bytes at most where it is asked for a number."""

    def __init__(self, data, step):
        super().__init__(data)
        self.step = step

    def read(self, size=-1):
        return super().read(size if size is None or size < 0 else min(size, self.step))


HARMLESS = [
    b"",
    b"a",
    MAGIC[:7],
    MAGIC[:7] + b"x",
    b"x" + MAGIC,
    MAGIC[:5] + b"\n" + MAGIC,
    b"a\nb\n\nc",
    b"{}\n" * 20,
]


@pytest.mark.parametrize("data", HARMLESS)
@pytest.mark.parametrize("way", READS.values(), ids=READS)
@pytest.mark.parametrize("step", [1, 4, 1000])
def test_everything_else_passes_by_unchanged(data, way, step):
    assert way(GuardedInput(Trickle(data, step), len(data))) == data
    assert way(GuardedInput(Trickle(data, step), None)) == data


operations = st.lists(
    st.tuples(st.sampled_from(["read", "readline", "read1"]), st.integers(-1, 12) | st.none()), max_size=30
)


@examples(200)
@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r\n", MAGIC[:3], MAGIC]), max_size=12).map(b"".join), operations
)
def test_any_sequence_of_reads_is_as_of_a_file(data, operations):
    if data.startswith(MAGIC):
        data = b"x" + data
    file, body = io.BytesIO(data), GuardedInput(io.BytesIO(data), len(data))
    assert body.readable()
    for name, size in operations:
        if name == "readline":
            assert body.readline(size) == file.readline(size)
        elif size is None or size < 0:
            assert body.read(size) == file.read(size)
        else:
            got = getattr(body, name)(size)
            assert file.read(len(got)) == got
            assert bool(got) or not size or file.tell() == len(data), "empty only at the end"


def test_nothing_is_read_before_the_app_reads():
    stream = Input(b"abc")
    GuardedInput(stream, 3)
    assert stream.sizes == []


def test_no_more_is_read_than_was_announced():
    stream = Input(b"abcdefghijkl")
    assert GuardedInput(stream, 3).read(3) == b"abc"
    assert max(stream.sizes) <= 3
    with pytest.raises(Refusal):
        content_length({"CONTENT_LENGTH": "3x"})


class Ending:
    """A stream whose read ends as a race between the deadline and the server may end it."""

    def __init__(self, how):
        self.how = how
        self.source = None

    def read(self, size=-1):
        return self.how(self.source)


def times_out(source):
    raise TimeoutError


def breaks_off_late(source):
    source._client._late.set()
    raise ConnectionResetError


def ends_late(source):
    source._client._late.set()
    return b""


@pytest.mark.parametrize("how", [times_out, breaks_off_late, ends_late])
def test_a_read_that_outlives_the_deadline_is_a_408_however_it_ends(how):
    stream = Ending(how)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        source = stream.source = BodySource(stream, 10, Policy(), sock=ours)
        with pytest.raises(Refusal) as caught:
            source.read()
        source.close()
    assert (caught.value.status, caught.value.reason) == (408, Reason.TIMEOUT)


def test_a_deadline_behind_a_connection_that_is_gone_does_no_harm():
    ours, theirs = socket.socketpair()
    source = BodySource(Input(b"data"), 4, Policy(), sock=ours)
    source._client._expire()
    ours.close()
    theirs.close()
    source._client._expire()
    assert source._client._late.is_set()


@pytest.mark.parametrize("read", [0, 3, 8, 20], ids=lambda read: f"after {read}")
@pytest.mark.parametrize("size", [0, 1, 5, 8, 9, 50])
def test_read1_gives_no_more_than_was_asked_for_and_takes_no_more(size, read):
    """Before, within and after the first bytes, which are looked at."""
    data = b"0123456789" * 10
    body = GuardedInput(Input(data), len(data))
    assert body.read(read) == data[:read]
    got = body.read1(size)
    assert got == data[read : read + len(got)]
    assert len(got) <= size
    assert bool(got) is bool(size)
    assert body.read() == data[read + len(got) :]


def test_read1_of_any_size_gives_something_before_the_end():
    body = GuardedInput(Input(b"0123456789" * 10), 100)
    assert body.read1()
    assert body.read1(-1) + body.read() == b""
