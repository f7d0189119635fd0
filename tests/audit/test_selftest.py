"""The self-test: each attack meets what docs/verifying.md demands, on a copy that is removed."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from support.journal_corpus import CASES, ended, sealed
from support.journals import ROOT, unprivileged
from support.made_logs import MadeJournal
from support.verdicts import verdict_of

from securefs.audit import LogTerms, selftest
from securefs.audit.note import parse_vkey
from securefs.audit.selftest import Attack, Bench, Outcome, self_test
from securefs.errors import ConfigurationError


def run_on(made, folder, *, pins=True):
    """Run the self-test on a journal that was made by hand; return the results by name."""
    made.write(folder)
    log = folder / "log" if made.log else None
    keys = [parse_vkey(pin) for pin in made.pins] if pins else []
    before = contents(folder)
    results = self_test(folder, log, keys, made.now.timestamp())
    assert contents(folder) == before, "the journal is only read"
    return {one.name: one for one in results}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcomes(results):
    return {name: one.outcome for name, one in results.items()}


def busy():
    """Return a journal over some hours."""
    made = ended()
    made.clock.wait(7200)
    made.start_sealer()
    made.chain("third", 5)
    made.seal()
    made.clock.wait(120)
    made.seal()
    return made


CAUGHT = (
    *("edit", "delete", "reorder", "repeat", "insert", "relink", "rewrite", "cut", "remove-chain"),
    *("add-chain", "sign-anew", "remove-checkpoint", "exchange-checkpoints", "go-back-anchored"),
)


def test_each_attack_on_a_sealed_journal(tmp_path):
    results = run_on(busy(), tmp_path / "j")
    expected = dict.fromkeys(CAUGHT, Outcome.CAUGHT)
    expected |= dict.fromkeys(("fresh-keys", "remove-log", "unseal"), Outcome.UNPROVEN)
    assert outcomes(results) == expected | {"go-back": Outcome.UNDETECTED}
    assert results["relink"].layers == ("log",)
    assert results["add-chain"].layers == ("unlogged",)
    assert "chain" in results["edit"].layers
    assert "signature" in results["sign-anew"].layers
    assert all(one.layers or one.note for one in results.values())


def test_without_a_pin_a_log_under_fresh_keys_is_not_told(tmp_path):
    results = run_on(busy(), tmp_path / "j", pins=False)
    assert results["fresh-keys"].outcome is Outcome.UNDETECTED
    assert "--pin" in results["fresh-keys"].note


def test_a_log_of_the_last_minute(tmp_path):
    results = run_on(sealed(), tmp_path / "j")
    assert results["add-chain"].outcome is Outcome.UNPROVEN
    assert Outcome.MISSED not in outcomes(results).values()


def test_without_a_log_only_the_chain_is_run_on(tmp_path):
    made = MadeJournal(log=False)
    made.chain("first", 5)
    results = run_on(made, tmp_path / "j")
    caught = {name for name, one in results.items() if one.outcome is Outcome.CAUGHT}
    assert caught == {"edit", "delete", "reorder", "repeat", "insert"}
    rest = [one for one in results.values() if one.outcome is not Outcome.CAUGHT]
    assert {one.outcome for one in rest} == {Outcome.SKIPPED}
    assert all("there is no log" in one.note for one in rest)


def test_a_journal_that_is_too_small(tmp_path):
    made = MadeJournal()
    made.chain("first")
    made.seal()
    results = run_on(made, tmp_path / "j")
    assert outcomes(results) == dict.fromkeys(results, Outcome.SKIPPED) | {"remove-log": Outcome.UNPROVEN}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_any_journal(tmp_path, case):
    """No attack is missed, and what has findings or no chain is refused in a sentence."""
    made = case.build()
    made.write(tmp_path / "j")
    try:
        _test_one(tmp_path, made)
    finally:
        shutil.rmtree(tmp_path / "j")  # some of the records are none


def _test_one(tmp_path, made):
    log = tmp_path / "j" / "log" if (tmp_path / "j" / "log").exists() else None
    pins = [parse_vkey(pin) for pin in made.pins]
    try:
        results = self_test(tmp_path / "j", log, pins, made.now.timestamp())
    except ConfigurationError as error:
        refused = "does not verify as it is|no chain of a journal|cannot read|another file"
        assert re.search(refused, str(error))  # noqa: PT017
        return
    assert verdict_of(tmp_path / "j", made).exit_code != 1
    assert Outcome.MISSED not in {one.outcome for one in results}


def test_an_attack_that_is_not_caught_is_missed(tmp_path):
    made = busy()
    made.write(tmp_path / "j")
    copy = selftest.read_copy(tmp_path / "j", tmp_path / "j" / "log")
    bench = Bench(copy, tmp_path, LogTerms(now=made.now.timestamp()))
    same = Attack("same", "nothing", lambda copy: copy, frozenset({"log"}))
    assert bench.run(same).outcome is Outcome.MISSED
    weaker = Attack("same", "nothing", lambda copy: copy, frozenset(), Outcome.UNPROVEN)
    assert bench.run(weaker).outcome is Outcome.MISSED
    other = Attack("cut", "another layer finds it", selftest.attack.cut, frozenset({"signature"}))
    assert (bench.run(other).outcome, bench.run(other).layers) == (Outcome.MISSED, ("log",))
    least = Attack("cut", "so too", selftest.attack.cut, frozenset({"signature"}), Outcome.UNDETECTED)
    assert bench.run(least).outcome is Outcome.MISSED


def test_the_copy_is_private_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    made = busy()
    made.write(tmp_path / "j")
    seen = []

    class Pins(list):
        """Looks at the folder when the verifier reads the pinned keys."""

        def __iter__(self):
            seen.extend((tmp_path / "tmp").iterdir())
            seen.extend(path.stat().st_mode & 0o777 for path in (tmp_path / "tmp").iterdir())
            return super().__iter__()

    self_test(tmp_path / "j", tmp_path / "j" / "log", Pins(), made.now.timestamp())
    assert 0o700 in seen
    assert {one for one in seen if isinstance(one, int)} == {0o700}
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_private_key_is_copied(tmp_path):
    made = busy()
    made.files |= {f"log/{name}.key": b"secret" for name in ("next", "first", "stable")}
    made.write(tmp_path / "j")
    copy = selftest.read_copy(tmp_path / "j", tmp_path / "j" / "log")
    assert copy.files.keys() == {"origin", "vkey", "checkpoints", "tiles/0"}
    assert not any("pseudonym" in name for name in copy.chains)


def test_a_journal_that_is_too_large(tmp_path):
    made = busy()
    made.write(tmp_path / "j")
    with (tmp_path / "j" / f"{made.chains['first'].id}-0.jsonl").open("r+b") as file:
        file.truncate(selftest.MOST)
    with pytest.raises(ConfigurationError, match="more than 67108864 bytes"):
        self_test(tmp_path / "j", None, [], 0)


def test_what_cannot_be_read_or_written_is_told(tmp_path, monkeypatch):
    made = busy()
    made.write(tmp_path / "j")
    with pytest.raises(ConfigurationError, match=r"cannot read .*missing"):
        self_test(tmp_path / "j", tmp_path / "missing", [], 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match=r"cannot write a copy of the journal: .*TMPDIR"):
        self_test(tmp_path / "j", tmp_path / "j" / "log", [], 0)
    path = tmp_path / "j" / f"{made.chains['first'].id}-0.jsonl"
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        self_test(tmp_path / "j", None, [], 0)


@pytest.mark.parametrize("end", ["-1.jsonl", "-0.jsonl.gz"])
def test_a_chain_of_other_files_is_refused(tmp_path, end):
    made = busy()
    made.write(tmp_path / "j")
    (tmp_path / "j" / f"{made.chains['first'].id}{end}").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="a chain has another file"):
        self_test(tmp_path / "j", None, [], 0)
    (tmp_path / "j" / f"{made.chains['first'].id}{end}").unlink()


def test_a_chain_that_this_user_cannot_read(tmp_path):
    folder = Path(tempfile.mkdtemp()) / "j"
    made = busy()
    made.write(folder)
    for path in (folder.parent, folder):
        path.chmod(0o755)
    (folder / f"{made.chains['first'].id}-0.jsonl").chmod(0)
    with unprivileged(folder.parent), pytest.raises(ConfigurationError, match="as a user who can read"):
        self_test(folder, None, [], 0)


def test_a_sealer_at_work_is_no_finding(tmp_path):
    """Its records are there before the checkpoints that were read: seals without a checkpoint."""
    made = busy()
    for _ in range(3):
        made.work(made.chains["third"], 2)
        made.seal(checkpoint=False)
    results = run_on(made, tmp_path / "j")
    assert Outcome.MISSED not in outcomes(results).values()


def test_the_docs_name_each_attack(tmp_path):
    text = (ROOT / "docs" / "verifying.md").read_text("utf-8")
    results = run_on(busy(), tmp_path / "j")
    for one in results:
        assert f"`{one}`" in text
    for kind in Outcome:
        assert kind.value in text
    assert "64 MiB" in text
    assert selftest.MOST == 64 * 1024 * 1024
