"""A chain in several files, and the log over it."""

import pytest
from support.days import Days
from support.sealed import all_sealed, events, read_sealed

from securefs.audit.compress import compress_journal
from securefs.audit.prove import prove_record
from securefs.audit.verify_state import read_state, write_state


@pytest.fixture
def days(tmp_path, monkeypatch):
    made = Days(tmp_path / "j", monkeypatch)
    yield made
    made.journal.close()


def test_every_file_is_sealed(days):
    days.start()
    for _ in range(3):
        days.day()
        days.step()
    days.journal.close()
    days.stop()
    assert len(days.files()) == 3
    all_sealed(days.folder, read_sealed(days.folder))
    assert events(days.folder / "log", "audit.adopted") == []
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0)


def test_many_files_are_read_at_once_and_a_few_records_at_a_time(days, monkeypatch):
    monkeypatch.setattr("securefs.audit.following.MAX_TURN", 2)
    for _ in range(3):
        days.day()
    days.journal.close()
    days.start()
    days.step()
    days.stop()
    all_sealed(days.folder, read_sealed(days.folder))


def test_a_sealer_resumes_in_the_file_where_it_was(days):
    days.start()
    days.day()
    days.day()
    days.step()
    days.stop()
    days.day()
    days.start()
    assert 1 in [position.number for position in days.log.positions().values()]
    days.step()
    days.day()
    days.step()
    days.journal.close()
    days.stop()
    all_sealed(days.folder, read_sealed(days.folder))
    assert days.verify().exit_code == 0


@pytest.mark.parametrize("sealed_first", [False, True])
def test_compressed_files_are_sealed_and_read_over(days, sealed_first):
    days.day()
    days.day()
    days.start()
    if sealed_first:
        days.step()
    days.journal.close()
    assert len(list(compress_journal(days.folder))) == 2
    days.step()
    days.stop()
    (days.folder / "log" / "positions").unlink()
    days.start()
    days.step()
    days.stop()
    assert days.told == []
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0)


def test_a_writer_that_dies_in_a_further_file_is_adopted_once(days):
    days.start()
    days.day()
    days.day()
    days.step()
    days.journal._let_go()  # as a process that is killed
    days.step()
    days.step()
    days.stop()
    (adopted,) = events(days.folder / "log", "audit.adopted")
    assert adopted["obj"]["size"] == 0
    report = days.verify()
    assert (report.findings, report.exit_code) == ((), 0)


def test_a_compressed_file_of_a_dead_writer_is_adopted(days):
    days.day()
    days.journal._let_go()
    list(compress_journal(days.folder))
    days.start()
    days.step()
    days.stop()
    assert len(events(days.folder / "log", "audit.adopted")) == 1
    assert days.verify().exit_code == 0


def test_a_file_that_does_not_end_with_a_line_is_tampering(days):
    days.day()
    days.day()
    with days.files()[0].open("ab") as file:
        file.write(b"x")
    days.start()
    days.step()
    assert days.sealer.tampered
    assert any("does not end with a whole line" in text for text in days.told)
    days.stop()


def test_a_missing_file_is_found(days):
    days.start()
    days.day()
    days.day()
    days.day()
    days.step()
    days.journal.close()
    days.stop()
    days.files()[1].unlink()
    assert {finding.code for finding in days.verify().findings} >= {"segment", "log"}


def test_the_verifier_goes_on_where_it_was_over_files(days):
    days.start()
    days.day()
    days.step()
    state = days.verify().log.state
    for _ in range(2):
        days.day()
        days.step()
        report = days.verify(read_state(write_state(state)))
        assert report.findings == ()
        state = report.log.state
    list(compress_journal(days.folder))
    days.day()
    days.step()
    report = days.verify(read_state(write_state(state)))
    assert report.findings == ()
    days.journal.close()
    days.stop()


def test_a_record_of_a_further_file_is_proven(days):
    days.start()
    days.day()
    days.day()
    days.step()
    days.journal.close()
    days.stop()
    list(compress_journal(days.folder))
    chain = days.files()[0].name[:32]
    proof = prove_record(days.folder, days.folder / "log", chain, 4)
    assert b'"seq":4' in proof.record
