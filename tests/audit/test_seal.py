"""The seal record: one spelling, and nothing else in it."""

import pytest
from support.chains import CHAIN, SOURCE

from securefs.audit.fields import MAX_RUNS
from securefs.audit.record import Entry, Position, RecordError, build_line, parse_line
from securefs.audit.seal import Run, Seal, read_seal

KEY, NEXT = "a" * 64, "b" * 64
SEAL = Seal(3, KEY, NEXT, (Run("1" * 32, 0, 4), Run(CHAIN, 7, 7)), 20)


def line_of(seal, event="audit.seal"):
    return build_line(Position(CHAIN, 7), SOURCE, 0, Entry(event, seal=seal))[:-1]


def test_what_is_written_is_read():
    assert read_seal(parse_line(line_of(SEAL.member()))) == SEAL
    assert [len(run) for run in SEAL.runs] == [5, 1]
    assert read_seal({"event": "server.start"}) is None


def test_the_longest_one_is_a_record():
    run = Run("f" * 32, 2**52, 2**53 - 1)
    seal = Seal(2**53 - 1, KEY, NEXT, (run,) * MAX_RUNS, 2**53 - 1)
    line = line_of(seal.member())
    assert len(line) < 65_535
    assert read_seal(parse_line(line)) == seal


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": True},
        {"size": 2**53},
        {"key": "A" * 64},
        {"next": 1},
        {"runs": []},
        {"runs": {}},
        {"runs": [[CHAIN, 0, 0]] * (MAX_RUNS + 1)},
        {"runs": [[CHAIN, 1, 0]]},
        {"runs": [[CHAIN, 0]]},
        {"runs": [CHAIN]},
        {"runs": [["x", 0, 0]]},
        {"runs": [[CHAIN, "0", 0]]},
        {"runs": [[CHAIN, 0, 1.5]]},
        {"more": 1},
    ],
    ids=str,
)
def test_anything_else_is_no_record(change):
    with pytest.raises((RecordError, ValueError)):
        parse_line(line_of(SEAL.member() | change))


@pytest.mark.parametrize(("event", "seal"), [("server.stop", SEAL.member()), ("audit.seal", None)])
def test_each_seal_record_has_a_seal_and_no_other_record_has(event, seal):
    with pytest.raises((RecordError, ValueError)):
        parse_line(line_of(seal, event))
