"""All chains of a journal and of its log, as they grow: what of them waits to be sealed.

Guarantees: memory is bounded by :data:`MAX_PENDING` leaves and a few hundred bytes for each chain.
Chains have their turns, so that a busy one keeps no other waiting. What is wrong with a chain is
told once. Nothing here writes.

Implements the section on the sealer of ``docs/log.md``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from securefs.audit.fields import MAX_RUNS
from securefs.audit.follow import Followed, chain_names
from securefs.audit.log_folder import Position
from securefs.audit.seal import Run
from securefs.audit.segments import find_chains
from securefs.audit.sink import chain_file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from securefs.audit.follow import Death, Here
    from securefs.audit.log_state import Taken

__all__ = ["MAX_PENDING", "MAX_TURN", "Following"]

MAX_PENDING: Final = 64 * 1024  # leaves in memory
MAX_TURN: Final = 8 * 1024  # leaves of one chain before the next has its turn
_TICK: Final = 2_000_000_000  # nanoseconds; no file system's clock for changes is coarser


class Following:
    """The chains in two folders.

    :param log: the folder of the sealers' chains. :param journal: the one of the writers'.
    :param own: the chain that this process writes, which is not followed.
    :param tell: is called with a sentence about a chain, once for each.
    """

    def __init__(self, log: Path, journal: Path, own: str, here: Here, tell: Callable[[str], None]) -> None:
        self._log, self._journal, self._own, self._here, self._tell = log, journal, own, here, tell
        self._chains: dict[str, Followed] = {}
        self._turn: deque[Followed] = deque()
        self._pending: dict[str, tuple[int, list[bytes]]] = {}
        self._listed = (-1, -1)
        self._gone: set[str] = set()
        self._there: set[str] = set()
        self.tampered = False  # a chain does not hold what was sealed of it

    @property
    def fits(self) -> bool:
        """Whether one seal takes all that waits."""
        return len(self._pending) < MAX_RUNS

    @property
    def waiting(self) -> int:
        """The number of leaves that wait."""
        return sum(len(leaves) for _, leaves in self._pending.values())

    def open(self, name: str) -> Followed:
        """Return a chain that nothing was read of, and that is not followed yet."""
        for folder in (self._log, self._journal):
            path = folder / chain_file_name(name)
            if path.exists():
                return Followed(name, path)
        chain = Followed(name, self._journal / chain_file_name(name))
        names = [each for each in os.listdir(self._journal) if each.startswith(name)]  # noqa: PTH208
        files = find_chains(self._journal, names).get(name)
        if files is not None:
            first = files.segments[0]
            chain.begin_at(files.begin, first.path, first.number)
        return chain

    def is_gone(self, name: str) -> bool:
        """Return whether no file of a chain is there: all of it was retired."""
        if name in self._there:
            return False
        self._gone.add(name)
        return True

    def take_up(self, name: str, taken: Taken | None, head: bytes, position: Position | None) -> None:
        """Follow a chain, from where the log has it.

        :param taken: how much of it the log has. :param head: the leaf hash of the last of that.
        :param position: where an earlier sealer was in it, if that is known.
        """
        chain = self.open(name)
        if taken is not None:
            if position is not None and position.count <= taken.count:
                chain.resume(position.count, position.offset, position.head, position.number)
            chain.catch_up(taken.count, head)
        self._chains[name] = chain
        self._turn.append(chain)

    def new_names(self, sealed: Mapping[str, Taken]) -> list[str]:
        """Return the chains that are not followed yet: new ones, and sealed ones without a file."""
        listed = (self._journal.stat().st_mtime_ns, self._log.stat().st_mtime_ns)
        # A folder that changed a moment ago may change once more without another time.
        if listed == self._listed and max(listed) < time.time_ns() - _TICK:
            return []
        self._listed = listed
        self._there = {*chain_names(self._log), *chain_names(self._journal)}
        names = [*sorted(self._there), *sealed]
        known = {self._own, *self._gone}
        return [name for name in dict.fromkeys(names) if name not in known and name not in self._chains]

    def read(self) -> bool:
        """Read on in each chain in turn; return whether there may be more."""
        room = MAX_PENDING - self.waiting
        more = False
        for _ in range(len(self._turn)):
            if room <= 0:
                return True
            chain = self._turn[0]
            self._turn.rotate(-1)
            limit = min(room, MAX_TURN)
            first = chain.count
            if leaves := chain.read(limit):
                self._pending.setdefault(chain.chain, (first, []))[1].extend(leaves)
                room -= len(leaves)
                more = more or len(leaves) == limit
            self._report(chain)
        return more

    def collect(self) -> tuple[list[Run], list[bytes]]:
        """Return the runs and leaves that wait, of chains that the disk has; leave room for one."""
        runs: list[Run] = []
        leaves: list[bytes] = []
        for name in list(self._pending)[: MAX_RUNS - 1]:
            chain, (first, hashes) = self._chains[name], self._pending[name]
            if flushed := chain.flush():
                runs.append(Run(name, first, first + len(hashes) - 1))
                leaves += hashes
            if flushed or chain.lost:
                del self._pending[name]
            self._report(chain)
        return runs, leaves

    def deaths(self) -> Iterator[tuple[Followed, Death]]:
        """Yield the chains whose writers died, each under its lock; then let go of them."""
        for chain in self._turn:
            with chain.dead(self._here) as death:
                if death is not None:
                    chain.closed = True
                    yield chain, death
            self._report(chain)
            if chain.gone:
                del self._chains[chain.chain]
        self._turn = deque(chain for chain in self._turn if not (chain.closed or chain.lost or chain.gone))

    def positions(self) -> dict[str, Position]:
        """Return how far each chain was read."""
        return {
            name: Position(chain.count, chain.offset, chain.head, chain.number)
            for name, chain in self._chains.items()
            if chain.count and not chain.tampering
        }

    def _report(self, chain: Followed) -> None:
        if chain.tampering:
            self.tampered = True
            text = f"TAMPERING: {chain.tampering}; it is not sealed any further"
        elif chain.trouble:
            text = f"{chain.trouble}; it is not sealed until that is changed"
        elif chain.foreign:
            text = f"it was written on {chain.foreign}: from here it can't be seen whether its writer lives"
        else:
            return
        self._tell(f"chain {chain.chain}: {text}")
