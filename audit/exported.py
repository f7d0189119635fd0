r"""One record in the terms that all export formats share.

Guarantees: records of versions 1 and 2 give the same :class:`Fact`, and each value of a record is
in it. Every string can be encoded: half of a surrogate pair stands as ``\ud800``, in six
characters. Pure.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Fact", "address_kind", "fact_of", "members", "rest"]

_Kind = TypeVar("_Kind")
_Members = dict[str, "str | int"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Fact:
    """What a record says. Strings that it does not have are empty, numbers None.

    :ivar time: RFC 3339. :ivar milliseconds: the same, since 1970-01-01 UTC.
    :ivar place: ``chain:seq``, which names a record among all of a journal.
    :ivar peer: the address of the connection, where ``address`` is behind a proxy.
    :ivar obj, http, more: members of these sections; of ``more``, what is in no other field.
    """

    event: str
    outcome: str
    reason: str
    severity: int
    time: str
    milliseconds: int
    chain: str
    seq: int
    host: str
    pid: int
    version: str
    boot: str
    address: str
    peer: str
    actor: str
    request: str
    client_request: str
    obj: _Members = field(default_factory=dict)
    http: _Members = field(default_factory=dict)
    more: dict[str, object] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The name of the record."""
        return f"{self.chain}:{self.seq}"

    def text(self, member: str) -> str:
        """Return a string of ``obj``, "" if it has none of that name."""
        return str(self.obj.get(member, ""))

    @property
    def status(self) -> int | None:
        """The HTTP status."""
        return _integer(self.http, "status")

    @property
    def size(self) -> int | None:
        """The size of the file, in bytes of plaintext."""
        return _integer(self.obj, "size")


def fact_of(record: Mapping[str, object]) -> Fact:
    """Return what a record says.

    :param record: as :func:`securefs.audit.record.parse_line` returns it.
    """
    writer = _section(record, "host") or _section(record, "src")
    client, actor = _section(record, "client"), _section(record, "actor")
    return Fact(
        event=_text(record, "event"),
        outcome=_text(record, "outcome"),
        reason=_text(record, "reason"),
        severity=_number(record, "sev"),
        time=_text(record, "time"),
        milliseconds=_milliseconds(_text(record, "time")),
        chain=_text(record, "chain"),
        seq=_number(record, "seq"),
        host=_text(writer, "name") or _text(writer, "host"),
        pid=_number(writer, "pid"),
        version=_text(writer, "version"),
        boot=_text(writer, "boot"),
        address=_text(client, "addr") or _text(writer, "addr"),
        peer=_text(client, "peer"),
        actor=_text(actor, "id"),
        request=_text(record, "req"),
        client_request=_text(record, "client_req"),
        obj=_section(record, "obj"),
        http=_section(record, "http"),
        more={"prev": record["prev"], "v": record["v"], **_extra(record, writer, client, actor)},
    )


def _extra(record: Mapping[str, object], *sections: _Members) -> dict[str, object]:
    """Return the lengths of strings that were cut, and the seal."""
    lengths: dict[str, object] = {
        name: value for part in (record, *sections) for name, value in part.items() if name.endswith("_len")
    }
    return lengths | ({"seal": record["seal"]} if "seal" in record else {})


def members(**given: _Kind | None) -> dict[str, _Kind]:
    """Return the members that say something: neither None nor empty."""
    return {name: value for name, value in given.items() if value not in (None, "", [], {})}


def rest(fact: Fact, *used: str, http: bool = False) -> dict[str, object]:
    """Return what a format has no field for.

    :param used: members of ``obj`` that it has fields for. :param http: none for a request, either.
    """
    obj = {name: value for name, value in fact.obj.items() if name not in used}
    request = {name: value for name, value in fact.http.items() if http or name.endswith("_len")}
    return members(obj=obj, http=request, **fact.more)


def address_kind(address: str) -> int:
    """Return 4 or 6 for an address of that version, 0 for anything else, such as a network."""
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0


def _section(record: Mapping[str, object], name: str) -> _Members:
    section = record.get(name)
    if not isinstance(section, dict):
        return {}
    return {key: _whole(value) if isinstance(value, str) else value for key, value in section.items()}


def _text(section: Mapping[str, object], name: str) -> str:
    return _whole(str(section.get(name, "")))


def _number(section: Mapping[str, object], name: str) -> int:
    return cast("int", section[name])  # the reader checked it


def _integer(section: _Members, name: str) -> int | None:
    value = section.get(name)
    return value if isinstance(value, int) else None


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _milliseconds(time: str) -> int:
    """Return milliseconds since the epoch of a time as records spell it."""
    second = datetime.fromisoformat(f"{time[:19]}+00:00")
    return int((second - _EPOCH).total_seconds()) * 1000 + int(time[20:23])
