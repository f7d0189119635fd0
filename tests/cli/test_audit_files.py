"""``securefs audit compress`` and ``securefs audit retain``."""

from pathlib import Path

import pytest
from support.days import Days

from securefs.audit import Journal
from securefs.cli import audit_files

KEEP = "1d"


@pytest.fixture
def days(tmp_path, monkeypatch):
    made = Days(tmp_path / "journal", monkeypatch)
    monkeypatch.setattr("time.time", lambda: made.now / 1e9)
    yield made
    made.journal.close()


def four_days(days):
    days.start()
    for _ in range(4):
        days.day()
        days.step()


def names():
    return sorted(path.name for path in Path("journal").glob("*.jsonl*"))


def test_closed_files_are_compressed(run, days):
    for _ in range(3):
        days.day()
    before = names()
    result = run("audit", "compress", "journal", "--dry-run")
    assert (result.code, result.out.count(b"would be compressed: ")) == (0, 2)
    assert names() == before
    result = run("audit", "compress", "journal")
    assert (result.code, result.out.count(b"compressed: ")) == (0, 2)
    assert names() == sorted([f"{before[0]}.gz", f"{before[1]}.gz", before[2]])
    assert run("audit", "verify", "journal").code == 3
    days.journal.close()
    with Path("journal", before[2]).open("ab") as file:
        file.write(b"x")
    result = run("audit", "compress", "journal")
    assert result.code == 1
    assert "it ends within a line" in result.err
    result = run("audit", "compress", "none")
    assert (result.code, result.err.count("\n")) == (2, 1)


def test_old_files_are_removed_by_the_command_alone(run, days):
    four_days(days)
    days.stop()
    before = names()
    result = run("audit", "retain", "journal", "--keep", KEEP, "--dry-run")
    assert (result.code, result.out.splitlines()[-1]) == (0, b"would be removed: 2 files")
    assert names() == before
    result = run("audit", "retain", "journal", "--keep", KEEP)
    assert (result.code, result.out.splitlines()[-1]) == (0, b"removed: 2 files")
    assert names() == before[2:]
    assert run("audit", "verify", "journal").code == 3, "no key is pinned"
    assert days.verify().exit_code == 0
    result = run("audit", "retain", "journal", "--keep", KEEP)
    assert (result.code, result.out) == (
        0,
        b"would be removed: 0 files\n",
    ) or result.out == b"removed: 0 files\n"


def test_old_files_are_removed_with_a_sealer_that_runs(run, days, monkeypatch):
    four_days(days)
    monkeypatch.setattr("time.sleep", lambda _: days.step())
    assert run("audit", "retain", "journal", "--keep", KEEP).code == 0
    assert len(names()) == 2
    days.stop()
    assert days.verify().exit_code == 0


def test_a_sealer_that_does_not_answer(run, days, monkeypatch):
    four_days(days)
    monkeypatch.setattr(audit_files, "PATIENCE", 0.0)
    result = run("audit", "retain", "journal", "--keep", KEEP)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "nothing was removed" in result.err
    assert len(names()) == 4
    assert not Path("journal/log/retire").exists()


def test_a_run_that_was_cut_short_is_continued_without_the_sealer(run, days, monkeypatch):
    four_days(days)
    days.stop()

    def cut(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(audit_files, "remove_files", cut)
        result = run("audit", "retain", "journal", "--keep", KEEP)
        assert result.code == 2
        assert "Input/output error" in result.err
    assert run("audit", "retain", "journal", "--keep", KEEP).code == 0
    assert len(names()) == 2


def test_a_log_that_does_not_hold_is_tampering(run, days):
    four_days(days)
    days.stop()
    Path("journal/log/checkpoints").write_bytes(b"x\n\ny\n\n")
    result = run("audit", "retain", "journal", "--keep", KEEP)
    assert (result.code, len(names())) == (1, 4)
    assert "nothing was removed" in result.err


def test_what_stays_is_told(run, days):
    four_days(days)
    days.stop()
    path = Path("journal", names()[0])
    path.write_bytes(path.read_bytes().replace(b'"sev":1', b'"sev":2', 1))
    result = run("audit", "retain", "journal", "--keep", KEEP)
    assert result.code == 0
    assert f"{path.name} stays" in result.err


def test_another_user_without_a_sealer_is_refused(run, days, monkeypatch):
    four_days(days)
    days.stop()
    monkeypatch.setattr("os.geteuid", lambda: Path("journal/log").stat().st_uid + 1)
    result = run("audit", "retain", "journal", "--keep", KEEP)
    assert (result.code, len(names())) == (2, 4)
    assert "the log journal/log is another user's" in result.err


@pytest.mark.parametrize("keep", ["400", "0d", "d", "1e3d", "9" * 30 + "d", "²d"])
def test_days_are_days(run, keep):
    result = run("audit", "retain", "journal", "--keep", keep)
    assert result.code == 2
    assert "is not a number of days such as 400d" in result.err


def test_without_a_log_nothing_is_retired(run):
    Journal("journal").close()
    result = run("audit", "retain", "journal", "--keep", "400d")
    assert result.code == 2
    assert "there is no log" in result.err
