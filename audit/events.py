"""The table of events: when each is written, its severity, and what its ``obj`` may hold.

Guarantees: severities, outcomes and members are decided here and nowhere else, and
``docs/journal.md`` shows this table. Refuses: to write an event, an outcome or a member that is not
in the table. A reader is more lenient: it accepts every member in any event, so that a later
version may move one. :mod:`securefs.audit.schema` makes a JSON Schema of it. Pure.
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

# All members of ``obj``, and their types. Sizes are in bytes of plaintext, ``start``, ``stop`` and
# ``sent`` in bytes of what a client gets; segment and slot numbers count from 0.
MEMBERS: Final[Mapping[str, type]] = MappingProxyType(
    {
        **dict.fromkeys(("id", "key_id", "suite", "digest", "name", "field", "role", "rule"), str),
        **dict.fromkeys(("format", "size", "segment", "slot", "parts"), int),
        # A download: the first byte that is asked for, the one after the last, bytes handed out.
        **dict.fromkeys(("start", "stop", "sent"), int),
        # What an object was before it was encrypted anew.
        **dict.fromkeys(("old_id", "old_key_id"), str),
        # The ids of a token and of a session, and whose it is.
        **dict.fromkeys(("token", "session", "principal"), str),
        # Records that stand for several: how many, and since when.
        "count": int,
        "since": str,
        # The first line of a chain: the settings, and what the chain replaces.
        **dict.fromkeys(
            ("names", "sync", "on_failure", "places", "replaces", "replaces_hash", "why", "error"), str
        ),
        **dict.fromkeys(("replaces_seq", "lost"), int),
        # The clock, and the sealed log: another chain, up to a record and its hash.
        "back_ms": int,
        **dict.fromkeys(("chain", "hash", "boot"), str),
        **dict.fromkeys(("upto", "files"), int),
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
    :ivar summed: anyone can cause it, without limit: after the tenth of an address in a minute,
        such records are summed up (:mod:`securefs.audit.floods`), and paths in them are short.
    """

    when: str
    severity: Mapping[str, int]
    members: frozenset[str] = frozenset()
    by_reason: Mapping[Reason, int] = field(default_factory=dict)
    by_member: Mapping[str, int] = field(default_factory=dict)
    summed: bool = False


def _members(names: str) -> frozenset[str]:
    return frozenset(names.split())


_FILE: Final = "id key_id format suite size name"

EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        "file.encrypt": Event(
            "a file of an upload, or one that the app made, is encrypted: before its first byte, and at its end",
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
            _members(f"{_FILE} start stop parts sent"),
            by_reason={Reason.CLIENT_GONE: NOTICE},
        ),
        "file.open": Event(
            "the app itself or `securefs decrypt` opens a file: before it gets a byte of it",
            {"success": ROUTINE, "failure": WARNING},
            _members(_FILE),
            by_reason={Reason.CIPHERTEXT_INJECTION: ALARM},
        ),
        "file.integrity_failure": Event(
            "a stored file, or one slot of it, is not what was written; nothing unverified is sent",
            {"failure": ALARM},
            _members(f"{_FILE} start stop parts sent segment digest slot"),
            by_reason={Reason.UNKNOWN_KEY: WARNING},
        ),
        "file.delete": Event(
            "a stored file is removed: before, and after",
            {"started": ROUTINE, "success": ROUTINE, "failure": WARNING},
            _members("id size name"),
        ),
        "file.import": Event(
            "`securefs import` or `securefs recover` encrypted a file that was there, or could not",
            {"success": ROUTINE, "failure": WARNING},
            _members(_FILE),
        ),
        "file.rejected": Event(
            "a request body is refused",
            {"failure": NOTICE},
            _members("parts rule count since"),
            by_reason={Reason.CIPHERTEXT_INJECTION: ALARM},
            summed=True,
        ),
        "request.answered": Event(
            "the app's answer to a request of which files were encrypted: before its status is sent; "
            "without a status if the app failed",
            {"success": ROUTINE, "failure": NOTICE},
            _members("parts"),
        ),
        "auth.granted": Event("a sign-in opened a session", {"success": ROUTINE}, _members("token session")),
        "auth.denied": Event(
            "a request or a sign-in names no known principal, or a principal asks for somebody else's file",
            {"failure": WARNING},
            _members("id count since"),
            summed=True,
        ),
        "auth.logout": Event("a user ends a session", {"success": ROUTINE}, _members("session")),
        "token.add": Event(
            "`securefs token add` made a token, which is not shown before",
            {"success": NOTICE},
            _members("token principal"),
        ),
        "token.revoke": Event(
            "`securefs token revoke` ends tokens: before, and after",
            {"started": NOTICE, "success": NOTICE, "failure": WARNING},
            _members("token principal count"),
        ),
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
        "audit.clock": Event(
            "the writer's clock was set back, by so many milliseconds, since the record before",
            {"success": WARNING},
            _members("back_ms"),
        ),
        "audit.segment": Event(
            "the first record of each further file of a chain, which links back to the one before",
            {"success": ROUTINE},
            _members("segment start names sync on_failure places"),
        ),
        "audit.seal": Event("the sealer signs the log: what it took, and its next key", {"success": ROUTINE}),
        "audit.epoch": Event(
            "a sealer begins a new line of keys, because it has not got the next key of the old one",
            {"success": WARNING},
            _members("why"),
        ),
        "audit.adopted": Event(
            "the sealer found a chain whose writer died, and saw this much of it",
            {"success": NOTICE},
            _members("chain upto hash size boot"),
        ),
        "audit.cutover": Event(
            "a chain that was there before the log, and how far",
            {"success": NOTICE},
            _members("chain upto hash"),
        ),
        "audit.retired": Event(
            "whole files of a chain, the oldest, are removed for good",
            {"success": NOTICE},
            _members("chain upto hash files"),
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
