"""Where a log is, from its seal records alone."""

import time

import pytest
from support.chains import SOURCE

from securefs.audit.log_folder import Disk, LogDamagedError
from securefs.audit.log_state import LogState, Taken, complete_stop, read_seals, read_state
from securefs.audit.record import NO_LINE, Entry, Position, build_line, line_hash, parse_line
from securefs.audit.seal import Run, Seal
from securefs.audit.tree import leaf_hash

A, B, W, V = ("a" * 32, "b" * 32, "1" * 32, "2" * 32)
KEY, NEXT = "0" * 64, "f" * 64


class Writer:
    def __init__(self, folder, chain):
        self.path = folder / f"{chain}-0.jsonl"
        self.chain, self.seq, self.prev = chain, 0, NO_LINE
        self.write("server.start")

    def write(self, event, obj=None, seal=None, end=b"\n"):
        line = build_line(
            Position(self.chain, self.seq, self.prev), SOURCE, 0, Entry(event, obj=obj or {}, seal=seal)
        )
        with self.path.open("ab") as file:
            file.write(line[:-1] + end)
        self.seq, self.prev = self.seq + 1, line_hash(line[:-1])
        return leaf_hash(line[:-1])

    def seal(self, index, size, *runs, **more):
        return self.write("audit.seal", seal=Seal(index, KEY, NEXT, tuple(runs), size).member(), **more)


def test_a_log_without_a_record(tmp_path):
    assert read_state(tmp_path) == LogState()
    Writer(tmp_path, A)
    assert read_state(tmp_path) == LogState()


def test_seals_of_several_sealers_in_their_order(tmp_path):
    """Chains are found in another order than they were written in."""
    first, second = Writer(tmp_path, B), Writer(tmp_path, A)
    first.seal(0, 7, Run(W, 0, 4), Run(B, 0, 1))
    first.seal(1, 8, Run(B, 2, 2))
    last = second.seal(2, 13, Run(W, 5, 7), Run(A, 0, 1))
    state = read_state(tmp_path)
    assert (state.index, state.size, state.next_key, state.chain) == (3, 13, NEXT, A)
    assert state.tail == [last]
    assert not state.cut_short
    assert state.taken == {W: Taken(8, 10), B: Taken(3, 7), A: Taken(2, 12)}
    assert [seal.index for seal in read_seals(tmp_path)] == [0, 1, 2]


def test_what_a_sealer_said_counts_once_it_was_sealed(tmp_path):
    """It may have died before: then the next one says it again."""
    dead, sealer = Writer(tmp_path, B), Writer(tmp_path, A)
    dead.write("audit.cutover", {"chain": V, "upto": 1, "hash": "e" * 64})
    dead.write("audit.adopted", {"chain": V, "size": 0})
    sealer.write("audit.cutover", {"chain": W, "upto": 3, "hash": "c" * 64})
    sealer.write("audit.adopted", {"chain": W, "size": 0})
    sealer.seal(0, 6, Run(W, 4, 5), Run(A, 0, 3))
    sealer.write("audit.adopted", {"chain": V, "size": 0})
    sealer.write("audit.epoch", {"why": "no_key"})
    state = read_state(tmp_path)
    assert state.adopted == {W}
    assert state.taken == {W: Taken(6, 1, bytes.fromhex("c" * 64)), A: Taken(4, 5)}


def test_a_cutover_after_the_first_seal_takes_nothing_out_of_the_log(tmp_path):
    sealer = Writer(tmp_path, A)
    sealer.seal(0, 2, Run(A, 0, 1))
    sealer.write("audit.cutover", {"chain": W, "upto": 3, "hash": "c" * 64})
    sealer.seal(1, 4, Run(A, 2, 3))
    assert W not in read_state(tmp_path).taken


@pytest.mark.parametrize("torn", [b"", b'{"chain', "line"])
def test_a_stop_that_the_last_seal_took_is_completed(tmp_path, torn):
    sealer = Writer(tmp_path, A)
    seal = sealer.seal(0, 3, Run(A, 0, 2))
    if torn == "line":
        sealer.write("server.stop")
        assert not read_state(tmp_path).cut_short
        return
    with sealer.path.open("ab") as file:
        file.write(torn)
    state = read_state(tmp_path)
    assert (state.cut_short, state.size, state.tail) == (True, 3, [seal])
    complete_stop(state, tmp_path, Disk(), SOURCE, time.time_ns())
    state = read_state(tmp_path)
    line = sealer.path.read_bytes().split(b"\n")[-2]
    assert (state.cut_short, state.tail) == (False, [seal, leaf_hash(line)])
    record = parse_line(line)
    assert (record["event"], record["seq"], record["prev"]) == ("server.stop", 2, seal.hex())


def test_a_stop_of_a_sealer_that_sealed_nothing(tmp_path):
    Writer(tmp_path, A).seal(0, 2, Run(A, 0, 1))
    Writer(tmp_path, B).write("server.stop")
    assert read_state(tmp_path).chain == A


@pytest.mark.parametrize(
    ("seals", "words"),
    [
        ([(1, 2, Run(A, 0, 1))], "seal 0 is missing, and seal 1 is there"),
        ([(0, 2, Run(A, 0, 1)), (0, 3, Run(A, 2, 2))], "seal 1 is missing, and seal 0 is there"),
        ([(0, 3, Run(A, 0, 1))], "counts 3 leaves, its runs 2"),
        ([(0, 2, Run(A, 1, 2))], f"takes record 1 of chain {A} next"),
    ],
)
def test_seals_that_do_not_follow_are_refused(tmp_path, seals, words):
    sealer = Writer(tmp_path, A)
    for index, size, *runs in seals:
        sealer.seal(index, size, *runs)
    with pytest.raises(LogDamagedError, match=words):
        read_state(tmp_path)


def test_a_record_that_is_none_is_refused(tmp_path):
    Writer(tmp_path, A).seal(0, 2, Run(A, 0, 1), end=b" \n")
    with pytest.raises(LogDamagedError, match="a record of the sealer is none"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("event", "obj"),
    [
        ("audit.adopted", {}),
        ("audit.adopted", {"upto": 1}),
        ("audit.cutover", {"chain": W, "upto": 1}),
        ("audit.cutover", {"chain": W, "hash": "c" * 64}),
        ("audit.cutover", {"chain": W, "upto": 1, "hash": "c" * 63}),
    ],
)
def test_a_record_that_leaves_out_what_it_should_say_is_refused(tmp_path, event, obj):
    Writer(tmp_path, A).write(event, obj)
    with pytest.raises(LogDamagedError, match="record 1 does not say what it should"):
        read_state(tmp_path)
