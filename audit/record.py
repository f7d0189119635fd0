r"""One record of the journal as bytes: how it is written, and what is accepted as one.

Guarantees: :func:`build_line` returns one line of printable ASCII, ended by ``\n``, of at most
:data:`MAX_LINE` bytes, whatever a client put into the strings. The same arguments always give the
same bytes. :func:`parse_line` accepts every line that was built, and those of version 1. Refuses: a
key outside the closed lists of :mod:`securefs.audit.fields`, a value of another type, and, when
reading, any bytes that differ from what writing the parsed record again would give. So a record has
exactly one encoding, and its hash covers its meaning. Pure: the clock, the process and all
randomness are arguments.

Implements the record table of ``docs/journal.md``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Final, NoReturn

from securefs.audit.events import EVENTS, severity_of
from securefs.audit.fields import (
    LAYOUTS,
    LONGEST_LINE,
    MAX_LINE,
    MAX_STRING,
    SHORT_PATH,
    VERSION,
    Members,
    RecordError,
    check,
    check_seal,
    is_count,
)
from securefs.errors import Reason
from securefs.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_LINE",
    "NO_LINE",
    "VERSION",
    "Entry",
    "Position",
    "RecordError",
    "Source",
    "build_line",
    "encode_record",
    "line_hash",
    "new_line_hash",
    "parse_line",
    "timestamp",
]

NO_LINE: Final = "0" * 64  # `prev` of the first line

_LAYOUT: Final = LAYOUTS[VERSION]
_NANOSECONDS: Final = 1_000_000_000  # in a second


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a record: ``seq`` in ``chain``, after the line whose hash is ``prev``.

    ``chain`` has 32 hex digits, ``prev`` 64.
    """

    chain: str
    seq: int = 0
    prev: str = NO_LINE


@dataclass(frozen=True)
class Source:
    """The writer of a record: the host's name, the process id and the version of securefs.

    :ivar boot: the id that the kernel drew at the host's last start, None if it tells none.
    """

    host: str
    pid: int
    version: str
    boot: str | None = None

    @lazy
    def encoded(self) -> str:
        """The object ``host`` of each record, as JSON: it is made once for a chain."""
        members: dict[str, str | int] = {"name": self.host, "pid": self.pid, "version": self.version}
        if self.boot is not None:
            members["boot"] = self.boot
        return _object("host", members)


@dataclass(frozen=True)
class Entry:
    """What happened: the members of a record that its writer chooses.

    :ivar event: one of :data:`securefs.audit.events.EVENTS`, which also decides the severity.
    :ivar reason: the reason of a failure.
    :ivar obj: the object: what the event's table allows.
    :ivar actor: the principal. :ivar http: ``method``, ``path``, ``status``.
    :ivar address: the client's. :ivar peer: the address of the connection, if it is another.
    :ivar request_id: the server's own id of the request. :ivar client_request_id: the one that the
        client sent.
    :ivar seal: of ``audit.seal``: ``index``, ``key``, ``next``, ``runs`` and ``size``.
    """

    event: str
    outcome: str = "success"
    reason: Reason | None = None
    obj: Mapping[str, str | int] = field(default_factory=dict)
    actor: str | None = None
    request_id: str | None = None
    address: str | None = None
    http: Mapping[str, str | int] = field(default_factory=dict)
    peer: str | None = None
    client_request_id: str | None = None
    seal: Mapping[str, object] | None = None

    @lazy
    def severity(self) -> int:
        """The severity, 1 to 5, from the table of events; ValueError for an entry not in it."""
        return severity_of(self.event, self.outcome, self.reason, self.obj)

    def hidden(self, obj: Mapping[str, str | int], actor: str | None) -> Entry:
        """Return this entry with pseudonyms in the place of names: with the same members."""
        # As dataclasses.replace, in a tenth of the time, and with the severity.
        entry = object.__new__(Entry)
        entry.__dict__.update(self.__dict__, obj=obj, actor=actor)
        return entry


def line_hash(line: bytes) -> str:
    """Return the 64 hex digits by which the next record names ``line`` (without its line end)."""
    digest = new_line_hash()
    digest.update(line)
    return digest.hexdigest()


def new_line_hash() -> hashlib._Hash:
    """Return a new hash object for one line; feed it the line without its line end."""
    # The zero byte separates these hashes from those of any other structure that may be signed
    # beside them (domain separation).
    return hashlib.sha256(b"\x00")


def build_line(position: Position, source: Source, time_ns: int, entry: Entry) -> bytes:
    """Return the one encoding of this record, with its line end.

    :param time_ns: nanoseconds since 1970-01-01 UTC.
    :raises ValueError: a key, event, outcome or type outside the closed lists: a bug in the caller.
    """
    severity = entry.severity  # which also checks event, outcome and the members of obj
    fields = [
        f'"chain":"{position.chain}"',
        f'"event":"{entry.event}"',
        f'"host":{source.encoded}',
        f'"outcome":"{entry.outcome}"',
        f'"prev":"{position.prev}"',
        f'"seq":{position.seq}',
        f'"sev":{severity}',
        f'"time":"{timestamp(time_ns)}"',
        f'"v":{VERSION}',
        *_optional(entry),
    ]
    # A quote and a colon sort before every letter of a key, so this is the order of the keys.
    fields.sort()
    line = f"{{{','.join(fields)}}}\n".encode("ascii")
    if len(line) > MAX_LINE:
        raise ValueError(f"{entry.event}: a line of {len(line)} bytes; at most {MAX_LINE} are allowed")
    return line


def parse_line(line: bytes) -> dict[str, object]:
    """Return the record in ``line`` (without its line end); check every key, type and byte.

    :raises RecordError: it is not a record, or not in its one encoding.
    """
    if len(line) >= LONGEST_LINE:
        raise _too_long(LONGEST_LINE)
    try:
        record = _DECODER.decode(line.decode("ascii"))
    except (ValueError, RecursionError):
        # RecursionError: ten thousand opening brackets are a short line.
        raise RecordError("not_json", "the line is not one JSON object in ASCII without floats") from None
    if type(record) is not dict:
        raise RecordError("not_json", "the line is JSON, but not an object")
    layout = check(record)
    if len(line) >= layout.max_line:
        raise _too_long(layout.max_line)
    # Duplicate keys and any other spacing, escapes or key order are refused here.
    if encode_record(record) != line:
        raise RecordError("not_canonical", "the line is not spelled as securefs spells this record")
    return record


def _too_long(most: int) -> RecordError:
    return RecordError("too_long", f"no record is longer than {most} bytes")


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(text)


_DECODER: Final = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number)
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
)


def encode_record(record: Mapping[str, object]) -> bytes:
    """Return the one encoding of a record that was parsed, without its line end."""
    return _ENCODER.encode(record).encode("ascii")


def timestamp(time_ns: int) -> str:
    """Return the time in nanoseconds since 1970-01-01 UTC as RFC 3339 spells it."""
    seconds, nanoseconds = divmod(time_ns, _NANOSECONDS)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]


def _optional(entry: Entry) -> list[str]:
    """Return the fields that not every record has, each as JSON."""
    fields = []
    if entry.reason is not None:
        if entry.outcome != "failure":
            raise ValueError(f"{entry.event}: only a failure has a reason")
        fields.append(f'"reason":"{Reason(entry.reason).value}"')
    if entry.obj:
        fields.append(f'"obj":{_object("obj", entry.obj)}')
    if entry.actor is not None:
        fields.append(f'"actor":{_object("actor", {"id": entry.actor})}')
    client = {"addr": entry.address, "peer": entry.peer}
    if client := {name: text for name, text in client.items() if text is not None}:
        fields.append(f'"client":{_object("client", client)}')
    if entry.http:
        longest = SHORT_PATH if EVENTS[entry.event].summed else MAX_STRING
        fields.append(f'"http":{_object("http", entry.http, longest)}')
    if entry.request_id is not None:
        fields += _members("req", {"req": entry.request_id}, _LAYOUT.texts)
    if entry.client_request_id is not None:
        fields += _members("client_req", {"client_req": entry.client_request_id}, _LAYOUT.texts)
    if entry.seal is not None or entry.event == "audit.seal":
        check_seal(entry.seal if entry.event == "audit.seal" else None)
        fields.append(f'"seal":{_ENCODER.encode(entry.seal)}')
    return fields


def _object(section: str, members: Mapping[str, str | int], longest_path: int = MAX_STRING) -> str:
    fields = _members(section, members, _LAYOUT.sections[section], longest_path)
    fields.sort()
    return f"{{{','.join(fields)}}}"


def _members(
    section: str, members: Mapping[str, str | int], allowed: Members, longest_path: int = MAX_STRING
) -> list[str]:
    """Return ``members`` as JSON, each string cut; add the full length of a cut one.

    It stands under the key of the string with ``_len`` appended.

    :raises ValueError: a key outside the closed list, or a value of another type.
    """
    fields = []
    for key, value in members.items():
        if key in allowed.strings and isinstance(value, str):
            text = value if value.isascii() else _scalar(value)
            longest = longest_path if key == "path" else MAX_STRING
            if len(text) > longest:
                fields.append(f'"{key}_len":{len(text)}')
                text = text[:longest]
            fields.append(f'"{key}":{quoted(text)}')
        elif key in allowed.integers and is_count(value):
            fields.append(f'"{key}":{value}')
        else:
            raise ValueError(f"{section}: {ascii(key)[:40]} is unknown or of a wrong type or size")
    return fields


def _scalar(text: str) -> str:
    """Join the halves of surrogate pairs, as a JSON reader does.

    Otherwise a length would differ after reading.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
