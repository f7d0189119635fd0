"""Floods: records that anyone can cause, without limit, are summed up.

Guarantees: of each address and principal, the first ten denials and rejected requests in a minute
are recorded one by one. Those after them are counted, and a record says how many there were. So
nobody who is unknown decides how fast the disk fills. Memory is bounded, because of the addresses
beyond :data:`MAX_ADDRESSES` in a minute there is one count for all. An address of IPv6 stands for
its network of 64 bits, which one client has.

Pure: the time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from securefs.audit.record import Entry, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securefs.errors import Reason

__all__ = ["MAX_ADDRESSES", "SINGLE", "Floods"]

SINGLE: Final = 10  # records of an address in a minute that are not summed up
MAX_ADDRESSES: Final = 1024  # counted apart
_MINUTE: Final = 60 * 1_000_000_000  # nanoseconds
_NETWORK: Final = 64  # bits

# (address or network, principal), None for all that are not counted apart.
_Who = tuple[str | None, str | None]
_What = tuple[str, "Reason | None"]


@dataclass(slots=True)
class _Count:
    single: int = 0
    # How many, and the time of the first, in nanoseconds.
    summed: dict[_What, tuple[int, int]] = field(default_factory=dict)


class Floods:
    """Counts the records of one process that anyone can cause.

    :ivar pending: whether anything was counted that no record tells yet.
    """

    def __init__(self) -> None:
        self.pending = False
        self._minute = 0
        self._counts: dict[_Who | None, _Count] = {}

    def is_due(self, now: int) -> bool:
        """Return whether a sum of an earlier minute is to be told."""
        return self.pending and now // _MINUTE != self._minute

    def admits(self, entry: Entry, now: int, *, room: bool) -> bool:
        """Return whether the entry is recorded by itself; count it otherwise.

        :param now: nanoseconds since 1970-01-01 UTC. :param room: whether there is room for it.
        """
        count = self._count_of(entry, now // _MINUTE)
        if room and count.single < SINGLE:
            count.single += 1
            return True
        number, since = count.summed.get((entry.event, entry.reason), (0, now))
        count.summed[entry.event, entry.reason] = number + 1, since
        self.pending = True
        return False

    def _count_of(self, entry: Entry, minute: int) -> _Count:
        if minute != self._minute:
            self._minute = minute
            # What is not told yet is kept.
            self._counts = {
                who: _Count(0, count.summed) for who, count in self._counts.items() if count.summed
            }
        who: _Who | None = (_network(entry.address), entry.actor)
        if who not in self._counts and len(self._counts) >= MAX_ADDRESSES:
            who = None
        return self._counts.setdefault(who, _Count())

    def sums(self) -> Iterator[Entry]:
        """Yield the sums; each is forgotten when the next one is asked for."""
        for who, count in self._counts.items():
            address, actor = who or (None, None)
            for (event, reason), (number, since) in list(count.summed.items()):
                obj: dict[str, str | int] = {"count": number, "since": timestamp(since)}
                yield Entry(event, "failure", reason, obj, actor, address=address)
                del count.summed[event, reason]
        self.pending = False


def _network(address: str | None) -> str | None:
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address) or parsed.ipv4_mapped:
        return address
    prefix = int(parsed) >> _NETWORK << _NETWORK
    return f"{IPv6Address(prefix)}/{_NETWORK}"
