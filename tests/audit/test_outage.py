"""What the operator's log says of a journal that can't be written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.journals import ROOT, only_chain

from securefs.audit import Entry, Journal
from securefs.errors import ConfigurationError, JournalError


@pytest.fixture
def lost(tmp_path):
    """A journal, and a function that takes its file away."""
    journal = Journal(tmp_path / "j")
    journal.record(Entry("key.use"))
    yield journal, lambda: [path.unlink() for path in (tmp_path / "j").glob("*.jsonl")]
    journal.close()


def refuse(journal, number=1):
    for _ in range(number):
        with pytest.raises(JournalError):
            journal.record(Entry("key.use"))


def test_the_first_failure_and_the_end_are_a_line_each(lost, tmp_path, caplog):
    journal, take = lost
    take()
    (tmp_path / "j").rename(tmp_path / "gone")
    refuse(journal, 5)
    (tmp_path / "gone").rename(tmp_path / "j")
    for _ in range(3):
        journal.record(Entry("key.use"))
    first, last = caplog.records
    assert (first.levelname, last.levelname) == ("ERROR", "WARNING")
    assert first.name == last.name == "securefs"
    assert first.message.startswith("the audit journal cannot be written: ")
    assert first.message.endswith("; operations are refused")
    chain = only_chain(tmp_path / "j").name[:32]
    assert last.message == f"the audit journal is written again: chain {chain} says what was lost"


def test_each_outage_has_its_own_lines(lost, caplog):
    journal, take = lost
    for _ in range(3):
        take()
        refuse(journal)
        journal.record(Entry("key.use"))
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 3


def test_each_record_that_is_lost_is_reported(tmp_path, caplog):
    heard = []
    journal = Journal(tmp_path / "j", on_loss=heard.append)
    journal.record(Entry("key.use"))
    (tmp_path / "j").rename(tmp_path / "gone")
    refuse(journal, 3)
    assert heard == [True, False, False]
    (tmp_path / "gone").rename(tmp_path / "j")
    journal.record(Entry("key.use"))
    assert heard == [True, False, False]
    journal.close()
    refuse(journal)
    assert heard == [True, False, False, True]


def test_an_error_of_who_is_told_changes_nothing(tmp_path, caplog):
    def fail(first):
        raise RuntimeError("no\nluck")

    journal = Journal(tmp_path / "j", on_loss=fail)
    (tmp_path / "j").rename(tmp_path / "gone")
    refuse(journal)
    assert [record.message for record in caplog.records][1:] == ["on_loss failed: RuntimeError: no\\nluck"]


def test_who_is_told_may_write_to_the_journal(tmp_path):
    """It is called after the journal was released."""
    journal = Journal(
        tmp_path / "j",
        on_loss=lambda first: (tmp_path / "gone").rename(tmp_path / "j") and journal.record(Entry("key.use")),
    )
    (tmp_path / "j").rename(tmp_path / "gone")
    refuse(journal)
    journal.close()
    assert len(only_chain(tmp_path / "j").read_bytes().splitlines()) == 3


def test_what_is_to_be_told_must_be_a_function(tmp_path):
    with pytest.raises(ConfigurationError, match="on_loss must be a function"):
        Journal(tmp_path / "j", on_loss=1)


def test_a_journal_that_goes_on_says_so(tmp_path, caplog):
    """Nobody would refuse anything: this line is all that an operator sees."""
    journal = Journal(tmp_path / "j", on_failure="continue")
    journal.record(Entry("key.use"))
    only_chain(tmp_path / "j").unlink()
    journal.record(Entry("key.use"))
    assert caplog.messages[0].endswith("; operations go on unrecorded")
    journal.close()


def test_a_path_cannot_write_lines_of_the_log(tmp_path, caplog):
    folder = tmp_path / "a\nb\x1b[2J"
    journal = Journal(folder)
    journal.record(Entry("key.use"))
    only_chain(folder).unlink()
    refuse(journal)
    assert all(message.isprintable() and message.isascii() for message in caplog.messages)
    journal.close()


def test_who_handles_a_line_may_call_the_journal(lost, caplog):
    """The journal is not held while a line is written."""
    journal, take = lost
    heard = []

    class Asking:
        level = 0

        def handle(self, record):
            journal.check()
            heard.append(record)

    import logging

    logging.getLogger("securefs").addHandler(asking := Asking())
    try:
        take()
        refuse(journal)
    finally:
        logging.getLogger("securefs").removeHandler(asking)
    assert len(heard) == 1


STALLED = """
import sys
from securefs.audit import Entry, Journal
from securefs.errors import JournalError
from securefs.middleware.exchange import Exchange
from securefs.middleware.refusal import Refusal

journal = Journal()
journal._target._patience = journal._target._at_hand = 0.05
refused = 0
while refused < 3:
    try:
        journal.record(Entry("key.use"))
    except JournalError as error:
        refused += 1
        Exchange({}, journal).tell(Refusal.of(error))
print("refused", flush=True)
sys.stdin.read(1)
while True:  # until the reader is there
    try:
        journal.record(Entry("key.use"))
        break
    except JournalError:
        pass
print("written", flush=True)
"""


def test_a_log_on_the_stream_that_stalls_does_not_hold_the_worker():
    """Without a journal's folder both go to standard error: whoever writes there would wait for ever."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout.readline() == b"refused\n"
            out, err = process.communicate(b"x", timeout=60)
        finally:
            process.kill()
    assert out == b"written\n"
    lines = err.splitlines()
    assert any(b"cannot be written" in line for line in lines), "told once the reader is back"
