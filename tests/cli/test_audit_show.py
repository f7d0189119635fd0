"""``securefs audit show`` and ``search``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.journals import ROOT, only_chain
from support.logs import Log, sealed

from securefs.audit import Entry, Journal
from securefs.errors import Reason


@pytest.fixture
def journal():
    journal = Journal("journal")
    journal.record(
        Entry(
            "file.encrypt",
            obj={"name": "a b.txt", "id": "ab" * 16, "size": 5},
            actor="alice",
            request_id="r1",
        )
    )
    journal.record(
        Entry(
            "file.decrypt", "failure", Reason.CLIENT_GONE, obj={"name": "c.txt"}, actor="bob", request_id="r2"
        )
    )
    journal.record(
        Entry("auth.denied", "failure", http={"method": "GET", "path": "/x\x1b[2J", "status": 401})
    )
    journal.close()
    return journal


def found(run, *options):
    out = run("audit", "search", "journal", "--json", *options).out
    return [record["event"] for record in map(json.loads, out.splitlines())]


ALL = ["server.start", "file.encrypt", "file.decrypt", "auth.denied", "server.stop"]


@pytest.mark.parametrize(
    ("options", "events"),
    [
        pytest.param([], ALL, id="all"),
        pytest.param(["--event", "file.encrypt"], ["file.encrypt"], id="event"),
        pytest.param(["--event", "file.*"], ["file.encrypt", "file.decrypt"], id="events-of-files"),
        pytest.param(["--event", "file."], ["file.encrypt", "file.decrypt"], id="the-same"),
        pytest.param(["--event", "file"], [], id="no-event"),
        pytest.param(
            ["--event", "auth.*", "--event", "server.stop"], ["auth.denied", "server.stop"], id="two"
        ),
        pytest.param(["--severity", "3"], ["auth.denied", "server.stop"], id="severity"),
        pytest.param(["--principal", "alice"], ["file.encrypt"], id="principal"),
        pytest.param(["--name", "c.txt"], ["file.decrypt"], id="name"),
        pytest.param(["--name", "alice"], [], id="another-kind"),
        pytest.param(["--object", "ab" * 16], ["file.encrypt"], id="object"),
        pytest.param(["--request", "r2"], ["file.decrypt"], id="request"),
        pytest.param(["--reason", "client_gone"], ["file.decrypt"], id="reason"),
        pytest.param(["--principal", "alice", "--name", "c.txt"], [], id="both"),
        pytest.param(["--last", "2"], ALL[-2:], id="last"),
        pytest.param(["--from", "2020-01-01"], ALL, id="from"),
        pytest.param(["--to", "2020-01-01T00:00:00Z"], [], id="to"),
    ],
)
def test_records_are_found(run, journal, options, events):
    assert found(run, *options) == events


def test_names_in_clear_are_found(run):
    journal = Journal("journal", names="clear")
    journal.record(Entry("file.encrypt", obj={"name": "a.txt"}))
    journal.close()
    assert found(run, "--name", "a.txt") == ["file.encrypt"]


def test_records_are_printed_as_they_are_in_the_file(run, journal):
    out = run("audit", "show", "journal", "--json").out
    assert out == only_chain(Path("journal")).read_bytes()


def test_records_as_text(run, journal):
    lines = run("audit", "show", "journal").out.decode().splitlines()
    chain = only_chain(Path("journal")).name[:32]
    assert len(lines) == len(ALL)
    assert lines[1].endswith(f"{chain}:1")
    assert f"obj.id={'ab' * 16}" in lines[1]
    assert "1 file.encrypt success" in lines[1]
    assert "reason=client_gone" in lines[2]
    assert 'http.path="/x\\u001b[2J"' in lines[3]


def test_records_of_all_chains_are_ordered_by_time_and_those_of_sealers_are_among_them(run):
    log = sealed(Path("journal"))
    out = run("audit", "show", "journal", "--json").out.splitlines()
    records = [json.loads(line) for line in out]
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    assert len(records) == sum(map(len, log.lines.values()))
    assert any("seal.index=0" in line for line in run("audit", "show", "journal").out.decode().splitlines())


def test_many_chains_one_after_another_need_few_descriptors(run):
    import resource

    log = Log(Path("journal"))
    log.begin()
    for _ in range(300):
        log.stop(log.start())
    log.save()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        assert len(run("audit", "show", "journal").out.splitlines()) == 601
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("first", [True, False], ids=["first-line", "later-line"])
def test_lines_that_are_no_records_are_told(run, journal, first):
    path = only_chain(Path("journal"))
    path.write_bytes(path.read_bytes().replace(b"server.start" if first else b"file.encrypt", b"x", 1))
    result = run("audit", "show", "journal")
    assert result.code == 1
    assert len(result.out.splitlines()) == len(ALL) - 1
    assert "lines that are no records: 1" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "cannot read the journal 'missing'"),
        (("empty",), "there is no chain of a journal in 'empty'"),
        (("journal", "--from", "x"), "--from: 'x' is not a time"),
        (("journal", "--last", "-1"), "is not a number"),
        (("journal", "--severity", "9"), "--severity"),
    ],
)
def test_usage(run, journal, arguments, message):
    Path("empty").mkdir()
    result = run("audit", "show", *arguments)
    assert result.code == 2
    assert message in result.err


def test_what_is_written_from_now_on_is_shown(journal):
    """A process of its own, which a signal ends."""
    command = [sys.executable, "-m", "securefs", "audit", "show", "journal", "-f", "--last", "1"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    limit = threading.Timer(60, process.kill)
    limit.start()
    try:
        assert b" server.stop success" in process.stdout.readline()
        second = Journal("journal")
        second.record(Entry("key.use"))
        assert b" server.start success" in process.stdout.readline()
        assert b" key.use success" in process.stdout.readline()
        second.record(Entry("auth.denied", "failure"))
        assert b" auth.denied failure" in process.stdout.readline()
        second.close()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() != 0
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
