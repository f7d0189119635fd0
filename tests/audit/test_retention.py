"""Files that are removed for good, once the log says so."""

import fcntl
import gzip
import json
import shutil
import time

import pytest
from support.days import DAY, USE, Days

from securefs.audit import Journal
from securefs.audit.compress import compress_journal
from securefs.audit.log_folder import LogFolder
from securefs.audit.retention import (
    REQUEST,
    Retired,
    fresh,
    is_retired,
    plan,
    read_request,
    remove_files,
    taken,
    write_request,
)
from securefs.audit.verify_state import read_state, write_state


@pytest.fixture
def days(tmp_path, monkeypatch):
    made = Days(tmp_path / "j", monkeypatch)
    yield made
    made.journal.close()


def old(days, *, keep=1):
    """What is older than so many days."""
    return plan(days.folder, days.folder / "log", (days.now - keep * DAY) / 1e9)


def retire(days, keep=1):
    """Retire it, by the sealer that runs; return the removed names."""
    wanted, _ = old(days, keep=keep)
    write_request(days.folder / "log", wanted)
    days.step()
    assert is_retired(days.folder / "log", wanted)
    remove_files(days.folder, wanted)
    return [path.name for one in wanted for path in one.paths]


def four_days(days):
    days.start()
    for _ in range(4):
        days.day()
        days.step()


def test_old_files_are_removed_and_everything_else_is_proven(days):
    four_days(days)
    names = [path.name for path in days.files()]
    assert retire(days) == names[:2]
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0)
    assert any("retired: 6 records of 1 chain" in line for line in report.lines())
    days.day()
    days.step()
    assert retire(days) == names[2:3]
    days.journal.close()
    days.stop()
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0)


def test_the_sealer_goes_on_after_it_was_started_anew(days):
    four_days(days)
    retire(days)
    days.stop()
    for positions in (True, False):
        if not positions:
            (days.folder / "log" / "positions").unlink()
        days.start()
        days.day()
        days.step()
        assert not days.sealer.tampered
        days.stop()
    assert days.verify().exit_code == 0


def test_whole_chains_of_writers_that_ended(days):
    days.start()
    days.day()
    days.journal.close()
    first = days.files()[0].name
    days.step()
    days.journal = Journal(days.folder, names="clear")
    days.now += 2 * DAY
    days.day()
    days.step()
    assert retire(days) == [first]
    days.stop()
    days.start()
    days.day()
    days.step()
    assert (days.told, days.sealer.tampered) == ([], False)
    days.stop()
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0)


def test_a_chain_of_a_dead_writer_goes_once_it_was_adopted(days):
    days.start()
    days.day()
    days.journal._let_go()  # as a process that is killed
    with days.files()[0].open("ab") as file:
        file.write(b'{"half')
    days.now += 3 * DAY
    wanted, kept = old(days)
    assert wanted == []
    assert "nobody saw it end" in kept[0]
    days.step()
    days.step(60)
    assert old(days)[1] == []
    assert len(retire(days)) == 1
    days.stop()
    assert days.verify().exit_code == 0


def test_a_verifier_goes_on_from_before_files_were_removed(days):
    four_days(days)
    state = days.verify().log.state
    retire(days)
    days.day()
    days.step(60)
    report = days.verify(read_state(write_state(state)))
    assert (report.findings, report.reasons) == ((), ())
    again = days.verify(read_state(write_state(report.log.state)))
    assert again.findings == ()


def test_a_verifier_goes_on_within_a_file_that_was_compressed_since(days):
    four_days(days)
    days.step(60)
    state = days.verify().log.state
    days.journal.record(USE)  # to the file that was verified up to here
    days.step()
    days.day()
    days.step(60)
    list(compress_journal(days.folder))
    report = days.verify(read_state(write_state(state)))
    assert (report.findings, report.exit_code) == ((), 0)
    changed = days.files()[3]
    assert changed.name.endswith(".gz")
    lines = gzip.decompress(changed.read_bytes()).splitlines(keepends=True)
    changed.write_bytes(gzip.compress(b"".join([*lines[:-1], lines[-1].replace(b"key.use", b"key.usf")])))
    assert days.verify(read_state(write_state(state))).exit_code == 1


def test_compressed_files_are_retired(days):
    four_days(days)
    list(compress_journal(days.folder))
    assert [name.endswith(".gz") for name in retire(days)] == [True, True]
    days.stop()
    assert days.verify().exit_code == 0


def test_what_is_not_sealed_stays(days):
    days.start()
    days.day()
    days.step()
    days.day()
    days.day()
    days.day()
    wanted, kept = old(days)
    assert [len(one.paths) for one in wanted] == [1]
    assert kept == [f"{days.files()[1].name} stays: not all of its records are sealed"]
    days.stop()


def test_what_is_older_than_the_log_stays(tmp_path, monkeypatch):
    days = Days(tmp_path / "j", monkeypatch)
    days.day()
    days.start()
    days.step()
    for _ in range(3):
        days.day()
        days.step()
    assert old(days)[0] == []
    days.journal.close()
    days.stop()


def test_what_is_not_what_was_sealed_stays(days):
    four_days(days)
    path = days.files()[0]
    path.write_bytes(path.read_bytes().replace(b'"sev":1', b'"sev":2', 1))
    wanted, kept = old(days)
    assert wanted == []
    assert "are not those that the log's tiles have" in kept[0]


def test_what_a_writer_holds_or_does_not_end_stays(days):
    days.start()
    days.day()
    days.step()
    days.now += 5 * DAY
    wanted, kept = old(days)
    assert (wanted, len(kept)) == ([], 1)
    days.journal.record(USE)
    days.step()
    first = days.files()[0]
    with first.open("ab") as file:
        file.write(b"x")
    wanted, kept = old(days)
    assert wanted == []
    assert "does not end with a whole record" in kept[0]
    (days.folder / ("a" * 32 + "-0.jsonl")).mkdir()
    (days.folder / ("b" * 32 + "-0.jsonl")).write_bytes(b"no record\n")
    assert old(days)[0] == []


def test_a_writer_that_wrote_its_last_record_and_lives_keeps_its_file(days):
    days.start()
    days.day()
    days.journal.close()
    days.step()
    days.now += 5 * DAY
    with days.files()[0].open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        wanted, kept = old(days)
    assert wanted == []
    assert "a writer holds it" in kept[0]


@pytest.mark.parametrize("number", range(3))
def test_other_files_that_are_removed_are_found(days, number):
    """The oldest of those that are left, the ones after it, and one that was put back changed."""
    four_days(days)
    days.journal.close()
    days.step()
    copies = [path.read_bytes() for path in days.files()]
    names = retire(days)
    days.stop()
    if number < 2:
        days.files()[number].unlink()
    else:
        (days.folder / names[1]).write_bytes(copies[1].replace(b'"sev":1', b'"sev":2'))
    assert days.verify().exit_code == 1


@pytest.mark.parametrize("change", [lambda data: data[:32] + bytes(32) + data[64:], lambda data: data[:40]])
def test_tiles_that_were_changed_are_found(days, change):
    four_days(days)
    retire(days)
    days.stop()
    tiles = days.folder / "log" / "tiles" / "0"
    tiles.write_bytes(change(tiles.read_bytes()))
    assert days.verify().exit_code == 1


def test_a_record_that_was_changed_after_retired_ones_is_named(days):
    four_days(days)
    retire(days)
    days.journal.close()
    days.stop()
    path = days.files()[-1]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"server.stop"', b'"server.stop"').replace(b'"sev":4', b'"sev":3'))
    finding = days.verify().findings[-1]
    assert (finding.code, finding.file) == ("log", path.name)


def test_a_whole_chain_that_is_put_back_must_be_what_was_retired(days):
    days.start()
    days.day()
    days.journal.close()
    days.step()
    days.now += 5 * DAY
    path = days.files()[0]
    data = path.read_bytes()
    retire(days)
    days.stop()
    path.write_bytes(data)
    assert days.verify().findings == ()
    path.write_bytes(data.replace(b'"sev":4', b'"sev":3'))
    assert {finding.code for finding in days.verify().findings} == {"log"}
    path.write_bytes(data[: data.index(b"\n") + 1])
    assert {finding.code for finding in days.verify().findings} == {"log"}


def test_a_run_that_was_cut_short_goes_on(days):
    four_days(days)
    wanted, _ = old(days)
    write_request(days.folder / "log", wanted)
    days.step()
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0), "retired, and not removed yet"
    again, _ = old(days)
    assert again == wanted
    assert fresh(days.folder / "log", again) == []
    wanted[0].paths[0].unlink()
    assert days.verify().findings == ()
    remove_files(days.folder, old(days)[0])
    days.stop()
    assert days.verify().exit_code == 0


def test_requests_that_are_none_are_refused(days):
    good = ["a" * 32, 3, "b" * 64, 1]
    assert list(read_request(json.dumps([good]).encode())) == [Retired(*good)]
    bad = [
        b"x",
        b"7",
        b"[7]",
        b"[" * 100_000,
        json.dumps([["a" * 31, 3, "b" * 64, 1]]).encode(),
        json.dumps([["a" * 32, -1, "b" * 64, 1]]).encode(),
        json.dumps([["a" * 32, True, "b" * 64, 1]]).encode(),
        json.dumps([["a" * 32, 3, "b" * 64, 0]]).encode(),
        json.dumps([[3, 3, "b" * 64, 1]]).encode(),
        b" " * (16 * 1024 * 1024 + 1),
    ]
    for data in bad:
        assert list(read_request(data)) == []
    assert taken(Retired(*good), {"a" * 32: 4}, {})
    assert not taken(Retired(*good), {"a" * 32: 3}, {})
    assert not taken(Retired(*good), {"a" * 32: 9}, {"a" * 32: (4, b"")})


def test_a_request_belongs_to_the_user_of_the_log(days, monkeypatch):
    owner = (days.folder / "log").stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    write_request(days.folder / "log", [])
    assert (days.folder / "log" / REQUEST).stat().st_uid == owner


def test_the_sealer_refuses_what_it_has_not_got(days):
    days.start()
    days.day()
    days.step()
    wanted = [Retired("a" * 32, 3, "b" * 64, 1)]
    write_request(days.folder / "log", wanted)
    days.step()
    assert not (days.folder / "log" / REQUEST).exists()
    assert not is_retired(days.folder / "log", wanted)
    assert any("not retired" in text for text in days.told)
    days.stop()


def test_nothing_counts_before_it_is_signed(days):
    four_days(days)
    wanted, _ = old(days)
    write_request(days.folder / "log", wanted)
    days.step()
    checkpoints = days.folder / "log" / "checkpoints"
    data = checkpoints.read_bytes()
    checkpoints.write_bytes(data[: data[:-200].rindex(b"\n\norigin")])
    assert not is_retired(days.folder / "log", wanted)
    checkpoints.write_bytes(b"")
    assert old(days)[0] == []
    checkpoints.write_bytes(data)
    assert is_retired(days.folder / "log", wanted)


def test_the_oldest_records_are_found_by_time(days):
    four_days(days)
    assert time.time_ns() == days.now
    assert [len(one.paths) for one in old(days, keep=2)[0]] == [1]
    assert old(days, keep=400) == ([], [])
    shutil.rmtree(days.folder / "log" / "tiles")
    assert old(days)[0] == []
    assert LogFolder(days.folder / "log").request(REQUEST) is None
