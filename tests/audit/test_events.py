"""The table of events: what each weighs, what it may hold, and that nothing else decides either."""

from __future__ import annotations

import ast

import pytest
from support.journals import ROOT

from securefs.audit.events import EVENTS, FLUSH_FROM, MEMBERS, OUTCOMES, SEVERITIES, severity_of
from securefs.errors import Reason

DOCS = (ROOT / "docs" / "journal.md").read_text()

# Written out once more: a severity that changes is a change for whoever filters by it.
SEVERITY = {
    ("file.encrypt", "started"): 1,
    ("file.encrypt", "success"): 1,
    ("file.encrypt", "failure"): 2,
    ("file.plain", "started"): 2,
    ("file.plain", "success"): 2,
    ("file.plain", "failure"): 2,
    ("file.decrypt", "started"): 1,
    ("file.decrypt", "success"): 1,
    ("file.decrypt", "failure"): 3,
    ("file.decrypt", "failure", Reason.CLIENT_GONE): 2,
    ("file.integrity_failure", "failure"): 4,
    ("file.integrity_failure", "failure", Reason.UNKNOWN_KEY): 3,
    ("file.open", "success"): 1,
    ("file.open", "failure"): 3,
    ("file.open", "failure", Reason.CIPHERTEXT_INJECTION): 4,
    ("file.delete", "started"): 1,
    ("file.delete", "success"): 1,
    ("file.delete", "failure"): 3,
    ("file.import", "success"): 1,
    ("file.import", "failure"): 3,
    ("file.rejected", "failure"): 2,
    ("file.rejected", "failure", Reason.CIPHERTEXT_INJECTION): 4,
    ("request.answered", "success"): 1,
    ("request.answered", "failure"): 2,
    ("auth.granted", "success"): 1,
    ("auth.denied", "failure"): 3,
    ("auth.logout", "success"): 1,
    ("token.add", "success"): 2,
    ("token.revoke", "started"): 2,
    ("token.revoke", "success"): 2,
    ("token.revoke", "failure"): 3,
    ("key.use", "started"): 1,
    ("key.use", "success"): 1,
    ("key.use", "failure"): 3,
    ("key.rewrap", "success"): 1,
    ("key.rewrap", "failure"): 3,
    ("key.reencrypt", "success"): 1,
    ("key.reencrypt", "failure"): 3,
    ("audit.clock", "success"): 3,
    ("audit.segment", "success"): 1,
    ("audit.seal", "success"): 1,
    ("audit.epoch", "success"): 3,
    ("audit.adopted", "success"): 2,
    ("audit.cutover", "success"): 2,
    ("audit.retired", "success"): 2,
    ("server.start", "success"): 1,
    ("server.stop", "success"): 4,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    ("outcome", "reason"),
    [("started", None), ("success", None), ("failure", None), *(("failure", reason) for reason in Reason)],
)
def test_every_event_weighs_what_it_did(event, outcome, reason):
    by_reason = SEVERITY.get((event, outcome, reason))
    known = SEVERITY.get((event, outcome)) if by_reason is None else by_reason
    if known is None:
        with pytest.raises(ValueError, match=rf"^{event}: outcome is not one of "):
            severity_of(event, outcome, reason, {})
    else:
        assert severity_of(event, outcome, reason, {}) == known


def test_a_chain_that_replaces_another_begins_with_an_alarm():
    assert severity_of("server.start", "success", None, {"why": "unlinked", "lost": 1}) == FLUSH_FROM


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_holds_its_members_and_no_other(event):
    outcome = next(iter(EVENTS[event].severity))
    for member in MEMBERS:
        if member in EVENTS[event].members:
            assert severity_of(event, outcome, None, {member: 1}) in SEVERITIES
        else:
            with pytest.raises(ValueError, match=rf"^{event}: obj has no member '{member}'$"):
                severity_of(event, outcome, None, {member: 1})


def test_the_table_names_nothing_that_does_not_exist():
    for event in EVENTS.values():
        assert event.members <= MEMBERS.keys()
        assert event.by_member.keys() <= event.members
        assert event.severity.keys() <= OUTCOMES
        assert {*event.severity.values(), *event.by_reason.values(), *event.by_member.values()} <= {
            *SEVERITIES
        }
    assert frozenset().union(*(event.members for event in EVENTS.values())) == MEMBERS.keys()


def test_the_documentation_shows_the_table():
    rows = "".join(row_of(name) for name in EVENTS)
    assert f"| event | outcome, severity | `obj` | when |\n| --- | --- | --- | --- |\n{rows}\n" in DOCS


def row_of(name):
    event = EVENTS[name]
    weights = [f"{outcome} {severity}" for outcome, severity in event.severity.items()]
    weights += [f"`{reason.value}` {severity}" for reason, severity in event.by_reason.items()]
    weights += [f"with `{member}` {severity}" for member, severity in event.by_member.items()]
    members = " ".join(f"`{member}`" for member in MEMBERS if member in event.members)
    return f"| `{name}` | {', '.join(weights)} | {members} | {event.when} |\n"


def test_no_other_module_decides_a_severity():
    """Nothing but the table writes one: no keyword, no parameter, no assignment of that name elsewhere."""
    found = []
    for room in ("securefs", "middleware", "audit"):
        for path in (ROOT / room).rglob("*.py"):
            if path.is_symlink() or path.name == "events.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "arg", None) or (
                    node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
                )
                if name in {"severity", "sev"}:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    # The reader, the writer, the export and the schema ask for the number, as for every other.
    asking = ("audit/exported.py", "audit/fields.py", "audit/record.py", "audit/schema.py")
    assert [place for place in found if not place.startswith(asking)] == []
