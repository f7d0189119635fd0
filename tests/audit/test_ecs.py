"""ECS: every field is one of the published fields, and nothing of a record is lost."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from support.exports import full, kinds, leaves, odd_records, record, version_1

from securefs.audit.ecs import ECS_VERSION, KINDS, to_ecs
from securefs.audit.events import EVENTS
from securefs.errors import Reason

PUBLISHED = json.loads(Path(__file__).with_name(f"ecs-{ECS_VERSION}.json").read_text("utf-8"))
TYPES = {
    "keyword": lambda value: isinstance(value, str),
    "wildcard": lambda value: isinstance(value, str),
    "match_only_text": lambda value: isinstance(value, str),
    "long": lambda value: type(value) is int and value < 2**63,
    "date": lambda value: isinstance(value, str) and len(value) == 30,
    "ip": lambda value: bool(ipaddress.ip_address(value)),
}


def fields(value, prefix=""):
    for name, member in value.items():
        if prefix + name == "securefs":
            continue
        if isinstance(member, dict):
            yield from fields(member, f"{prefix}{name}.")
        else:
            yield prefix + name, member


def check(found):
    json.dumps(found).encode("ascii")
    for name, value in fields(found):
        kind = PUBLISHED["fields"][name]
        values = value if kind.endswith("[]") else [value]
        assert values, name
        assert all(TYPES[kind.removesuffix("[]")](each) for each in values), (name, value)
        if allowed := PUBLISHED["allowed"].get(name):
            assert set(values) <= allowed.keys(), (name, value)
    (category,), (kind,) = found["event"]["category"], found["event"]["type"]
    assert kind in PUBLISHED["allowed"]["event.category"][category]


def test_the_list_of_fields_is_that_of_the_version():
    assert PUBLISHED["version"] == ECS_VERSION
    assert len(PUBLISHED["fields"]) == 2605


def test_each_event_has_a_category():
    assert KINDS.keys() == EVENTS.keys()


@pytest.mark.parametrize("event", EVENTS)
def test_every_outcome_and_reason_is_valid(event):
    for kind in kinds():
        if kind[0] == event:
            check(to_ecs(full(*kind)))
            check(to_ecs(record(*kind)))


def test_records_with_odd_fields_are_valid():
    for each in odd_records():
        check(to_ecs(each))


def test_nothing_is_lost():
    for each in [*(full(*kind) for kind in kinds()), *odd_records()]:
        assert leaves(each) - leaves(to_ecs(each)) - {"started"} == set(), each["event"]


def test_what_a_refusal_looks_like():
    http = {"method": "POST", "path": "/files", "status": 400}
    found = to_ecs(
        record("file.rejected", "failure", Reason.LIMIT, obj={"parts": 3}, address="2001:db8::/64", http=http)
    )
    assert found["@timestamp"] == "2026-02-02T02:40:00.123456789Z"
    assert found["event"] | {"id": ""} == {
        "kind": "event",
        "category": ["web"],
        "type": ["error"],
        "action": "file.rejected",
        "outcome": "failure",
        "reason": "limit",
        "severity": 2,
        "sequence": 5,
        "id": "",
        "module": "securefs",
        "dataset": "securefs.audit",
        "provider": "securefs",
    }
    assert found["client"] == {"address": "2001:db8::/64"}
    assert found["http"] == {"request": {"method": "POST"}, "response": {"status_code": 400}}
    assert found["securefs"]["obj"] == {"parts": 3}


def test_an_operation_that_began_has_no_outcome_yet():
    assert to_ecs(record("file.encrypt", "started"))["event"]["outcome"] == "unknown"


def test_a_file_that_failed_is_an_alert():
    assert to_ecs(full("file.integrity_failure", "failure", Reason.TRUNCATED))["event"]["kind"] == "alert"


def test_a_record_of_the_first_version():
    found = to_ecs(version_1())
    assert (found["host"], found["client"]["ip"]) == ({"hostname": "files-1"}, "2001:db8::7")
