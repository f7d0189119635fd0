"""The clock of the journal: a step back is noticed, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from support.journals import all_records

from securefs.audit import Entry, Journal
from securefs.audit.clock import Clock

SECOND = 1_000_000_000  # nanoseconds
HOUR = 3600 * SECOND
START = 1_795_461_300 * SECOND


class Times:
    """The two clocks of the system, which a test sets."""

    def __init__(self, monkeypatch):
        self.wall, self.steady = START, 0
        monkeypatch.setattr("time.time_ns", lambda: self.wall)
        monkeypatch.setattr("time.monotonic_ns", lambda: self.steady)

    def pass_by(self, nanoseconds, *, step=0):
        self.steady += nanoseconds
        self.wall += nanoseconds + step


@pytest.fixture
def times(monkeypatch):
    return Times(monkeypatch)


@pytest.mark.parametrize(
    ("passed", "step", "back"),
    [
        pytest.param(0, 0, 0, id="no time at all"),
        pytest.param(SECOND, 0, 0, id="a second"),
        pytest.param(1000 * HOUR, 0, 0, id="a month"),
        pytest.param(SECOND, HOUR, 0, id="set forward"),
        pytest.param(0, -1, 1, id="back by a nanosecond"),
        pytest.param(0, -HOUR, 3_600_000, id="back by an hour"),
        pytest.param(0, -(2**70), -(-(2**70) // 10**6), id="back by very much"),
        pytest.param(2 * HOUR, -HOUR, 3_600_000, id="times still rise"),
        pytest.param(24 * HOUR, -SECOND * 60, 0, id="slower by less than a thousandth"),
        pytest.param(HOUR, -SECOND // 2, 0, id="within the tolerance"),
    ],
)
def test_a_step_back_is_noticed_and_nothing_else(times, passed, step, back):
    clock = Clock()
    assert clock.read() == (START, 0)
    times.pass_by(passed, step=step)
    assert clock.read() == (START + passed + step, back)
    assert clock.read()[1] == 0, "once"


def test_a_process_that_is_stopped_between_two_clocks_notices_nothing(monkeypatch):
    """The scheduler decides how much later the next clock is read."""
    steady = iter(range(0, 100 * HOUR, HOUR))
    monkeypatch.setattr("time.monotonic_ns", lambda: next(steady))
    monkeypatch.setattr("time.time_ns", lambda: START)
    wall = iter(range(START, START + 100 * HOUR, HOUR))
    monkeypatch.setattr("time.time_ns", lambda: next(wall))
    clock = Clock()
    assert {clock.read()[1] for _ in range(20)} == {0}


def test_it_is_a_record_before_the_next_one(times, tmp_path):
    journal = Journal(tmp_path / "j")
    journal.record(Entry("key.use"))
    times.pass_by(SECOND, step=-HOUR)
    journal.record(Entry("key.use"))
    journal.close()
    start, first, clock, second, stop = all_records(tmp_path / "j")
    assert (clock["event"], clock["sev"], clock["obj"]) == ("audit.clock", 3, {"back_ms": 3_600_000})
    assert clock["time"] == second["time"] < first["time"] == start["time"]
    assert stop["event"] == "server.stop"


def test_it_is_told_in_the_next_chain_if_it_happened_between_two(times, tmp_path):
    journal = Journal(tmp_path / "j")
    journal.record(Entry("key.use"))
    journal._abandon(journal._chain, "write_failed", None)
    times.pass_by(SECOND, step=-HOUR)
    journal.record(Entry("key.use"))
    chain = [
        record for record in all_records(tmp_path / "j") if record["chain"] == journal._chain.position.chain
    ]
    assert [record["event"] for record in chain] == ["server.start", "audit.clock", "key.use"]
    journal.close()


def test_nobody_else_may_say_so(tmp_path):
    with pytest.raises(ValueError, match=r"^audit\.clock is written by the journal itself$"):
        Journal(tmp_path / "j").record(Entry("audit.clock", obj={"back_ms": 1}))
