"""The closed lists: what each version has. What is not in them is refused: test_record.py."""

from __future__ import annotations

import json

import pytest

from securefs.audit.events import MEMBERS
from securefs.audit.fields import LAYOUTS, MAX_INT, MAX_STRING, RecordError, check, is_count
from securefs.audit.record import Entry, Position, Source, build_line

RECORD = json.loads(build_line(Position("0" * 32), Source("h", 1, "v"), 0, Entry("file.encrypt")))


def test_each_version_has_its_fields():
    """Written out once more: a field that changes is a change for whoever reads records."""
    common = {"v", "time", "chain", "seq", "prev", "event", "outcome", "sev", "reason", "obj", "actor"}
    common |= {"req", "req_len", "http"}
    assert LAYOUTS[1].allowed == common | {"src"}
    assert LAYOUTS[2].allowed == common | {"host", "client", "client_req", "client_req_len", "seal"}
    sections = {name: members.strings | members.integers for name, members in LAYOUTS[2].sections.items()}
    assert sections == {
        "obj": MEMBERS.keys(),
        "actor": {"id"},
        "http": {"method", "path", "status"},
        "client": {"addr", "peer"},
        "host": {"name", "pid", "version", "boot"},
    }


def test_a_record_is_known_by_its_version():
    assert check(RECORD) is LAYOUTS[2]
    for version in (0, 3, True, "2", None, [], 2.0):
        with pytest.raises(RecordError) as caught:
            check(RECORD | {"v": version})
        assert caught.value.code == "version"


@pytest.mark.parametrize("size", [63, 64, 65, 256, 257])
@pytest.mark.parametrize("length", [64, 65, 256, 257, MAX_INT, MAX_INT + 1])
def test_the_full_length_stands_beside_what_was_cut_and_nothing_else(size, length):
    record = RECORD | {"http": {"path": "x" * size, "path_len": length}}
    if size in {64, MAX_STRING} and size < length <= MAX_INT:
        check(record)
    else:
        with pytest.raises(RecordError):
            check(record)


@pytest.mark.parametrize(
    ("value", "good"), [(0, True), (MAX_INT, True), (-1, False), (True, False), (1.0, False), ("1", False)]
)
def test_what_counts_is_an_integer(value, good):
    assert is_count(value) is good
