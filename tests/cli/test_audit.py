"""``securefs audit``."""

from __future__ import annotations

import json
from pathlib import Path

from securefs.audit import Entry, Journal


def test_a_journal_is_verified_and_names_are_found_in_it(run, monkeypatch, tmp_path):
    Path("journal").mkdir(mode=0o700)
    journal = Journal("journal")
    journal.record(Entry("file.encrypt", obj={"name": "a.txt"}, actor="alice"))
    journal.close()
    (chain,) = Path("journal").glob("*.jsonl")
    assert run("audit", "hash", "a.txt", "--dir", "journal").out.strip() in chain.read_bytes()
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    assert run("audit", "hash", "alice", "--principal").out.strip() in chain.read_bytes()
    result = run("audit", "verify", "journal")
    assert result.code == 3
    assert b"completeness: not proven" in result.out
    assert json.loads(run("audit", "verify", "journal", "--json").out)["integrity"] == "holds"
    chain.write_bytes(chain.read_bytes().replace(b"success", b"failure", 1))
    assert run("audit", "verify", "journal").code == 1
