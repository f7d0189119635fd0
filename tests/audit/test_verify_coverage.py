"""What a log should cover, and why it proves nothing otherwise."""

from __future__ import annotations

import fcntl

import pytest
from support.logs import BEGIN, sealed, vkey
from support.look import codes, look

from securefs.audit.verify_coverage import seconds


@pytest.mark.parametrize(
    ("text", "second"),
    [("2026-09-21T14:13:20.123456789Z", BEGIN), ("", 0), ("2026-02-31T00:00:00.000000000Z", 0)],
)
def test_times(text, second):
    assert seconds(text) == second


def test_records_of_a_running_writer_are_never_called_added(tmp_path):
    """Its sealer may be behind; the verdict says how many are not sealed."""
    log = sealed(tmp_path / "j")
    chain = next(iter(log.lines))
    log.records(chain, 2)
    log.now += 61 * 10**9
    log.seal(only=())
    log.save()
    assert codes(look(log)) == {"unlogged"}
    with log.path(chain).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = look(log)
    assert (report.findings, report.log.unsealed, report.exit_code) == ((), 2, 3)


def test_records_whose_times_cannot_be_read_are_counted(tmp_path):
    log = sealed(tmp_path / "j")
    path = log.path(next(iter(log.lines)))
    path.write_bytes(path.read_bytes() + b"no record\n")
    report = look(log)
    assert {"not_json"} <= codes(report) <= {"not_json", "unlogged"}


def test_a_log_without_a_checkpoint(tmp_path):
    log = sealed(tmp_path / "j", rounds=0)
    log.folder.mkdir(exist_ok=True)
    report = look(log, vkey(log.origin, log.key))
    assert report.exit_code == 3
    assert report.reasons[0] == "the log has no checkpoint yet"
    assert look(log, vkey(log.origin, log.key)).log.unsealed == 3


def test_a_log_folder_that_is_empty_seals_nothing(tmp_path):
    log = sealed(tmp_path / "j")
    for path in list(log.log.rglob("*")):
        if path.is_file():
            path.unlink()
    report = look(log, vkey(log.origin, log.key))
    assert report.exit_code == 3
    assert "the log has no checkpoint yet" in report.reasons
