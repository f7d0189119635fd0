"""Records of every kind, for the tests of the export formats."""

from __future__ import annotations

import json

from securefs.audit.events import EVENTS, MEMBERS
from securefs.audit.record import Entry, Position, Source, build_line, parse_line
from securefs.errors import Reason

CHAIN, OTHER = "0123456789abcdef0123456789abcdef", "f" * 32
SEAL = {"index": 3, "key": "a" * 64, "next": "b" * 64, "runs": [[OTHER, 0, 7]], "size": 8}
NASTY = 'r\u00e9sum\u00e9 =|\\ "\n\r\t\u202e\u2028\x1b[31m\ud800 \U0001f600.pdf'
TIME = 1_770_000_000_123_456_789  # 2026-02-02T02:40:00.123456789Z


def record(event: str, outcome: str, reason: Reason | None = None, **given) -> dict[str, object]:
    """Return a record as a reader gets it."""
    seal = SEAL if event == "audit.seal" else None
    entry = Entry(event, outcome, reason, seal=seal, **given)
    source = Source("files-1", 4711, "0.1.0", "1c0f" * 8)
    return parse_line(build_line(Position(CHAIN, 5, "c" * 64), source, TIME, entry)[:-1])


def full(event: str, outcome: str, reason: Reason | None = None, **given) -> dict[str, object]:
    """Return a record of this kind that has each field that it may have."""
    # Each value is another one, so that a test sees which of them is lost.
    obj = {
        name: name + NASTY if MEMBERS[name] is str else 70_000 + number
        for number, name in enumerate(sorted(EVENTS[event].members))
    }
    fields = {
        "obj": obj,
        "actor": "actor" + NASTY,
        "request_id": "77" * 16,
        "address": "192.0.2.7",
        "peer": "2001:db8::7",
        "client_request_id": "client" + NASTY,
        "http": {"method": "GET", "path": "/f/" + NASTY, "status": 206},
    }
    return record(event, outcome, reason, **fields | given)


def kinds():
    """Yield (event, outcome, reason) of all records that a writer can write."""
    for event, known in EVENTS.items():
        for outcome in known.severity:
            yield event, outcome, None
            if outcome == "failure":
                for reason in Reason:
                    yield event, outcome, reason


def version_1(event: str = "file.decrypt") -> dict[str, object]:
    """Return a record of the first version."""
    fields = {
        "v": 1,
        "time": "2026-02-02T02:40:00.123456789Z",
        "chain": CHAIN,
        "seq": 5,
        "prev": "c" * 64,
        "event": event,
        "outcome": "success",
        "sev": 1,
        "src": {"host": "files-1", "pid": 4711, "version": "0.1.0", "addr": "2001:db8::7"},
        "obj": {"name": "a", "size": 3},
    }
    return parse_line(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def odd_records():
    """Yield records whose fields are missing, or of a kind of their own."""
    http = {"method": "PROPFIND", "path": "/" + "x" * 300, "status": 500}
    for event, known in EVENTS.items():
        outcome = min(known.severity)
        yield record(event, outcome)
        yield full(event, outcome, address="2001:db8::/64", peer="unix:", http=http)
        yield full(event, outcome, address="2001:db8::7", peer=None, http={"path": "/"})
        if event != "audit.seal":  # which version 1 does not have
            yield version_1(event)


def leaves(value) -> set[str]:
    """Return all values in a record, as texts."""
    if isinstance(value, dict):
        return {leaf for key, member in value.items() if key != "sev" for leaf in leaves(member)}
    if isinstance(value, list):
        return {leaf for member in value for leaf in leaves(member)}
    return {str(value).encode("utf-8", "backslashreplace").decode()}
