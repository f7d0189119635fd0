"""A journal and its sealer over several days."""

import time

from securefs.audit import Entry, Journal, LogTerms, verify_journal
from securefs.audit.log_folder import LogFolder
from securefs.audit.note import parse_vkey
from securefs.audit.sealer import Sealer
from securefs.audit.signing import SigningKey
from support.clock import Clock

DAY = 24 * 60 * 60 * 1_000_000_000
NOON = 1_790_000_000 // 86_400 * DAY + DAY // 2
USE = Entry("key.use")


class Days:
    """A journal and its sealer, with a clock that the test sets."""

    def __init__(self, folder, monkeypatch):
        self.now = NOON
        monkeypatch.setattr(time, "time_ns", lambda: self.now)
        self.folder = folder
        folder.mkdir(0o700)
        LogFolder.begin(folder / "log", "origin", SigningKey(), None)
        self.pin = parse_vkey((folder / "log" / "vkey").read_text().strip())
        self.journal = Journal(folder, names="clear")
        self.clock = Clock()
        self.told = []
        self.sealer = None

    def start(self):
        self.log = LogFolder(self.folder / "log")
        self.log.lock()
        self.sealer = Sealer(self.folder, self.log, self.told.append, clock=self.clock)

    def step(self, seconds=6.0):
        self.clock.now += seconds
        while self.sealer.step():
            pass

    def stop(self):
        self.sealer.stop()
        self.log.unlock()

    def day(self):
        self.now += DAY
        self.journal.record(USE)
        self.journal.record(USE)

    def verify(self, state=None):
        return verify_journal(self.folder, None, LogTerms(pins=[self.pin], now=self.now / 1e9, state=state))

    def files(self):
        return sorted(self.folder.glob("*.jsonl*"), key=lambda path: int(path.name.split(".")[0][33:]))


def three_days(folder, clock, *, stop=True):
    """A chain in three files; return their paths."""
    journal = Journal(folder, names="clear")
    for day in range(3):
        clock(bool(day))
        journal.record(USE)
        journal.record(USE)
    if stop:
        journal.close()
    paths = sorted(folder.glob("*.jsonl"))
    return (paths, journal) if not stop else paths
