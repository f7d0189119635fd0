"""docs/evidence.md: its runbook is run on journals that were changed, and what it says of ASVS names tests that there are."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import pytest
from support.commands import KEY
from support.journals import ROOT, only_chain
from support.servers import DEADLINE, python_environ, wait_until

from securefs import Keyring
from securefs.audit import Entry, Journal
from securefs.files import encrypt_file

PAGE = (ROOT / "docs" / "evidence.md").read_text("utf-8")
RUNBOOK, LAW = PAGE.split("\n## What the journal contributes to legal duties\n")
STEPS = dict(re.findall(r"\n### (\d)\. .+\n((?:(?!\n### ).|\n(?!### ))*)", RUNBOOK))
COMMANDS = {
    step: [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for step, text in STEPS.items()
}
ASVS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in LAW.splitlines()
    if re.match(r"\| 16\.\d\.\d ", line)
]
PLACES = ("/var/lib/myapp", "/mnt/case", "/safe", "/backup")
NOW = "%Y-%m-%dT%H:%M:%S.%fZ"


def in_place(tmp_path, line):
    """The line of the page, with each absolute path below ``tmp_path``."""
    return re.sub("|".join(PLACES), lambda match: f"{tmp_path}{match[0]}", line)


def shell(tmp_path, line):
    """Run one line as it stands on the page, and return what it printed; its exit code is what the page says."""
    command, _, code = in_place(tmp_path, line).partition("  # exits with ")
    environ = python_environ()
    environ["PATH"] = f"{tmp_path}/bin:{environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], check=False, env=environ, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == int(code or 0), (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def follow(tmp_path, step):
    return [shell(tmp_path, line) for line in COMMANDS[step]]


def serve(app):
    """What a server does: a file is stored, and read by two users."""
    (app / "uploads").mkdir()
    (app / "plain").write_bytes(b"x")
    object_id = encrypt_file(app / "plain", app / "uploads" / "a", Keyring(KEY))
    journal = Journal(app / "journal")
    journal.record(Entry("file.encrypt", "started", obj={"id": object_id}))
    journal.record(Entry("file.encrypt", obj={"id": object_id}))
    for actor in ("alice", "mallory", "bob"):
        journal.record(Entry("file.decrypt", obj={"id": object_id}, actor=actor))
    journal.close()


@pytest.fixture
def host(tmp_path):
    """A sealed journal on a host, its backup, and what was kept elsewhere."""
    if shutil.which("diff") is None or shutil.which("sha256sum") is None:
        pytest.skip("diff or sha256sum is not installed")
    for place in ("var/lib/myapp", "safe", "backup", "bin", "mnt"):
        (tmp_path / place).mkdir(parents=True)
    program = tmp_path / "bin" / "securefs"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m securefs "$@"\n')
    program.chmod(0o755)
    shell(tmp_path, "install -d -m 0700 /var/lib/myapp/journal")
    shell(tmp_path, "securefs audit init /var/lib/myapp/journal > /safe/vkey")
    seal = "securefs audit seal /var/lib/myapp/journal --once"
    shell(tmp_path, seal)  # so that the server's chain is not older than the log
    serve(tmp_path / "var/lib/myapp")
    shell(tmp_path, seal)
    shell(tmp_path, "cp /var/lib/myapp/journal/log/checkpoints /safe/checkpoints")
    shell(tmp_path, "cp -a /var/lib/myapp/journal /backup/journal")
    (tmp_path / "backup" / "time").write_text(datetime.now(timezone.utc).strftime(NOW))
    sealer = subprocess.Popen(
        [sys.executable, "-m", "securefs", "audit", "seal", str(tmp_path / "var/lib/myapp/journal")],
        env=python_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert sealer.stdout.readline().startswith("sealing "), "it runs"
        yield tmp_path
    finally:
        sealer.send_signal(signal.SIGCONT)
        sealer.terminate()
        sealer.communicate(timeout=DEADLINE)


def change(path):
    """Change whom a record names; return the lines and the number of the record."""
    lines = path.read_bytes().splitlines()
    (number,) = [number for number, line in enumerate(lines) if json.loads(line)["seq"] == 4]
    record = json.loads(lines[number])
    record["actor"]["id"] = json.loads(lines[number - 1])["actor"]["id"]
    lines[number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return lines, number


def save(path, lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def edited(path):
    """An attacker who edits one line. It is named by the record after it."""
    lines, number = change(path)
    save(path, lines)
    return number + 1, "link"


def chained_anew(path):
    """An attacker who computes the links anew, too. Then the log names the record."""
    lines, number = change(path)
    for at in range(number + 1, len(lines)):
        record = json.loads(lines[at])
        record["prev"] = hashlib.sha256(b"\0" + lines[at - 1]).hexdigest()
        lines[at] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    save(path, lines)
    return number, "log"


def state(folder):
    """The state of the running sealer: T if it is stopped by a signal."""
    process = (folder / "log" / "lock").read_text().strip()
    return Path("/proc", process, "stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize("attack", [edited, chained_anew])
def test_the_runbook_is_run_on_a_journal_in_which_a_record_was_changed(attack, host):
    folder = host / "var/lib/myapp/journal"
    named, code = attack(only_chain(folder))
    before = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    pause, *copy, resume = COMMANDS["2"]
    shell(host, pause)
    wait_until(lambda: state(folder) == "T", "the sealer pauses")
    for line in copy:
        shell(host, line)
    shell(host, resume)
    wait_until(lambda: state(folder) != "T", "the sealer goes on")
    assert (host / "mnt/case").stat().st_mode & 0o777 == 0o700
    verdict, _ = follow(host, "3")
    assert "verdict: TAMPERING" in verdict
    assert re.search(rf"record {named}: {code}: ", verdict), verdict
    assert json.loads((host / "mnt/case.json").read_text("utf-8"))["exit_code"] == 1
    shown, alarms = follow(host, "4")
    assert shown.count("file.decrypt") == 3
    assert "server.stop" in alarms
    anchored, backup, difference, agreement = follow(host, "5")
    assert "TAMPERING" in anchored
    assert "verdict: PROVEN" in backup
    assert difference.count("\n< ") == (1 if attack is edited else 3), difference
    assert "findings: 0" in agreement
    assert {path: path.read_bytes() for path in before} == before, "the evidence is as it was"
    follow(host, "8")
    assert (host / "safe/vkey-2").read_text() != (host / "safe/vkey").read_text()
    shell(host, "cd /mnt/case && sha256sum --quiet --check /mnt/case.sha256")


def test_a_copy_without_the_secrets_is_proven(host):
    follow(host, "2")
    secrets = {"pseudonym.key", "first.key", "next.key", "stable.key"}
    assert all(f"`{name}`" in STEPS["2"] for name in secrets)
    removed = {path.name for path in (host / "mnt/case").rglob("*.key") if path.unlink() is None}
    assert {"pseudonym.key"} <= removed <= secrets
    verify = COMMANDS["3"][0].partition("  # ")[0]
    assert "verdict: PROVEN" in shell(host, verify)


def test_each_exit_code_has_its_meaning_in_an_incident():
    assert re.findall(r"^\| (\d) \|", STEPS["3"], re.MULTILINE) == list("01234")


def test_each_step_that_needs_commands_has_some():
    assert {step for step, lines in COMMANDS.items() if lines} == set("23458")
    assert set(STEPS) == set("12345678")


@cache
def functions_of(path):
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_whole_chapter_of_asvs_is_there():
    sizes = {1: 1, 2: 5, 3: 4, 4: 3, 5: 4}  # requirements of each section in ASVS 5.0
    assert [row[0] for row in ASVS] == [
        f"16.{section}.{number}" for section, size in sizes.items() for number in range(1, size + 1)
    ]


@pytest.mark.parametrize("row", ASVS, ids=[row[0] for row in ASVS])
def test_what_is_met_or_shared_names_its_tests(row):
    _, _, status, tests, left = row
    (status,) = re.findall(r"^\*\*(Met|Shared|Out of scope)\*\*", status)
    names = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", tests)
    assert bool(names) == (status != "Out of scope")
    assert re.sub(r"`[^`]+`", "", tests).strip() in {"", "none"}, "nothing but names"
    for path, name in names:
        assert name in functions_of(path), f"{path} has no {name}"
    assert left != "none" or status == "Met"


@pytest.mark.parametrize(
    "article", ["12(1)", "12(2)", "12(3)", "19(1)", "19(2)", "26(6)", "5(1)(e)", "17", "30", "31", "32"]
)
def test_each_article_has_a_row(article):
    assert f"\n| {article} |" in LAW


@pytest.fixture
def run_help():
    command = [sys.executable, "-m", "securefs", "audit", "retain", "--help"]
    return subprocess.check_output(command, env=python_environ(), text=True)


def test_it_says_how_records_are_removed_and_that_it_is_no_advice(run_help):
    (days,) = re.findall(r"`securefs audit retain --keep (\d+d)`", LAW)
    assert f"{days}: keep the records of" in run_help
    assert "**no legal\nadvice**" in PAGE
