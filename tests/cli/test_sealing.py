"""``securefs audit init`` and ``securefs audit seal``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.journals import NOBODY, unprivileged
from support.sealed import all_sealed, lines_of, read_sealed
from support.servers import DEADLINE, ROOT, python_environ, wait_until

from securefs.audit import Entry, Journal
from securefs.audit.note import parse_vkey
from securefs.cli import sealing
from securefs.cli.main import _parser

COMMAND = [sys.executable, "-m", "securefs", "audit"]


def start(*arguments, **options):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=python_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process, number=None, code=0):
    if number is not None:
        process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code, err
    return out, err


@pytest.fixture
def open_folder():
    """A folder that another user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def journal(run):
    Path("journal").mkdir(0o700)
    assert run("audit", "init", "journal", "--origin", "files-1/x").code == 0
    journal = Journal("journal")
    yield journal
    journal.close()


def write(journal, count=3):
    for _ in range(count):
        journal.record(Entry("file.decrypt"))


def test_init_prints_the_key_to_pin_and_says_what_to_do_with_it(run):
    done = run("audit", "init", "journal")
    assert done.code == 0
    key = parse_vkey(done.out.decode().strip())
    assert re.fullmatch(rf"{re.escape(os.uname().nodename)}/securefs-[0-9a-f]{{8}}", key.name)
    assert Path("journal/log/vkey").read_bytes() == done.out
    assert "away from this machine" in done.err
    again = run("audit", "init", "journal")
    assert (again.code, again.out) == (2, b"")
    assert again.err == "securefs: there is a log in journal/log already: name another folder with --log\n"


def test_init_with_a_stable_key_prints_that_too(run, monkeypatch):
    monkeypatch.setenv("SECUREFS_AUDIT_LOG", "elsewhere")
    done = run("audit", "init", "journal", "--stable", "--origin", "files-1/x")
    first, stable = map(parse_vkey, done.out.decode().split())
    assert first.name == stable.name == "files-1/x"
    assert first.public != stable.public
    assert "witnesses" in done.err
    assert Path("elsewhere/stable.key").exists()
    assert not Path("journal").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("seal", "nowhere"), "there is no journal nowhere: name its folder"),
        (
            ("seal", "journal"),
            "there is no log in journal/log: begin one with securefs audit init, as the user who will seal",
        ),
        (("init", "nowhere/x"), "cannot use the journal's folder 'nowhere/x': No such file or directory"),
        (("init", "journal", "--origin", "a b"), "--origin: a key's name has 1 to 255 characters"),
        (
            ("init", "journal", "--log", "journal/file"),
            "the journal's folder {here}/journal/file is not a folder",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(run, arguments, line):
    Path("journal").mkdir(0o700)
    Path("journal/file").touch()
    done = run("audit", *arguments)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(f"securefs: {line.format(here=Path.cwd())}")
    assert done.err.count("\n") == 1


def test_once_seals_what_is_there_and_the_next_goes_on(run, journal):
    for number in range(3):
        write(journal)
        done = run("audit", "seal", "journal", "--once")
        assert done.code == 0
        assert done.out.decode().splitlines()[-1].startswith(f"sealed up to checkpoint {number}: ")
    sealed = read_sealed(Path("journal"))
    all_sealed(Path("journal"), sealed)
    assert sealed.breaks == 0


def test_without_cryptography_it_says_what_to_install(run, journal, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    done = run("audit", "seal", "journal", "--once")
    assert done.code == 2
    assert "pip install 'securefs[fast]'" in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_clean_stop(journal, number):
    process = start("seal", "journal")
    assert process.stdout.readline().startswith(
        "sealing journal into journal/log: origin files-1/x, 0 records"
    )
    write(journal)
    out, _ = end(process, number)
    assert out.startswith("sealed up to checkpoint")
    sealed = read_sealed(Path("journal"))
    all_sealed(Path("journal"), sealed)
    assert Path("journal/log/next.key").exists()


def test_an_ignored_signal_stays_ignored_and_the_end_of_input_is_a_clean_stop(journal):
    def ignore():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    process = start("seal", "journal", "--stdin", stdin=subprocess.PIPE, preexec_fn=ignore)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.stdin.write("what is written there means nothing\n")
    process.stdin.flush()
    write(journal, 300)
    wait_until(lambda: len(read_sealed(Path("journal")).seals) > 1, "a seal")
    assert process.poll() is None
    end(process)
    all_sealed(Path("journal"), read_sealed(Path("journal")))


def test_a_log_has_one_sealer(run, journal):
    process = start("seal", "journal")
    process.stdout.readline()
    try:
        done = run("audit", "seal", "journal", "--once")
        assert done.code == 2
        assert done.err == (
            f"securefs: another sealer (process {process.pid}) holds the log journal/log: a log has one\n"
        )
    finally:
        end(process, signal.SIGTERM)


def test_its_memory_is_its_own(journal):
    if os.geteuid():
        pytest.skip("needs root to look into a process that is not dumpable")
    process = start("seal", "journal")
    try:
        process.stdout.readline()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        (children,) = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
        assert children == ""
    finally:
        end(process, signal.SIGTERM)


def test_tampering_is_exit_code_1_and_the_others_are_sealed(run, journal):
    assert run("audit", "seal", "journal", "--once").code == 0
    write(journal)
    assert run("audit", "seal", "journal", "--once").code == 0
    journal.close()
    (path,) = Path("journal").glob("*.jsonl")
    path.write_bytes(b"\n".join(lines_of(path)[:2]) + b"\n")
    done = run("audit", "seal", "journal", "--once")
    assert done.code == 1
    assert "TAMPERING" in done.err
    assert done.out.decode().splitlines()[-1].startswith("sealed up to checkpoint 2")
    shutil.rmtree("journal/log/tiles")
    done = run("audit", "seal", "journal", "--once")
    assert done.code == 1
    assert "securefs: TAMPERING: " in done.err


def test_a_log_that_cannot_be_written_is_one_line(open_folder, run):
    log = open_folder / "log"
    open_folder.chmod(0o755)
    Path("journal").mkdir(0o700)
    assert run("audit", "init", "journal", "--log", log).code == 0
    (log / "lock").touch(0o600)
    (log / "tiles").mkdir(0o700)
    if os.geteuid() == 0:
        for path in log.iterdir():
            os.chown(path, NOBODY, NOBODY)
        os.chown(log, NOBODY, NOBODY)
    log.chmod(0o500)
    journal = open_folder / "j"
    journal.mkdir(0o755)
    with unprivileged(journal):
        done = run("audit", "seal", journal, "--log", log, "--once")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert str(log) in done.err
    assert "Permission denied" in done.err
    log.chmod(0o700)


def test_root_leaves_the_log_of_another_user_alone(run):
    if os.geteuid():
        pytest.skip("needs root")
    Path("journal").mkdir(0o700)
    assert run("audit", "init", "journal", "--log", "log").code == 0
    os.chown("log", NOBODY, NOBODY)
    done = run("audit", "seal", "journal", "--log", "log", "--once")
    assert done.code == 2
    assert "sudo -u" in done.err


def test_no_wait_is_longer_than_a_look(monkeypatch):
    """A signal that comes before the wait is seen at once."""
    slept = []
    monkeypatch.setattr(sealing.time, "sleep", slept.append)
    with sealing._Stop(at_end_of_input=False) as stop:
        assert not stop.wait(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(0.2)
    assert slept == [0.2]


def test_what_the_platform_does_not_allow_is_told(run, journal, monkeypatch):
    """Standard input of a test is at its end already."""
    monkeypatch.setattr(sealing, "confine", lambda: ["memory may be swapped out"])
    done = run("audit", "seal", "journal", "--stdin")
    assert done.code == 0
    assert "securefs: memory may be swapped out" in done.err


def test_the_service_and_the_cron_job_run_commands_that_there_are():
    deploy = ROOT / "deploy"
    unit = (deploy / "securefs-seal.service").read_text("utf-8")
    keys = [line.partition("=")[0] for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line)]
    assert len(keys) == len(set(keys))
    (service,) = re.findall(r"^ExecStart=\S+/securefs (.*)$", unit, re.MULTILINE)
    (job,) = re.findall(
        r"securefs-seal \S+/securefs (.*) >/dev/null$",
        (deploy / "securefs-seal.cron").read_text(),
        re.MULTILINE,
    )
    for line, once in ((service, False), (job, True)):
        arguments = _parser().parse_args(shlex.split(line))
        assert arguments.run == "securefs.cli.sealing:seal"
        assert arguments.once is once
        assert sealing.log_path(arguments) == Path("/var/lib/securefs-log")
