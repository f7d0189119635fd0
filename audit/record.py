r"""One record of the journal as bytes: how it is written, and what is accepted as one.

Guarantees: :func:`build_line` returns one line of printable ASCII, ended by ``\n``, of at most
:data:`MAX_LINE` bytes, whatever a client put into the strings. The same arguments always give the
same bytes. :func:`parse_line` accepts every line that was built. Refuses: a key outside the closed
lists below, a value of another type, and, when reading, any bytes that differ from what writing the
parsed record again would give. So a record has exactly one encoding, and its hash covers its
meaning. Pure: the clock, the process and all randomness are arguments.

Implements the record table of ``docs/journal.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn

from securefs.audit.events import EVENTS, MEMBERS, OUTCOMES, SEVERITIES, severity_of
from securefs.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = [
    "MAX_INT",
    "MAX_LINE",
    "MAX_STRING",
    "NO_LINE",
    "VERSION",
    "Entry",
    "Position",
    "RecordError",
    "Source",
    "build_line",
    "line_hash",
    "new_line_hash",
    "parse_line",
]

VERSION: Final = 1  # the `v` field
MAX_STRING: Final = 256  # code points kept of a string; its full length is recorded beside it
MAX_INT: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact
MAX_LINE: Final = 128 * 1024  # bytes with the line end; a test builds the longest possible record
NO_LINE: Final = "0" * 64  # `prev` of the first line

_REASONS: Final = frozenset(reason.value for reason in Reason)

_REQUIRED: Final = frozenset(
    {"v", "time", "seq", "chain", "prev", "event", "outcome", "sev", "src"},
)
_OPTIONAL: Final = frozenset({"reason", "obj", "actor", "req", "req_len", "http"})


@dataclass(frozen=True, slots=True)
class _Members:
    """The closed list of keys that one object of a record may have."""

    strings: frozenset[str]
    integers: frozenset[str]


_OBJ: Final = _Members(
    strings=frozenset(name for name, kind in MEMBERS.items() if kind is str),
    integers=frozenset(name for name, kind in MEMBERS.items() if kind is int),
)
_SECTIONS: Final[Mapping[str, _Members]] = MappingProxyType(
    {
        "obj": _OBJ,
        "actor": _Members(frozenset({"id"}), frozenset()),
        "src": _Members(frozenset({"host", "version", "addr"}), frozenset({"pid"})),
        "http": _Members(frozenset({"method", "path"}), frozenset({"status"})),
    }
)
_REQUEST: Final = _Members(frozenset({"req"}), frozenset())
_SOURCE_REQUIRED: Final = frozenset({"host", "pid", "version"})

_TIME: Final = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"  # RFC 3339 full-date
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{9}Z"  # partial-time, nanoseconds, UTC
)
_CHAIN: Final = re.compile(r"[0-9a-f]{32}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")

_NANOSECONDS: Final = 1_000_000_000  # in a second


class RecordError(ValueError):
    """These bytes are not a record.

    :attr:`code` is the verifier's word for why: ``too_long``, ``not_json``, ``not_canonical``,
    ``bad_field`` or ``version``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a record: ``seq`` in ``chain``, after the line whose hash is ``prev``.

    ``chain`` has 32 hex digits, ``prev`` 64.
    """

    chain: str
    seq: int = 0
    prev: str = NO_LINE


@dataclass(frozen=True, slots=True)
class Source:
    """The writer of a record: the host's name, the process id and the version of securefs."""

    host: str
    pid: int
    version: str


@dataclass(frozen=True)
class Entry:
    """What happened: the members of a record that its writer chooses.

    :ivar event: one of :data:`securefs.audit.events.EVENTS`, which also decides the severity.
    :ivar reason: the reason of a failure.
    :ivar obj: the object: what the event's table allows.
    :ivar actor: the principal. :ivar address: the client's. :ivar http: ``method``, ``path``,
        ``status``.
    """

    event: str
    outcome: str = "success"
    reason: Reason | None = None
    obj: Mapping[str, str | int] = field(default_factory=dict)
    actor: str | None = None
    request_id: str | None = None
    address: str | None = None
    http: Mapping[str, str | int] = field(default_factory=dict)

    @cached_property
    def severity(self) -> int:
        """The severity, 1 to 5, from the table of events; ValueError for an entry not in it."""
        return severity_of(self.event, self.outcome, self.reason, self.obj)


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
    record: dict[str, object] = {
        "v": VERSION,
        "time": _timestamp(time_ns),
        "seq": position.seq,
        "chain": position.chain,
        "prev": position.prev,
        "event": entry.event,
        "outcome": entry.outcome,
        "sev": entry.severity,
    }
    _add_rest(record, source, entry)
    _check(record)
    return _encode(record) + b"\n"


def parse_line(line: bytes) -> dict[str, object]:
    """Return the record in ``line`` (without its line end); check every key, type and byte.

    :raises RecordError: it is not a record, or not in its one encoding.
    """
    if len(line) >= MAX_LINE:
        raise RecordError("too_long", f"no record is longer than {MAX_LINE} bytes")
    try:
        record = _DECODER.decode(line.decode("ascii"))
    except (ValueError, RecursionError):
        # RecursionError: ten thousand opening brackets are a short line.
        raise RecordError("not_json", "the line is not one JSON object in ASCII without floats") from None
    if type(record) is not dict:
        raise RecordError("not_json", "the line is JSON, but not an object")
    _check(record)
    # Duplicate keys and any other spacing, escapes or key order are refused here.
    if _encode(record) != line:
        raise RecordError("not_canonical", "the line is not spelled as securefs spells this record")
    return record


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(text)


_DECODER: Final = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number)
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
)


def _encode(record: dict[str, object]) -> bytes:
    return _ENCODER.encode(record).encode("ascii")


def _timestamp(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, _NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment.isoformat()[:19]}.{nanoseconds:09d}Z"


def _add_rest(record: dict[str, object], source: Source, entry: Entry) -> None:
    src: dict[str, str | int] = {"host": source.host, "pid": source.pid, "version": source.version}
    if entry.address is not None:
        src["addr"] = entry.address
    record["src"] = _cut(src)
    if entry.reason is not None:
        record["reason"] = Reason(entry.reason).value
    if entry.obj:
        record["obj"] = _cut(entry.obj)
    if entry.actor is not None:
        record["actor"] = _cut({"id": entry.actor})
    if entry.request_id is not None:
        record.update(_cut({"req": entry.request_id}))
    if entry.http:
        record["http"] = _cut(entry.http)


def _cut(members: Mapping[str, str | int]) -> dict[str, str | int]:
    """Copy ``members`` with each string cut at :data:`MAX_STRING`; add the length of a cut one.

    It is the full length, under the key of the string with ``_len`` appended.
    """
    result: dict[str, str | int] = {}
    for key, value in members.items():
        if isinstance(value, str):
            text = value if value.isascii() else _scalar(value)
            result[key] = text[:MAX_STRING]
            if len(text) > MAX_STRING:
                result[f"{key}_len"] = len(text)
        else:
            result[key] = value
    return result


def _scalar(text: str) -> str:
    """Join the halves of surrogate pairs, as a JSON reader does.

    Otherwise a length would differ after reading.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _check(record: dict[str, object]) -> None:
    """Refuse a record outside the closed lists; the writer and the verifier share this."""
    keys = record.keys()
    if not (keys >= _REQUIRED and keys <= _REQUIRED | _OPTIONAL):
        odd = sorted((_REQUIRED - keys) | (keys - _REQUIRED - _OPTIONAL))
        raise RecordError("bad_field", f"missing or unknown: {', '.join(ascii(key)[:40] for key in odd[:8])}")
    if type(record["v"]) is not int or record["v"] != VERSION:
        raise RecordError("version", f"this version of securefs reads records with v={VERSION} only")
    _check_position(record)
    _check_verdict(record)
    for section, members in _SECTIONS.items():
        if section in keys:
            _check_members(section, record[section], members)
    source = record["src"]
    if not (isinstance(source, dict) and source.keys() >= _SOURCE_REQUIRED):
        raise RecordError("bad_field", "src must have host, pid and version")
    if "req" in keys or "req_len" in keys:
        request = {key: record[key] for key in ("req", "req_len") if key in keys}
        _check_members("req", request, _REQUEST)


def _check_position(record: dict[str, object]) -> None:
    for key, pattern in (("time", _TIME), ("chain", _CHAIN), ("prev", _HASH)):
        value = record[key]
        if not (type(value) is str and pattern.fullmatch(value)):
            raise RecordError("bad_field", f"{key} is not in its format")
    if not _is_count(record["seq"]):
        raise RecordError("bad_field", f"seq is not an integer from 0 to {MAX_INT}")


def _check_verdict(record: dict[str, object]) -> None:
    for key, allowed in (("event", EVENTS), ("outcome", OUTCOMES)):
        if not _is_one_of(record[key], allowed):
            raise RecordError("bad_field", f"{key} is not one of {', '.join(sorted(allowed))}")
    severity = record["sev"]
    if type(severity) is not int or severity not in SEVERITIES:
        raise RecordError("bad_field", "sev is not an integer from 1 to 5")
    if "reason" not in record:
        return
    if record["outcome"] != "failure":
        raise RecordError("bad_field", "only a failure has a reason")
    if not _is_one_of(record["reason"], _REASONS):
        raise RecordError("bad_field", f"reason is not one of {', '.join(sorted(_REASONS))}")


def _check_members(section: str, value: object, members: _Members) -> None:
    if type(value) is not dict or not value:
        raise RecordError("bad_field", f"{section} is not an object with members")
    for key, member in value.items():
        if key in members.strings:
            good = type(member) is str and len(member) <= MAX_STRING
        elif key in members.integers:
            good = _is_count(member)
        else:
            good = _is_length_of_cut(key, value, members)
        if not good:
            raise RecordError(
                "bad_field", f"{section}: {ascii(key)[:40]} is unknown or of a wrong type or size"
            )


def _is_length_of_cut(key: object, value: dict[str, object], members: _Members) -> bool:
    """Return whether ``key`` is the ``…_len`` of a string that was cut."""
    if not (isinstance(key, str) and key.endswith("_len")):
        return False
    base = key.removesuffix("_len")
    if base not in members.strings:
        return False
    text, length = value.get(base), value[key]
    whole = type(text) is str and len(text) == MAX_STRING
    return whole and type(length) is int and MAX_STRING < length <= MAX_INT


def _is_count(value: object) -> bool:
    # `type is`, because a bool is an int to isinstance and would be written as true.
    return type(value) is int and 0 <= value <= MAX_INT


def _is_one_of(value: object, allowed: Collection[str]) -> bool:
    # The type first: a list in place of a string is not hashable.
    return type(value) is str and value in allowed
