"""Bounds on waiting for slow request bodies: for how long, and for how many at once.

A thread that waits for one client serves no other. If the server shows what has arrived (mostly for
bodies with a Content-Length), the thread waits here and never inside the server's own read: the
total time and the average rate are then enforced exactly, and a slow client can be evicted. If the
server shows only the connection, a timer shuts it down for reading when the time is over. On other
servers the limits are checked between reads.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from securefs.errors import Reason
from securefs.middleware.refusal import Refusal
from securefs.middleware.servers import LEAST_READ, arrived

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.middleware.policy import Policy
    from securefs.middleware.servers import InputStream

__all__ = ["Client", "Pace", "WaitingRoom"]

_GRACE: Final = 5.0  # seconds before the minimum rate counts: connections start slowly
_FIRST_SECOND: Final = 1.0  # seconds in which no client is evicted, even from a full room
_SILENCE: Final = 2.0  # seconds without a byte after which a client may be evicted for another
_TRICKLE: Final = 0.05  # seconds until a client that sends too few bytes to read is polled again
_ENDED: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_FOREVER: Final = 20.0 * 24 * 3600  # seconds; more milliseconds do not fit into poll's argument
_BLIND_READ: Final = 256 * 1024  # bytes read at a time if it is unknown how many have arrived


class Pace:
    """The time limits of one body: a total, if there is one, and an average rate.

    The rate holds after the first five seconds.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = math.inf if policy.body_timeout is None else policy.body_timeout
        self._rate = policy.min_rate
        self._clock = clock
        self._start = clock()

    def elapsed(self) -> float:
        """Return the seconds since the request began."""
        return self._clock() - self._start

    def left(self, received: int) -> float:
        """Return the seconds until a body that has ``received`` bytes now is too late."""
        by_rate = _GRACE + received / self._rate if self._rate else math.inf
        return min(self._timeout, by_rate) - self.elapsed()

    @property
    def has_total(self) -> bool:
        """Whether there is a limit for the body as a whole."""
        return self._timeout < math.inf

    def deadline(self, received: int) -> float:
        """Return the seconds that a read may take which ends with ``received`` bytes of the body.

        That is until the total time is over. Without a total, it is until the rate would be too low
        with all these bytes, and without a rate a long time.
        """
        return min(self._timeout - self.elapsed() if self.has_total else self.left(received), _FOREVER)

    def is_slow(self, received: int) -> bool:
        """Return whether the average rate is too low, without the grace period."""
        return received < self._rate * self.elapsed()

    def check(self, received: int) -> None:
        """Raise :class:`Refusal` if a body that has ``received`` bytes now is too late."""
        if self.elapsed() > self._timeout:
            raise self._beyond_total()
        if self.left(received) < 0:
            raise self._below_rate()

    def too_late(self) -> Refusal:
        """Return the refusal of a body of which a read did not end in time."""
        return self._beyond_total() if self.has_total else self._below_rate()

    def _beyond_total(self) -> Refusal:
        return Refusal(
            408, Reason.TIMEOUT, f"the body took longer than {self._timeout} seconds (body_timeout)"
        )

    def _below_rate(self) -> Refusal:
        return Refusal(
            408, Reason.TIMEOUT, f"the body came slower than {self._rate} bytes a second (min_rate)"
        )


class WaitingRoom:
    """The clients that are waited for, each from its first wait until its body ends.

    :param places: how many there may be, so that some of the server's threads stay free; None: any
        number.
    """

    def __init__(self, places: int | None) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._inside: set[Client] = set()

    def enter(self, client: Client) -> None:
        """Admit a client. A full room evicts a slow client; if none is slow, it refuses (503)."""
        with self._lock:
            if client in self._inside:
                return
            if self._places is not None and len(self._inside) >= self._places:
                dawdling = [other for other in self._inside if other.dawdles()]
                if not dawdling:
                    detail = f"{self._places} request bodies are waited for already (max_waiting)"
                    raise Refusal(503, Reason.LIMIT, detail)
                slowest = max(dawdling, key=lambda other: other.silent_for())
                self._inside.remove(slowest)
                slowest.put_out()
            self._inside.add(client)

    def leave(self, client: Client) -> None:
        """Free the client's place, if it has one."""
        with self._lock:
            self._inside.discard(client)


class Client:
    """The sender of one request body, behind a server that shows the connection.

    :param sock: the connection: see :func:`securefs.middleware.servers.connection`.
    """

    def __init__(self, stream: InputStream, sock: socket.socket, pace: Pace, room: WaitingRoom) -> None:
        self._stream = stream
        self._socket = sock
        self._pace = pace
        self._room = room
        self._received = 0
        self._heard = 0.0  # seconds after the start at which the last bytes came
        self._timer: threading.Timer | None = None
        self._late = threading.Event()
        self._put_out = threading.Event()

    def read(self, wanted: int) -> bytes:
        """Return up to ``wanted`` bytes as soon as some have arrived, none at the end.

        It waits for a KiB, or for the last bytes of the body.

        :raises Refusal: they did not arrive in time, or there is no place to wait for them.
        """
        try:
            if self._ready() is None:
                data = self._read_blindly(min(wanted, _BLIND_READ))
            else:
                data = self._stream.read(self._wait(wanted))
        except (Refusal, TimeoutError):
            # Before they close, servers wait for the rest of a body. This ends that wait.
            self._shut()
            raise
        self._received += len(data)
        self._heard = self._pace.elapsed()
        return data

    def close(self) -> None:
        """End the reading of this body."""
        self._room.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def dawdles(self) -> bool:
        """Return whether it may be evicted: it is silent, or slower than the minimum rate."""
        silent = self.silent_for() >= _SILENCE
        return self._pace.elapsed() >= _FIRST_SECOND and (silent or self._pace.is_slow(self._received))

    def silent_for(self) -> float:
        """Return the seconds since its last bytes."""
        return self._pace.elapsed() - self._heard

    def put_out(self) -> None:
        """Evict it: the thread that waits for it wakes up and answers 408."""
        self._put_out.set()
        self._shut()

    def _ready(self) -> int | None:
        """Return how many bytes can be read without waiting; None if that is unknown."""
        return arrived(self._stream, self._socket)

    def _wait(self, wanted: int) -> int:
        """Return how many of the ``wanted`` bytes can then be read without waiting."""
        enough = min(wanted, LEAST_READ)
        ready = self._ready() or 0
        if ready >= enough:
            return min(wanted, ready)
        self._room.enter(self)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | _ENDED)
        while ready < enough:
            if self._connection_ended(poll, some=ready > 0):
                # No more bytes will arrive: a read returns those that are there.
                return wanted
            self._pace.check(self._received)
            ready = self._ready() or 0
        return min(wanted, ready)

    def _connection_ended(self, poll: select.poll, *, some: bool) -> bool:
        """Wait for bytes, the time limit or the end of the connection; return whether it ended.

        :param some: too few bytes to read are there. They wake each poll at once, so a short delay
            lets more arrive.
        :raises Refusal: the client was evicted meanwhile.
        """
        seconds = min(max(0.0, self._pace.left(self._received)), _FOREVER)
        events = poll.poll(1000 * seconds + 1)
        if events and some:
            self._put_out.wait(_TRICKLE)
        if self._put_out.is_set():
            raise _put_out()
        return bool(events) and bool(events[0][1] & _ENDED)

    def _read_blindly(self, wanted: int) -> bytes:
        self._room.enter(self)
        seconds = self._pace.deadline(self._received + wanted)
        if self._timer is None:
            self._timer = threading.Timer(max(0.0, seconds), self._expire)
            self._timer.daemon = True
            self._timer.start()
        before = self._socket.gettimeout()
        # Seconds; zero would mean "do not wait at all".
        self._socket.settimeout(max(seconds, 0.001))
        try:
            data = self._stream.read(wanted)
        except Exception:
            # Each server has its own errors for a body that ends early.
            self._check_ended()
            raise
        finally:
            self._socket.settimeout(before)
            if not self._pace.has_total:
                # The next read has a time of its own.
                self._timer.cancel()
                self._timer = None
        self._check_ended()
        return data

    def _check_ended(self) -> None:
        if self._late.is_set():
            raise self._pace.too_late() from None
        if self._put_out.is_set():
            raise _put_out() from None

    def _expire(self) -> None:
        """End a read that waits.

        A byte now and then satisfies every socket timeout and never fills the read.
        """
        self._late.set()
        self._shut()

    def _shut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)


def _put_out() -> Refusal:
    return Refusal(
        408, Reason.TIMEOUT, "the body came too slowly while others waited for a place (max_waiting)"
    )
