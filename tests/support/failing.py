"""Disks that fail: a sealer that is killed, or told that a disk is full, at any of its writes.

What is written and not flushed can be lost by a power cut: :meth:`Faults.cut_power`.
"""

from __future__ import annotations

import errno
import os

from securefs.audit.log_folder import Disk
from securefs.audit.sink import ChainBrokenError, FileSink


class KilledError(BaseException):
    """The process is gone."""


class Faults:
    """Counts writes, and lets number ``at`` fail: ``before`` it, ``half`` way, or ``after`` it.

    :param error: True raises ENOSPC instead of a kill.
    """

    def __init__(self, at=0, how="before", *, error=False):
        self.at, self.how, self.error = at, how, error
        self.count = 0
        self.full = False  # every write fails
        self.flushed = {}  # path: bytes that a power cut leaves

    def write(self, action, half=lambda: None):
        self.count += 1
        if self.full:
            self.error = True
            self.fail()
        hit = self.count == self.at
        if hit and self.how == "half":
            half()
        if hit and self.how != "after":
            self.fail()
        result = action()
        if hit:
            self.fail()
        return result

    def fail(self):
        if self.error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise KilledError

    def kept(self, path):
        self.flushed[path] = path.stat().st_size

    def cut_power(self):
        """Take from each file what was not flushed."""
        for path, size in self.flushed.items():
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)

    def disk(self):
        return FailingDisk(self)

    def sink(self, folder, chain):
        return FailingSink(self, folder, chain)


class FailingDisk(Disk):
    def __init__(self, faults):
        self.faults = faults

    def append(self, path, data):
        before = path.stat().st_size if path.exists() else 0
        self.faults.flushed[path] = before

        def half():
            with path.open("ab") as file:
                file.write(data[: len(data) // 2])

        self.faults.write(lambda: super(FailingDisk, self).append(path, data), half)
        self.faults.kept(path)

    def cut(self, path, size):
        self.faults.write(lambda: super(FailingDisk, self).cut(path, size))
        self.faults.kept(path)

    def replace(self, path, data, *, secret=False):
        self.faults.write(lambda: super(FailingDisk, self).replace(path, data, secret=secret))

    def rewrite(self, path):
        self.faults.write(lambda: super(FailingDisk, self).rewrite(path))
        self.faults.kept(path)

    def remove(self, path):
        def half():
            path.write_bytes(bytes(path.stat().st_size))

        self.faults.write(lambda: super(FailingDisk, self).remove(path), half)


class FailingSink(FileSink):
    """The file of a sealer's chain. A failed write raises what a real one would."""

    def __init__(self, faults, folder, chain):
        self.faults = faults
        try:
            faults.write(lambda: super(FailingSink, self).__init__(folder, chain))
        except OSError as error:
            raise ChainBrokenError("open_failed", "cannot open", error) from error
        faults.flushed[self._path] = 0

    def write(self, line):
        def half():
            super(FailingSink, self).write(line[: len(line) // 2])

        try:
            self.faults.write(lambda: super(FailingSink, self).write(line), half)
        except OSError as error:
            raise ChainBrokenError("write_failed", "cannot write", error) from error

    def flush(self):
        try:
            self.faults.write(super().flush)
        except OSError as error:
            raise ChainBrokenError("flush_failed", "cannot flush", error) from error
        self.faults.kept(self._path)
