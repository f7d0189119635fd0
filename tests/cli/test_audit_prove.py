"""``securefs audit prove`` and ``check-proof``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.logs import cosignature_line, new_key, sealed, vkey


@pytest.fixture
def log():
    return sealed(Path("journal"), stable=new_key())


@pytest.fixture
def chain(log):
    return next(iter(log.lines))


def test_a_record_is_proven_to_somebody_who_has_nothing_else(run, log, chain):
    result = run("audit", "prove", "journal", f"{chain}:3", "--output", "proof")
    assert result.code == 0
    assert log.origin in result.err
    Path("journal").rename("away")
    result = run("audit", "check-proof", "proof", "--pin", vkey(log.origin, log.stable))
    assert result.code == 0
    assert log.lines[chain][3] in result.out
    assert b"verdict: PROVEN" in result.out
    found = json.loads(run("audit", "check-proof", "proof", "--pin", log.vkey(2), "--json").out)
    assert (found["verdict"], found["exit_code"], found["signed"]) == ("proven", 0, [log.vkey(2)])
    assert json.loads(found["record"])["seq"] == 3


def test_a_proof_goes_to_standard_output(run, chain):
    out = run("audit", "prove", "journal", f"{chain}:3").out
    Path("proof").write_bytes(out)
    result = run("audit", "check-proof", "proof")
    assert result.code == 3
    assert b"NOT PROVEN" in result.out
    assert json.loads(run("audit", "check-proof", "proof", "--json").out)["verdict"] == "not proven"


@pytest.mark.parametrize(
    ("time", "text"), [(1_790_000_000, b"at 2026-09-21 14:13:20 UTC"), (2**62, b"at second")]
)
def test_a_witness_vouches(run, log, chain, time, text):
    key = new_key()
    line = cosignature_line("w", key, log.text(log.sizes[2]), time)
    (log.log / "cosignatures").write_text(f"{log.notes[2]}{line}\n")
    run("audit", "prove", "journal", f"{chain}:3", "--output", "proof")
    result = run("audit", "check-proof", "proof", "--pin", vkey("w", key, 4))
    assert result.code == 0
    assert text in result.out


def test_a_proof_that_does_not_hold(run, log, chain):
    run("audit", "prove", "journal", f"{chain}:3", "--output", "proof")
    Path("proof").write_bytes(Path("proof").read_bytes().replace(b"index ", b"index 1"))
    result = run("audit", "check-proof", "proof", "--pin", log.vkey())
    assert result.code == 1
    assert b"DOES NOT HOLD" in result.out
    assert json.loads(run("audit", "check-proof", "proof", "--json").out)["exit_code"] == 1


def test_a_leaf_that_is_no_record_is_told(run, log):
    """Anything may be a leaf of a log that somebody made."""
    chain = next(iter(log.lines))
    log.lines[chain][-1] = b"\x1b no record"
    log.leaves, log.notes, log.sizes, log.keys = [], [], [], []
    log.taken, log.index = {}, 0
    log.lines[log.sealers[0]] = log.lines[log.sealers[0]][:1]
    log.seal()
    log.save()
    run("audit", "prove", "journal", f"{chain}:9", "--output", "proof")
    result = run("audit", "check-proof", "proof")
    assert b"this is not a record of a journal" in result.out
    assert b"\x1b" not in result.out


@pytest.mark.parametrize("place", ["3", "x:3", f"{'a' * 32}:03", f"{'a' * 32}:-1", f"{'a' * 32}:"])
def test_what_is_no_place(run, log, place):
    result = run("audit", "prove", "journal", place)
    assert result.code == 2
    assert "CHAIN:SEQ" in result.err


def test_without_a_log_nothing_is_proven(run, log, chain):
    result = run("audit", "prove", "journal", f"{chain}:3", "--log", "missing")
    assert result.code == 2
    assert "securefs audit init" in result.err
