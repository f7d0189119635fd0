"""What is verified once need not be read again, and a log that changed since then is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logs import Log, sealed
from support.look import codes, look

from securefs.audit.tree import CompactRange
from securefs.audit.verify_state import Adopted, Break, LogState, Place, read_state, write_state
from securefs.errors import ConfigurationError

hashes = st.text("0123456789abcdef", min_size=64, max_size=64) | st.just("")
chains = st.text("0123456789abcdef", min_size=32, max_size=32)
counts = st.integers(0, 2**40)
texts = st.text(max_size=9)
states = st.builds(
    LogState,
    origin=texts,
    tree=st.lists(st.binary(min_size=32, max_size=32), max_size=9).map(
        lambda peaks: CompactRange((1 << len(peaks)) - 1, peaks)
    ),
    places=st.dictionaries(chains, st.builds(Place, counts, counts, hashes, hashes), max_size=3),
    index=counts,
    key=hashes,
    read=counts,
    first=texts,
    last=texts,
    begun=texts,
    sealer=texts,
    closed=st.booleans(),
    older=counts,
    ended=st.lists(chains, max_size=3),
    adopted=st.dictionaries(chains, st.builds(Adopted, counts, hashes, counts), max_size=3),
    breaks=st.lists(st.builds(Break, counts, counts, texts, texts, texts), max_size=2),
    keys=st.dictionaries(texts, counts, max_size=2),
)


@given(state=states)
def test_every_state_is_read_as_it_was_written(state):
    data = write_state(state)
    assert write_state(read_state(data)) == data


@given(data=st.binary(max_size=50))
def test_other_bytes_are_no_state(data):
    with pytest.raises(ConfigurationError, match="--since"):
        read_state(data)


EMPTY = json.loads(write_state(LogState()))
JUNK = [None, True, -1, 1.5, "x", [], {}, ["x"], {"x": 1}, [1], {"a" * 32: 1}, "0" * 65]
FINE = {
    *((name, repr("x")) for name in ("origin", "first", "last", "begun", "sealer")),
    *((name, repr("0" * 65)) for name in ("origin", "first", "last", "begun", "sealer")),
    ("closed", repr(True)),
    ("keys", repr({"x": 1})),
    ("keys", repr({"a" * 32: 1})),
    *((name, repr(value)) for name, value in EMPTY.items()),
}


@pytest.mark.parametrize("name", sorted(EMPTY))
def test_a_member_of_another_type_is_no_state(name):
    for value in JUNK:
        if (name, repr(value)) in FINE:
            continue
        changed = json.dumps(EMPTY | {name: value}, indent=1, sort_keys=True).encode() + b"\n"
        with pytest.raises(ConfigurationError, match="--since"):
            read_state(changed)


@pytest.mark.parametrize("drop", sorted(json.loads(write_state(LogState()))))
def test_a_state_without_a_member_is_none(drop):
    data = json.loads(write_state(LogState()))
    del data[drop]
    with pytest.raises(ConfigurationError, match="--since"):
        read_state(json.dumps(data, indent=1, sort_keys=True).encode() + b"\n")


# Going on from a state.


def kept(report):
    return read_state(write_state(report.log.state))


def history(folder):
    log = Log(folder)
    log.first, log.second = log.start(), log.start()
    log.begin()
    log.records(log.first, 4)
    log.records(log.second, 2)
    log.stop(log.second)
    log.seal()
    log.seal()
    return log.save()


def test_only_what_was_added_is_read(tmp_path):
    log = history(tmp_path / "j")
    state = kept(look(log))
    log.records(log.first, 3)
    log.records(log.start(), 2)
    log.seal()
    report = look(log.save(), state=state)
    assert (report.exit_code, report.findings) == (0, ())
    assert (report.log.since, report.log.checkpoints) == (log.sizes[1], 1)
    assert report.records == sum(map(len, log.lines.values()))
    assert report.log.state.tree.size == len(log.leaves)
    assert "were verified before and were not read again" in "\n".join(report.lines())
    whole = look(log)
    assert write_state(whole.log.state) == write_state(report.log.state)


def test_nothing_was_added(tmp_path):
    log = history(tmp_path / "j")
    state = kept(look(log))
    report = look(log, state=state)
    assert (report.exit_code, report.log.checkpoints) == (0, 0)


def test_what_was_not_sealed_then_is_verified_now(tmp_path):
    log = history(tmp_path / "j")
    log.records(log.first, 3)
    state = kept(look(log.save()))
    lines = log.lines[log.first]
    lines[-2] = lines[-2].replace(b'"size":1', b'"size":7')
    assert codes(look(log.save(), state=state)) == {"link"}


def test_the_keys_that_vouched_are_remembered(tmp_path):
    log = history(tmp_path / "j")
    without = kept(look(log, log.vkey(1)))
    log.seal()
    log.save()
    assert look(log, log.vkey(1), state=without).exit_code == 0
    # The first key was not asked for then, and its checkpoint is not read again.
    assert look(log, log.vkey(0), state=kept(look(log, log.vkey(1)))).exit_code == 3


def test_a_break_is_remembered(tmp_path):
    log = history(tmp_path / "j")
    log.begin(why="crash")
    log.seal()
    state = kept(look(log.save()))
    log.seal()
    report = look(log.save(), state=state)
    assert (report.exit_code, len(report.log.state.breaks)) == (3, 1)


@pytest.mark.parametrize("sealer", [False, True], ids=["writer", "sealer"])
@pytest.mark.parametrize("how", ["unlink", "cut", "empty"])
def test_a_chain_that_was_verified_and_is_cut_or_removed_now(tmp_path, sealer, how):
    log = history(tmp_path / "j")
    state = kept(look(log))
    path = log.path(log.sealers[0] if sealer else log.first)
    if how == "unlink":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30] if how == "cut" else b"")
    report = look(log, state=state)
    assert report.exit_code == 1
    assert codes(report) <= {"log"}


def test_a_log_that_was_cut_to_an_older_state_of_itself(tmp_path):
    """Nobody can tell from the files alone; a state kept elsewhere can."""
    log = history(tmp_path / "j")
    young = {path: path.read_bytes() for path in (*log.folder.glob("*.jsonl"), *log.log.glob("*.jsonl"))}
    young[log.log / "checkpoints"] = (log.log / "checkpoints").read_bytes()
    log.records(log.first, 3)
    log.seal()
    state = kept(look(log.save()))
    for path, data in young.items():
        path.write_bytes(data)
    assert look(log).exit_code == 0
    assert look(log, state=state).exit_code == 1


def test_a_log_that_was_deleted_since(tmp_path):
    log = history(tmp_path / "j")
    state = kept(look(log))
    log.log.rename(tmp_path / "away")
    assert look(log).exit_code == 3
    report = look(log, state=state)
    assert (report.exit_code, report.findings[0].message) == (
        1,
        "the log that was verified before is not here",
    )


def test_a_log_that_was_written_anew_since(tmp_path):
    log = history(tmp_path / "j")
    state = kept(look(log))
    other = history(tmp_path / "other")
    other.records(other.first, 5)
    other.seal()
    assert look(other.save(), state=state).exit_code == 1


def test_a_record_after_an_orderly_end_that_was_verified(tmp_path):
    log = history(tmp_path / "j")
    state = kept(look(log))
    log.records(log.second, 1)
    assert codes(look(log.save(), state=state)) == {"stop"}


def test_a_log_closed_then_is_closed_now(tmp_path):
    log = sealed(tmp_path / "j", stop=True)
    state = kept(look(log))
    assert look(log, state=state, now=log.seconds + 10**6).exit_code == 0
