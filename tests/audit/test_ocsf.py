"""OCSF: every record is valid under the published schema, and nothing of it is lost."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from support.exports import full, kinds, leaves, odd_records, record, version_1

from securefs.audit.events import EVENTS
from securefs.audit.ocsf import CLASSES, OCSF_VERSION, to_ocsf
from securefs.errors import Reason

SCHEMA = get_ocsf_schema(version=OCSF_VERSION)
NAMES = {each["uid"]: name for name, each in SCHEMA["classes"].items()}


@pytest.fixture(scope="module")
def validators():
    """Return the validator of each class that is used."""
    made = OcsfJsonSchemaEmbedded(SCHEMA)
    used = {class_uid for class_uid, _ in CLASSES.values()}
    return {uid: Draft202012Validator(made.get_class_schema(NAMES[uid], ["host"])) for uid in used}


def check(validators, found):
    text = json.dumps(found)
    validator = validators[found["class_uid"]]
    errors = [f"{list(each.absolute_path)}: {each.message}"[:300] for each in validator.iter_errors(found)]
    assert errors == [], text
    activities = SCHEMA["classes"][NAMES[found["class_uid"]]]["attributes"]["activity_id"]["enum"]
    assert str(found["activity_id"]) in activities
    # The generated schema does not say these.
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["class_uid"] // 1000 == found["category_uid"]


def test_each_event_has_a_class():
    assert CLASSES.keys() == EVENTS.keys()


@pytest.mark.parametrize("event", EVENTS)
def test_every_outcome_and_reason_is_valid(validators, event):
    for kind in kinds():
        if kind[0] == event:
            check(validators, to_ocsf(full(*kind)))
            check(validators, to_ocsf(record(*kind)))


def test_records_with_odd_fields_are_valid(validators):
    for each in odd_records():
        check(validators, to_ocsf(each))


def test_nothing_is_lost():
    spelled = {"success", "failure", "started"}  # as a number, and with a capital
    for each in [*(full(*kind) for kind in kinds()), *odd_records()]:
        assert leaves(each) - leaves(to_ocsf(each)) - spelled == set(), each["event"]


def test_what_a_download_looks_like():
    found = to_ocsf(
        record(
            "file.decrypt",
            "failure",
            Reason.CLIENT_GONE,
            obj={"id": "ab" * 32, "name": "a.pdf", "size": 70_000, "sent": 10},
            actor="alice",
            address="192.0.2.7",
            peer="10.0.0.2",
            request_id="77" * 16,
            client_request_id="4f1c",
            http={"method": "GET", "path": "/f/1", "status": 200},
        )
    )
    assert found["class_uid"], found["activity_id"] == (6006, 2)
    assert (found["status_id"], found["status"], found["status_code"]) == (2, "Failure", "client_gone")
    assert found["severity_id"] == 2
    assert found["time"] == 1_770_000_000_123
    assert found["file"] == {"type_id": 1, "name": "a.pdf", "uid": "ab" * 32, "size": 70_000}
    assert found["actor"] == {"process": {"name": "securefs", "pid": 4711}, "user": {"uid": "alice"}}
    assert found["src_endpoint"] == {"ip": "192.0.2.7", "intermediate_ips": ["10.0.0.2"]}
    assert found["http_request"] == {"http_method": "GET", "url": {"path": "/f/1"}, "uid": "4f1c"}
    assert found["http_response"] == {"code": 200}
    assert found["metadata"]["correlation_uid"] == "77" * 16
    assert found["unmapped"]["obj"] == {"sent": 10}


def test_an_operation_that_began_is_neither_success_nor_failure():
    found = to_ocsf(record("file.encrypt", "started"))
    assert (found["status_id"], found["status"]) == (99, "started")


def test_a_file_that_failed_is_a_finding():
    found = to_ocsf(full("file.integrity_failure", "failure", Reason.TAG_MISMATCH))
    assert (found["class_uid"], found["is_alert"], found["severity_id"]) == (2004, True, 4)


def test_a_record_of_the_first_version(validators):
    found = to_ocsf(version_1())
    check(validators, found)
    assert (found["device"]["hostname"], found["src_endpoint"]) == ("files-1", {"ip": "2001:db8::7"})
