"""The attacks on the log: what each leaves, and that it took no key of the journal's own."""

from __future__ import annotations

import pytest
from support.journal_corpus import STABLE, WITNESS, ended, sealed
from support.made_logs import MadeJournal

from securefs.audit import LogTerms, attack_log, verify_journal
from securefs.audit.attack import Chain, Copy
from securefs.audit.note import parse_vkey
from securefs.audit.signing import SigningKey


def copy_of(made):
    """Return the copy of a journal that was made by hand."""
    chains = {one.id: Chain.split(one.data()) for one in made.chains.values()}
    sealers = {one.id: Chain.split(one.data()) for one in made.sealers}
    rest = ("log/origin", "log/vkey", "log/checkpoints", "log/cosignatures", "log/tiles/0")
    files = {name[4:]: data for name, data in made.contents().items() if name in rest}
    return Copy(chains, sealers, files)


def verdict(tmp_path, made, copy, **terms):
    """Return the report on a copy, with the keys that are pinned, when it is to be verified."""
    folder, log = tmp_path / "journal", tmp_path / "sealed"
    (log / "tiles").mkdir(parents=True)
    folder.mkdir()
    for where, chains in ((folder, copy.chains), (log, copy.sealers)):
        for name, chain in chains.items():
            (where / f"{name}-0.jsonl").write_bytes(chain.data())
    for name, data in (copy.files or {}).items():
        (log / name).write_bytes(data)
    pins = [parse_vkey(pin) for pin in made.pins]
    return verify_journal(folder, log, LogTerms(pins=pins, now=made.now.timestamp(), **terms))


def codes(report):
    return {finding.code for finding in report.findings}


def busy():
    """Return a journal with an older chain, a dead writer and a second line of keys."""
    made = MadeJournal(stable=STABLE)
    older = made.chain("older", 3)
    made.cut_over(older)
    first = made.chain("first", 6)
    made.seal()
    made.adopt(first)
    made.seal()
    made.start_sealer(epoch=True)
    made.chain("second", 4)
    made.seal()
    made.seal()
    made.pins.append(STABLE.vkey())
    return made


def test_the_copy_itself_is_proven(tmp_path):
    made = busy()
    assert verdict(tmp_path, made, copy_of(made)).exit_code == 0


def test_one_key_that_no_seal_names(tmp_path):
    made = busy()
    report = verdict(tmp_path, made, attack_log.sign_with_one_key(copy_of(made), SigningKey))
    assert "signature" in codes(report)


def test_fresh_keys_leave_nothing_to_find_but_the_pinned_key(tmp_path):
    made = busy()
    report = verdict(tmp_path, made, attack_log.sign_with_fresh_keys(copy_of(made), SigningKey))
    assert (codes(report), report.exit_code, report.log.checkpoints) == (set(), 3, 4)
    assert any("no key that you pinned has signed anything here" in reason for reason in report.reasons)


def test_a_removed_checkpoint_is_one_after_which_the_keys_go_on(tmp_path):
    made = busy()
    del made.checkpoints[0]
    copy = copy_of(made)
    assert codes(verdict(tmp_path, made, attack_log.remove_checkpoint(copy))) >= {"checkpoint"}
    del made.checkpoints[2]
    assert attack_log.remove_checkpoint(copy_of(made)) is None


def test_exchanged_checkpoints(tmp_path):
    made = busy()
    assert codes(verdict(tmp_path, made, attack_log.exchange_checkpoints(copy_of(made))))


def test_the_log_alone_goes_back(tmp_path):
    made = sealed()
    made.later(hours=1)
    report = verdict(tmp_path, made, attack_log.unseal(copy_of(made)))
    assert (codes(report), report.exit_code) == (set(), 3)
    assert report.log.unsealed > 0


@pytest.mark.parametrize("build", [sealed, ended, busy])
def test_all_goes_back(tmp_path, build):
    made = build()
    made.files["log/cosignatures"] = b"".join(map(WITNESS.cosigned, made.checkpoints))
    copy = copy_of(made)
    after = attack_log.go_back(copy)
    (tmp_path / "kept").write_bytes(attack_log.last_checkpoint(copy))
    report = verdict(tmp_path / "1", made, after)
    kept = made.checkpoints[: -2 if build is busy else -1]  # the last one of all took no chain's records
    assert (codes(report), report.log.state.tree.size) == (set(), kept[-1].size)
    assert len(after.files["tiles/0"]) == 32 * kept[-1].size
    assert after.files["cosignatures"] == b"".join(map(WITNESS.cosigned, kept))
    anchored = verdict(tmp_path / "2", made, after, anchors=[tmp_path / "kept"])
    assert codes(anchored) == {"log"}


def test_all_goes_back_without_tiles():
    made = ended()
    made.tiles = False
    assert "tiles/0" not in attack_log.go_back(copy_of(made)).files


def test_the_log_is_removed():
    copy = copy_of(sealed())
    assert attack_log.remove_log(copy) == Copy(copy.chains, {})


def test_a_log_that_is_too_small():
    made = MadeJournal()
    made.chain("short")
    made.seal()
    copy = copy_of(made)
    for attack in (attack_log.go_back, attack_log.unseal, attack_log.exchange_checkpoints):
        assert attack(copy) is None
    unsigned = MadeJournal()
    unsigned.chain("first", 9)
    unsigned.seal(checkpoint=False)
    for attack in (attack_log.sign_with_one_key, attack_log.sign_with_fresh_keys):
        assert attack(copy, SigningKey) is None
        assert attack(copy_of(unsigned), SigningKey) is None


def test_the_last_checkpoint_is_the_last_whole_one():
    made = ended()
    last = made.checkpoints[-1]
    copy = copy_of(made)
    torn = attack_log.go_back(copy)
    torn.files["checkpoints"] = copy.files["checkpoints"] + b"text\n\nno signature\n\nmore"
    assert attack_log.last_size(torn) == last.size
    assert attack_log.last_checkpoint(torn) == last.note()
    empty = Copy({}, {}, {})
    assert (attack_log.last_size(empty), attack_log.last_checkpoint(empty)) == (0, b"")
