"""Reads chains as they grow, and finds out which of their writers are dead.

Guarantees: whole lines only, each once, as leaf hashes in file order; memory and descriptors are
bounded however large a chain is, and no file stays open. A chain that is missing, shorter than it
was, replaced by another file, or not what was sealed of it is never read on: it is
:attr:`Followed.tampering`. A writer is dead if nobody holds the lock of its file; that is never
concluded for a writer on another machine, whose locks may not be seen from here.

Implements the section on the sealer of ``docs/log.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from securefs.audit.fields import LONGEST_LINE, RecordError
from securefs.audit.record import parse_line
from securefs.audit.segments import CHAIN_FILE, PACKED, Unpacked
from securefs.audit.sink import chain_file_name
from securefs.disk import explain, open_regular
from securefs.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from securefs.audit.segments import Begin

__all__ = ["Death", "Followed", "Here", "chain_names"]

EMPTY_FOR: Final = 60.0  # seconds after which nobody is about to lock an empty file any more
_BLOCK: Final = 256 * 1024  # bytes read at a time
# No string of a record can hold these bytes: quotes in it are escaped.
_STOP: Final = b'"event":"server.stop"'
_flush_to_disk: Final = getattr(os, "fdatasync", os.fsync)


def chain_names(folder: Path) -> list[str]:
    """Return the ids of the chains that have a file in ``folder``, sorted."""
    with os.scandir(folder) as entries:
        return sorted({match[1] for entry in entries if (match := CHAIN_FILE.fullmatch(entry.name))})


@dataclass(frozen=True, slots=True)
class Here:
    """Which machine is this one, to tell its chains from those of others.

    :ivar host: its name. :ivar boot: the id of its last start, "" where there is none.
    """

    host: str
    boot: str


@dataclass(frozen=True, slots=True)
class Death:
    """What a writer that died left: ``size`` bytes of a torn line, and the boot id it had."""

    size: int
    boot: str


@dataclass(slots=True)
class Followed:
    """One chain that is being read.

    :ivar path: the file that is being read. :ivar number: of that file in the chain.
    :ivar count: whole lines that were read: the number of the next one.
    :ivar offset: bytes that were read of the file. :ivar head: the leaf hash of the last one.
    :ivar stopped: the last one is server.stop. :ivar closed: its writer is dead, and all was read.
    :ivar tampering: why it is not read on, in words: it is not what it was.
    :ivar trouble: what was wrong when it was last read, in words; it is tried again.
    :ivar unsafe: the disk may not keep what was read of it. :ivar foreign: the machine of its
        writer, if that is not this one. :ivar boot: the boot id that its first line names.
    """

    chain: str
    path: Path
    count: int = 0
    offset: int = 0
    head: bytes = b""
    stopped: bool = False
    closed: bool = False
    tampering: str = ""
    trouble: str = ""
    unsafe: bool = False
    foreign: str = ""
    boot: str = ""
    number: int = 0
    _known: tuple[int, int] | None = field(default=None, repr=False)
    _due: tuple[int, bytes] | None = field(default=None, repr=False)
    _first_seen: bool = field(default=False, repr=False)

    def read(self, limit: int) -> list[bytes]:
        """Return the leaf hashes of the next whole lines, at most ``limit`` and perhaps none."""
        if self._due is not None:
            self._catch_up(*self._due)
        return [] if self._due is not None else self._next(limit)

    def _next(self, limit: int) -> list[bytes]:
        leaves = self._read_file(limit)
        while len(leaves) < limit and not self.lost and (following := self._following()) is not None:
            # A writer closes a file before it makes the next one: this is all of it.
            leaves += self._read_file(limit - len(leaves))
            left = not self._is_read()
            if left and len(leaves) < limit:
                self._fail("a file that another one follows does not end with a whole line")
            if left:
                break
            self._go_to(following, self.number + 1)
            leaves += self._read_file(limit - len(leaves))
        return leaves

    def _read_file(self, limit: int) -> list[bytes]:
        if self.lost or self._looks_unchanged():
            return []
        with self._opened() as descriptor:
            return [] if descriptor is None else self._read(descriptor, limit)

    def _go_to(self, path: Path, number: int, offset: int = 0) -> None:
        self.path, self.number, self.offset, self._known = path, number, offset, None

    def _following(self) -> Path | None:
        """Return the next file, None if there is none."""
        path = self.path.with_name(chain_file_name(self.chain, self.number + 1))
        for following in (path, path.with_name(path.name + PACKED)):
            if os.path.lexists(following):
                return following
        return None

    @property
    def _packed(self) -> bool:
        return self.path.name.endswith(PACKED)

    def _is_read(self) -> bool:
        """Return whether nothing of this file is left."""
        with self._opened() as descriptor:
            return descriptor is not None and not next(self._blocks(descriptor), b"")

    def _blocks(self, descriptor: int) -> Iterator[bytes]:
        """Yield what is in this file from where it was read."""
        offset = self.offset
        if not self._packed:
            while block := os.pread(descriptor, _BLOCK, offset):
                offset += len(block)
                yield block
            return
        with Unpacked(io.FileIO(os.dup(descriptor))) as file:
            while block := file.read(_BLOCK):
                offset, block = max(0, offset - len(block)), block[offset:]
                if block:
                    yield block

    def begin_at(self, begin: Begin, path: Path, number: int) -> None:
        """Begin in a file that is not the chain's first: those before it were retired."""
        self.count, self.head = begin.count, bytes.fromhex(begin.head)
        self._go_to(path, number)

    def catch_up(self, count: int, head: bytes) -> None:
        """Read over the first ``count`` lines, which were sealed with ``head`` as the last.

        What can't be read now is read over later: nothing before the end of it is returned.
        """
        self._due = (count, head)
        self._catch_up(count, head)

    def _catch_up(self, count: int, head: bytes) -> None:
        while self.count < count and self._next(count - self.count):
            pass
        if self.count == count:
            self._due = None
            if self.head != head:
                self._fail(f"record {count - 1} is not the one that was sealed")
        elif not self.trouble:
            self._fail(f"it has {self.count} records, and {count} were sealed")

    def resume(self, count: int, offset: int, head: bytes, number: int = 0) -> bool:
        """Go on where an earlier sealer was; return False if that line does not end there."""
        first = self.path, self.number, self.offset
        self._go_to(self.path.with_name(chain_file_name(self.chain, number)), number, offset)
        if self.path.exists() and self._resume(count, offset, head):
            return True
        self._go_to(*first)
        return False

    def _resume(self, count: int, offset: int, head: bytes) -> bool:
        with self._opened() as descriptor:
            if descriptor is None:
                return False
            before = os.pread(descriptor, min(offset, LONGEST_LINE + 1), max(0, offset - LONGEST_LINE - 1))
        line = before[:-1].rpartition(b"\n")[2]
        if not before.endswith(b"\n") or _leaf(line) != head:
            return False
        self.count, self.offset, self.head, self.stopped = count, offset, head, _STOP in line
        return True

    def flush(self) -> bool:
        """Have the disk keep what was read; return False if that is not certain."""
        with self._opened() as descriptor:
            if descriptor is not None and not self.unsafe:
                try:
                    _flush_to_disk(descriptor)
                except OSError as error:
                    # A second attempt would succeed without having written anything: the kernel
                    # gives up the pages of a write that failed. So there is none.
                    self.unsafe, self.trouble = True, f"it cannot be flushed: {explain(error)}"
            return descriptor is not None and not self.unsafe

    @contextmanager
    def dead(self, here: Here) -> Iterator[Death | None]:
        """Yield what the writer left, under the lock of its file; None unless it is known dead."""
        with self._opened() as descriptor:
            if descriptor is None or self.closed or not self._belongs(descriptor, here):
                yield None
                return
            try:
                # Shared is enough: the writer holds its lock exclusively. It goes with the
                # descriptor.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                yield None
                return
            if self._following() is not None:
                yield None  # its writer goes on in another file
                return
            if self._packed:
                yield Death(0, self.boot) if self._is_read() else None
                return
            size = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, LONGEST_LINE, self.offset)
            # A file that is empty may be about to be locked by its writer.
            begun = size > 0 or time.time() - os.fstat(descriptor).st_mtime > EMPTY_FOR
            yield Death(size - self.offset, self.boot) if begun and b"\n" not in tail else None

    @property
    def lost(self) -> bool:
        """Whether nothing more of it will be sealed by this process."""
        return self.unsafe or bool(self.tampering)

    @property
    def gone(self) -> bool:
        """Whether the file was removed before anything was read of it: it never held a record."""
        return not self.count and not self.tampering and not self.path.exists()

    def _looks_unchanged(self) -> bool:
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (
            not self._packed
            and status.st_size == self.offset
            and self._known == (status.st_dev, status.st_ino)
        )

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Yield a descriptor of the file, None if there is none that may be read on."""
        descriptor = None
        packed = self.path.with_name(self.path.name + PACKED)
        if not self._packed and not os.path.lexists(self.path) and os.path.lexists(packed):
            self._go_to(packed, self.number, self.offset)  # it was compressed meanwhile
        try:
            descriptor = open_regular(self.path, follow_links=False)
        except FileNotFoundError:
            if self.count:
                self._fail("its file is not there any more")
        except SourceError as error:
            self._fail(str(error))
        except OSError as error:
            self.trouble = f"it cannot be read: {explain(error)}"
        if descriptor is None:
            yield None
            return
        try:
            self._check(os.fstat(descriptor))
            yield None if self.tampering else descriptor
        finally:
            os.close(descriptor)

    def _check(self, status: os.stat_result) -> None:
        identity = (status.st_dev, status.st_ino)
        if self._known not in {None, identity}:
            self._fail("another file took its place")
        elif status.st_size < self.offset and not self._packed:
            self._fail(f"it was cut: {status.st_size} of {self.offset} bytes that were read before")
        else:
            self._known = identity
            self.trouble = self.trouble if self.unsafe else ""

    def _read(self, descriptor: int, limit: int) -> list[bytes]:
        leaves: list[bytes] = []
        rest, last = b"", b""
        for block in self._blocks(descriptor):
            *lines, rest = (rest + block).split(b"\n")
            if len(lines) > limit - len(leaves):
                lines, rest = lines[: limit - len(leaves)], b""
            for last in lines:
                self.offset += len(last) + 1
                leaves.append(_leaf(last))
            if len(rest) > LONGEST_LINE:
                self._fail(f"a line of it is longer than {LONGEST_LINE} bytes")
            if len(leaves) >= limit or self.tampering:
                break
        if leaves:
            self.count += len(leaves)
            self.head, self.stopped = leaves[-1], _STOP in last
        return leaves

    def _belongs(self, descriptor: int, here: Here) -> bool:
        """Return whether the writer was on this machine, as the first line says."""
        if not self._first_seen:
            line, end, _ = os.pread(descriptor, LONGEST_LINE, 0).partition(b"\n")
            if not end:
                return True  # torn before it said where it was; nothing of it was ever read
            self._first_seen = True
            host, self.boot = _origin(line)
            # A container may get a new name at each start; a machine gets a new boot id. Where both
            # differ, the lock is one of another machine.
            if host != here.host and (not self.boot or self.boot != here.boot):
                self.foreign = host
        return not self.foreign

    def _fail(self, why: str) -> None:
        self.tampering = self.tampering or why


def _leaf(line: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + line).digest()


def _origin(line: bytes) -> tuple[str, str]:
    """Return the host and the boot id in the first line of a chain; "" for what it does not say."""
    try:
        record = parse_line(line)
    except RecordError:
        return "", ""
    # Version 2 has a host with a name and perhaps a boot id, version 1 has it in its source.
    host = cast("Mapping[str, object]", record.get("host") or record["src"])
    return str(host.get("name", host.get("host"))), str(host.get("boot", ""))
