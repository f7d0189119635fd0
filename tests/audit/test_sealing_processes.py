"""Writers and a sealer as processes, that are killed at random: no record is lost, and no alarm is false."""

import os
import random
import signal
import subprocess
import sys

import pytest
from support.journals import finish, start_script
from support.sealed import all_sealed, lines_of, read_sealed
from support.servers import DEADLINE, python_environ, wait_until

from securefs.audit.log_folder import LogFolder
from securefs.audit.signing import SigningKey

WRITER = """
import os, sys, threading
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1], names="clear")
count = int(sys.argv[2])
def write(thread):
    number = 0
    while count == 0 or number < count:
        journal.record(Entry("file.decrypt", obj={"size": number, "format": thread, "name": "x" * 200}))
        number += 1
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
journal.close()
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "journal"
    folder.mkdir(0o700)
    LogFolder.begin(folder / "log", "files-1/x", SigningKey(), None)
    return folder


def start_sealer(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "securefs", "audit", "seal", str(folder)],
        env=python_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("sealing")
    return process


def ended(process, number, code):
    process.send_signal(number)
    _, err = process.communicate(timeout=2 * DEADLINE)
    assert process.returncode == code, err
    assert "TAMPERING" not in err
    return err


def written(folder):
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))


def sealed_bytes(folder):
    path = folder / "log" / "checkpoints"
    return path.stat().st_size if path.exists() else 0


def test_no_record_of_four_processes_with_threads_is_lost_or_left_unsealed(folder):
    sealer = start_sealer(folder)
    writers = [start_script(WRITER, folder, 500, measured=False) for _ in range(4)]
    for writer in writers:
        finish(writer)
    ended(sealer, signal.SIGTERM, 0)
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    assert sum(sealed.taken[path.name[:32]] for path in folder.glob("*.jsonl")) == 4 * (4 * 500 + 2)
    assert (sealed.breaks, sealed.adopted) == (0, {})


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_leave_a_log_that_holds(folder, seed):
    dice = random.Random(seed)
    sealer, killed_sealers, killed_writers = start_sealer(folder), 0, 0
    writers = []
    try:
        for _ in range(6):
            while len(writers) < 2:
                writers.append(start_script(WRITER, folder, 0, measured=False))
            goal = written(folder) + dice.randrange(1, 200_000)
            wait_until(lambda goal=goal: written(folder) > goal, "records")
            if dice.random() < 0.5:
                victim = writers.pop(dice.randrange(2))
                victim.kill()
                victim.communicate(timeout=DEADLINE)
                killed_writers += 1
            else:
                signed = sealed_bytes(folder)
                if dice.random() < 0.7:
                    wait_until(lambda signed=signed: sealed_bytes(folder) > signed, "a checkpoint")
                ended(sealer, signal.SIGKILL, -signal.SIGKILL)
                killed_sealers += 1
                sealer = start_sealer(folder)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate(timeout=DEADLINE)
    ended(sealer, signal.SIGTERM, 0)
    sealed = read_sealed(folder)
    all_sealed(folder, sealed)
    # One that was killed before its first seal left its key for the next.
    assert sealed.breaks <= killed_sealers
    paths = [*folder.glob("*.jsonl"), *(folder / "log").glob("*.jsonl")]
    ended_in_order = {path.name[:32] for path in paths if b'"event":"server.stop"' in lines_of(path)[-1]}
    assert sealed.adopted.keys() == {path.name[:32] for path in paths} - ended_in_order
    assert len(ended_in_order) == 1
    print(f"seed {seed}: {killed_sealers} sealers, {killed_writers} writers, {len(sealed.leaves)} leaves")


# Everything is imported first: the other user may not be allowed to read Python's own files.
SEALER = """
import os, sys
import encodings.ascii, securefs.cli.sealing
from securefs.audit.signing import SigningKey
from securefs.cli import main
SigningKey.from_pem(SigningKey().pem(), "x")
os.setgroups([int(sys.argv[2])])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sys.exit(main(sys.argv[3:]))
"""


def test_a_sealer_of_another_user_reads_the_journal_by_its_group(open_folder):
    """The systemd unit in deploy/ is set up like this."""
    if os.geteuid():
        pytest.skip("needs root to run as two other users")
    writer, group, sealer = 65533, 65532, 65534
    journal, log = open_folder / "journal", open_folder / "log"
    open_folder.chmod(0o755)
    journal.mkdir()
    os.chown(journal, writer, group)
    journal.chmod(0o2750)
    log.mkdir(0o700)
    os.chown(log, sealer, sealer)
    drop = f"os.setgroups([]); os.setgid({writer}); os.setuid({writer})\n"
    code = WRITER.replace("count = int", drop + "count = int")

    def run(*arguments):
        return finish(start_script(SEALER, sealer, group, "audit", *arguments, "--log", log, measured=False))

    out, _ = run("init", journal)
    assert out == (log / "vkey").read_bytes()
    for _ in range(2):
        finish(start_script(code, journal, 10, measured=False))
        assert run("seal", journal, "--once")[1] == b""
    sealed = read_sealed(journal, log)
    all_sealed(journal, sealed)
    assert {path.stat().st_uid for path in journal.iterdir()} == {writer}
    assert {path.stat().st_uid for path in log.iterdir()} == {sealer}
