r"""A record as a line of the Common Event Format (CEF), version 0.

Guarantees: one line of printable characters, whose header has seven fields. ``\`` and ``|`` of the
header, ``\`` and ``=`` of the extension are escaped, line ends are ``\n`` and ``\r``, and any other
character that is not printable (a control, a line separator, a mark that turns the direction of
text) stands as ``\\uXXXX``. What the dictionary of CEF has no key for stands as JSON in ``cs6``, so
that nothing of a record is lost. Pure.

Implements the mapping table of ``docs/export.md``.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.audit.exported import address_kind, fact_of, members, rest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.audit.exported import Fact

__all__ = ["SEVERITIES", "to_cef"]

_FIRST: Final = "CEF:0|securefs|securefs"
# CEF counts from 0 to 10: low to 3, medium to 6, high to 8, very high from 9.
SEVERITIES: Final = MappingProxyType({1: 1, 2: 3, 3: 6, 4: 9, 5: 10})
# What is escaped in the header, and in the extension, where alone line ends are allowed.
_HEADER: Final = MappingProxyType({"\\": r"\\", "|": r"\|"})
_FIELD: Final = MappingProxyType({"\\": r"\\", "=": r"\=", "\n": r"\n", "\r": r"\r"})


def to_cef(record: Mapping[str, object]) -> str:
    """Return a record as a line of CEF, without its line end.

    :param record: as :func:`securefs.audit.record.parse_line` returns it.
    """
    fact = fact_of(record)
    header = (fact.version, fact.event, f"{fact.event} {fact.outcome}", str(SEVERITIES[fact.severity]))
    fields = " ".join(f"{key}={_escaped(str(value), _FIELD)}" for key, value in _extension(fact).items())
    return f"{_FIRST}|{'|'.join(_escaped(text, _HEADER) for text in header)}|{fields}"


def _extension(fact: Fact) -> dict[str, str | int]:
    more = rest(fact, "id", "name", "size", "sent", "key_id", "suite") | members(peer=fact.peer)
    return members(
        rt=fact.milliseconds,
        outcome=fact.outcome,
        reason=fact.reason,
        externalId=fact.place,
        dvchost=fact.host,
        dvcpid=fact.pid,
        suser=fact.actor,
        **_client(fact),
        requestMethod=fact.http.get("method"),
        request=fact.http.get("path"),
        fileId=fact.obj.get("id"),
        fname=fact.obj.get("name"),
        fsize=fact.size,
        out=fact.obj.get("sent"),
        **_labelled("cn1", "status", fact.status),
        **_labelled("cs1", "keyId", fact.obj.get("key_id")),
        **_labelled("cs2", "suite", fact.obj.get("suite")),
        **_labelled("cs3", "requestId", fact.request),
        **_labelled("cs4", "clientRequestId", fact.client_request),
        **_labelled("cs5", "boot", fact.boot),
        **_labelled("cs6", "more", json.dumps(more, sort_keys=True, separators=(",", ":"))),
    )


def _client(fact: Fact) -> dict[str, str | int]:
    """Return the keys of the addresses: there are others for IPv6."""
    if (kind := address_kind(fact.address)) == 6:  # noqa: PLR2004  # IPv6
        return {"c6a2": fact.address, "c6a2Label": "Source IPv6 Address"}
    # What stands for many clients is a name.
    return members(**{"src" if kind else "shost": fact.address})


def _labelled(key: str, label: str, value: str | int | None) -> dict[str, str | int]:
    return {} if value is None or value == "" else {key: value, f"{key}Label": label}


def _escaped(text: str, special: Mapping[str, str]) -> str:
    return "".join(special.get(character) or _printable(character) for character in text)


def _printable(character: str) -> str:
    # An escaped backslash: a reader of CEF gets \uXXXX.
    return character if character.isprintable() else f"\\\\u{ord(character):04x}"
