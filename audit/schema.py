"""The JSON Schema of the records that are written, made from the table of events. Pure.

``docs/journal.schema.json`` holds it, for readers in other languages and for log pipelines. It says
which fields, members, outcomes and severities each event has. It can't say what the spelling of a
line is, nor that a chain holds: ``securefs audit verify`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from securefs.audit.events import EVENTS, MEMBERS
from securefs.audit.fields import (
    HASH,
    ID,
    LAYOUTS,
    MAX_INT,
    MAX_RUNS,
    MAX_STRING,
    REASONS,
    SHORT_PATH,
    TIME,
    VERSION,
    Members,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securefs.audit.events import Event

__all__ = ["schema"]

Schema = dict[str, Any]

_LAYOUT: Final = LAYOUTS[VERSION]
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_INT}
_TEXT: Final[Schema] = {"type": "string", "maxLength": MAX_STRING}


def schema() -> Schema:
    """Return the schema (JSON Schema, draft 2020-12) of one record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A record of the securefs audit journal, version {VERSION}",
        "type": "object",
        "properties": {
            "v": {"const": VERSION},
            "time": _pattern(TIME),
            "chain": _pattern(ID),
            "seq": _COUNT,
            "prev": _pattern(HASH),
            "event": {"enum": list(EVENTS)},
            "outcome": True,
            "sev": True,
            "reason": {"enum": sorted(REASONS)},
            **{
                section: _object(members) for section, members in _LAYOUT.sections.items() if section != "obj"
            },
            "obj": {"type": "object", "minProperties": 1},
            **_members(_LAYOUT.texts)["properties"],
            "seal": _seal(),
        },
        "dependentRequired": _members(_LAYOUT.texts)["dependentRequired"],
        "required": sorted(_LAYOUT.required),
        "additionalProperties": False,
        "allOf": [_rule(name, event) for name, event in EVENTS.items()],
    }


def _rule(name: str, event: Event) -> Schema:
    """Return what follows from the event: its outcomes, severities and members."""
    allowed: Schema = {"obj": _object(_chosen(event.members))} if event.members else {"obj": False}
    if event.summed:
        allowed["http"] = {"properties": {"path": {"maxLength": SHORT_PATH}}}
    allowed["seal"] = name == "audit.seal"
    rule: Schema = {"properties": allowed, "anyOf": list(_weights(event))}
    if name == "audit.seal":
        rule["required"] = ["seal"]
    return {"if": {"properties": {"event": {"const": name}}}, "then": rule}


def _weights(event: Event) -> Iterable[Schema]:
    """Yield each combination of outcome, severity and reason."""
    for member, severity in event.by_member.items():
        has_it = {"obj": {"required": [member]}}
        yield {"properties": {"sev": {"const": severity}, **has_it}, "required": ["obj"]}
    for reason, severity in event.by_reason.items():
        fields = {
            "outcome": {"const": "failure"},
            "sev": {"const": severity},
            "reason": {"const": reason.value},
        }
        yield {"properties": fields, "required": ["reason"]}
    for outcome, severity in event.severity.items():
        fields = {"outcome": {"const": outcome}, "sev": {"const": severity}}
        unless = [reason.value for reason in event.by_reason]
        fields["reason"] = {"not": {"enum": unless}} if outcome == "failure" else False
        if event.by_member:
            fields["obj"] = {"properties": dict.fromkeys(event.by_member, False)}
        yield {"properties": fields}


def _chosen(names: Iterable[str]) -> Members:
    return Members(
        strings=frozenset(name for name in names if MEMBERS[name] is str),
        integers=frozenset(name for name in names if MEMBERS[name] is int),
    )


def _object(members: Members) -> Schema:
    made = {"type": "object", **_members(members), "minProperties": 1, "additionalProperties": False}
    return made | ({"required": sorted(members.required)} if members.required else {})


def _members(members: Members) -> Schema:
    """Return the members, and that the full length of a string stands only beside it."""
    properties: Schema = {}
    for name in sorted(members.strings):
        least = SHORT_PATH if name == "path" else MAX_STRING
        properties[name] = _TEXT
        properties[f"{name}_len"] = {**_COUNT, "minimum": least + 1}
    properties |= dict.fromkeys(sorted(members.integers), _COUNT)
    return {
        "properties": properties,
        "dependentRequired": {f"{name}_len": [name] for name in sorted(members.strings)},
    }


def _seal() -> Schema:
    run = {"type": "array", "prefixItems": [_pattern(ID), _COUNT, _COUNT], "minItems": 3, "items": False}
    fields: Schema = {
        "index": _COUNT,
        "key": _pattern(HASH),
        "next": _pattern(HASH),
        "runs": {"type": "array", "items": run, "minItems": 1, "maxItems": MAX_RUNS},
        "size": _COUNT,
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _pattern(text: str) -> Schema:
    return {"type": "string", "pattern": f"^{text}$"}
