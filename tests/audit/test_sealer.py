"""The sealer: whatever happens to it, what it signed holds, and nothing is lost or told wrongly."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.clock import Clock
from support.failing import Faults, KilledError
from support.journals import finish, start_script
from support.sealed import all_sealed, lines_of, read_sealed

from securefs.audit import Entry, Journal
from securefs.audit.chain import ChainBrokenError
from securefs.audit.log_folder import LogFolder
from securefs.audit.sealer import Sealer
from securefs.audit.signing import SigningKey

ORIGIN = "files-1/securefs-0a1b2c3d"


def begin(journal, stable=None):
    journal.mkdir(0o700, exist_ok=True)
    LogFolder.begin(journal / "log", ORIGIN, SigningKey(), stable)


class Running:
    """A sealer in this process, with a clock that the test sets and a disk that can fail."""

    def __init__(self, journal, faults=None):
        self.faults = faults or Faults()
        self.log = LogFolder(journal / "log", self.faults.disk())
        self.log.lock()
        self.clock = Clock()
        self.told = []
        try:
            self.sealer = Sealer(journal, self.log, self.told.append, clock=self.clock, sink=self.faults.sink)
        except BaseException:
            self.log.unlock()
            raise

    def step(self, seconds=0.0):
        self.clock.now += seconds
        while self.sealer.step():
            pass

    def stop(self):
        self.sealer.stop()
        self.log.unlock()

    def kill(self):
        """What is left of a process that was killed: its locks are free."""
        chain = getattr(getattr(self, "sealer", None), "_chain", None)
        if chain is not None:
            chain.sink.close()
        self.log.unlock()


@pytest.fixture
def folder(tmp_path):
    begin(tmp_path / "journal")
    return tmp_path / "journal"


def write(journal, count, start=0):
    for number in range(start, start + count):
        journal.record(Entry("file.decrypt", obj={"size": number}))


def dead_chain(folder, count=3, torn=b'{"actor":'):
    """A chain whose writer was killed in the middle of a line."""
    before = set(folder.glob("*.jsonl"))
    finish(
        start_script(
            """
import os, sys
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1])
for number in range(int(sys.argv[2])):
    journal.record(Entry("file.decrypt", obj={"size": number}))
os._exit(0)
""",
            folder,
            count,
            measured=False,
        )
    )
    (path,) = set(folder.glob("*.jsonl")) - before
    with path.open("ab") as file:
        file.write(torn)
    return path


def life(folder, faults=None):
    """Everything that a sealer does: begin, seal, adopt, seal more, end."""
    journal = Journal(folder)
    write(journal, 10)
    dead_template(folder)
    running = None
    try:
        running = Running(folder, faults)
        running.step()
        write(journal, 300)
        running.step(1)
        write(journal, 3)
        running.step()
        running.step(6)
        write(journal, 2)
        running.stop()
    except KilledError:
        if running is not None:
            running.kill()
        return None
    finally:
        journal.close()
    return running


def dead_template(folder):
    """A copy of a dead chain: making one takes a process."""
    template = folder.parent / "dead"
    if not template.exists():
        template.mkdir(0o700)
        dead_chain(template)
    for path in template.glob("*.jsonl"):
        shutil.copy(path, folder)


def test_a_life_seals_everything_and_ends_the_log(folder):
    running = life(folder)
    sealed = read_sealed(folder)
    # The last record of the journal came after.
    assert (
        sum(len(lines_of(path)) for path in folder.glob("*.jsonl"))
        == sum(sealed.taken.values()) - len(lines_of(next((folder / "log").glob("*.jsonl")))) + 1
    )
    assert sealed.breaks == 0
    assert len(sealed.seals) == len(sealed.checkpoints) == 4
    assert json.loads(lines_of(next((folder / "log").glob("*.jsonl")))[-1])["event"] == "server.stop"
    assert not running.sealer.tampered
    assert ["its writer died" in text for text in running.told] == [True]
    again = Running(folder)
    again.stop()
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    assert sealed.breaks == 0


@pytest.fixture
def quick_folder(tmp_path):
    """A folder in memory, where there is one: campaigns flush some ten thousand times."""
    if not os.access("/dev/shm", os.W_OK):
        print("no /dev/shm: the campaign runs on the disk")
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


HOWS = ("before", "half", "after")


def count_of_writes(quick_folder):
    folder = quick_folder / "count"
    begin(folder)
    faults = Faults()
    life(folder, faults)
    return faults.count


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power cut"])
def test_killed_at_any_write_it_goes_on_without_a_contradiction(quick_folder, how, power):
    for at in range(1, count_of_writes(quick_folder) + 1):
        folder = quick_folder / f"journal-{at}"
        begin(folder)
        faults = Faults(at, how)
        life(folder, faults)
        if power:
            faults.cut_power()
        signed = read_sealed(folder).checkpoints
        for _ in range(2):
            again = Running(folder)
            again.step()
            again.stop()
            sealed = read_sealed(folder)
            assert sealed.checkpoints[: len(signed)] == signed
            all_sealed(folder, sealed)
            assert sealed.breaks <= 1
            assert not again.sealer.tampered, (at, again.told)
        shutil.rmtree(folder)


@pytest.mark.parametrize("how", HOWS)
def test_a_full_disk_at_any_write_makes_no_break(quick_folder, how):
    for at in range(1, count_of_writes(quick_folder) + 1):
        folder = quick_folder / f"journal-{at}"
        begin(folder)
        faults = Faults(at, how, error=True)
        journal = Journal(folder)
        write(journal, 10)
        dead_template(folder)
        try:
            running = Running(folder, faults)
        except (OSError, ChainBrokenError):
            running = Running(folder)
        running.step()
        for _ in range(3):
            write(journal, 300)
            running.step(6)
        journal.close()
        running.step(6)
        try:
            running.stop()
        except (OSError, ChainBrokenError):
            running.kill()
            running = Running(folder)
            running.stop()
            assert read_sealed(folder).breaks <= 1
        else:
            assert read_sealed(folder).breaks == 0, (at, running.told)
        all_sealed(folder, read_sealed(folder))
        shutil.rmtree(folder)
