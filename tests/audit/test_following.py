"""All chains of a journal: turns, bounds, and what is told."""

import os
import shutil

import pytest
from support.chains import chain_bytes
from support.journals import unprivileged

from securefs.audit import following
from securefs.audit.follow import Here
from securefs.audit.following import Following
from securefs.audit.log_folder import Position
from securefs.audit.log_state import Taken
from securefs.audit.record import Entry
from securefs.audit.seal import Run
from securefs.audit.tree import leaf_hash

A, B, C, OWN = ("a" * 32, "b" * 32, "c" * 32, "f" * 32)
HERE = Here("h", "")


def data_of(chain, count):
    entries = [Entry("file.decrypt", obj={"size": number}) for number in range(count - 1)]
    return chain_bytes(Entry("server.start"), *entries, chain=chain)


@pytest.fixture
def told():
    return []


@pytest.fixture
def both(tmp_path, told):
    """(log's folder, journal's folder, Following)."""
    log, journal = tmp_path / "log", tmp_path / "journal"
    log.mkdir()
    journal.mkdir()
    return log, journal, Following(log, journal, OWN, HERE, told.append)


def put(folder, chain, count):
    (folder / f"{chain}-0.jsonl").write_bytes(data_of(chain, count))


def take_up(all_of_them):
    for name in all_of_them.new_names({}):
        all_of_them.take_up(name, None, b"", None)


def test_chains_of_both_folders_but_its_own(both):
    log, journal, chains = both
    put(log, A, 2)
    put(log, OWN, 2)
    put(journal, B, 3)
    take_up(chains)
    assert chains.new_names({}) == []
    assert not chains.read()
    assert chains.waiting == 5
    runs, leaves = chains.collect()
    assert runs == [Run(A, 0, 1), Run(B, 0, 2)]
    assert leaves == [
        leaf_hash(line) for chain, n in ((A, 2), (B, 3)) for line in data_of(chain, n).splitlines()
    ]
    assert (chains.waiting, chains.collect()) == (0, ([], []))
    put(journal, C, 1)
    assert chains.new_names({}) == [C]


def test_nothing_is_listed_while_nothing_changes(both, monkeypatch):
    log, journal, chains = both
    for folder in (log, journal):
        os.utime(folder, (1, 1))
    assert chains.new_names({}) == []
    monkeypatch.setattr(following, "chain_names", None)
    assert chains.new_names({}) == []


def test_turns_and_bounds(both, monkeypatch):
    monkeypatch.setattr(following, "MAX_TURN", 4)
    monkeypatch.setattr(following, "MAX_PENDING", 10)
    _, journal, chains = both
    for chain in (A, B, C):
        put(journal, chain, 6)
    take_up(chains)
    assert chains.read()
    assert chains.waiting == 10
    assert chains.read()
    runs, _ = chains.collect()
    assert runs == [Run(A, 0, 3), Run(B, 0, 3), Run(C, 0, 1)]
    # The busy one has not the first turn again: C is next.
    while chains.read():
        pass
    assert chains.collect()[0] == [Run(A, 4, 5), Run(B, 4, 5), Run(C, 2, 5)]


def test_a_seal_has_a_limit_of_runs(both, monkeypatch):
    monkeypatch.setattr(following, "MAX_RUNS", 3)
    _, journal, chains = both
    for chain in (A, B, C):
        put(journal, chain, 2)
    take_up(chains)
    chains.read()
    assert not chains.fits
    assert [run.chain for run in chains.collect()[0]] == [A, B]
    assert chains.fits
    assert [run.chain for run in chains.collect()[0]] == [C]


def test_it_goes_on_where_the_log_is(both):
    _, journal, chains = both
    put(journal, A, 5)
    lines = data_of(A, 5).splitlines(keepends=True)
    head = leaf_hash(lines[2][:-1])
    offset = len(lines[0]) + len(lines[1])
    chains.take_up(A, Taken(3), head, Position(2, offset, leaf_hash(lines[1][:-1])))
    put(journal, B, 3)
    whole = leaf_hash(data_of(B, 3).splitlines()[-1])
    # One that is beyond the log is not used.
    chains.take_up(B, Taken(3), whole, Position(4, 10**6, b"x"))
    chains.read()
    assert chains.collect()[0] == [Run(A, 3, 4)]
    positions = chains.positions()
    assert positions[A] == Position(5, len(b"".join(lines)), leaf_hash(lines[-1][:-1]))
    assert positions[B].count == 3


def test_a_sealed_chain_that_is_missing_is_told_once(both, told):
    _, _, chains = both
    assert chains.new_names({A: Taken(3)}) == [A]
    chains.take_up(A, Taken(3), b"x", None)
    chains.read()
    chains.read()
    list(chains.deaths())
    assert told
    assert set(told) == {
        f"chain {A}: TAMPERING: it has 0 records, and 3 were sealed; it is not sealed any further"
    }
    assert chains.tampered
    assert chains.positions() == {}


def test_what_cannot_be_flushed_now_waits(open_folder, told):
    """A chain whose file can't be opened at the moment of the seal."""
    put(open_folder, A, 2)
    chains = Following(open_folder, open_folder, OWN, HERE, told.append)
    take_up(chains)
    chains.read()
    path = open_folder / f"{A}-0.jsonl"
    path.chmod(0)
    with unprivileged(open_folder):
        assert chains.collect() == ([], [])
    assert chains.waiting == 2
    assert "cannot be read" in told[0]
    assert not chains.tampered
    path.chmod(0o600)
    assert chains.collect()[0] == [Run(A, 0, 1)]


def test_what_was_cut_before_it_was_sealed_is_dropped(both, told):
    _, journal, chains = both
    put(journal, A, 3)
    take_up(chains)
    chains.read()
    put(journal, A, 2)
    assert chains.collect() == ([], [])
    assert chains.waiting == 0
    assert chains.tampered


def test_dead_writers_are_found_once_and_let_go(both, told):
    _, journal, chains = both
    put(journal, A, 3)
    (journal / f"{B}-0.jsonl").touch()
    take_up(chains)
    chains.read()
    assert [(chain.chain, death.size) for chain, death in chains.deaths()] == [(A, 0)]
    assert list(chains.deaths()) == []
    (journal / f"{B}-0.jsonl").unlink()
    assert list(chains.deaths()) == []
    put(journal, B, 1)
    assert chains.new_names({}) == [B]
    assert chains.positions()[A].count == 3


def test_a_chain_of_another_machine_is_told(tmp_path, told):
    put(tmp_path, A, 2)
    chains = Following(tmp_path, tmp_path, OWN, Here("other", "boot"), told.append)
    take_up(chains)
    chains.read()
    assert list(chains.deaths()) == []
    assert told == [f"chain {A}: it was written on h: from here it can't be seen whether its writer lives"]
    shutil.rmtree(tmp_path)
