"""The sealer: takes the records of all chains into one log, and signs its checkpoints.

Guarantees: only lines that are on the disk are sealed. A seal record is on the disk before its
checkpoint is signed, and the seal records alone say what the log holds, so no two checkpoints that
were ever signed contradict each other, whenever the process or the machine dies. Each key signs one
checkpoint and is dropped. Writers never wait. A dead writer's chain is closed once, by a record. A
chain that does not hold what was sealed of it is told, sealed no further, and never repaired.
Refuses: to go on from a log whose own files do not hold.

It is driven by :meth:`Sealer.step`, so the clock and the waiting belong to the caller.

Implements the section on the sealer of ``docs/log.md``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs._version import __version__
from securefs.audit.chain import Chain
from securefs.audit.follow import Here, chain_names
from securefs.audit.following import MAX_TURN, Following
from securefs.audit.log_folder import CHECKPOINTS, LogDamagedError
from securefs.audit.log_state import Taken, complete_stop, read_seals, read_state
from securefs.audit.log_tree import LogTree, Tiles
from securefs.audit.note import Checkpoint, Note, NoteError, Signature, VerificationKey, parse_vkey
from securefs.audit.record import Entry, Source
from securefs.audit.retention import REQUEST, read_request, taken
from securefs.audit.seal import Run, Seal
from securefs.audit.signing import EvolvingKey
from securefs.audit.sink import ChainBrokenError, FileSink, chain_file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.audit.follow import Followed
    from securefs.audit.log_folder import LogFolder
    from securefs.audit.signing import SigningKey
    from securefs.audit.sink import Sink

__all__ = ["Sealer"]

DUE_LEAVES: Final = 256  # leaves that wait at most, unless more come between two steps
DUE_AGE: Final = 5.0  # seconds that a leaf waits at most
HEARTBEAT: Final = 60.0  # seconds between two checkpoints of an idle log
SWEEP: Final = 5.0  # seconds between two looks for dead writers
SAVE: Final = 600.0  # seconds between two savings of how far each chain was read
MAX_FINAL: Final = 1000  # seals of a clean stop, while writers go on writing
RETRY: Final = (1.0, 60.0)  # seconds until the log is opened anew after a write to it failed


class Sealer:
    """The sealer of one journal. Use it from one thread; it does not fork.

    :param journal: the folder of the writers' chains.
    :param log: a log that was begun, and that this process holds the lock of.
    :param tell: is called with a sentence for the operator; it is told the same only once.
    :param clock: returns seconds; for what is due, not for records.
    :param sink: opens the file of a chain of the sealer's own.
    :raises LogDamagedError: the log's own files do not hold.
    :raises ConfigurationError: a key file can't be used.
    :raises OSError, ChainBrokenError: the log can't be read or written.
    """

    def __init__(
        self,
        journal: Path,
        log: LogFolder,
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sink: Callable[[Path, str], Sink] = FileSink,
    ) -> None:
        self._journal, self._log, self._tell, self._clock, self._sink = journal, log, tell, clock, sink
        self._here = Here(os.uname().nodename, _boot_id())
        self._told: set[str] = set()
        self._stable = log.stable_key()
        handed = log.handed_over()
        self._key = EvolvingKey(handed)
        self._why_epoch = "no_key" if handed is None else "other_key"
        self._positions = log.positions()
        self._note = b""  # a checkpoint that was signed, and is not known to be on the disk
        self._broken: ChainBrokenError | OSError | None = None
        self._replaces: dict[str, str | int] = {}  # what the next chain says of the one before it
        self._retry_at, self._wait = 0.0, RETRY[0]
        self._begin()

    @property
    def index(self) -> int:
        """The number of the next checkpoint."""
        return self._state.index

    @property
    def size(self) -> int:
        """The number of leaves in the log."""
        return self._tree.size

    @property
    def tampered(self) -> bool:
        """Whether a chain did not hold what was sealed of it."""
        return self._following.tampered

    def step(self) -> bool:
        """Read what is new, and seal it if that is due; return whether there is more to read.

        A write to the log that fails is told, and tried again later.

        :raises LogDamagedError: the log's own files do not hold.
        """
        if self._broken is not None and self._clock() < self._retry_at:
            return False
        try:
            if self._broken is not None:
                self._recover()
            return self._step(self._clock())
        except (OSError, ChainBrokenError) as error:
            self._fail(error)
            return False

    def stop(self) -> None:
        """Seal all there is, end the log with ``server.stop``, and leave the next key.

        :raises OSError, ChainBrokenError: the log cannot be written. The next sealer begins a new
            line of keys.
        """
        if self._broken is not None:
            self._recover()
        for _ in range(MAX_FINAL):
            self._discover()
            more = self._following.read()
            self._sweep()
            if not more and self._following.fits:
                break
            self._seal(stop=False)
        self._seal(stop=True)
        self._chain.sink.close()
        self._log.hand_over(self._key.pem())
        self._log.save_positions(self._following.positions())

    # Beginning, and beginning again after a failed write.

    def _begin(self) -> None:
        """Find out where the log is, and begin a chain of this process."""
        name = Chain.random_id()
        self._source = Source(self._here.host, os.getpid(), __version__, self._here.boot or None)
        self._state = read_state(self._log.path)
        if self._state.cut_short:
            complete_stop(self._state, self._log.path, self._log.disk, self._source, time.time_ns())
            self._state = read_state(self._log.path)
        self._tree = LogTree(Tiles(self._log.path / "tiles", self._log.disk))
        self._following = Following(self._log.path, self._journal, name, self._here, self._tell_once)
        self._load_tree()
        self._own: list[bytes] = []  # leaves of our own chain that no seal took yet
        self._open_chain(name)
        self._continue_keys()
        if not self._state.index:
            self._cut_over()
        self._oldest: float | None = None
        self._last_seal = self._clock() - HEARTBEAT  # the first one is due at once
        self._last_sweep = self._clock() - SWEEP
        self._last_save = self._clock()

    def _load_tree(self) -> None:
        self._checkpoint, torn = self._log.last_checkpoint()
        if torn:
            self._tell(f"cut off {torn} bytes of a checkpoint that was not written whole")
        if self._holds(self._checkpoint):
            return
        self._tell("the tiles do not hold: making them anew from the chains")
        self._tree.make_anew(self._all_leaves())
        if not self._holds(self._checkpoint):
            raise LogDamagedError(
                "the last checkpoint does not match the chains of the log: run securefs audit verify"
            )

    def _holds(self, checkpoint: Checkpoint | None) -> bool:
        loaded = self._tree.load(self._state.size, self._state.tail)
        return loaded and (checkpoint is None or self._tree.matches(checkpoint))

    def _all_leaves(self) -> Iterator[list[bytes]]:
        chains: dict[str, Followed] = {}
        for seal in read_seals(self._log.path):
            for run in seal.runs:
                if run.chain not in chains:
                    chains[run.chain] = self._following.open(run.chain)
                chain = chains[run.chain]
                while chain.count < run.first and chain.read(min(MAX_TURN, run.first - chain.count)):
                    pass  # older than the log
                while leaves := chain.read(min(MAX_TURN, run.last + 1 - chain.count)):
                    yield leaves
                if chain.count <= run.last:
                    why = chain.tampering or chain.trouble or "it is shorter than what was sealed"
                    raise LogDamagedError(f"the tiles are gone, and chain {run.chain} does not hold: {why}")

    def _open_chain(self, name: str) -> None:
        self._chain = Chain(name, self._source, self._sink(self._log.path, name))
        self._write(Entry("server.start", obj={"sync": "record", "on_failure": "closed", **self._replaces}))

    def _continue_keys(self) -> None:
        """Go on with the line of keys, or begin another."""
        expected = self._state.next_key
        if expected == self._key.next_public.hex():
            # A write failed after the seal record and before its checkpoint, which is due now.
            self._publish()
        elif self._key.public.hex() != (expected or self._first_key()):
            self._key = EvolvingKey()
            self._write(Entry("audit.epoch", obj={"why": self._why_epoch}))
            self._tell(
                "the key of the sealer before is not there (it was killed, or the machine): a new line of "
                "keys begins, and the verifier shows a break"
            )
        elif self._note:
            self._republish()

    def _first_key(self) -> str:
        try:
            return parse_vkey(self._log.vkey()).public.hex()
        except NoteError as error:
            raise LogDamagedError(f"{self._log.path / 'vkey'}: {error}") from None

    def _cut_over(self) -> None:
        """Name the chains that are older than the log: what they hold now is no leaf of it."""
        for name in chain_names(self._journal):
            chain = self._following.open(name)
            while chain.read(MAX_TURN):
                pass
            if chain.count and chain.flush():
                head = chain.head.hex()
                self._write(
                    Entry("audit.cutover", obj={"chain": name, "upto": chain.count - 1, "hash": head})
                )
                self._state.taken[name] = Taken(chain.count, head=chain.head)

    def _fail(self, error: ChainBrokenError | OSError) -> None:
        """Remember that nothing is sealed until the log can be written again."""
        if self._broken is None:
            self._tell(f"NOT SEALING: the log cannot be written: {error}")
            self._broken = error
        self._chain.abandon()
        self._retry_at = self._clock() + self._wait
        self._wait = min(2 * self._wait, RETRY[1])

    def _recover(self) -> None:
        """Begin anew with the keys that are here: no break comes of a full disk."""
        position, why = self._chain.position, getattr(self._broken, "why", "write_failed")
        path = self._log.path / chain_file_name(position.chain)
        if why == "flush_failed" and path.exists():
            # The kernel gave up what it could not write: a later flush would not bring it back.
            self._log.disk.rewrite(path)
        self._replaces["why"] = why
        if position.seq:
            self._replaces |= {
                "replaces": position.chain,
                "replaces_seq": position.seq - 1,
                "replaces_hash": position.prev,
            }
        self._positions |= self._following.positions()
        self._begin()
        self._broken, self._wait, self._replaces = None, RETRY[0], {}
        self._tell("the log can be written again")

    # One step.

    def _step(self, now: float) -> bool:
        self._discover()
        if now - self._last_sweep >= SWEEP:
            self._last_sweep = now
            self._sweep()
            self._retire(now)
        more = self._following.read()
        waiting = len(self._own) + self._following.waiting
        if waiting and self._oldest is None:
            self._oldest = now
        aged = self._oldest is not None and now - self._oldest >= DUE_AGE
        if waiting >= DUE_LEAVES or aged or now - self._last_seal >= HEARTBEAT:
            left = self._seal(stop=False)
            self._last_seal, self._oldest = now, None
            more = more or left > 0
            if not left and now - self._last_save >= SAVE:
                self._last_save = now
                self._log.save_positions(self._following.positions())
        return more

    def _discover(self) -> None:
        known = self._state.taken
        for name in self._following.new_names(known):
            if name in self._state.retired and self._following.is_gone(name):
                continue
            if (mine := known.get(name)) is None:
                self._following.take_up(name, None, b"", None)
            else:
                head = mine.head if mine.leaf is None else self._tree.leaf(mine.leaf)
                self._following.take_up(name, mine, head, self._positions.get(name))

    def _sweep(self) -> None:
        """Close the chains whose writers died, each by one record."""
        for chain, death in self._following.deaths():
            if not chain.stopped and chain.chain not in self._state.adopted:
                self._adopt(chain, death.size, death.boot)

    def _retire(self, now: float) -> None:
        """Take up a request for retention: say what is retired, and seal that."""
        data = self._log.request(REQUEST)
        if data is None:
            return
        counts = {chain: taken.count for chain, taken in self._state.taken.items()}
        for one in read_request(data):
            if not taken(one, counts, self._state.retired):
                self._tell(
                    f"chain {one.chain}: not retired up to record {one.upto}: the log has not got that"
                )
                continue
            obj: dict[str, str | int] = {
                "chain": one.chain,
                "upto": one.upto,
                "hash": one.digest,
                "files": one.files,
            }
            self._write(Entry("audit.retired", obj=obj))
            self._state.retired[one.chain] = one.upto + 1, bytes.fromhex(one.digest)
        self._seal(stop=False)
        self._last_seal, self._oldest = now, None
        self._log.answer(REQUEST)

    def _adopt(self, chain: Followed, size: int, boot: str) -> None:
        obj: dict[str, str | int] = {"chain": chain.chain, "size": size}
        if boot:
            obj["boot"] = boot
        if chain.count:
            obj |= {"upto": chain.count - 1, "hash": chain.head.hex()}
        self._write(Entry("audit.adopted", obj=obj))
        self._state.adopted.add(chain.chain)
        self._tell(f"chain {chain.chain}: its writer died after {chain.count} records; {size} bytes are torn")

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)

    # Sealing.

    def _write(self, entry: Entry) -> None:
        """Write a record of our own, to the disk."""
        self._chain.append(entry, time.time_ns(), flush_from=1)
        self._own.append(bytes.fromhex(self._chain.position.prev))

    def _seal(self, *, stop: bool) -> int:
        """Seal what waits, and sign it; return how many leaves wait still."""
        runs, leaves = self._following.collect()
        position = self._chain.position
        # The last records of the log are our own: this seal, and server.stop if there is one.
        last = position.seq + stop
        runs.append(Run(position.chain, position.seq - len(self._own), last))
        self._tree.grow([*leaves, *self._own])
        self._own = []
        size = self._tree.size + 1 + stop
        key, next_key = self._key.public.hex(), self._key.next_public.hex()
        seal = Seal(self._state.index, key, next_key, tuple(runs), size)
        self._write(Entry("audit.seal", seal=seal.member()))
        if stop:
            self._write(Entry("server.stop"))
        self._tree.grow(self._own)
        self._own = []
        self._state.take(seal, position.chain)
        self._publish()
        return self._following.waiting

    def _publish(self) -> None:
        """Sign a checkpoint of the tree as it is, and append it."""
        # From here on, whoever takes the machine finds no key that could sign this again.
        self._log.forget_key()
        text = Checkpoint(self._log.origin, self._tree.size, self._tree.root()).text()
        keys: list[SigningKey | EvolvingKey] = [self._key]
        if self._stable is not None:
            keys.append(self._stable)
        signatures = []
        for key in keys:
            name = VerificationKey(self._log.origin, key.public)
            signatures.append(Signature(name.name, name.key_id, key.sign(text.encode())))
        self._note = Note(text, tuple(signatures)).encode()
        self._log.publish(self._note)
        self._note = b""

    def _republish(self) -> None:
        """Have the disk keep a checkpoint whose writing failed; its key is dropped already."""
        if self._checkpoint is not None and self._checkpoint.size == self._state.size:
            self._log.disk.rewrite(self._log.path / CHECKPOINTS)
        else:
            self._log.publish(self._note)
        self._note = b""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:  # pragma: no cover  # not on Linux
        return ""
