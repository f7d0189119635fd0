"""The figures of a log, against journals whose sealed records are known."""

from __future__ import annotations

import gzip
import os

import pytest

from securefs.audit import Entry, Journal
from securefs.audit.figures import Figures, LogFigures
from securefs.audit.log_folder import CHECKPOINTS
from securefs.audit.record import Position, Source, build_line
from securefs.cli import main

A, B, SEALER = "a" * 32, "b" * 32, "5" * 32
SOURCE = Source("h", 1, "0.1.0")


def append(folder, chain, *entries, first=0, number=0):
    folder.mkdir(exist_ok=True)
    with (folder / f"{chain}-{number}.jsonl").open("ab") as file:
        for seq, entry in enumerate(entries, first):
            file.write(build_line(Position(chain, seq), SOURCE, 1_000_000_000, entry))


def seal(*runs):
    keys = {"index": 0, "key": "a" * 64, "next": "b" * 64, "size": 1}
    return Entry("audit.seal", seal={**keys, "runs": [list(run) for run in runs]})


OPEN = Entry("file.open")


@pytest.fixture
def folders(tmp_path):
    append(tmp_path / "journal", A, *[OPEN] * 10)
    return tmp_path / "journal", tmp_path / "journal" / "log"


def test_without_a_log_nothing_is_sealed(folders):
    assert LogFigures(*folders).read() == Figures(10, 0)


def test_what_a_seal_took_is_sealed(folders):
    journal, log = folders
    append(log, SEALER, Entry("server.start"), seal((A, 0, 6), (SEALER, 0, 1)))
    figures = LogFigures(journal, log)
    assert figures.read() == Figures(3, 0)
    append(journal, A, OPEN, first=10)
    append(journal, B, OPEN, OPEN)
    assert figures.read() == Figures(6, 0)
    append(log, SEALER, seal((A, 7, 10), (B, 0, 1), (SEALER, 2, 2)), first=2)
    assert figures.read() == Figures(0, 0)
    # What the sealer itself writes is unsealed until its next seal.
    append(log, SEALER, Entry("audit.epoch"), first=3)
    assert figures.read() == Figures(1, 0)


def test_a_chain_that_was_cut_hides_no_records_of_another(folders):
    journal, log = folders
    append(log, SEALER, Entry("server.start"), seal((A, 0, 99), (SEALER, 0, 1)))
    append(journal, B, OPEN, OPEN)
    assert LogFigures(journal, log).read() == Figures(2, 0)


def test_another_reader_gets_the_same(folders):
    journal, log = folders
    append(log, SEALER, Entry("server.start"), seal((A, 0, 6), (SEALER, 0, 1)))
    figures = LogFigures(journal, log)
    figures.read()
    append(log, SEALER, seal((A, 7, 8), (SEALER, 2, 2)), first=2)
    assert figures.read() == LogFigures(journal, log).read() == Figures(1, 0)


def test_records_from_before_the_log_are_not_unsealed(folders):
    journal, log = folders
    cutover = Entry("audit.cutover", obj={"chain": A, "upto": 9, "hash": "c" * 64})
    append(log, SEALER, Entry("server.start"), cutover, seal((SEALER, 0, 2)))
    assert LogFigures(journal, log).read() == Figures(0, 0)


def test_later_files_of_a_chain_go_on_counting(folders):
    journal, log = folders
    append(journal, A, OPEN, OPEN, first=10, number=1)
    append(journal, A, number=10)  # begun, and still empty
    append(journal, A, OPEN, first=12, number=2)
    assert LogFigures(journal, log).read().unsealed == 13


def test_a_torn_line_is_no_record(folders):
    journal, log = folders
    figures = LogFigures(journal, log)
    with (journal / f"{A}-0.jsonl").open("ab") as file:
        file.write(b'{"actor"')
    assert figures.read() == Figures(10, 0)
    with (journal / f"{B}-0.jsonl").open("ab") as file:
        file.write(b'{"actor"')
    assert figures.read() == Figures(10, 0)


def test_lines_that_are_no_records_change_no_figure(folders):
    journal, log = folders
    figures = LogFigures(journal, log)
    assert figures.read() == Figures(10, 0)
    append(log, SEALER)
    odd = b'{"event":"audit.seal"}\n{"event":"audit.cutover"}\n'
    (log / f"{SEALER}-0.jsonl").write_bytes(odd)
    with (journal / f"{A}-0.jsonl").open("ab") as file:
        file.write(odd)
    (log / f"{B}-0.jsonl").symlink_to(journal / f"{A}-0.jsonl")
    assert figures.read() == Figures(10, 0)


def test_a_cutover_that_names_no_chain_is_passed_over(folders):
    journal, log = folders
    append(log, SEALER, Entry("audit.cutover"), seal((SEALER, 0, 1)))
    assert LogFigures(journal, log).read() == Figures(10, 0)


def test_the_newest_checkpoint_has_the_time_of_its_file(folders):
    journal, log = folders
    append(log, SEALER, seal((A, 0, 9), (SEALER, 0, 0)))
    (log / CHECKPOINTS).write_bytes(b"note\n")
    os.utime(log / CHECKPOINTS, (1, 1_770_000_000))
    assert LogFigures(journal, log).read() == Figures(0, 1_770_000_000)


def test_the_log_may_be_elsewhere(folders, tmp_path):
    append(tmp_path / "elsewhere", SEALER, seal((A, 0, 9), (SEALER, 0, 0)))
    assert LogFigures(folders[0], tmp_path / "elsewhere").read() == Figures(0, 0)


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        LogFigures(tmp_path / "missing", tmp_path / "log").read()


def test_what_a_journal_writes_is_counted(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.record(OPEN)
    figures = LogFigures(tmp_path / "journal", tmp_path / "journal" / "log")
    assert figures.read() == Figures(2, 0)
    journal.close()
    assert figures.read() == Figures(3, 0)


def test_a_journal_that_a_sealer_sealed_is_sealed(tmp_path, capfd):
    folder = tmp_path / "journal"
    journal = Journal(folder)
    journal.record(OPEN)
    before = LogFigures(folder, folder / "log")
    assert main(["audit", "init", str(folder)]) == 0
    assert main(["audit", "seal", "--once", str(folder)]) == 0
    # Those from before the log are named by a record, and then the sealer's own are in it.
    assert before.read() == LogFigures(folder, folder / "log").read()
    unsealed, checkpoint = before.read()
    assert (unsealed, checkpoint) == (0, (folder / "log" / CHECKPOINTS).stat().st_mtime)
    journal.record(OPEN)
    assert before.read().unsealed == 1
    assert main(["audit", "seal", "--once", str(folder)]) == 0
    assert before.read().unsealed == 0
    journal.close()


def test_compressed_files_of_a_sealer_are_read_once(folders):
    journal, log = folders
    append(log, SEALER, Entry("server.start"), seal((A, 0, 6), (SEALER, 0, 1)))
    closed = log / f"{SEALER}-0.jsonl"
    (log / f"{SEALER}-0.jsonl.gz").write_bytes(gzip.compress(closed.read_bytes()))
    closed.unlink()
    append(log, SEALER, seal((A, 7, 7), (SEALER, 2, 2)), first=2, number=1)
    figures = LogFigures(journal, log)
    assert figures.read() == Figures(2, 0)
    (log / f"{SEALER}-0.jsonl.gz").write_bytes(b"never read again")
    assert figures.read() == Figures(2, 0)
