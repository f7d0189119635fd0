"""The verdict, for programs and for people."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support import trees
from support.logs import sealed
from support.look import look


@pytest.fixture
def log(tmp_path):
    return sealed(tmp_path / "j", stop=True)


def text_of(report):
    return "\n".join(report.lines())


def test_a_proven_journal_as_text(log):
    text = text_of(look(log))
    assert text.startswith(
        f"journal {str(log.folder)!r}: {sum(map(len, log.lines.values()))} records in 3 chains\n"
    )
    assert "being written: 0, ended in order: 3, ended without server.stop: 0" in text
    assert f"origin {log.origin}, {len(log.leaves)} records" in text
    assert "sealed: 3 checkpoints read, the first seal of 2026-09-21 14:13:21 UTC" in text
    assert "the sealer ended in order then" in text
    assert "consistent: yes" in text
    assert text.endswith("verdict: PROVEN (exit code 0): consistent, and sealed under a key that you pinned")


def test_a_proven_journal_as_json(log):
    found = json.loads(json.dumps(look(log).to_json()))
    assert (found["integrity"], found["completeness"], found["not_proven"]) == ("holds", "proven", [])
    section = found["log"]
    assert (section["origin"], section["size"], section["closed"]) == (log.origin, len(log.leaves), True)
    assert section["root"] == trees.mth(log.leaves).hex()
    assert (section["breaks"], section["unsealed"], section["witnessed"]) == ([], 0, [])


def test_the_size_of_the_text_does_not_grow_with_the_chains(tmp_path):
    few = sealed(tmp_path / "few")
    many = sealed(tmp_path / "many")
    for _ in range(200):
        many.stop(many.start())
    many.seal()
    assert len(text_of(look(many.save())).split("\n")) == len(text_of(look(few)).split("\n"))


def test_many_breaks_are_counted(tmp_path):
    log = sealed(tmp_path / "j")
    for _ in range(8):
        log.begin(why="crash")
        log.seal()
    report = look(log.save())
    text = text_of(report)
    assert text.count("  break: between") == 5
    assert "and 3 more breaks" in text
    assert len(report.to_json()["log"]["breaks"]) == 8
    assert not any(one["vouched"] for one in report.to_json()["log"]["breaks"])


def test_torn_tails_of_a_log_that_is_not_proven_leave_it_not_proven(log):
    chain = log.start()
    log.torn[chain] = b"x"
    report = look(log.save(), now=log.seconds + 1000)
    assert (report.exit_code, len(report.torn)) == (3, 1)
    assert replace(report, reasons=()).exit_code == 4
    assert replace(report, log=None).exit_code == 4


def test_a_log_of_which_no_seal_was_followed(tmp_path):
    log = sealed(tmp_path / "j", rounds=0)
    text = text_of(look(log, sealed(tmp_path / "other").vkey()))
    assert "sealed:" not in text
    assert "not sealed yet: 3 records, the oldest of 2026-09-21 14:13:20 UTC" in text


def test_seals_whose_checkpoint_is_not_there_are_told(log):
    log.begin()
    log.seal(sign=False)
    text = text_of(look(log.save()))
    assert "not signed: 1 seal:" in text
