"""The sealer beside a server: it starts again when it dies, and ends after the server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.journals import NOBODY, run_script
from support.sealed import all_sealed, lines_of, read_sealed
from support.servers import DEADLINE, python_environ, wait_until

from securefs import ConfigurationError
from securefs.audit import Entry, Journal
from securefs.cli import beside


def environ(**more):
    return python_environ(SECUREFS_AUDIT_DIR=str(Path("journal").absolute()), **more)


@pytest.fixture
def journal():
    Path("journal").mkdir(0o700)
    journal = Journal("journal")
    yield journal
    journal.close()


@pytest.fixture
def started(journal):
    running = beside.start(environ(), pytest.fail)
    yield running
    if running._process.returncode is None:
        assert running.stop()


def seals():
    folder = Path("journal/log")
    return [line for path in folder.glob("*.jsonl") for line in lines_of(path) if b'"audit.seal"' in line]


def sealer_pid():
    wait_until(lambda: Path("journal/log/lock").exists() and Path("journal/log/lock").read_text(), "a sealer")
    return int(Path("journal/log/lock").read_text())


def test_it_begins_a_log_seals_and_ends_after_the_last_record(journal, capfd):
    started = beside.start(environ(), pytest.fail)
    wait_until(seals, "the first seal")
    for _ in range(3):
        journal.record(Entry("file.decrypt"))
    journal.close()
    assert started.stop()
    sealed = read_sealed(Path("journal"))
    all_sealed(Path("journal"), sealed)
    told = capfd.readouterr()
    assert Path("journal/log/vkey").read_text().strip() in told.err
    assert told.out == ""


def test_a_sealer_that_is_killed_is_told_and_started_again(journal, capfd):
    started = beside.start(environ(), pytest.fail)
    wait_until(seals, "the first seal")
    pid = sealer_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(seals()) > 1, "a seal after that")
    assert sealer_pid() != pid
    journal.close()
    assert started.stop()
    err = capfd.readouterr().err
    assert re.search(r"NOT SEALING: the sealer of \S+ was ended by SIGKILL; it is started again in 1 s", err)
    assert read_sealed(Path("journal")).breaks == 1


def test_signals_of_a_terminal_or_a_service_manager_do_not_end_it(journal, started):
    wait_until(seals, "the first seal")
    for pid in (sealer_pid(), started._process.pid):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    journal.record(Entry("file.decrypt"))
    wait_until(lambda: len(seals()) > 1, "another seal")
    assert os.getsid(sealer_pid()) == started._process.pid != os.getsid(0)
    assert read_sealed(Path("journal")).breaks == 0


def test_it_outlives_the_supervisor_and_ends_with_the_server(journal, started):
    wait_until(seals, "the first seal")
    pid = sealer_pid()
    started._process.kill()
    started._process.wait()
    journal.record(Entry("file.decrypt"))
    wait_until(lambda: len(seals()) > 1, "another seal")
    assert started.stop()
    wait_until(lambda: Path("journal/log/next.key").exists(), "a clean stop")
    wait_until(
        lambda: not Path(f"/proc/{pid}").exists() or b"Z" in Path(f"/proc/{pid}/stat").read_bytes(), "its end"
    )


def test_a_worker_that_still_runs_is_waited_for(journal, monkeypatch):
    running = beside.start(environ(), pytest.fail)
    wait_until(seals, "the first seal")
    worker = os.dup(running._writing)
    monkeypatch.setattr(beside, "PATIENCE", 0.1)
    assert not running.stop()
    journal.record(Entry("file.decrypt"))
    journal.close()
    os.close(worker)
    assert running._process.wait(DEADLINE) == 0
    all_sealed(Path("journal"), read_sealed(Path("journal")))


def test_it_waits_for_a_sealer_that_is_there_and_takes_over(journal, capfd):
    """A server that was replaced (USR2) may still have its own."""
    first, second = beside.start(environ(), pytest.fail), None
    try:
        wait_until(seals, "the first seal")
        pid = sealer_pid()
        second = beside.start(environ(), pytest.fail)
        assert first.stop()
        wait_until(lambda: Path("journal/log/lock").read_text() not in {"", f"{pid}\n"}, "another sealer")
        wait_until(lambda: not Path("journal/log/next.key").exists(), "its first seal")
    finally:
        journal.close()
        assert second.stop()
    sealed = read_sealed(Path("journal"))
    all_sealed(Path("journal"), sealed)
    assert sealed.breaks == 0
    assert "NOT SEALING" not in capfd.readouterr().err


def test_while_it_waits_for_another_one_it_may_be_ended(journal):
    first = beside.start(environ(), pytest.fail)
    wait_until(seals, "the first seal")
    second = beside.start(environ(), pytest.fail)
    wait_until(lambda: Path(f"/proc/{second._process.pid}/fd/0").exists(), "its start")
    assert second.stop()
    assert first.stop()


def test_no_key_of_files_is_in_its_environment(journal):
    running = beside.start(environ(FILE_KEY_BASE64="secret", FILE_KEY_BASE64_FILE="x"), pytest.fail)
    wait_until(seals, "the first seal")
    # Of a process that is not dumpable, root alone may read it.
    for pid in [running._process.pid, sealer_pid()][: 2 if os.geteuid() == 0 else 1]:
        assert b"FILE_KEY" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert running.stop()


@pytest.mark.parametrize(
    "variables",
    [{"SECUREFS_AUDIT_SEAL": "off"}, {"SECUREFS_AUDIT_DIR": ""}],
    ids=["off", "no folder"],
)
def test_nothing_is_started_without_a_journal_or_against_the_setting(variables):
    assert beside.start(environ() | variables, pytest.fail) is None


def test_another_value_is_refused():
    with pytest.raises(ConfigurationError) as caught:
        beside.start(environ(SECUREFS_AUDIT_SEAL="no"), pytest.fail)
    assert str(caught.value) == "SECUREFS_AUDIT_SEAL is 'no': it must be on or off"


def test_without_cryptography_it_is_told_that_nothing_is_sealed(monkeypatch):
    told = []
    monkeypatch.setattr(beside, "find_spec", lambda name: None)
    assert beside.start(environ(), told.append) is None
    (text,) = told
    assert text == (
        "the audit journal is not sealed: run pip install 'securefs[fast]', "
        "or say with SECUREFS_AUDIT_SEAL=off that this is intended"
    )


def test_waits_grow_and_are_told(journal, monkeypatch, capfd):
    """A sealer that fails at once, in this process."""
    waits = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(beside, "_input_ends", lambda seconds: waits.append(seconds) or len(waits) > 17)
    monkeypatch.setattr(beside, "_run", lambda *arguments, stdout: 2)
    beside.supervise("journal")
    assert [wait for wait in waits if wait] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert "ended with exit code 2; it is started again in 60 s" in capfd.readouterr().err
    waits.clear()
    times = iter(range(0, 10_000, 100))
    monkeypatch.setattr(beside.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(beside, "_input_ends", lambda seconds: waits.append(seconds) or len(waits) > 8)
    beside.supervise("journal")
    assert [wait for wait in waits if wait] == [1, 1, 1, 1]


def test_it_looks_again_and_again_whether_the_other_sealer_is_gone(monkeypatch):
    held, waits, runs = [True, True, True, False], [], []
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(beside, "_is_held", lambda log: held.pop(0))
    monkeypatch.setattr(beside, "_input_ends", lambda seconds: waits.append(seconds) or len(waits) > 3)
    monkeypatch.setattr(beside, "_run", lambda action, *rest, stdout: runs.append(action) or 0)
    beside.supervise("journal")
    assert waits == [1, 1, 1, 0]
    assert runs == ["init"] * 4 + ["seal"]


def test_the_sealer_is_the_user_that_the_workers_become(monkeypatch):
    if os.geteuid():
        pytest.skip("needs root")
    users = []
    monkeypatch.setattr(beside, "Beside", lambda journal, environ, user: users.append(user))
    beside.start(environ(), pytest.fail, user=NOBODY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        beside.start(environ(), pytest.fail, user=1000)
    assert users == [NOBODY, None]


def test_it_is_a_program():
    """Without a log or a journal it tells, and ends with its input."""
    done = subprocess.run(
        [sys.executable, "-m", "securefs.cli.beside", "nowhere/at/all"],
        env=python_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0
    assert b"cannot use the journal's folder" in done.stderr


def test_importing_it_needs_no_cryptography():
    run_script("import sys; import securefs.cli.beside; assert 'cryptography' not in sys.modules")
