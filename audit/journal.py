"""The journal that a server writes: one chain for each process; a failure stops the operation.

Guarantees: when :meth:`Journal.record` returns, the operating system has the record, and the record
outlives the process (for severity 4 and above, or with ``sync="record"``, it is on the disk).
Threads share one chain. Processes never share one, however they were forked. A chain that met any
trouble is never written to again; its successor names it, and says how many records could not be
written. Refuses: to continue silently. Only ``on_failure="continue"`` continues after a failure,
and the first line of every chain then says so.

Implements ``docs/journal.md``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

from securefs.arguments import require, require_function
from securefs.audit.chain import Chain
from securefs.audit.clock import Clock
from securefs.audit.events import EVENTS, FLUSH_FROM
from securefs.audit.floods import Floods
from securefs.audit.folder import prepare_folder
from securefs.audit.name_keys import NameKeys, prepare_keys
from securefs.audit.outage import Outage
from securefs.audit.pseudonym import load_or_create, random_pseudonyms
from securefs.audit.record import Entry, Source
from securefs.audit.sink import ChainBrokenError, FileSink, StreamSink
from securefs.errors import ConfigurationError, JournalError
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securefs.audit.pseudonym import Kind, Pseudonyms

__all__ = ["HasDescriptor", "Journal", "Names", "OnFailure", "Sync"]

Names = Literal["pseudonym", "clear"]
Sync = Literal["buffered", "record"]
OnFailure = Literal["closed", "continue"]

_STANDARD_ERROR: Final = 2  # descriptor
# Bytes of the journal's file system that are kept for other records than those that anyone can
# cause.
RESERVE: Final = 64 * 1024 * 1024
_OWN_EVENTS: Final = frozenset({"server.start", "server.stop", "audit.clock", "audit.segment"})
# Members of ``obj`` that are names.
_HIDDEN: Final[Mapping[str, Kind]] = {"name": "name", "principal": "principal"}


class HasDescriptor(Protocol):
    """Anything with a file descriptor, such as ``sys.stdout`` or a socket."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Journal:
    """The audit journal of this process and of the processes forked from it.

    :param directory: the folder for the chains, created with mode 0700 if only it is missing. None:
        JSON lines to ``stream``.
    :param stream: the destination of the lines if there is no folder; standard error when None.
    :param names: ``pseudonym`` records file names and principals under a keyed hash, ``clear`` as
        they are.
    :param sync: ``record`` flushes every record to the disk, ``buffered`` those of severity 4 and
        above.
    :param on_failure: ``closed`` raises when a record cannot be written; ``continue`` counts it
        instead.
    :param on_loss: ``on_loss(first)`` is called after each record that could not be written; it is
        True for the first one of an outage. An error in it is logged, and changes nothing else.
    :param names_key: a folder outside ``directory`` for the keys of the pseudonyms, one for each
        month. None: one key, in ``directory``; for a stream, one that is stored nowhere.
    :raises ConfigurationError: a value is not one of these, or the folder is not fit for evidence.
    """

    _busy: bool
    _roomy: bool

    @clears_frames
    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        stream: HasDescriptor | None = None,
        names: Names = "pseudonym",
        sync: Sync = "buffered",
        on_failure: OnFailure = "closed",
        on_loss: Callable[[bool], object] | None = None,
        names_key: str | os.PathLike[str] | None = None,
    ) -> None:
        if directory is not None:
            require("directory", directory, (str, os.PathLike), "the path of a folder")
        _require("names", names, get_args(Names))
        _require("sync", sync, get_args(Sync))
        _require("on_failure", on_failure, get_args(OnFailure))
        if on_loss is not None:
            require_function("on_loss", on_loss, "a function")
        self._on_loss = on_loss
        self._settings: Mapping[str, str | int] = {"names": names, "sync": sync, "on_failure": on_failure}
        self._stream = stream  # kept, so that its descriptor stays open
        # Read now, because it imports modules: a child that is forked while a thread imports would
        # wait for that import for ever.
        self._version, self._boot = _version(), _boot_id()
        if directory is not None and stream is not None:
            raise ConfigurationError("a journal goes to a folder or to a stream: give one of the two")
        # One sink for all chains of a stream: it remembers whether the last line there was torn.
        self._target = StreamSink(_descriptor(stream)) if directory is None else prepare_folder(directory)
        self._names = None if names == "clear" else self._load_names(names_key)
        self._closed = False
        self._outage = Outage()
        self._chain: Chain | None = None
        self._start_afresh()
        _journals.add(self)

    @classmethod
    @clears_frames
    def from_env(
        cls, environ: Mapping[str, str] = os.environ, *, on_loss: Callable[[bool], object] | None = None
    ) -> Journal:
        """Return the journal that the environment variables SECUREFS_AUDIT_* describe.

        They are SECUREFS_AUDIT_DIR, SECUREFS_AUDIT_SYNC, SECUREFS_AUDIT_NAMES and
        SECUREFS_AUDIT_NAMES_KEY.

        :param on_loss: as for :class:`Journal`.
        :raises ConfigurationError: one line that names the variable and its allowed values.
        """
        directory = environ.get("SECUREFS_AUDIT_DIR")
        if directory is not None and not directory.strip():
            raise ConfigurationError(
                "SECUREFS_AUDIT_DIR is empty: name a folder, or unset it to log to stderr"
            )
        sync = environ.get("SECUREFS_AUDIT_SYNC", "buffered")
        names = environ.get("SECUREFS_AUDIT_NAMES", "pseudonym")
        _require("SECUREFS_AUDIT_SYNC", sync, get_args(Sync))
        _require("SECUREFS_AUDIT_NAMES", names, get_args(Names))
        names_key = environ.get("SECUREFS_AUDIT_NAMES_KEY")
        if names_key is not None:
            if not names_key.strip():
                raise ConfigurationError(
                    "SECUREFS_AUDIT_NAMES_KEY is empty: name a folder for the keys, or unset it"
                )
            try:
                prepare_keys(names_key, None if directory is None else Path(directory))
            except ConfigurationError as error:
                raise ConfigurationError(f"SECUREFS_AUDIT_NAMES_KEY: {error}") from error
        try:
            return cls(
                directory,
                names_key=names_key,
                sync="record" if sync == "record" else "buffered",
                names="clear" if names == "clear" else "pseudonym",
                on_loss=on_loss,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"SECUREFS_AUDIT_DIR: {error}") from error

    def __repr__(self) -> str:
        where = "a stream" if isinstance(self._target, StreamSink) else str(self._target)
        return f"<Journal to {where}: {', '.join(f'{key}={value}' for key, value in self._settings.items())}>"

    @clears_frames
    def record(self, entry: Entry) -> None:
        """Write one record; return when the operating system has it.

        From severity 4 on, return when the record is on the disk. ``entry.actor`` and
        ``entry.obj["name"]`` are given in clear; they become pseudonyms here unless the setting
        says otherwise.

        :raises JournalError: it could not be written: the operation must not go on.
        :raises ValueError: an event, key or type outside the closed lists: a bug in the caller.
        """
        if entry.event in _OWN_EVENTS:
            raise ValueError(f"{entry.event} is written by the journal itself")
        _ = entry.severity  # an entry that is not in the table has none
        try:
            with self._exclusive():
                self._record(entry)
        finally:
            self._outage.report(self._on_loss)
            # A server's log on the stream that stalls would wait for ever.
            if self._outage.pending and not self.stalls_the_log:
                self._outage.tell()

    def _record(self, entry: Entry) -> None:
        closed = self._settings["on_failure"] == "closed"
        try:
            self._refuse_when_closed()
            names = self._names_now()
            self._write(entry if names is None else _hidden(entry, names))
        except ChainBrokenError as error:
            self._lost += 1
            self._outage.failed(error, "operations are refused" if closed else "operations go on unrecorded")
            if closed:
                raise JournalError(f"the audit journal cannot be written: {error}") from error

    def _write(self, entry: Entry) -> None:
        """Write the record, or count it if it is one of a flood; write the sums that are due."""
        now = time.time_ns()
        if self._floods.is_due(now) and self._has_room():
            self._write_sums()
        if EVENTS[entry.event].summed and not self._floods.admits(entry, now, room=self._has_room()):
            return
        chain = self._usable_chain()
        self._append(chain, entry)
        self._outage.ended(chain.position.chain)

    def _write_sums(self) -> None:
        for total in self._floods.sums():
            self._append(self._usable_chain(), total)

    def _has_room(self) -> bool:
        """Return whether there is room for records that anyone can cause."""
        if isinstance(self._target, StreamSink):
            return True
        try:
            status = os.statvfs(self._target)
        except OSError:
            return True  # what a record meets will tell
        room = status.f_bavail * status.f_frsize >= RESERVE
        if self._roomy and not room:
            self._outage.note(
                f"less than {RESERVE // 2**20} MiB are free for the audit journal: "
                "denials and rejected requests are only counted"
            )
        self._roomy = room
        return room

    @property
    def stalls_the_log(self) -> bool:
        """Whether the journal is on standard error, whose reader stalls: a log line would wait."""
        return isinstance(self._target, StreamSink) and self._target.stalls(_STANDARD_ERROR)

    @clears_frames
    def describe(self, *, places: str) -> None:
        """Say in the first record of each later chain whether stored files are declared.

        :param places: ``declared`` or ``undeclared``; of several writers, the worse one counts.
        """
        with self._exclusive():
            if self._settings.get("places") != "undeclared":
                self._settings = {**self._settings, "places": places}

    @clears_frames
    def check(self) -> None:
        """Check that a record can be written now, as far as possible without writing one.

        A process that has no chain, or whose chain has become unusable, opens one here, so that the
        answer rests on a real write.

        :raises JournalError: a record could not be written, whatever ``on_failure`` says.
        """
        with self._exclusive():
            try:
                self._refuse_when_closed()
                self._names_now()
                chain = self._usable_chain()
                try:
                    chain.sink.check()
                except ChainBrokenError as error:
                    self._abandon(chain, error.why, error.error)
                    self._usable_chain()
                if self._floods.is_due(time.time_ns()) and self._has_room():
                    self._write_sums()
            except ChainBrokenError as error:
                raise JournalError(f"the audit journal cannot be written: {error}") from error

    @clears_frames
    def close(self) -> None:
        """End this process's chain with ``server.stop``; refuse further records.

        A second close does nothing.

        :raises JournalError: the last line could not be written, and ``on_failure`` is ``closed``.
        """
        with self._exclusive():
            if self._closed:
                return
            try:
                # A process that never wrote has nothing to end; one that lost records still has to
                # say so.
                if self._chain is not None or self._lost or self._floods.pending:
                    self._write_sums()
                    self._append(self._usable_chain(), Entry("server.stop"))
            except ChainBrokenError as error:
                if self._settings["on_failure"] == "closed":
                    raise JournalError(f"the audit journal cannot be ended: {error}") from error
            finally:
                self._closed = True
                self._let_go()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the journal for one thread; refuse a signal handler that interrupted this thread."""
        with self._lock:
            # The lock is re-entrant only so that such a handler gets an error and not a deadlock.
            if self._busy:
                raise JournalError("the audit journal was called by a signal handler that had interrupted it")
            try:
                self._busy = True
                yield
            finally:
                self._busy = False

    def _start_afresh(self) -> None:
        """Begin with no chain, no lock and no history, in a new journal or a forked child."""
        self._lock = threading.RLock()
        self._busy = False
        self._clock, self._floods, self._roomy = Clock(), Floods(), True
        self._forget()

    def _forget(self) -> None:
        self._let_go()
        # What the next first line says: which chain it replaces, and why. Empty if it replaces
        # none.
        self._trouble: dict[str, str | int] = {}
        self._lost = 0  # records asked for since the last one that was written

    def _let_go(self) -> None:
        """Close the file without writing to it.

        A file that a forked child closes stays open and locked in its parent.
        """
        if self._chain is not None:
            self._chain.sink.close()
            self._chain = None

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ChainBrokenError("closed", "it was closed")

    def _usable_chain(self) -> Chain:
        """Return this process's chain; open one if there is none that may continue."""
        if self._chain is not None:
            self._let_go_if_unusable(self._chain)
        if self._chain is None:
            self._chain = self._open_chain()
        return self._chain

    def _let_go_if_unusable(self, chain: Chain) -> None:
        if chain.pid != os.getpid():
            # Forked by C code that does not tell Python: nothing that belongs to the parent may be
            # used.
            self._forget()
        elif not chain.usable:
            self._abandon(chain, "interrupted", None)

    def _open_chain(self) -> Chain:
        name = Chain.random_id()
        try:
            source = Source(os.uname().nodename, os.getpid(), self._version, self._boot)
            chain = self._new_chain(name, source)
        except ChainBrokenError as error:
            self._blame(error.why, error.error)
            raise
        obj: dict[str, str | int] = {**self._settings, **self._trouble}
        if self._lost:
            obj["lost"] = self._lost
        self._append(chain, Entry("server.start", obj=obj))
        self._trouble, self._lost = {}, 0
        return chain

    def _new_chain(self, name: str, source: Source) -> Chain:
        target = self._target
        if isinstance(target, StreamSink):
            return Chain(name, source, target)
        return Chain(
            name,
            source,
            FileSink(target, name),
            lambda number: (FileSink(target, name, number), self._settings),
        )

    def _load_names(self, names_key: str | os.PathLike[str] | None) -> NameKeys | Pseudonyms:
        folder = None if isinstance(self._target, StreamSink) else self._target
        if names_key is not None:
            return NameKeys(prepare_keys(names_key, folder))
        return random_pseudonyms() if folder is None else load_or_create(folder)

    def _names_now(self) -> Pseudonyms | None:
        """Return the pseudonyms of this moment, None if names are clear."""
        try:
            return None if self._names is None else self._names.at(time.time_ns())
        except ConfigurationError as error:
            raise ChainBrokenError("no_key", str(error)) from error

    def _append(self, chain: Chain, entry: Entry) -> None:
        flush_from = 1 if self._settings["sync"] == "record" else FLUSH_FROM
        try:
            if not chain.position.seq:
                chain.append(entry, time.time_ns(), flush_from=flush_from)
                return
            now, back = self._clock.read()
            if back:
                chain.append(Entry("audit.clock", obj={"back_ms": back}), now, flush_from=flush_from)
            chain.append(entry, now, flush_from=flush_from)
        except ChainBrokenError as error:
            self._abandon(chain, error.why, error.error)
            raise

    def _abandon(self, chain: Chain, why: str, error: str | None) -> None:
        """Never write to this chain again, and remember what its successor must say about it."""
        chain.abandon()
        self._chain = None
        position = chain.position
        if position.seq:
            self._trouble = {
                "replaces": position.chain,
                "replaces_seq": position.seq - 1,
                "replaces_hash": position.prev,
            }
        self._blame(why, error)

    def _blame(self, why: str, error: str | None) -> None:
        # The first cause counts: what fails after it (while the disk is full, say) is only its
        # consequence.
        if "why" not in self._trouble:
            self._trouble["why"] = why
            if error is not None:
                self._trouble["error"] = error


def _hidden(entry: Entry, pseudonyms: Pseudonyms) -> Entry:
    """Return the entry with pseudonyms in the place of names."""
    obj, actor = entry.obj, entry.actor
    for member, kind in _HIDDEN.items():
        text = obj.get(member)
        if isinstance(text, str):
            obj = {**obj, member: pseudonyms.of(kind, text)}
    if isinstance(actor, str):
        actor = pseudonyms.of("principal", actor)
    return entry.hidden(obj, actor)


def _require(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{what} is {value!a}: it must be one of {', '.join(allowed)}")


def _descriptor(stream: HasDescriptor | None) -> int:
    if stream is None:
        return _STANDARD_ERROR
    require_function("stream", getattr(stream, "fileno", None), "an open file, which has a fileno()")
    try:
        return stream.fileno()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "the journal's stream has no file descriptor: give it an open file"
        ) from error


@cache
def _version(distribution: str = "securefs") -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a checkout


def _boot_id(file: str = "/proc/sys/kernel/random/boot_id") -> str | None:
    """Return the id that the kernel drew at this start of the host, None where it draws none."""
    try:
        return Path(file).read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


# Weak references, so that a journal that nobody holds any more is collected, and its file closed.
_journals: Final[weakref.WeakSet[Journal]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # There is no hook before the fork that takes the locks: a fork from a signal handler would wait
    # for itself. The child needs none of the parent's state, so it need not be consistent.
    for journal in list(_journals):
        journal._start_afresh()  # noqa: SLF001  (same module; not for users)


os.register_at_fork(after_in_child=_after_fork_in_child)
