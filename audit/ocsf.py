"""A record as an event of the Open Cybersecurity Schema Framework (OCSF), version 1.8.0.

Guarantees: each event, outcome and reason of the journal becomes an event that is valid under that
version's schema, with the profile ``host``. What has no attribute there stands under ``unmapped``,
so that nothing of a record is lost. Pure.

Implements the mapping table of ``docs/export.md``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.audit.exported import address_kind, fact_of, members, rest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securefs.audit.exported import Fact

__all__ = ["CLASSES", "OCSF_VERSION", "to_ocsf"]

OCSF_VERSION: Final = "1.8.0"

_FILE_SYSTEM: Final = 1001
_LOG: Final = 1008
_FINDING: Final = 2004
_SIGN_IN: Final = 3002
_ENTITY: Final = 3004
_HTTP: Final = 4002
_HOSTING: Final = 6006
_CATEGORY: Final = 1000  # class ids of one category
_OTHER: Final = 99  # ids that OCSF has no number for

# The class and the activity of each event. The activity of HTTP is its method.
CLASSES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "file.encrypt": (_HOSTING, 1),  # upload
        "file.plain": (_HOSTING, 1),
        "file.decrypt": (_HOSTING, 2),  # download
        "file.open": (_HOSTING, 14),  # open
        "file.delete": (_HOSTING, 4),  # delete
        "file.import": (_FILE_SYSTEM, 10),  # encrypt
        "key.rewrap": (_FILE_SYSTEM, 7),  # set security
        "key.reencrypt": (_FILE_SYSTEM, 10),
        "file.integrity_failure": (_FINDING, 1),  # create
        "file.rejected": (_HTTP, _OTHER),
        "request.answered": (_HTTP, _OTHER),
        "auth.granted": (_SIGN_IN, 1),  # logon
        "auth.denied": (_SIGN_IN, 1),
        "auth.logout": (_SIGN_IN, 2),  # logoff
        "token.add": (_ENTITY, 1),  # create
        "token.revoke": (_ENTITY, 4),  # delete
        "key.use": (_ENTITY, 2),  # read
        "server.start": (_LOG, 6),  # start
        "server.stop": (_LOG, 7),  # stop
        "audit.retired": (_LOG, 2),  # delete
        "audit.clock": (_LOG, _OTHER),
        "audit.segment": (_LOG, _OTHER),
        "audit.seal": (_LOG, _OTHER),
        "audit.epoch": (_LOG, _OTHER),
        "audit.adopted": (_LOG, _OTHER),
        "audit.cutover": (_LOG, _OTHER),
    }
)
_METHODS: Final = MappingProxyType(
    {
        "CONNECT": 1,
        "DELETE": 2,
        "GET": 3,
        "HEAD": 4,
        "OPTIONS": 5,
        "POST": 6,
        "PUT": 7,
        "TRACE": 8,
        "PATCH": 9,
    }
)
_STATUSES: Final = MappingProxyType(
    {"success": (1, "Success"), "failure": (2, "Failure"), "started": (_OTHER, "started")}
)
_SERVER: Final = 1  # type of a device
_REGULAR_FILE: Final = 1


def to_ocsf(record: Mapping[str, object]) -> dict[str, object]:
    """Return a record as an event of OCSF.

    :param record: as :func:`securefs.audit.record.parse_line` returns it.
    """
    fact = fact_of(record)
    class_uid, activity = CLASSES[fact.event]
    if class_uid == _HTTP:
        activity = _METHODS.get(str(fact.http.get("method")), _OTHER)
    status_id, status = _STATUSES[fact.outcome]
    return {
        "category_uid": class_uid // _CATEGORY,
        "class_uid": class_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        **({"activity_name": fact.event} if activity == _OTHER else {}),
        "time": fact.milliseconds,
        "severity_id": fact.severity,  # the same five steps
        "status_id": status_id,
        "status": status,
        **members(status_code=fact.reason),
        "message": f"{fact.event} {fact.outcome}",
        "metadata": _metadata(fact),
        "device": {"hostname": fact.host, "type_id": _SERVER},
        **_SHAPES[class_uid](fact),
    }


def _metadata(fact: Fact) -> dict[str, object]:
    product = {"name": "securefs", "vendor_name": "securefs", "version": fact.version}
    return {
        "version": OCSF_VERSION,
        "profiles": ["host"],  # which has actor and device in all classes
        "product": product,
        "uid": fact.place,
        "sequence": fact.seq,
        "event_code": fact.event,
        "log_name": fact.chain,
        "original_time": fact.time,
        **members(correlation_uid=fact.request),
    }


def _hosting(fact: Fact) -> dict[str, object]:
    return {
        "file": _file(fact),
        "actor": _actor(fact),
        # The schema wants one: a command has no client.
        "src_endpoint": _client(fact) or {"hostname": fact.host},
        **_http(fact),
        **_unmapped(fact, *_OF_FILE),
    }


def _file_system(fact: Fact) -> dict[str, object]:
    left = _unmapped(fact, *_OF_FILE, client=True, http=True)
    return {"file": _file(fact), "actor": _actor(fact), **left}


def _finding(fact: Fact) -> dict[str, object]:
    evidence = {"file": _file(fact), "actor": _actor(fact), **members(src_endpoint=_client(fact))}
    return {
        "finding_info": {"uid": fact.place, "title": "A stored file is not what was written"},
        "is_alert": True,
        "evidences": [evidence],
        **_unmapped(fact, *_OF_FILE, http=True),
    }


def _http_activity(fact: Fact) -> dict[str, object]:
    found = _http(fact)
    return {
        # The schema wants one: a record that stands for several requests has none.
        **(found or {"http_request": {}}),
        "actor": _actor(fact),
        **members(src_endpoint=_client(fact)),
        **_unmapped(fact),
    }


def _sign_in(fact: Fact) -> dict[str, object]:
    return {
        "user": _user(fact) or {"name": "unknown"},
        "service": {"name": "securefs"},
        "actor": _actor(fact),
        **members(src_endpoint=_client(fact), session=members(uid=fact.text("session"))),
        **_http(fact),
        **_unmapped(fact, "session"),
    }


def _entity(fact: Fact) -> dict[str, object]:
    token, key = fact.text("token"), fact.text("key_id")
    # All tokens of a user are revoked by their name.
    name = "key" if fact.event.startswith("key.") else "token"
    return {
        "entity": {"type": name, "type_id": _OTHER, "name": name, **members(uid=token or key)},
        "actor": _actor(fact),
        **_unmapped(fact, "token", "key_id", client=True, http=True),
    }


def _log(fact: Fact) -> dict[str, object]:
    return {"log_name": fact.chain, "actor": _actor(fact), **_unmapped(fact, client=True, http=True)}


_SHAPES: Final[Mapping[int, Callable[[Fact], dict[str, object]]]] = MappingProxyType(
    {
        _FILE_SYSTEM: _file_system,
        _LOG: _log,
        _FINDING: _finding,
        _SIGN_IN: _sign_in,
        _ENTITY: _entity,
        _HTTP: _http_activity,
        _HOSTING: _hosting,
    }
)
_OF_FILE: Final = ("id", "name", "size")  # members of obj that are attributes of a file


def _file(fact: Fact) -> dict[str, object]:
    # The schema wants a name: a file that failed may have none.
    name = fact.text("name") or fact.text("id") or "unknown"
    return {"type_id": _REGULAR_FILE, "name": name, **members(uid=fact.text("id"), size=fact.size)}


def _actor(fact: Fact) -> dict[str, object]:
    return {"process": {"name": "securefs", "pid": fact.pid}, **members(user=_user(fact))}


def _user(fact: Fact) -> dict[str, object]:
    return members(uid=fact.actor)


def _client(fact: Fact) -> dict[str, object]:
    """Return the client: an address, or what stands for many, such as a network."""
    if not fact.address:
        return {}
    known = {"ip" if address_kind(fact.address) else "name": fact.address}
    return {**known, **members(intermediate_ips=[fact.peer] if address_kind(fact.peer) else [])}


def _http(fact: Fact) -> dict[str, object]:
    method, path = fact.http.get("method"), fact.http.get("path")
    known = method if method in _METHODS else None
    request = members(http_method=known, url=members(path=path), uid=fact.client_request)
    status = fact.status
    return members(http_request=request, http_response=None if status is None else {"code": status})


def _unmapped(fact: Fact, *used: str, client: bool = False, http: bool = False) -> dict[str, object]:
    """Return what has no attribute.

    :param used: members of ``obj`` that have. :param client, http: this class has none for these.
    """
    odd = "method" in fact.http and fact.http["method"] not in _METHODS
    peer = fact.peer if client or not address_kind(fact.peer) else ""
    return {
        "unmapped": rest(fact, *used, http=http or odd)
        | members(
            chain=fact.chain,
            boot=fact.boot,
            client=members(addr=fact.address if client else "", peer=peer),
            client_req=fact.client_request if http else "",
        )
    }
