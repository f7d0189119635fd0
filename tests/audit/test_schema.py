"""The JSON Schema: the file in the documentation is the table's, and it refuses what the table does not have."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journals import ROOT
from support.schema_watch import VALIDATOR

from securefs.audit.events import EVENTS, MEMBERS
from securefs.audit.fields import LAYOUTS, MAX_INT
from securefs.audit.record import Entry, Position, Source, build_line, parse_line
from securefs.audit.schema import schema
from securefs.errors import Reason

SEAL = {"index": 0, "key": "ab" * 32, "next": "cd" * 32, "runs": [["0" * 32, 0, 4]], "size": 5}
PLACE = Position("0123456789abcdef" * 2)
SOURCE = Source("files-1", 4711, "1.0", "boot")


def record_of(entry):
    return parse_line(build_line(PLACE, SOURCE, 0, entry)[:-1])


def entries(event):
    """Yield an entry for each outcome and reason of an event, with all its members."""
    obj = {member: "x" * 300 if MEMBERS[member] is str else MAX_INT for member in EVENTS[event].members}
    for outcome in EVENTS[event].severity:
        for reason in [None, *Reason] if outcome == "failure" else [None]:
            for members in (obj, {}):
                yield Entry(
                    event,
                    outcome,
                    reason,
                    members,
                    actor="alice",
                    request_id="1",
                    address="::1",
                    http={"method": "GET", "path": "/" * 300, "status": 200},
                    peer="::2",
                    client_request_id="c" * 300,
                    seal=SEAL if event == "audit.seal" else None,
                )


def test_the_schema_in_the_documentation_is_the_tables():
    assert json.loads((ROOT / "docs" / "journal.schema.json").read_text()) == schema(), (
        "make it anew: json.dumps(securefs.audit.schema.schema(), indent=1)"
    )


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("event", EVENTS)
def test_every_record_that_can_be_written_follows_it(event):
    for entry in entries(event):
        VALIDATOR.validate(record_of(entry))


@pytest.mark.parametrize("event", EVENTS)
def test_a_member_of_another_event_is_refused(event):
    record = record_of(next(entries(event)))
    record["obj"] = {}
    for member in MEMBERS.keys() - EVENTS[event].members:
        record["obj"] = {member: "x" if MEMBERS[member] is str else 1}
        assert not VALIDATOR.is_valid(record), member


@pytest.mark.parametrize("event", EVENTS)
def test_an_outcome_or_severity_of_another_event_is_refused(event):
    record = record_of(list(entries(event))[1])
    for outcome in {"started", "success", "failure"} - EVENTS[event].severity.keys():
        assert not VALIDATOR.is_valid(record | {"outcome": outcome})
    for severity in {0, 1, 2, 3, 4, 5, 6} - {record["sev"]}:
        assert not VALIDATOR.is_valid(record | {"sev": severity})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"v": 1}, id="version"),
        pytest.param({"note": "x"}, id="unknown field"),
        pytest.param({"time": "2026-11-23T19:15:00Z"}, id="time without nanoseconds"),
        pytest.param({"seq": -1}, id="seq"),
        pytest.param({"seq": MAX_INT + 1}, id="seq too large"),
        pytest.param({"prev": "AB" * 32}, id="prev"),
        pytest.param({"reason": "limit"}, id="reason of a success"),
        pytest.param({"host": {"name": "x", "pid": 1}}, id="host without version"),
        pytest.param({"client": {}}, id="empty section"),
        pytest.param({"client": {"name": "x"}}, id="member of another section"),
        pytest.param({"obj": {"name": "x" * 257}}, id="not cut"),
        pytest.param({"obj": {"name_len": 300}}, id="length alone"),
        pytest.param({"obj": {"name": "x" * 256, "name_len": 256}}, id="length of what was not cut"),
        pytest.param({"client_req_len": 300}, id="length of a field alone"),
        pytest.param({"seal": SEAL}, id="a seal on another event"),
    ],
)
def test_what_is_no_record_is_refused(change):
    record = record_of(Entry("file.encrypt", obj={"size": 1}))
    VALIDATOR.validate(record)
    assert not VALIDATOR.is_valid(record | change)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"size": -1}, id="size"),
        pytest.param({"key": "ab"}, id="key"),
        pytest.param({"runs": []}, id="no run"),
        pytest.param({"runs": [["0" * 32, 0]]}, id="run without an end"),
        pytest.param({"runs": [["0" * 32, 0, 1, 2]]}, id="run with more"),
        pytest.param({"runs": [["0" * 32, 0, 1]] * 513}, id="too many runs"),
        pytest.param({"note": 1}, id="unknown member"),
    ],
)
def test_what_is_no_seal_is_refused(change):
    record = record_of(Entry("audit.seal", seal=SEAL))
    VALIDATOR.validate(record)
    assert not VALIDATOR.is_valid(record | {"seal": SEAL | change})


@given(text=st.text(max_size=400), cut=st.sampled_from(["client_req", "addr", "path"]))
def test_strings_of_any_kind_and_length_follow_it(text, cut):
    entry = Entry(
        "auth.denied",
        "failure",
        address=text if cut == "addr" else None,
        client_request_id=text if cut == "client_req" else None,
        http={"path": text} if cut == "path" else {},
    )
    VALIDATOR.validate(record_of(entry))


def test_it_names_every_field_of_the_layout():
    assert schema()["properties"].keys() == LAYOUTS[2].allowed
