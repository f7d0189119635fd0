"""The attacks on chains: what they leave is what somebody leaves who can write every file."""

from __future__ import annotations

import json

import pytest
from support.made_logs import MadeJournal

from securefs.audit import attack
from securefs.audit.attack import Chain, Copy
from securefs.audit.verify_chain import ChainVerifier


def copy_of(made):
    chains = {one.id: Chain.split(one.data()) for one in made.chains.values()}
    sealers = {one.id: Chain.split(one.data()) for one in made.sealers}
    return Copy(chains, sealers, {} if made.log else None)


@pytest.fixture
def made():
    made = MadeJournal(log=False)
    made.chain("short", 1)
    made.chain("first", 9).torn = b"torn"
    return made


def found(copy, name):
    verifier = ChainVerifier("f", name)
    verifier.feed(copy.chains[name].data())
    verifier.finish()
    return {finding.code for finding in verifier.findings}


@pytest.mark.parametrize(
    ("name", "lines", "codes"),
    [
        pytest.param("edit", 10, {"link"}, id="edit"),
        pytest.param("delete", 9, {"sequence", "link"}, id="delete"),
        pytest.param("reorder", 10, {"sequence", "link"}, id="reorder"),
        pytest.param("repeat", 11, {"sequence", "link"}, id="repeat"),
        pytest.param("insert", 11, {"sequence", "link"}, id="insert"),
        pytest.param("relink_from", 10, set(), id="relink"),
        pytest.param("rewrite", 10, set(), id="rewrite"),
        pytest.param("cut", 9, set(), id="cut"),
    ],
)
def test_an_attack_on_the_longest_chain(made, name, lines, codes):
    before, chain = copy_of(made), made.chains["first"]
    after = getattr(attack, name)(before)
    assert before == copy_of(made), "the copy is not changed"
    assert after.chains[chain.id] != before.chains[chain.id]
    assert len(after.chains[chain.id].lines) == lines
    assert after.chains[chain.id].torn == b"torn"
    assert found(after, chain.id) == codes
    assert {one for one in after.chains if after.chains[one] != before.chains[one]} == {chain.id}


def test_an_inserted_record_fits_the_one_before_it(made):
    chain = made.chains["first"]
    lines = attack.insert(copy_of(made)).chains[chain.id].lines
    assert lines[:6] == tuple(chain.lines[:6])
    assert found(Copy({chain.id: Chain(lines[:7])}, {}), chain.id) == set()
    assert lines[7:] == tuple(chain.lines[6:])


def test_a_rewritten_chain_has_no_line_of_before(made):
    chain = made.chains["first"]
    after = attack.rewrite(copy_of(made)).chains[chain.id]
    assert not {*after.lines} & {*chain.lines}
    assert {json.loads(line)["time"][:19] for line in after.lines} == {
        json.loads(line)["time"][:19] for line in chain.lines
    }


def test_a_chain_is_removed_and_one_is_added(made):
    before, chain = copy_of(made), made.chains["first"]
    assert attack.remove(before).chains.keys() == before.chains.keys() - {chain.id}
    after = attack.add_chain(before)
    (name,) = after.chains.keys() - before.chains.keys()
    assert found(after, name) == set()
    assert json.loads(after.chains[name].lines[0])["time"] == json.loads(chain.lines[0])["time"]


@pytest.mark.parametrize(
    "name",
    [
        *("edit", "delete", "reorder", "repeat", "insert", "relink_from", "rewrite"),
        *("cut", "remove", "add_chain"),
    ],
)
def test_a_journal_that_is_too_small(name):
    made = MadeJournal(log=False)
    made.chain("short", 1)
    assert getattr(attack, name)(copy_of(made)) is None
    assert getattr(attack, name)(Copy({}, {})) is None


def test_only_sealed_records_are_a_target():
    made = MadeJournal()
    made.chain("sealed", 5)
    made.seal()
    made.work(made.chains["sealed"], 3)
    made.chain("later", 20)
    made.sealer.lines[0] = made.sealer.lines[0].replace(b'"sync":', b'"seal":{},"sync":')
    copy = copy_of(made)
    assert attack.target(copy) == (made.chains["sealed"].id, 6)
    assert len(attack.cut(copy).chains[made.chains["sealed"].id].lines) == 5
    assert [seal.index for seal, _, _ in attack.seals(copy)] == [0], "a line that is no record is no seal"


def test_seals_come_by_their_numbers():
    made = MadeJournal()
    made.seal()
    made.start_sealer()
    made.seal()
    made.sealers.reverse()
    assert [(seal.index, number) for seal, _, number in attack.seals(copy_of(made))] == [(0, 1), (1, 1)]


def test_what_is_torn_stays_if_no_line_was_removed():
    chain = Chain.split(b"a\nb\nc")
    assert chain == Chain((b"a", b"b"), b"c")
    assert chain.upto(2) == chain
    assert chain.upto(1) == Chain((b"a",))
    assert (chain.data(), Chain.split(b"").data(), Chain((b"a",)).data()) == (b"a\nb\nc", b"", b"a\n")
