"""The table of events: when each is written, its severity, and what its ``obj`` may hold.

Guarantees: severities, outcomes and members are decided here and nowhere else, and
``docs/journal.md`` shows this table. Refuses: to write an event, an outcome or a member that is not
in the table. A reader is more lenient: it accepts every member in any event, so that a later
version may move one. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVENTS", "FLUSH_FROM", "MEMBERS", "OUTCOMES", "SEVERITIES", "Event", "severity_of"]

SEVERITIES: Final = range(1, 6)
ROUTINE: Final = 1
NOTICE: Final = 2  # refused, or aborted by the client
WARNING: Final = 3  # somebody should look at it
ALARM: Final = 4  # a file was changed, an attack was seen, or evidence is at risk
# From this severity on, a record is on the disk before the operation goes on.
FLUSH_FROM: Final = ALARM

OUTCOMES: Final = frozenset({"started", "success", "failure"})

# All members of ``obj``, and their types. Sizes are in bytes of plaintext; segment and slot numbers
# count from 0.
MEMBERS: Final[Mapping[str, type]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("id", "key_id", "old_id", "old_key_id", "suite", "digest", "name", "field", "role", "rule"), str
        ),
        **dict.fromkeys(("format", "size", "segment", "slot", "parts"), int),
        # The first line of a chain: the settings, and what the chain replaces.
        **dict.fromkeys(
            ("names", "sync", "on_failure", "places", "replaces", "replaces_hash", "why", "error"), str
        ),
        **dict.fromkeys(("replaces_seq", "lost"), int),
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event.

    :ivar when: when it is written.
    :ivar severity: the severity of each outcome that the event can have.
    :ivar members: what its ``obj`` may hold.
    :ivar by_reason: the severity of a failure for these reasons.
    :ivar by_member: the severity if ``obj`` has one of these members.
    """

    when: str
    severity: Mapping[str, int]
    members: frozenset[str] = frozenset()
    by_reason: Mapping[Reason, int] = field(default_factory=dict)
    by_member: Mapping[str, int] = field(default_factory=dict)


def _members(names: str) -> frozenset[str]:
    return frozenset(names.split())


_FILE: Final = "id key_id format suite size name"

EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        "file.encrypt": Event(
            "a file of an upload is encrypted: before its first byte, and at its end",
            {"started": ROUTINE, "success": ROUTINE, "failure": NOTICE},
            _members(f"{_FILE} field"),
        ),
        "file.plain": Event(
            "a file that is declared plain passes without encryption: before its first byte, and at its end",
            {"started": NOTICE, "success": NOTICE, "failure": NOTICE},
            _members("name field size"),
        ),
        "file.decrypt": Event(
            "a stored file is decrypted for a client: before its first byte, and at its end",
            {"started": ROUTINE, "success": ROUTINE, "failure": WARNING},
            _members(_FILE),
            by_reason={Reason.CLIENT_GONE: NOTICE},
        ),
        "file.integrity_failure": Event(
            "a stored file, or one slot of it, is not what was written; nothing unverified is sent",
            {"failure": ALARM},
            _members(f"{_FILE} segment digest slot"),
            by_reason={Reason.UNKNOWN_KEY: WARNING},
        ),
        "file.rejected": Event(
            "a request body is refused",
            {"failure": NOTICE},
            _members("parts rule"),
            by_reason={Reason.CIPHERTEXT_INJECTION: ALARM},
        ),
        "file.import": Event(
            "`securefs import` or `securefs recover` encrypted a file that was there, or could not",
            {"success": ROUTINE, "failure": WARNING},
            _members(_FILE),
        ),
        "auth.denied": Event("a request or a sign-in names no known principal", {"failure": WARNING}),
        "key.use": Event(
            "reserved: this version does not write it",
            {"started": ROUTINE, "success": ROUTINE, "failure": WARNING},
            _members("key_id role"),
        ),
        "key.rewrap": Event(
            "`securefs rewrap` changed the slots of a file, or could not",
            {"success": ROUTINE, "failure": WARNING},
            _members("id key_id name"),
        ),
        "key.reencrypt": Event(
            "`securefs reencrypt` gave a file a new data key, or could not",
            {"success": ROUTINE, "failure": WARNING},
            _members("id key_id old_id old_key_id name"),
        ),
        "server.start": Event(
            "the first record of a chain; more severe where the chain replaces one that met trouble",
            {"success": ROUTINE},
            _members("names sync on_failure places replaces replaces_seq replaces_hash why error lost"),
            by_member={"why": ALARM},
        ),
        # An alarm only so that the record is on the disk when the process ends.
        "server.stop": Event("the last record of a chain whose process ends in order", {"success": ALARM}),
    }
)


def severity_of(event: str, outcome: str, reason: Reason | None, obj: Mapping[str, str | int]) -> int:
    """Return the severity of a record, 1 to 5.

    :raises ValueError: an event, an outcome or a member of ``obj`` is not in the table: a bug in
        the caller.
    """
    # The type first: a list in place of a string is not hashable.
    known = EVENTS.get(event) if type(event) is str else None
    if known is None:
        raise ValueError(f"event is not one of {', '.join(sorted(EVENTS))}")
    if type(outcome) is not str or outcome not in known.severity:
        raise ValueError(f"{event}: outcome is not one of {', '.join(sorted(known.severity))}")
    if not obj.keys() <= known.members:
        odd = sorted(ascii(name)[:40] for name in obj.keys() - known.members)
        raise ValueError(f"{event}: obj has no member {', '.join(odd[:8])}")
    for member, severity in known.by_member.items():
        if member in obj:
            return severity
    return known.severity[outcome] if reason is None else known.by_reason.get(reason, known.severity[outcome])
