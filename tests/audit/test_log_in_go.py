"""Checkpoints and proofs are held against Go's own code for transparency logs (golang.org/x/mod/sumdb)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.logs import sealed
from support.servers import ROOT

from securefs.audit.log_files import read_notes
from securefs.audit.note import encode_base64, parse_checkpoint, parse_note
from securefs.audit.prove import prove_consistency, prove_record

SOURCES = Path("/usr/share/gocode")  # Debian's golang-golang-x-mod-dev
MISSING = [
    name
    for name, there in (
        ("golang-go", shutil.which("go")),
        ("golang-golang-x-mod-dev", (SOURCES / "src/golang.org/x/mod/sumdb/tlog").exists()),
    )
    if not there
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, compiled from what Debian has; nothing is fetched."""
    folder = tmp_path_factory.mktemp("go")
    environ = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(SOURCES),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "GOPROXY": "off",
    }
    source = ROOT / "tests" / "support" / "tlog_check.go"
    subprocess.run(["go", "build", "-o", folder / "check", source], env=environ, check=True, timeout=280)
    return folder / "check"


def run(program, folder):
    done = subprocess.run([program, folder], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def show(folder, journal, log, vkeys):
    """Write what the program reads: every checkpoint, a consistency proof between each two, some proofs."""
    folder.mkdir()
    path = log / "checkpoints"
    notes = [data for _, data, _ in read_notes(path, 0, path.stat().st_size)]
    points = [parse_checkpoint(parse_note(note).text) for note in notes]
    (folder / "vkeys").write_text("\n".join(vkeys) + "\n")
    (folder / "notes").write_bytes(b"==\n".join(notes))
    for number in range(1, len(points)):
        proof = prove_consistency(journal, log, points[number - 1].size, points[number])
        (folder / f"consistency-{number}").write_text("\n".join(map(encode_base64, proof)))
    (folder / "proof-vkey").write_text(vkeys[-1])
    for chain in sorted(journal.glob("*.jsonl")):
        for seq in (0, 3):
            proof = prove_record(journal, log, chain.name[:32], seq)
            (folder / f"proof-{proof.index}").write_bytes(proof.encode())
    return len(points)


def test_go_accepts_checkpoints_consistency_and_inclusion(program, tmp_path):
    log = sealed(tmp_path / "j", rounds=7)
    count = show(tmp_path / "shown", log.folder, log.log, [log.vkey(index) for index in range(7)])
    code, out = run(program, tmp_path / "shown")
    assert code == 0, out
    assert out.count("consistent:") == count - 1 == 6
    assert out.count("record:") == 4


@pytest.mark.parametrize("name", ["notes", "consistency-5", "proof-"])
def test_go_refuses_what_was_changed(program, tmp_path, name):
    log = sealed(tmp_path / "j", rounds=7)
    show(tmp_path / "shown", log.folder, log.log, [log.vkey(index) for index in range(7)])
    path = sorted((tmp_path / "shown").glob(f"{name}*"))[0 if name != "proof-" else 1]
    text = path.read_text()
    # A character of a hash or a signature.
    position = text.rindex("=") - 10
    path.write_text(text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :])
    code, out = run(program, tmp_path / "shown")
    assert (code, "FAIL:" in out) == (1, True)
