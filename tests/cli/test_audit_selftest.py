"""``securefs audit selftest``: attacks on a copy of a journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.logs import sealed

from securefs.audit import Entry, Journal
from securefs.audit.selftest import Outcome, Result
from securefs.cli.audit_selftest import show


@pytest.fixture
def log():
    return sealed(Path("journal"))


def test_each_attack_has_its_line(run, log):
    result = run("audit", "selftest", "journal", "--pin", log.vkey())
    lines = result.out.decode().splitlines()
    assert (result.code, result.err) == (0, "")
    assert "caught        relink: one record is changed, all later links fit again (log)" in lines
    assert any(line.startswith("not detected  go-back: ") for line in lines)
    assert lines[-1].startswith("caught: 1")
    assert lines[-1].endswith("MISSED: 0, not run: 0")


def test_json(run, log, monkeypatch):
    Path("journal/log").rename("elsewhere")
    assert json.loads(run("audit", "selftest", "journal", "--json").out)["log"] is False
    monkeypatch.setenv("SECUREFS_AUDIT_LOG", "elsewhere")
    found = json.loads(run("audit", "selftest", "journal", "--json").out)
    assert (found["log"], found["exit_code"]) == (True, 0)
    assert found["attacks"][5] == {
        "attack": "relink",
        "done": "one record is changed, all later links fit again",
        "outcome": "caught",
        "layers": ["log"],
        "note": "",
    }


def test_a_journal_without_a_log(run):
    journal = Journal("journal")
    for _ in range(4):
        journal.record(Entry("file.encrypt", obj={"size": 1}))
    result = run("audit", "selftest", "journal")
    journal.close()
    assert result.code == 0
    assert (
        b"not run       relink: one record is changed, all later links fit again (there is no log"
        in result.out
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_an_attack_that_was_missed_ends_with_1(capsys, as_json):
    missed = [
        Result("cut", "a chain is cut", Outcome.MISSED),
        Result("edit", "e", Outcome.CAUGHT, ("chain",)),
    ]
    assert show(missed, log=True, as_json=as_json) == 1
    assert "MISSED" in capsys.readouterr().out
    assert show(missed[1:], log=True, as_json=as_json) == 0


def test_usage(run, log):
    Path("empty").mkdir()
    for arguments in (("empty",), ("missing",), ("journal", "--log", "missing"), ("journal", "--pin", "x")):
        result = run("audit", "selftest", *arguments)
        assert (result.code, result.out) == (2, b"")
        assert "Traceback" not in result.err
    chain = log.path(next(iter(log.lines)))
    chain.write_bytes(chain.read_bytes().replace(b'"size":1', b'"size":7', 1))
    result = run("audit", "selftest", "journal")
    assert result.code == 2
    assert "run securefs audit verify" in result.err
