"""A journal is verified while servers and a sealer are at work: nothing is found that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from support.journals import ROOT

from securefs.audit import Entry, Journal, LogTerms, verify_journal
from securefs.audit.note import parse_vkey

pytestmark = pytest.mark.slow


def command(*arguments, **options):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-m", "securefs", "audit", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **options,
    )


def begin_sealing(folder):
    process = command("seal", folder)
    assert process.stdout.readline().startswith(b"sealing ")
    return process


def end(process, number):
    process.send_signal(number)
    with process:
        process.stdout.read()


def test_no_finding_while_writers_come_and_go_and_sealers_are_killed(tmp_path):
    folder = tmp_path / "j"
    folder.mkdir(mode=0o700)
    with command("init", folder) as process:
        pin = parse_vkey(process.stdout.readline().decode().strip())
    sealer = begin_sealing(folder)
    state, breaks = None, 0
    try:
        for turn in range(12):
            journal = Journal(folder)
            for number in range(40):
                journal.record(Entry("file.decrypt", obj={"size": number}))
            if turn % 3:
                journal.close()
            report = verify_journal(folder, None, LogTerms(pins=[pin]))
            assert report.findings == (), report.findings
            since = verify_journal(folder, None, LogTerms(pins=[pin], state=state))
            assert since.findings == (), since.findings
            state = since.log.state
            if turn in {4, 8}:
                end(sealer, signal.SIGKILL)
                sealer = begin_sealing(folder)
        end(sealer, signal.SIGTERM)
    finally:
        sealer.kill()
        sealer.wait()
    report = verify_journal(folder, None, LogTerms(pins=[pin], now=time.time() + 10**6))
    assert report.findings == (), report.findings
    breaks = report.log.state.breaks
    assert report.log.unsealed == 0
    # A sealer that had not signed yet when it was killed left its key: then there is no break.
    assert len(breaks) <= 2
    if breaks:
        assert report.exit_code == 3
        last = parse_vkey(breaks[-1].vkey)
        report = verify_journal(folder, None, LogTerms(pins=[pin, last], now=time.time() + 10**6))
    assert (report.exit_code, report.log.state.closed) == (0, True)
