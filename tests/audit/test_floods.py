"""Floods: what anyone can cause fills neither the disk nor the memory, and nothing of it is left uncounted."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journals import all_records

from securefs.audit import Entry, Journal
from securefs.audit.events import EVENTS
from securefs.audit.floods import MAX_ADDRESSES, SINGLE, Floods
from securefs.audit.journal import RESERVE
from securefs.errors import JournalError, Reason

MINUTE = 60_000_000_000  # nanoseconds
DENIED = Entry(
    "auth.denied", "failure", address="192.0.2.7", http={"method": "GET", "path": "/x", "status": 401}
)


class Status(NamedTuple):
    """What statvfs() says."""

    f_bavail: int
    f_frsize: int


def rejected(reason, **fields):
    return Entry("file.rejected", "failure", reason, **fields)


def admitted(floods, entries, now=0, *, room=True):
    return sum(floods.admits(entry, now, room=room) for entry in entries)


def sums(floods):
    return {
        (total.address, total.actor, total.event, total.reason): total.obj["count"] for total in floods.sums()
    }


@pytest.mark.parametrize("number", [1, 10, 11, 1000])
def test_the_first_ten_are_recorded_and_the_others_counted(number):
    floods = Floods()
    assert admitted(floods, [DENIED] * number) == min(number, SINGLE)
    assert floods.pending is (number > SINGLE)
    expected = {("192.0.2.7", None, "auth.denied", None): number - SINGLE} if number > SINGLE else {}
    assert sums(floods) == expected
    assert not floods.pending
    assert sums(floods) == {}, "once"


def test_denials_and_rejected_requests_count_together_and_are_told_apart():
    floods = Floods()
    entries = [
        DENIED,
        rejected(Reason.LIMIT, address="192.0.2.7"),
        rejected(Reason.TIMEOUT, address="192.0.2.7"),
    ]
    assert admitted(floods, entries * 10) == SINGLE
    assert sum(sums(floods).values()) == 20
    assert admitted(floods, entries) == 0
    assert len(sums(floods)) == 3


def test_an_attack_stays_an_alarm_in_the_sum():
    floods = Floods()
    admitted(floods, [rejected(Reason.CIPHERTEXT_INJECTION)] * 11)
    (total,) = floods.sums()
    assert (total.severity, total.obj["count"]) == (4, 1)


def test_an_address_does_not_use_up_what_another_one_has():
    floods = Floods()
    for number in range(50):
        entry = Entry("auth.denied", "failure", address=f"192.0.2.{number}")
        assert admitted(floods, [entry] * 20) == SINGLE
    assert len(sums(floods)) == 50


def test_nor_does_a_stranger_what_a_user_behind_the_same_address_has():
    floods = Floods()
    users = rejected(Reason.LIMIT, address="192.0.2.7", actor="alice")
    assert admitted(floods, [DENIED] * 20) == SINGLE
    assert admitted(floods, [users] * 20) == SINGLE
    assert sums(floods)["192.0.2.7", "alice", "file.rejected", Reason.LIMIT] == 10


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("2001:db8::1", "2001:db8::ffff:2", True, id="a network of IPv6"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two networks"),
        pytest.param("192.0.2.1", "192.0.2.2", False, id="IPv4"),
        pytest.param("::ffff:192.0.2.1", "::ffff:192.0.2.2", False, id="IPv4 in IPv6"),
        pytest.param("a name", "another", False, id="no address"),
        pytest.param(None, "", False, id="none"),
    ],
)
def test_an_address_of_ipv6_stands_for_its_network(one, other, same):
    floods = Floods()
    for address in (one, other):
        admitted(floods, [Entry("auth.denied", "failure", address=address)] * 11)
    told = sums(floods)
    assert len(told) == (1 if same else 2)
    if same:
        assert told == {("2001:db8::/64", None, "auth.denied", None): 12}


def test_a_minute_later_they_are_recorded_again():
    floods = Floods()
    assert admitted(floods, [DENIED] * 20, MINUTE - 1) == SINGLE
    assert not floods.is_due(MINUTE - 1)
    assert floods.is_due(MINUTE)
    assert admitted(floods, [DENIED] * 20, MINUTE) == SINGLE
    (total,) = floods.sums()
    assert total.obj == {"count": 20, "since": "1970-01-01T00:00:59.999999999Z"}, "none is lost on the way"


def test_memory_is_bounded_and_still_everything_is_counted():
    floods = Floods()
    entries = [Entry("auth.denied", "failure", address=f"10.{n >> 8 & 255}.{n & 255}.1") for n in range(5000)]
    single = admitted(floods, entries * 2)
    assert len(floods._counts) == MAX_ADDRESSES + 1
    told = sums(floods)
    assert told == {(None, None, "auth.denied", None): 2 * (5000 - MAX_ADDRESSES) - SINGLE}
    assert single + sum(told.values()) == 10_000


def test_without_room_everything_is_counted():
    floods = Floods()
    assert admitted(floods, [DENIED] * 20, room=False) == 0
    assert sum(sums(floods).values()) == 20


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", None]),
            st.sampled_from([None, "alice"]),
            st.sampled_from([None, Reason.LIMIT, Reason.CIPHERTEXT_INJECTION]),
            st.integers(0, 3),
            st.booleans(),
        ),
        max_size=80,
    )
)
def test_nothing_is_ever_left_uncounted(steps):
    floods, single, told = Floods(), Counter(), Counter()
    now = 0
    for address, actor, reason, minutes, tell in steps:
        now += minutes * MINUTE
        if tell:
            for total in floods.sums():
                told[total.reason] += total.obj["count"]
        single[reason] += floods.admits(rejected(reason, address=address, actor=actor), now, room=True)
    for total in floods.sums():
        told[total.reason] += total.obj["count"]
    asked = Counter(reason for _, _, reason, _, _ in steps)
    assert single + told == asked


# --- in the journal


@pytest.fixture
def clock(monkeypatch):
    now = [1_795_461_300_000_000_000 // MINUTE * MINUTE]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    return now


@pytest.fixture
def room(monkeypatch):
    """The free bytes of the journal's disk, which a test sets."""
    free = [RESERVE]
    monkeypatch.setattr("os.statvfs", lambda path: Status(free[0] // 4096, 4096))
    return free


def of_floods(folder):
    return [record for record in all_records(folder) if EVENTS[record["event"]].summed]


def flood(journal, number=100, entry=DENIED):
    for _ in range(number):
        journal.record(entry)


def test_a_flood_is_ten_records_and_one_that_says_how_many(tmp_path, clock, room):
    journal = Journal(tmp_path / "j", names="clear")
    flood(journal)
    assert len(of_floods(tmp_path / "j")) == SINGLE
    clock[0] += MINUTE
    journal.record(Entry("key.use", actor="alice"))
    *_, total = of_floods(tmp_path / "j")
    assert total["obj"] == {"count": 90, "since": "2026-11-23T19:15:00.000000000Z"}
    assert total["client"] == {"addr": "192.0.2.7"}
    assert total.keys().isdisjoint({"http", "req"})
    assert all_records(tmp_path / "j")[-1]["event"] == "key.use", "before the next record"
    journal.close()


@pytest.mark.parametrize("act", ["check", "close", "flood"])
def test_the_sum_is_told_without_another_record_too(act, tmp_path, clock, room):
    """A probe of the server's health is enough, and so are its end and the flood of the next minute."""
    journal = Journal(tmp_path / "j")
    flood(journal)
    if act != "close":
        journal.check()
        assert len(of_floods(tmp_path / "j")) == SINGLE, "not before the minute is over"
        clock[0] += MINUTE
    flood(journal) if act == "flood" else getattr(journal, act)()
    assert [record["obj"]["count"] for record in of_floods(tmp_path / "j") if "obj" in record] == [90]


def test_the_principals_in_sums_are_pseudonyms(tmp_path, clock, room):
    journal = Journal(tmp_path / "j")
    flood(journal, entry=rejected(Reason.LIMIT, actor="alice"))
    journal.close()
    assert {record["actor"]["id"][:12] for record in of_floods(tmp_path / "j")} == {"hmac-sha256:"}


def test_what_only_a_known_user_can_cause_is_never_summed_up(tmp_path, clock, room):
    journal = Journal(tmp_path / "j")
    flood(journal, entry=Entry("file.delete", obj={"id": "0"}))
    assert len(all_records(tmp_path / "j")) == 101


def test_the_reserve_is_for_records_of_operations(tmp_path, clock, room, caplog):
    journal = Journal(tmp_path / "j")
    room[0] = RESERVE - 4096
    flood(journal)
    journal.record(Entry("key.use"))
    clock[0] += MINUTE
    journal.record(Entry("key.use"))
    assert [record["event"] for record in all_records(tmp_path / "j")] == [
        "server.start",
        "key.use",
        "key.use",
    ]
    (message,) = caplog.messages
    assert message.startswith("less than 64 MiB are free for the audit journal: ")
    room[0] = RESERVE
    journal.record(Entry("key.use"))
    (total,) = of_floods(tmp_path / "j")
    assert total["obj"]["count"] == 100
    journal.close()


def test_at_its_end_what_was_counted_is_told_whatever_room_there_is(tmp_path, clock, room):
    journal = Journal(tmp_path / "j")
    room[0] = 0
    flood(journal)
    journal.close()
    assert [record["event"] for record in all_records(tmp_path / "j")] == [
        "server.start",
        "auth.denied",
        "server.stop",
    ]


def test_a_disk_that_cannot_be_asked_does_not_hold_a_record_up(tmp_path, monkeypatch):
    def fail(path):
        raise OSError

    monkeypatch.setattr("os.statvfs", fail)
    journal = Journal(tmp_path / "j")
    flood(journal, 3)
    assert len(of_floods(tmp_path / "j")) == 3


def test_a_sum_that_cannot_be_written_is_told_later(tmp_path, clock, room):
    journal = Journal(tmp_path / "j")
    flood(journal)
    clock[0] += MINUTE
    next((tmp_path / "j").glob("*.jsonl")).unlink()
    with pytest.raises(JournalError):
        journal.record(Entry("key.use"))
    journal.record(Entry("key.use"))
    assert [record["obj"]["count"] for record in of_floods(tmp_path / "j")] == [90]
    journal.close()


def test_an_entry_that_is_none_is_refused_even_in_a_flood(tmp_path, clock, room):
    journal = Journal(tmp_path / "j")
    flood(journal)
    with pytest.raises(ValueError, match="outcome"):
        journal.record(Entry("auth.denied", "success"))


def test_on_a_stream_there_is_no_reserve(clock, room, tmp_path):
    room[0] = 0
    with (tmp_path / "log").open("wb") as file:
        journal = Journal(stream=file)
        flood(journal, 3)
        journal.close()
    assert (tmp_path / "log").read_bytes().count(b"auth.denied") == 3
