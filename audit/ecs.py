"""A record as an event of the Elastic Common Schema (ECS), version 9.4.0.

Guarantees: all fields outside of ``securefs`` are fields of that version, with values of their
type, and of those that it allows. What it has no field for stands under ``securefs``, so that
nothing of a record is lost. Pure.

Implements the mapping table of ``docs/export.md``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.audit.exported import address_kind, fact_of, members, rest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.audit.exported import Fact

__all__ = ["ECS_VERSION", "KINDS", "to_ecs"]

ECS_VERSION: Final = "9.4.0"

_CONFIGURATION: Final = ("configuration", "info")

# The category and the type of each event.
KINDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "file.encrypt": ("file", "creation"),
        "file.plain": ("file", "creation"),
        "file.decrypt": ("file", "access"),
        "file.open": ("file", "access"),
        "file.delete": ("file", "deletion"),
        "file.import": ("file", "change"),
        "file.integrity_failure": ("file", "info"),
        "file.rejected": ("web", "error"),
        "request.answered": ("web", "info"),
        "auth.granted": ("authentication", "start"),
        "auth.denied": ("authentication", "info"),
        "auth.logout": ("authentication", "end"),
        "token.add": ("iam", "creation"),
        "token.revoke": ("iam", "deletion"),
        "key.use": ("iam", "info"),
        "key.rewrap": ("file", "change"),
        "key.reencrypt": ("file", "change"),
        "server.start": ("process", "start"),
        "server.stop": ("process", "end"),
        "audit.clock": _CONFIGURATION,
        "audit.segment": _CONFIGURATION,
        "audit.seal": _CONFIGURATION,
        "audit.epoch": _CONFIGURATION,
        "audit.adopted": _CONFIGURATION,
        "audit.cutover": _CONFIGURATION,
        "audit.retired": ("configuration", "deletion"),
    }
)
_ALERTS: Final = frozenset({"file.integrity_failure"})


def to_ecs(record: Mapping[str, object]) -> dict[str, object]:
    """Return a record as an event of ECS.

    :param record: as :func:`securefs.audit.record.parse_line` returns it.
    """
    fact = fact_of(record)
    own = rest(fact, "name", "size")
    own |= members(chain=fact.chain, peer=fact.peer, client_req=fact.client_request)
    return {
        "@timestamp": fact.time,
        "ecs": {"version": ECS_VERSION},
        "message": f"{fact.event} {fact.outcome}",
        "event": _event(fact),
        "service": {"name": "securefs", "type": "securefs", "version": fact.version},
        "host": {"hostname": fact.host, **members(boot=members(id=fact.boot))},
        "process": {"pid": fact.pid},
        "securefs": own,
        **members(
            user=members(id=fact.actor),
            file=members(name=fact.text("name"), size=fact.size),
            client=_client(fact),
            http=_http(fact),
            url=members(path=fact.http.get("path")),
        ),
    }


def _event(fact: Fact) -> dict[str, object]:
    category, kind = KINDS[fact.event]
    return {
        "kind": "alert" if fact.event in _ALERTS else "event",
        "category": [category],
        "type": [kind],
        "action": fact.event,
        "outcome": "unknown" if fact.outcome == "started" else fact.outcome,
        "severity": fact.severity,
        "sequence": fact.seq,
        "id": fact.place,
        "module": "securefs",
        "dataset": "securefs.audit",
        "provider": "securefs",
        **members(reason=fact.reason),
    }


def _client(fact: Fact) -> dict[str, object]:
    address = fact.address
    return members(address=address, ip=address if address_kind(address) else "")


def _http(fact: Fact) -> dict[str, object]:
    request = members(method=fact.http.get("method"), id=fact.request)
    own = members(status_code=fact.status)
    return members(request=request, response=own)
