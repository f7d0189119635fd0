"""``securefs audit witness``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.journals import file_size_limit
from support.logs import new_key, sealed, vkey
from support.witness import Witness, serving


@pytest.fixture
def log():
    return sealed(Path("journal"), stable=new_key(), stop=True)


@pytest.fixture
def witness(log):
    witness = Witness()
    witness.trusted[log.origin] = [vkey(log.origin, log.stable)]
    return witness


def test_a_log_is_witnessed_and_proven_strictly(run, log, witness):
    other = Witness("witness.example/w2")
    other.trusted = witness.trusted
    pins = ("--pin", log.vkey(), "--pin", witness.vkey, "--pin", other.vkey)
    assert run("audit", "verify", "journal", *pins, "--strict").code == 3
    with serving(witness) as first, serving(other) as second:
        result = run("audit", "witness", "journal", first, second, *pins)
    assert result.code == 0
    assert f"{witness.name} cosigned {len(log.leaves)} records".encode() in result.out
    result = run("audit", "verify", "journal", *pins, "--strict")
    assert result.code == 0, result.out


def test_one_of_two_does_not_answer(run, log, witness):
    with serving(witness) as url:
        result = run("audit", "witness", "journal", "http://127.0.0.1:1", url, "--pin", witness.vkey)
    assert result.code == 3
    assert "no answer" in result.err
    assert (log.log / "cosignatures").exists()


def test_a_log_that_was_cut(run, log, witness):
    with serving(witness) as url:
        assert run("audit", "witness", "journal", url, "--pin", witness.vkey).code == 0
        del log.notes[2:]
        log.save()
        result = run("audit", "witness", "journal", url, "http://127.0.0.1:1", "--pin", witness.vkey)
    assert result.code == 1
    assert "TAMPERING: " in result.err


def test_a_witness_must_be_pinned(run, log, witness):
    result = run("audit", "witness", "journal", "http://127.0.0.1:1", "--pin", log.vkey())
    assert result.code == 2
    assert "pin the key of each witness" in result.err


def test_cosignatures_that_cannot_be_kept(run, log, witness):
    with serving(witness) as url, file_size_limit(10):
        result = run("audit", "witness", "journal", url, "--pin", witness.vkey)
    assert result.code == 2
    assert "cannot keep the cosignatures" in result.err
