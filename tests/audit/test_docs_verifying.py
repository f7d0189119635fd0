"""docs/verifying.md: its program is run, its table of attacks is the one that test_verify_log.py tries, its words are real."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from support.journals import ROOT, run_script
from support.logs import Log, sealed
from support.look import look

from securefs.cli import main

TEXT = (ROOT / "docs" / "verifying.md").read_text("utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def log(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return sealed(tmp_path / "j", stop=True)


def by_hand(log, pin=None):
    out, _ = run_script(CODE, log.folder, log.log, pin or log.vkey())
    return out.decode().splitlines()


def test_the_program_accepts_a_log(log):
    assert by_hand(log) == [
        f"checkpoint {index}: {size} records: holds" for index, size in enumerate(log.sizes)
    ]


def test_the_program_finds_a_changed_record_wrong_signatures_and_breaks(log):
    chain = next(iter(log.lines))
    path = log.path(chain)
    path.write_bytes(path.read_bytes().replace(b'"size":1', b'"size":7', 1))
    assert all(line.endswith("TAMPERED") for line in by_hand(log))
    log.save()
    log.notes[1] = log.notes[1].replace(log.notes[1][-30:-10], "A" * 20)
    log.save()
    assert [line.endswith("TAMPERED") for line in by_hand(log)] == [False, True, False]
    del log.notes[1]
    log.save()
    assert "checkpoint 1: MISSING" in by_hand(log)[1]
    assert "checkpoint 0: BREAK" in by_hand(log, Log(log.folder).origin + "+00000000+" + "A" * 44)[0]


def test_the_hash_of_a_record_by_hand(log):
    chain = next(iter(log.lines))
    (command,) = re.findall(r"^    (\(printf .*)$", TEXT, re.MULTILINE)
    out = subprocess.check_output(["sh", "-c", command.replace("FILE", str(log.path(chain)))], text=True)
    assert out.split()[0].encode() in log.lines[chain][6]


@pytest.mark.parametrize(
    "action", ["verify", "witness", "prove", "check-proof", "show", "search", "reconcile", "selftest"]
)
def test_each_command_is_one(action, capsys):
    assert f"securefs audit {action}" in TEXT or f"`{action}`" in TEXT
    with pytest.raises(SystemExit):
        main(["audit", action, "--help"])
    out = capsys.readouterr().out
    if action in {"verify", "show"}:
        options = set(re.findall(r"(--[a-z-]+)", out)) - {"--help"}
        assert {
            option for option in options if f"`{option}" not in TEXT and f" {option}" not in TEXT
        } == set()


@pytest.mark.parametrize(
    "code",
    ["log", "checkpoint", "signature", "unlogged", "unrecorded", "missing", "deleted", "twice", "journal"],
)
def test_each_code_is_told(code):
    assert f"| `{code}` |" in TEXT


def test_each_verdict_is_told(tmp_path):
    log = sealed(tmp_path / "j")
    for report in (look(log), look(log, now=log.seconds + 99)):
        verdict = re.match(
            r"verdict: ([A-Z ]+) \(exit code (\d)\)",
            next(line for line in report.lines() if line.startswith("verdict")),
        )
        assert f"| {verdict[2]} | {verdict[1]} |" in TEXT
    for code, word in ((1, "TAMPERING"), (4, "TORN")):
        assert f"| {code} | {word} |" in TEXT
