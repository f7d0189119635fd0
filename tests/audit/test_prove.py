"""Proofs from the files of a log, with and without its tiles."""

from __future__ import annotations

import shutil

import pytest
from support import trees
from support.logs import Log, cosignature_line, new_key, sealed

from securefs.audit.note import parse_checkpoint
from securefs.audit.proof import check_proof
from securefs.audit.prove import latest_checkpoint, prove_consistency, prove_record
from securefs.errors import ConfigurationError


@pytest.fixture(params=[True, False], ids=["tiles", "no-tiles"])
def log(request, tmp_path):
    return sealed(tmp_path / "j", tiles=request.param)


def test_each_record_of_each_chain(log):
    for chain, lines in log.lines.items():
        for seq, line in enumerate(lines):
            proof = prove_record(log.folder, log.log, chain, seq)
            assert proof.record == line
            check_proof(proof, [])
            assert list(proof.hashes) == trees.path(proof.index, log.leaves)


def test_the_tiles_are_not_believed(log):
    tiles = log.log / "tiles"
    tiles.mkdir(exist_ok=True)
    (tiles / "0").write_bytes(bytes(32) * len(log.leaves))
    proof = prove_record(log.folder, log.log, next(iter(log.lines)), 2)
    assert list(proof.hashes) == trees.path(proof.index, log.leaves)


def test_each_older_size(log):
    _, newest = latest_checkpoint(log.log)
    for old in range(1, newest.size + 1):
        assert prove_consistency(log.folder, log.log, old, newest) == trees.proof(old, log.leaves)


def test_chains_that_are_older_than_the_log(tmp_path):
    log = Log(tmp_path / "j", tiles=False)
    old = log.start()
    log.records(old, 3)
    log.begin()
    log.cut_over(old)
    log.records(old, 2)
    log.seal()
    log.save()
    assert prove_record(log.folder, log.log, old, 5).record == log.lines[old][5]
    with pytest.raises(ConfigurationError, match="older than the log"):
        prove_record(log.folder, log.log, old, 3)


def test_a_cosigned_checkpoint_is_preferred(log):
    chain = next(iter(log.lines))
    note = log.notes[1] + cosignature_line("w", new_key(), log.text(log.sizes[1]), 5)
    (log.log / "cosignatures").write_text(f"{note}\n" + note[:40])
    assert parse_checkpoint(prove_record(log.folder, log.log, chain, 1).note.text).size == log.sizes[1]
    # One that does not cover the record is of no use.
    assert parse_checkpoint(prove_record(log.folder, log.log, chain, 9).note.text).size == log.sizes[2]


def test_a_record_that_is_not_sealed(log):
    chain = next(iter(log.lines))
    log.records(chain, 1)
    log.save()
    for name, seq in ((chain, 10), (chain, 99), ("f" * 32, 0)):
        with pytest.raises(ConfigurationError, match="is not in the log"):
            prove_record(log.folder, log.log, name, seq)


def test_a_seal_that_is_not_signed(log):
    chain = next(iter(log.lines))
    log.records(chain, 1)
    log.seal(sign=False)
    log.save()
    with pytest.raises(ConfigurationError, match="no checkpoint covers it"):
        prove_record(log.folder, log.log, chain, 10)


def test_a_log_that_does_not_hold(log):
    shutil.rmtree(log.log / "tiles", ignore_errors=True)
    chain = next(iter(log.lines))
    path = log.path(chain)
    path.write_bytes(path.read_bytes().replace(b'"size":1', b'"size":2'))
    with pytest.raises(ConfigurationError, match="run securefs audit verify"):
        prove_record(log.folder, log.log, chain, 4)
    path.unlink()
    with pytest.raises(ConfigurationError, match="is not here: retired, or missing"):
        prove_record(log.folder, log.log, chain, 4)


def test_a_log_whose_own_files_do_not_hold(log):
    chain = next(iter(log.lines))
    path = log.log / "checkpoints"
    path.write_bytes(path.read_bytes().replace("—".encode(), b"-", 1))
    with pytest.raises(ConfigurationError, match="checkpoints', byte 0"):
        prove_record(log.folder, log.log, chain, 4)
    path.unlink()
    with pytest.raises(ConfigurationError, match="nothing was sealed yet"):
        prove_record(log.folder, log.log, chain, 4)
    own = log.path(log.sealers[0])
    own.write_bytes(own.read_bytes().replace(b'"index":1', b'"index":x'))
    with pytest.raises(ConfigurationError, match="cannot follow the log"):
        prove_record(log.folder, log.log, chain, 9)


def test_a_checkpoint_that_no_seal_belongs_to(log):
    chain = next(iter(log.lines))
    own = log.path(log.sealers[0])
    own.write_bytes(b"".join(line + b"\n" for line in log.lines[log.sealers[0]][:-1]))
    shutil.rmtree(log.log / "tiles", ignore_errors=True)
    with pytest.raises(ConfigurationError, match="run securefs audit verify"):
        prove_record(log.folder, log.log, chain, 1)


def test_a_record_that_was_cut_off_after_it_was_sealed(tmp_path):
    """The tiles still have its hash, and nobody has the record."""
    log = sealed(tmp_path / "j", tiles=True)
    chain, lines = next(iter(log.lines.items()))
    file = log.folder / f"{chain}-0.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
    with pytest.raises(ConfigurationError, match="was sealed and is not here"):
        prove_record(log.folder, log.log, chain, len(lines) - 1)
