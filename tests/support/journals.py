"""The journal in tests: one that reads back what it wrote, scripts in processes of their own, and hands that tamper with files."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import securefs.errors
from securefs.audit import Journal

ROOT = Path(securefs.errors.__file__).parents[1]  # what must be on a child's path
NOBODY = 65534  # user id


def start_script(code, *args, measured=True):
    """Start ``code`` as a Python program that can import securefs.

    ``measured=False`` keeps coverage out of it: an exception out of a signal handler can fall into
    the tracer, which then waits for its own lock for ever.
    """
    environ = {key: value for key, value in os.environ.items() if measured or not key.startswith("COVERAGE_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        env={**environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run_script(code, *args, measured=True):
    """Run ``code`` to its end, and return its standard output and standard error."""
    return finish(start_script(code, *args, measured=measured))


def finish(process):
    """Wait for the end of what :func:`start_script` started, for two minutes at most."""
    with process:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err.decode()
    return out, err


def chain_files(folder):
    """Return the files of all chains, oldest first.

    Some kernels set file times in ticks of milliseconds. Of two files with the same time, the older
    is the one whose first record is older.
    """
    return sorted(folder.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, begun(path)))


def begun(path):
    """Return the time in a chain's first record, "" where there is none yet."""
    line, end, _ = path.read_bytes().partition(b"\n")
    return json.loads(line)["time"] if end else ""


def only_chain(folder):
    """Return the file of the only chain."""
    (path,) = chain_files(folder)
    return path


def records(path):
    """Return the records of one file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def all_records(folder):
    """Return the records of all chains, oldest chain first."""
    return [record for path in chain_files(folder) for record in records(path)]


def told(records):
    """Return (event, outcome, reason) of each record."""
    return [(record["event"], record["outcome"], record.get("reason")) for record in records]


class Evidence(Journal):
    """A real journal that can read back what it wrote."""

    def __init__(self, folder, names="clear"):
        super().__init__(folder, names=names)
        self.folder = folder

    def records(self, event=None):
        """Return all records, or those of one event."""
        return [record for record in all_records(self.folder) if event in {None, record["event"]}]

    def events(self):
        """Return (event, outcome, reason) of every record of a request, but for how it was answered."""
        left_out = ("server.", "request.answered")
        return told(record for record in self.records() if not record["event"].startswith(left_out))

    def lose(self):
        """Remove its files behind its back: what it writes next fails."""
        for path in chain_files(self.folder):
            path.unlink()


def open_descriptors():
    """Return the descriptors of this process, but for those that other tests left to the garbage collector."""
    gc.collect()
    return {path.name for path in Path("/dev/fd").iterdir()}


@contextlib.contextmanager
def file_size_limit(size):
    """Let no file of this process grow beyond ``size`` bytes: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def unprivileged(folder):
    """Be a user for whom modes count: root, who may do anything, becomes nobody and gives it ``folder``."""
    if os.geteuid() != 0:
        yield
        return
    print("root ignores modes: going on as nobody")
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
