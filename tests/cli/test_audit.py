"""``securefs audit verify`` and ``hash``."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.logs import cosignature_line, new_key, sealed, vkey

from securefs.audit import Entry, Journal


@pytest.fixture
def log():
    return sealed(Path("journal"))


def as_of(log):
    return datetime.fromtimestamp(log.seconds, timezone.utc).isoformat().replace("+00:00", "Z")


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
    assert b"NOT PROVEN (exit code 3)" in result.out
    assert json.loads(run("audit", "verify", "journal", "--json").out)["integrity"] == "holds"
    chain.write_bytes(chain.read_bytes().replace(b"success", b"failure", 1))
    assert run("audit", "verify", "journal").code == 1


def test_hash_asks_for_the_folder(run):
    result = run("audit", "hash", "a.txt")
    assert result.code == 2
    assert "SECUREFS_AUDIT_DIR" in result.err


def test_a_sealed_journal_is_proven_under_a_pinned_key(run, log):
    result = run("audit", "verify", "journal", "--pin", log.vkey(), "--as-of", as_of(log))
    assert result.code == 0
    assert b"verdict: PROVEN (exit code 0)" in result.out
    found = json.loads(
        run("audit", "verify", "journal", "--pin", log.vkey(), "--as-of", as_of(log), "--json").out
    )
    assert (found["completeness"], found["exit_code"], found["log"]["size"]) == ("proven", 0, len(log.leaves))
    assert run("audit", "verify", "journal", "--pin", log.vkey()).code == 3, "the clock is used otherwise"


def test_the_log_may_be_elsewhere(run, log, monkeypatch):
    Path("journal/log").rename("elsewhere")
    assert run("audit", "verify", "journal").code == 3
    pin = ("--pin", log.vkey(), "--as-of", as_of(log))
    assert run("audit", "verify", "journal", "--log", "elsewhere", *pin).code == 0
    monkeypatch.setenv("SECUREFS_AUDIT_LOG", "elsewhere")
    assert run("audit", "verify", "journal", *pin).code == 0
    assert run("audit", "verify", "journal", "--log", "missing", *pin).code == 2


def test_keys_are_pinned_from_a_file(run, log):
    witness = new_key()
    text = log.text(log.sizes[-1])
    line = cosignature_line("w", witness, text, 1_790_000_000)
    (log.log / "cosignatures").write_text(f"{log.notes[-1]}{line}\n")
    Path("keys").write_text(f"{log.vkey()}\n\n{vkey('w', witness, 4)}\n")
    result = run("audit", "verify", "journal", "--pin", "keys", "--strict", "--as-of", as_of(log))
    assert result.code == 0, result.out
    assert b"witnessed: 'w' cosigned" in result.out


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        pytest.param("missing", "cannot read 'missing'", id="missing"),
        pytest.param("empty", "there is no key in this file", id="empty"),
        pytest.param("text", "NAME+KEY ID+KEY", id="no-key"),
        pytest.param("bytes", "--pin 'bytes'", id="bytes"),
        pytest.param("large", "has more than 65536 bytes", id="large"),
        pytest.param("log+00000000+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB", "mistyped", id="mistyped"),
    ],
)
def test_a_pin_that_is_no_key(run, log, pin, message):
    Path("empty").write_text("\n")
    Path("text").write_text("no key\n")
    Path("bytes").write_bytes(b"\xff")
    Path("large").write_bytes(bytes(70_000))
    result = run("audit", "verify", "journal", "--pin", pin)
    assert result.code == 2
    assert message in result.err


def test_a_state_is_kept_and_read_on_from(run, log):
    arguments = ("audit", "verify", "journal", "--pin", log.vkey(), "--since", "state", "--as-of")
    assert run(*arguments, as_of(log)).code == 0
    log.seal()
    log.save()
    result = run(*arguments, as_of(log))
    assert result.code == 0
    assert b"were verified before" in result.out
    # What is found now is no ground to build on.
    state = Path("state").read_bytes()
    log.path(next(iter(log.lines))).unlink()
    assert run(*arguments, as_of(log)).code == 1
    assert Path("state").read_bytes() == state


def test_a_state_that_is_none_or_cannot_be_kept(run, log):
    Path("state").write_text("x")
    assert "--since" in run("audit", "verify", "journal", "--since", "state").err
    result = run("audit", "verify", "journal", "--since", "missing/state")
    assert result.code == 2
    assert "--since: cannot write 'missing/state'" in result.err


def test_a_journal_without_a_log_has_no_state(run, log):
    Path("journal/log").rename("elsewhere")
    assert run("audit", "verify", "journal", "--since", "state").code == 3
    assert not Path("state").exists()


def test_checkpoints_that_were_kept(run, log):
    Path("kept").write_text(log.notes[1])
    arguments = ("audit", "verify", "journal", "--pin", log.vkey(), "--as-of", as_of(log), "--anchor", "kept")
    assert run(*arguments).code == 0
    Path("kept").write_text(log.notes[1].replace(f"\n{log.sizes[1]}\n", f"\n{log.sizes[1] + 1}\n"))
    assert run(*arguments).code == 1


@pytest.mark.parametrize("text", ["2026-09-21", "2026-09-21T16:13:23+02:00", "2026-09-21T14:13:23"])
def test_times_are_read(run, log, text):
    assert run("audit", "verify", "journal", "--as-of", text).code == 3


def test_what_is_no_time(run, log):
    result = run("audit", "verify", "journal", "--as-of", "yesterday")
    assert result.code == 2
    assert "--as-of: 'yesterday' is not a time" in result.err


def test_a_journal_that_the_sealer_sealed(run):
    """From the first key to a proof of one record, by the commands alone."""
    Path("real").mkdir(mode=0o700)
    journal = Journal("real")
    journal.record(Entry("file.encrypt", obj={"name": "old"}))
    pin = run("audit", "init", "real", "--origin", "files-1/test").out.decode().split()[0]
    assert run("audit", "seal", "real", "--once").code == 0
    for number in range(300):
        journal.record(Entry("file.decrypt", obj={"name": f"{number}"}))
    assert run("audit", "seal", "real", "--once").code == 0
    assert run("audit", "verify", "real", "--pin", pin, "--since", "state").code == 0
    journal.record(Entry("file.decrypt"))
    journal.close()
    assert run("audit", "seal", "real", "--once").code == 0
    result = run("audit", "verify", "real", "--pin", pin, "--as-of", "2099-01-01", "--json")
    found = json.loads(result.out)
    assert (result.code, found["findings"], found["log"]["breaks"], found["log"]["closed"]) == (
        0,
        [],
        [],
        True,
    )
    again = run("audit", "verify", "real", "--pin", pin, "--since", "state", "--json")
    assert (again.code, json.loads(again.out)["log"]["size"]) == (0, found["log"]["size"])
    chain = max(found["chains"], key=lambda one: one["records"])["chain"]
    proved = run("audit", "prove", "real", f"{chain}:200", "--output", "proof")
    assert proved.code == 0, proved.err
    assert run("audit", "check-proof", "proof").code == 3
    path = Path("real") / f"{chain}-0.jsonl"
    path.write_bytes(path.read_bytes().replace(b"file.decrypt", b"file.encrypt", 1))
    assert run("audit", "verify", "real", "--pin", pin, "--as-of", "2099-01-01").code == 1


def test_names_are_found_under_the_keys_of_each_month(run, monkeypatch, tmp_path):
    journal = Journal("journal", names_key="keys")
    journal.record(Entry("file.encrypt", obj={"name": "a.txt"}))
    journal.close()
    (chain,) = Path("journal").glob("*.jsonl")
    (key,) = Path("keys").iterdir()
    month = key.stem
    assert run("audit", "hash", "a.txt", "--names-key", "keys").out.strip() in chain.read_bytes()
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES_KEY", "keys")
    assert run("audit", "hash", "a.txt", "--period", month).out.strip() in chain.read_bytes()
    found, pseudonym = run("audit", "hash", "a.txt", "--period", "all").out.split()
    assert found.decode() == month
    assert pseudonym in chain.read_bytes()
    result = run("audit", "hash", "a.txt", "--period", "2001-01")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "its key was destroyed" in result.err
    assert run("audit", "search", "journal", "--name", "a.txt").out.count(b"file.encrypt") == 1
    assert run("audit", "search", "journal", "--name", "b.txt").out == b""
    key.unlink()
    assert run("audit", "search", "journal", "--name", "a.txt").out == b""
    result = run("audit", "hash", "a.txt", "--period", "all")
    assert result.code == 2
    assert "there is no key" in result.err
    monkeypatch.delenv("SECUREFS_AUDIT_NAMES_KEY")
    Journal("other").close()
    assert run("audit", "hash", "a.txt", "--dir", "other", "--period", "all").out.startswith(b"journal hmac")
    result = run("audit", "hash", "a.txt")
    assert result.code == 2
    assert "--names-key" in result.err
