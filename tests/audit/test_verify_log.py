"""A log against whoever can write every file and holds every live key: support/logs.py writes it, and they change it.

Each attack of the table in docs/log.md is here, at every place where places are few.
"""

from __future__ import annotations

import copy
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.journals import open_descriptors
from support.logs import Log, b64, key_id, leaf, new_key, public, sealed, vkey
from support.look import codes, look

from securefs.audit import LogTerms, verify_journal


def rechain(lines, start):
    """Compute the links of all lines from ``start`` on anew."""
    for number in range(max(1, start), len(lines)):
        record = json.loads(lines[number]) | {"prev": leaf(lines[number - 1]).hex()}
        lines[number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


@pytest.fixture
def log(tmp_path):
    return sealed(tmp_path / "j")


def test_a_sealed_log_is_proven(log):
    report = look(log)
    assert (report.exit_code, report.findings, report.reasons) == (0, (), ())
    assert report.completeness == "proven"
    section = report.log
    assert (section.checkpoints, section.unsealed, section.state.tree.size) == (3, 0, len(log.leaves))
    assert section.state.tree.root() == section.state.tree.root()
    assert section.state.breaks == []


def test_a_log_that_ended_in_order_is_proven_ever_after(tmp_path):
    log = sealed(tmp_path / "j", stop=True)
    report = look(log, now=log.seconds + 10**9)
    assert (report.exit_code, report.log.state.closed) == (0, True)


def test_a_log_that_goes_on_under_the_same_line_of_keys_has_no_break(tmp_path):
    log = sealed(tmp_path / "j", stop=True)
    log.begin()
    log.records(log.start(), 2)
    log.seal()
    report = look(log.save())
    assert (report.exit_code, report.log.state.breaks, report.log.checkpoints) == (0, [], 4)


# The tree: each record, edited and chained anew.

RECORDS = 5 + 4 + 4  # of the three chains of a small log


def small(folder, **options):
    return sealed(folder, rounds=2, **options)


@pytest.mark.parametrize("tiles", [True, False], ids=["tiles", "no-tiles"])
def test_each_record_edited_with_everything_after_it_chained_anew(tmp_path, tiles):
    log = small(tmp_path / "j", tiles=tiles)
    honest = copy.deepcopy(log.lines)
    for chain, lines in honest.items():
        for number in range(len(lines)):
            log.lines = copy.deepcopy(honest)
            record = json.loads(lines[number]) | {"req": "forged"}
            log.lines[chain][number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
            rechain(log.lines[chain], number + 1)
            path = log.path(chain)
            path.write_bytes(b"".join(line + b"\n" for line in log.lines[chain]))
            report = look(log)
            assert report.exit_code == 1, (chain, number)
            if tiles and chain not in log.sealers:
                (finding,) = report.findings
                assert (finding.code, finding.chain, finding.seq) == ("log", chain, number)
                assert path.read_bytes()[finding.offset :].startswith(log.lines[chain][number])
            assert codes(report) == {"log"}
        log.path(chain).write_bytes(b"".join(line + b"\n" for line in lines))
    assert look(log).exit_code == 0


def test_each_chain_deleted(log):
    for chain in log.lines:
        data = log.path(chain).read_bytes()
        log.path(chain).unlink()
        report = look(log)
        assert report.exit_code == 1, chain
        assert codes(report) <= {"log", "checkpoint"}
        log.path(chain).write_bytes(data)
    assert look(log).exit_code == 0


@pytest.mark.parametrize("tiles", [True, False], ids=["tiles", "no-tiles"])
def test_each_chain_cut_at_each_line(tmp_path, tiles):
    log = small(tmp_path / "j", tiles=tiles)
    for chain, lines in log.lines.items():
        for count in range(len(lines)):
            log.path(chain).write_bytes(b"".join(line + b"\n" for line in lines[:count]))
            report = look(log)
            assert report.exit_code == 1, (chain, count)
            assert codes(report) <= {"log", "checkpoint"}
        log.path(chain).write_bytes(b"".join(line + b"\n" for line in lines))
    assert look(log).exit_code == 0


def test_a_chain_cut_is_told_with_what_was_sealed_of_it(log):
    chain = next(iter(log.lines))
    lines = log.lines[chain]
    log.path(chain).write_bytes(b"".join(line + b"\n" for line in lines[:-2]))
    (finding,) = look(log).findings
    assert (finding.code, finding.file, finding.chain) == ("log", log.path(chain).name, chain)
    assert f"record {len(lines) - 1} was sealed at" in finding.message
    assert "it ends after 8 records" in finding.message


def test_a_whole_chain_written_anew_with_old_times(log):
    chain = next(iter(log.lines))
    lines = log.lines[chain]
    del lines[3:5]
    for number, line in enumerate(lines):
        lines[number] = json.dumps(
            json.loads(line) | {"seq": number}, sort_keys=True, separators=(",", ":")
        ).encode()
    rechain(lines, 1)
    log.path(chain).write_bytes(b"".join(line + b"\n" for line in lines))
    assert look(log).exit_code == 1


def test_a_chain_added_with_old_times(log):
    """Its records are older than a minute when the sealer last sealed, and it did not see them."""
    log.now -= 3600 * 10**9
    chain = log.start()
    log.records(chain, 2)
    log.now += 3600 * 10**9
    log.path(chain).write_bytes(b"".join(line + b"\n" for line in log.lines[chain]))
    for _ in range(2):
        log.seal(only=())
        log.now += 61 * 10**9
    log.seal(only=())
    report = look(log.save())
    assert [(f.code, f.chain, f.seq) for f in report.findings] == [("unlogged", chain, 0)]


def test_records_added_to_a_chain_that_ended_long_ago(log):
    chain = next(iter(log.lines))
    log.records(chain, 2)
    log.now += 61 * 10**9
    log.seal(only=())
    report = look(log.save())
    assert [(f.code, f.chain, f.seq) for f in report.findings] == [("unlogged", chain, 10)]


def test_records_since_the_last_seal_are_no_finding_and_proven_for_a_minute(log):
    log.records(next(iter(log.lines)), 4)
    log.save()
    report = look(log)
    assert (report.exit_code, report.log.unsealed) == (0, 4)
    later = look(log, now=log.seconds + 61)
    assert later.exit_code == 3
    assert any("4 records are not sealed" in reason for reason in later.reasons)


def test_a_sealer_that_was_killed_is_told_within_a_minute(log):
    assert look(log, now=log.seconds + 58).exit_code == 0
    report = look(log, now=log.seconds + 62)
    assert report.exit_code == 3
    assert any("the sealer stopped without ending in order" in reason for reason in report.reasons)


def test_a_checkpoint_from_the_future_proves_nothing(log):
    report = look(log, now=log.seconds - 3600)
    assert report.exit_code == 3
    assert any("in the future" in reason for reason in report.reasons)


# Keys.


def test_without_a_pin_nothing_is_proven(log):
    report = verify_journal(log.folder, None, LogTerms(now=log.seconds))
    assert report.exit_code == 3
    assert any("no key is pinned" in reason for reason in report.reasons)


def test_each_checkpoints_key_may_be_pinned(log):
    for index in range(3):
        assert look(log, log.vkey(index)).exit_code == 0


def test_a_log_written_anew_under_fresh_keys_is_not_proven(log, tmp_path):
    """The first edition's host key certified such a thing."""
    forged = sealed(tmp_path / "other")
    report = look(forged, log.vkey())
    assert report.exit_code == 3
    assert any("no key that you pinned has signed anything here" in reason for reason in report.reasons)


def forge(log, index, keys):
    """Write the log anew from checkpoint ``index`` on, signing with these keys."""
    size = log.sizes[index - 1] if index else 0
    victim = next(iter(log.lines))
    del log.notes[index:], log.sizes[index:], log.keys[index:]
    # What was sealed up to there stays as it is.
    taken = {}
    for own in log.sealers:
        for line in log.lines[own]:
            seal = json.loads(line).get("seal")
            if seal is not None and seal["index"] < index:
                taken |= {chain: last + 1 for chain, _, last in seal["runs"]}
    own = log.sealers[-1]
    log.lines = {
        chain: lines if chain != own else lines[: taken.get(own, 1)] for chain, lines in log.lines.items()
    }
    log.taken, log.leaves, log.index = taken, log.leaves[:size], index
    number = taken.get(victim, 1)
    if number < len(log.lines[victim]):
        record = json.loads(log.lines[victim][number]) | {"req": "forged"}
        log.lines[victim][number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        rechain(log.lines[victim], number + 1)
    for key in keys:
        log.key = key
        log.seal()
    return log.save()


@pytest.mark.parametrize("index", range(3))
def test_a_log_signed_anew_with_the_live_key(log, index):
    """Whoever takes the machine has the key of the next checkpoint, and no older one."""
    first, live = log.vkey(), log.key
    forge(log, index, [live, new_key()])
    report = look(log, first)
    assert report.exit_code in {1, 3}
    assert report.findings or report.log.state.breaks or not index
    if not report.findings:
        assert any("you pinned" in reason for reason in report.reasons)


@pytest.mark.parametrize("index", range(3))
def test_a_log_signed_anew_with_the_live_key_in_the_announced_keys_name(log, index):
    """The seal names the key that the one before it announced: then the signature is wrong."""
    first, announced, live = log.vkey(), log.keys[index], log.key
    forge(log, index, [announced])
    text = log.text(log.sizes[-1])
    log.notes[-1] = (
        f"{text}\n— {log.origin} {b64(key_id(log.origin, announced) + live.sign(text.encode()))}\n"
    )
    report = look(log.save(), first)
    assert report.exit_code == 1
    assert "signature" in codes(report)


@pytest.mark.parametrize("index", range(1, 3))
def test_a_log_signed_anew_with_the_stable_key(tmp_path, index):
    """The stable key vouches for what it signs: with it alone the break is shown, and a pin of the first key is not met."""
    stable = new_key()
    log = sealed(tmp_path / "j", stable=stable)
    first = log.vkey()
    forge(log, index, [new_key()])
    report = look(log, first)
    assert report.exit_code == 3
    assert [one.index for one in report.log.state.breaks] == [index]
    assert report.log.vouched == ()
    # Whoever holds the stable key can do that: docs/log.md says so.
    with_stable = look(log, first, vkey(log.origin, stable))
    assert with_stable.log.vouched == (index,)


def test_a_break_is_shown_with_its_times_and_vouched_for_by_a_later_pin(tmp_path):
    log = sealed(tmp_path / "j")
    log.now += 600 * 10**9
    log.begin(why="crash")
    log.records(log.start(), 2)
    log.seal()
    log.seal()
    log.save()
    report = look(log)
    assert report.exit_code == 3
    (one,) = report.log.state.breaks
    assert (one.index, one.size) == (3, log.sizes[2])
    assert one.before < one.after
    assert one.vkey == log.vkey(3)
    assert any(one.vkey in reason for reason in report.reasons)
    assert any("break: between" in line and "nothing that you pinned" in line for line in report.lines())
    for index in (3, 4):
        report = look(log, log.vkey(0), log.vkey(index))
        assert (report.exit_code, report.log.vouched) == (0, (3,))
    assert any("a pinned key vouches for it" in line for line in report.lines())
    # A break before the pinned key's checkpoint is covered by its root.
    assert look(log, log.vkey(4)).exit_code == 0


def test_a_break_vouched_for_by_the_stable_key(tmp_path):
    stable = new_key()
    log = sealed(tmp_path / "j", stable=stable)
    log.begin(why="crash")
    log.seal()
    report = look(log.save(), vkey(log.origin, stable))
    assert (report.exit_code, report.log.vouched) == (0, (3,))


@pytest.mark.parametrize("index", range(3))
def test_a_signature_by_the_stable_key_that_is_wrong(tmp_path, index):
    stable = new_key()
    log = sealed(tmp_path / "j", stable=stable)
    log.notes[index] = log.notes[index].replace(
        log.notes[index].rsplit(" ", 1)[1], log.notes[(index + 1) % 3].rsplit(" ", 1)[1]
    )
    log.save()
    assert look(log).exit_code == 0, "it was not pinned"
    assert codes(look(log, vkey(log.origin, stable))) == {"signature"}


# Checkpoints.


def test_each_checkpoint_removed(log):
    for index in range(3):
        notes = list(log.notes)
        del log.notes[index]
        report = look(log.save(), now=log.seconds)
        if index == 2:
            # The last one may be lost in a crash; what it sealed is not sealed then.
            assert (report.exit_code, report.log.unsigned) == (0, 1)
            assert look(log, now=log.seconds + 61).exit_code == 3
        else:
            assert codes(report) == {"checkpoint"}
        log.notes = notes


def test_two_checkpoints_removed_at_the_end_are_no_crash(log):
    del log.notes[1:]
    assert codes(look(log.save())) == {"checkpoint"}


@pytest.mark.parametrize("index", [0, 1])
def test_a_checkpoint_without_a_seal(log, index):
    log.notes.insert(index + 1, log.notes[index])
    assert codes(look(log.save())) == {"checkpoint"}


def test_checkpoints_in_another_order(log):
    log.notes[0], log.notes[1] = log.notes[1], log.notes[0]
    assert codes(look(log.save())) == {"checkpoint"}


def test_a_checkpoint_of_another_log(log, tmp_path):
    other = sealed(tmp_path / "other", origin="files-2/securefs-ffffffff")
    log.notes[1] = other.notes[1]
    assert "checkpoint" in codes(look(log.save()))


def test_every_byte_of_the_checkpoints_changed(tmp_path):
    """A finding; or the last checkpoint does not count, as after a crash, and what it sealed is not sealed."""
    log = small(tmp_path / "j")
    path, chance = log.log / "checkpoints", random.Random(1)
    data = path.read_bytes()
    last = len(data) - len(log.notes[-1].encode()) - 1
    for position in range(len(data)):
        value = chance.choice([data[position] ^ 1, data[position] ^ 0x20, 10 if data[position] != 10 else 32])
        path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
        report = look(log)
        assert report.exit_code == 1 or (position >= last and report.log.unsigned == 1), (position, value)
    path.write_bytes(data)
    assert look(log).exit_code == 0


def test_the_checkpoints_cut_at_every_byte(tmp_path):
    log = small(tmp_path / "j")
    path = log.log / "checkpoints"
    data = path.read_bytes()
    last = len(data) - len(log.notes[-1].encode()) - 1
    for size in range(len(data)):
        path.write_bytes(data[:size])
        report = look(log)
        if size < last:
            assert codes(report) == {"checkpoint"}, size
        else:
            # A crash while the last one is written leaves this.
            assert (report.exit_code, report.log.unsigned) == (0, 1), size


# Seal records: the attacker chains the sealer's own chain anew.

SEAL_CHANGES = {
    "index": lambda seal: seal | {"index": seal["index"] + 1},
    "size": lambda seal: seal | {"size": seal["size"] + 1},
    "size-smaller": lambda seal: seal | {"size": seal["size"] - 1},
    "key": lambda seal: seal | {"key": public(new_key()).hex()},
    "next": lambda seal: seal | {"next": public(new_key()).hex()},
    "runs-shorter": lambda seal: (
        seal | {"runs": [[seal["runs"][0][0], seal["runs"][0][1], seal["runs"][0][2] - 1], *seal["runs"][1:]]}
    ),
    "runs-longer": lambda seal: (
        seal | {"runs": [[seal["runs"][0][0], seal["runs"][0][1], seal["runs"][0][2] + 1], *seal["runs"][1:]]}
    ),
    "runs-later": lambda seal: (
        seal
        | {"runs": [[seal["runs"][0][0], seal["runs"][0][1] + 1, seal["runs"][0][2] + 1], *seal["runs"][1:]]}
    ),
    "runs-swapped": lambda seal: seal | {"runs": [seal["runs"][1], seal["runs"][0], *seal["runs"][2:]]},
    "runs-dropped": lambda seal: seal | {"runs": seal["runs"][1:]},
    "runs-of-itself-last": lambda seal: seal | {"runs": seal["runs"][::-1]},
    "runs-far": lambda seal: seal | {"runs": [[seal["runs"][0][0], 0, 2**53 - 1], *seal["runs"][1:]]},
    "runs-of-no-chain": lambda seal: seal | {"runs": [["f" * 32, 0, 3], *seal["runs"]]},
}


@pytest.mark.parametrize("change", SEAL_CHANGES)
@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("tiles", [True, False], ids=["tiles", "no-tiles"])
def test_a_seal_record_changed_and_chained_anew(tmp_path, change, index, tiles):
    log = sealed(tmp_path / "j", tiles=tiles)
    own = log.sealers[0]
    lines = log.lines[own]
    for number, line in enumerate(lines):
        record = json.loads(line)
        if record.get("seal", {}).get("index") == index:
            record["seal"] = SEAL_CHANGES[change](record["seal"])
            lines[number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
            rechain(lines, number + 1)
            break
    report = look(log.save())
    assert report.exit_code == 1
    assert report.finding_count < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda seal: seal | {"index": seal["index"] + 1},
            "this is seal number 4; number 3 should stand here",
            id="a-gap-in-the-numbers",
        ),
        pytest.param(
            lambda seal: seal | {"runs": seal["runs"][::-1]}, "end with its own record", id="not-itself-last"
        ),
        pytest.param(
            lambda seal: seal | {"size": seal["size"] + 1},
            "names a size of 28, and its runs add up to 27",
            id="another-size",
        ),
        pytest.param(
            lambda seal: (
                seal
                | {
                    "runs": [[seal["runs"][0][0], 0, seal["runs"][0][2]], *seal["runs"][1:]],
                    "size": seal["size"] + 10,
                }
            ),
            "from record 0, and 10 is the next",
            id="records-twice",
        ),
    ],
)
def test_a_sealer_that_lies(log, change, message):
    """It has its keys, and signs the root that comes of what it says: each rule is looked at by itself."""
    first, second = list(log.lines)[:2]
    log.records(first, 3)
    log.records(second, 2)
    log.seal(change=change)
    report = look(log.save())
    assert any(message in finding.message for finding in report.findings), report.findings
    assert codes(report) == {"log"}


def test_a_seal_record_removed(log):
    own = log.sealers[0]
    del log.lines[own][2]
    for number, line in enumerate(log.lines[own]):
        log.lines[own][number] = json.dumps(
            json.loads(line) | {"seq": number}, sort_keys=True, separators=(",", ":")
        ).encode()
    rechain(log.lines[own], 1)
    assert look(log.save()).exit_code == 1


def test_a_seal_record_that_is_no_record(log):
    path = log.path(log.sealers[0])
    path.write_bytes(path.read_bytes().replace(b'"index":1', b'"index":x'))
    assert {"not_json", "log"} <= codes(look(log))


# Crashes.


def test_a_crash_before_a_signature_and_a_new_epoch(tmp_path):
    log = sealed(tmp_path / "j")
    log.records(next(iter(log.lines)), 2)
    log.seal(sign=False)
    report = look(log.save())
    assert (report.exit_code, report.log.unsigned, report.log.unsealed) == (0, 1, 3)
    log.begin(why="crash")
    log.seal()
    report = look(log.save(), log.vkey(3))
    assert (report.exit_code, report.log.unsigned, report.log.unsealed) == (0, 0, 0)
    assert [one.size for one in report.log.state.breaks] == [log.sizes[2]]


def test_crash_after_crash_before_every_signature(tmp_path):
    log = sealed(tmp_path / "j")
    for _ in range(3):
        log.begin(why="crash")
        log.seal(sign=False)
    report = look(log.save())
    assert (report.exit_code, report.findings) == (0, ())
    assert report.log.unsigned == 3
    log.begin(why="crash")
    log.seal()
    assert look(log.save(), log.vkey(3)).exit_code == 0


def test_a_missing_checkpoint_in_the_middle_is_no_crash(tmp_path):
    log = sealed(tmp_path / "j")
    log.seal(sign=False)
    log.seal()
    assert codes(look(log.save())) == {"checkpoint"}


def test_a_sealer_that_died_before_its_first_seal(tmp_path):
    log = sealed(tmp_path / "j")
    log.begin(why="crash")
    log.begin(why="crash")
    log.seal()
    assert look(log.save(), log.vkey(3)).exit_code == 0


@pytest.mark.parametrize("whole", [True, False], ids=["some-records", "none"])
def test_a_torn_chain_that_the_sealer_adopted_is_explained(tmp_path, whole):
    log = sealed(tmp_path / "j")
    chain = log.start()
    log.records(chain, 2)
    log.torn[chain] = b'{"half'
    if not whole:
        log.lines[chain].clear()
    else:
        log.seal()
    report = look(log.save())
    assert (report.exit_code, len(report.torn)) == (4, 1)
    assert any("TORN (exit code 4)" in line for line in report.lines())
    log.adopt(chain)
    log.seal()
    report = look(log.save())
    assert (report.exit_code, report.torn, report.explained) == (0, (), {chain})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda log, chain: log.records(chain, 1), id="grew"),
        pytest.param(lambda log, chain: log.torn.update({chain: b""}), id="torn-bytes-removed"),
        pytest.param(lambda log, chain: log.torn.update({chain: b"123456789"}), id="more-torn-bytes"),
        pytest.param(lambda log, chain: log.lines[chain].pop(), id="cut"),
    ],
)
def test_a_chain_that_changed_after_it_was_adopted(tmp_path, change):
    log = sealed(tmp_path / "j")
    chain = log.start()
    log.torn[chain] = b'{"half'
    log.adopt(chain)
    log.seal()
    change(log, chain)
    report = look(log.save())
    assert report.exit_code == 1
    assert {finding.chain for finding in report.findings} == {chain}
    assert codes(report) == {"log"}


def test_an_adopted_chain_that_is_removed(tmp_path):
    log = sealed(tmp_path / "j")
    chain = log.start()
    log.adopt(chain)
    log.seal()
    log.save()
    log.path(chain).unlink()
    (finding,) = look(log).findings
    assert "its file is missing" in finding.message


# Chains of before the log.


def cut_over(folder):
    log = Log(folder)
    old, growing = log.start(), log.start()
    log.records(old, 3)
    log.stop(old)
    log.records(growing, 2)
    log.begin()
    log.cut_over(old)
    log.cut_over(growing)
    log.records(growing, 2)
    log.seal()
    return log.save(), old, growing


def test_chains_of_before_the_log_go_on_in_it(tmp_path):
    log, _, _ = cut_over(tmp_path / "j")
    report = look(log)
    assert (report.exit_code, report.log.unsealed) == (0, 0)
    assert any("older than the log: 8 records, sealed as they were" in line for line in report.lines())
    assert report.to_json()["log"]["older"] == 8


def test_each_record_of_before_the_log_changed(tmp_path):
    log, old, growing = cut_over(tmp_path / "j")
    for chain in (old, growing):
        lines = list(log.lines[chain])
        for number in range(len(lines)):
            log.lines[chain] = list(lines)
            record = json.loads(lines[number]) | {"req": "forged"}
            log.lines[chain][number] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
            rechain(log.lines[chain], number + 1)
            assert codes(look(log.save())) == {"log"}, (chain, number)
        log.lines[chain] = lines


def test_a_chain_of_before_the_log_removed(tmp_path):
    log, old, _ = cut_over(tmp_path / "j")
    log.path(old).unlink()
    assert codes(look(log)) == {"log"}


def test_a_cutover_after_the_first_seal_takes_nothing_out_of_the_log(tmp_path):
    log = sealed(tmp_path / "j")
    chain = log.start()
    log.records(chain, 2)
    log.cut_over(chain)
    log.seal()
    log.now += 120 * 10**9
    log.seal()
    assert codes(look(log.save())) == {"unlogged"}


# Everything at once.


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_histories_are_proven_and_any_changed_byte_is_found(tmp_path_factory, data):
    """Workers come and go, crash and are adopted, sealers crash or end in order: nothing is found. One changed byte is."""
    log = Log(tmp_path_factory.mktemp("j") / "j", tiles=data.draw(st.booleans()))
    live = [log.start()]
    log.begin()
    log.seal()
    for _ in range(data.draw(st.integers(1, 12))):
        step = data.draw(
            st.sampled_from(["write", "start", "stop", "die", "seal", "unsigned", "crash", "clean"])
        )
        if step == "write" and live:
            log.records(data.draw(st.sampled_from(live)), data.draw(st.integers(1, 5)))
        elif step == "start":
            live.append(log.start())
        elif step == "stop" and live:
            log.stop(live.pop())
        elif step == "die" and live:
            chain = live.pop()
            log.torn[chain] = data.draw(st.sampled_from([b"", b'{"v":', b"x" * 300]))
            log.adopt(chain)
        elif step == "seal":
            log.seal()
        elif step == "unsigned":
            log.seal(sign=False)
            log.begin(why="crash")
        elif step == "crash":
            log.begin(why="crash")
        elif step == "clean":
            log.seal(stop=True)
            log.begin()
    log.seal()
    log.save()
    report = look(log, log.vkey(len(log.keys) - 1))
    assert (report.exit_code, report.findings, report.reasons, report.log.unsealed) == (0, (), (), 0)
    path = data.draw(
        st.sampled_from([log.path(chain) for chain in log.lines if log.path(chain).stat().st_size])
    )
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    chain = path.name[:32]
    whole = sum(len(line) + 1 for line in log.lines[chain])
    path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
    changed = look(log, log.vkey(len(log.keys) - 1))
    # Torn bytes are no record; but a line end among them makes them one.
    assert changed.exit_code == (1 if position < whole or value == 10 else 0)


def test_many_chains_need_few_descriptors_and_are_read_in_step(tmp_path):
    log = Log(tmp_path / "j")
    chains = [log.start() for _ in range(150)]
    log.begin()
    chance = random.Random(7)
    for _ in range(3):
        for chain in chance.sample(chains, 100):
            log.records(chain, 1)
        log.seal()
    log.save()
    before = open_descriptors()
    assert look(log).exit_code == 0
    assert open_descriptors() == before
