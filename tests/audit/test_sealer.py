"""The sealer: whatever happens to it, what it signed holds, and nothing is lost or told wrongly."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.clock import Clock
from support.failing import Faults, KilledError
from support.journals import file_size_limit, finish, start_script
from support.sealed import all_sealed, check_signature, events, lines_of, read_sealed

from securefs.audit import Entry, Journal, following, sealer
from securefs.audit.log_folder import LogDamagedError, LogFolder
from securefs.audit.sealer import Sealer
from securefs.audit.signing import SigningKey
from securefs.audit.sink import ChainBrokenError
from securefs.errors import JournalError

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


def test_a_heartbeat_an_age_and_a_number_make_a_seal_due(folder):
    running = Running(folder)
    journal = Journal(folder)
    running.step()
    assert running.sealer.index == 1
    running.step(59)
    assert running.sealer.index == 1
    running.step(1)
    assert running.sealer.index == 2
    write(journal, 254)
    running.step()
    assert running.sealer.index == 2
    running.step(4.9)
    assert running.sealer.index == 2
    running.step(0.1)
    assert running.sealer.index == 3
    write(journal, 256)
    running.step()
    assert running.sealer.index == 4
    journal.close()
    running.stop()
    all_sealed(folder, read_sealed(folder))


def test_the_stable_key_signs_too_and_is_the_same_after_a_break(tmp_path):
    stable = SigningKey()
    begin(tmp_path / "j", stable)
    Running(tmp_path / "j").kill()
    running = Running(tmp_path / "j")
    running.step()
    running.kill()
    running = Running(tmp_path / "j")
    running.stop()
    sealed = read_sealed(tmp_path / "j")
    assert sealed.breaks == 1
    for _, _, text, lines in sealed.checkpoints:
        first, second = lines
        assert first.split(" ")[1] == second.split(" ")[1] == ORIGIN
        check_signature(text, second, stable.public)


def test_the_first_key_is_the_one_to_pin_and_no_key_signs_twice(folder):
    pinned = LogFolder(folder / "log").handed_over().public.hex()
    for _ in range(3):
        running = Running(folder)
        running.step()
        running.step(60)
        running.stop()
    sealed = read_sealed(folder)
    assert sealed.keys[0] == pinned
    assert len(set(sealed.keys)) == len(sealed.keys) == 9
    assert sealed.breaks == 0
    assert not (folder / "log" / "first.key").exists()


def test_the_key_that_was_handed_over_is_gone_before_it_signs(folder):
    """Killed before its first seal, a sealer makes no break."""
    Running(folder).kill()
    running = Running(folder)
    assert (folder / "log" / "first.key").exists()
    running.step()
    assert not (folder / "log" / "first.key").exists()
    running.kill()
    assert read_sealed(folder).breaks == 0


@pytest.mark.parametrize("key", ["none", "another"])
def test_a_sealer_without_the_next_key_says_so_first(folder, key):
    running = Running(folder)
    running.step()
    running.kill()
    if key == "another":
        running.log.hand_over(SigningKey().pem())
    again = Running(folder)
    again.stop()
    (epoch,) = events(folder / "log", "audit.epoch")
    assert (epoch["seq"], epoch["sev"]) == (1, 3)
    assert epoch["obj"] == {"why": "no_key" if key == "none" else "other_key"}
    assert any("a new line of keys begins" in text for text in again.told)
    assert read_sealed(folder).breaks == 1


def test_a_log_whose_first_key_is_lost_says_so_too(folder):
    (folder / "log" / "first.key").unlink()
    Running(folder).stop()
    assert len(events(folder / "log", "audit.epoch")) == 1
    (folder / "log" / "vkey").write_text("no key\n")
    shutil.rmtree(folder / "log" / "tiles")
    for path in [*(folder / "log").glob("*.jsonl"), folder / "log" / "checkpoints"]:
        path.unlink()
    with pytest.raises(LogDamagedError, match=r"vkey: a verification key is"):
        Running(folder)


def test_chains_that_are_older_than_the_log_are_named_and_not_in_it(tmp_path):
    folder = tmp_path / "journal"
    journal = Journal(folder)
    write(journal, 4)
    dead_chain(folder)
    (folder / f"{'0' * 32}-0.jsonl").touch()
    begin(folder)
    running = Running(folder)
    running.step()
    write(journal, 3)
    journal.close()
    running.stop()
    cutovers = {
        record["obj"]["chain"]: record["obj"]["upto"] for record in events(folder / "log", "audit.cutover")
    }
    assert sorted(cutovers.values()) == [3, 4]
    sealed = read_sealed(folder)
    assert sum(len(lines_of(path)) for path in folder.glob("*.jsonl")) == 13
    assert len(sealed.leaves) == 4 + len(lines_of(next((folder / "log").glob("*.jsonl"))))
    all_sealed(folder, sealed)
    Running(folder).stop()
    assert len(events(folder / "log", "audit.cutover")) == 2
    # Also where the tiles must be made anew: what is older is no leaf.
    shutil.rmtree(folder / "log" / "tiles")
    again = Running(folder)
    again.stop()
    assert again.told == ["the tiles do not hold: making them anew from the chains"]
    all_sealed(folder, read_sealed(folder))


def test_a_dead_writer_is_told_once_with_what_it_left(folder):
    path = dead_chain(folder, 5, b'{"actor":{"id"')
    empty_torn = dead_chain(folder, 1, b"")
    empty_torn.write_bytes(b'{"chain"')
    running = Running(folder)
    running.step()
    running.step(10)
    running.stop()
    Running(folder).stop()
    adopted = read_sealed(folder).adopted
    assert adopted[path.name[:32]]["size"] == 14
    assert adopted[path.name[:32]]["upto"] == 5
    assert adopted[empty_torn.name[:32]] == {"chain": empty_torn.name[:32], "size": 8}
    assert len(adopted) == 2


def test_a_writer_that_abandons_its_chain_is_no_alarm(folder):
    """It goes on in another one."""
    journal = Journal(folder)
    write(journal, 3)
    running = Running(folder)
    running.step()
    (path,) = folder.glob("*.jsonl")
    with file_size_limit(path.stat().st_size + 5), pytest.raises(JournalError):
        write(journal, 1)
    write(journal, 1)
    journal.close()
    running.step(6)
    running.stop()
    assert not running.sealer.tampered
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    assert list(sealed.adopted) == [path.name[:32]]


@pytest.mark.parametrize("running_while", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("change", ["cut", "removed", "edited"])
def test_tampering_is_told_and_never_repaired(folder, running_while, change):
    journal = Journal(folder)
    write(journal, 5)
    journal.close()
    (path,) = folder.glob("*.jsonl")
    data = path.read_bytes()
    running = Running(folder)
    running.step()
    if not running_while:
        running.stop()
    lines = data.split(b"\n")[:-1]
    if change == "removed":
        path.unlink()
    else:
        lines[-1] = b"x" * len(lines[-1]) if change == "edited" else lines[-1]
        path.write_bytes(b"\n".join(lines[: 4 if change == "cut" else None]) + b"\n")
    if not running_while:
        running = Running(folder)
    other = Journal(folder)
    write(other, 2)
    running.step(6)
    if running_while and not running.sealer.tampered:
        # Its writer had ended it, so it was let go of, and is looked at by the next sealer.
        running.stop()
        running = Running(folder)
        running.step()
    other.close()
    running.step()
    running.stop()
    assert running.sealer.tampered
    assert "TAMPERING" in "".join(running.told)
    assert events(folder / "log", "audit.adopted") == []
    # The others are sealed.
    (new,) = set(folder.glob("*.jsonl")) - {path}
    seals = [run for record in events(folder / "log", "audit.seal") for run in record["seal"]["runs"]]
    assert [new.name[:32], 0, 3] in seals or [new.name[:32], 3, 3] in seals


def test_a_log_whose_leaves_and_chains_are_gone_is_refused(folder):
    Running(folder).stop()
    journal = Journal(folder)
    write(journal, 5)
    journal.close()
    running = Running(folder)
    running.stop()
    (path,) = folder.glob("*.jsonl")
    data = path.read_bytes()
    shutil.rmtree(folder / "log" / "tiles")
    path.write_bytes(data[:-100])
    with pytest.raises(
        LogDamagedError, match=r"the tiles are gone, and chain \w+ does not hold: it is shorter"
    ):
        Running(folder)
    path.write_bytes(data.replace(b'"size":1', b'"size":2'))
    with pytest.raises(LogDamagedError, match="the last checkpoint does not match"):
        Running(folder)
    path.unlink()
    path.symlink_to("x")
    with pytest.raises(LogDamagedError, match="symbolic link"):
        Running(folder)
    path.unlink()
    path.write_bytes(data)
    Running(folder).stop()
    all_sealed(folder, read_sealed(folder))


def test_a_torn_checkpoint_is_cut_off_and_told(folder):
    running = Running(folder)
    running.step()
    running.kill()
    with (folder / "log" / "checkpoints").open("ab") as file:
        file.write(b"files-1")
    again = Running(folder)
    assert again.told[0] == "cut off 7 bytes of a checkpoint that was not written whole"
    again.stop()
    read_sealed(folder)


def test_a_backlog_is_sealed_in_parts_that_fit(folder, monkeypatch):
    monkeypatch.setattr(following, "MAX_PENDING", 50)
    monkeypatch.setattr(following, "MAX_TURN", 20)
    monkeypatch.setattr(following, "MAX_RUNS", 3)
    Running(folder).stop()
    journals = [Journal(folder) for _ in range(4)]
    for journal in journals:
        write(journal, 60)
        journal.close()
    running = Running(folder)
    running.stop()
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    assert max(len(seal["runs"]) for seal in sealed.seals) == 3
    assert len(sealed.seals) > 5


def test_a_log_that_cannot_be_written_is_tried_again_with_patience(folder):
    """The disk is full for a while: told once, tried after 1, 2, 4, ... seconds, and nothing is lost."""
    faults = Faults()
    running = Running(folder, faults)
    running.step()
    journal = Journal(folder)
    write(journal, 300)
    faults.full = True
    attempts = []
    for _ in range(20):
        before = faults.count
        running.step(1)
        attempts.append(faults.count > before)
    assert [second for second, tried in enumerate(attempts) if tried] == [0, 1, 3, 7, 15]
    assert len([text for text in running.told if text.startswith("NOT SEALING")]) == 1
    with pytest.raises((OSError, ChainBrokenError)):
        running.sealer.stop()
    faults.full = False
    running.step(60)
    assert "the log can be written again" in running.told
    journal.close()
    running.stop()
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    assert sealed.breaks == 0
    starts = events(folder / "log", "server.start")
    assert sum("replaces" in record["obj"] for record in starts) == 1


def test_it_stops_though_a_writer_never_does(folder, monkeypatch):
    monkeypatch.setattr(sealer, "MAX_FINAL", 3)
    monkeypatch.setattr(following, "MAX_TURN", 5)
    journal = Journal(folder)
    running = Running(folder)
    write(journal, 100)
    running.stop()
    assert len(read_sealed(folder).seals) == 4
    journal.close()


def test_a_sealer_that_is_killed_need_not_be_read_anew_from_the_start(folder):
    """Every ten minutes it notes how far each chain was read."""
    running = Running(folder)
    journal = Journal(folder)
    write(journal, 300)
    running.step(599)
    assert not (folder / "log" / "positions").exists()
    write(journal, 300)
    running.step(1)
    (path,) = folder.glob("*.jsonl")
    kept = running.log.positions()[path.name[:32]]
    assert (kept.count, kept.offset) == (601, path.stat().st_size)
    running.kill()
    again = Running(folder)
    write(journal, 1)
    journal.close()
    again.stop()
    all_sealed(folder, read_sealed(folder))


def test_what_fails_again_while_it_begins_anew_loses_nothing_either(folder):
    journal = Journal(folder)
    faults = Faults()
    running = Running(folder, faults)
    running.step()
    for number in range(1, 12):
        write(journal, 300)
        faults.full = True
        running.step(60)
        faults.full, faults.at, faults.how = False, faults.count + number, "half"
        running.step(60)
        running.step(60)
    journal.close()
    running.stop()
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    assert sealed.breaks == 0
    # Each chain that held a record is named by the one after it.
    chains = {path.name[:32] for path in (folder / "log").glob("*.jsonl") if lines_of(path)}
    named = [record["obj"].get("replaces") for record in events(folder / "log", "server.start")]
    assert len(chains) > 11
    assert set(filter(None, named)) == chains - {running.sealer._chain.position.chain}
