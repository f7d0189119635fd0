"""What may stand in a record: the closed lists of its fields, their types and their sizes.

Guarantees: :func:`check` accepts a record only if each key of it is in the lists of its version,
with a value of its type. The writer (:mod:`securefs.audit.record`), the reader and the schema
(:mod:`securefs.audit.schema`) ask these lists, so they agree. Version 1 is read and no longer
written. Pure.

Implements the record table of ``docs/journal.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from securefs.audit.events import EVENTS, MEMBERS, OUTCOMES, SEVERITIES
from securefs.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = [
    "HASH",
    "ID",
    "LAYOUTS",
    "LONGEST_LINE",
    "MAX_INT",
    "MAX_LINE",
    "MAX_RUNS",
    "MAX_STRING",
    "REASONS",
    "SHORT_PATH",
    "TIME",
    "VERSION",
    "Layout",
    "Members",
    "RecordError",
    "check",
    "check_seal",
    "is_count",
]

VERSION: Final = 2  # the `v` field
MAX_STRING: Final = 256  # code points kept of a string; its full length is recorded beside it
SHORT_PATH: Final = 64  # code points kept of the path in a record that anyone can cause
MAX_INT: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact
# Bytes of a line with its end: an entry of a transparency log holds no more (C2SP tlog-tiles). A
# test builds the longest possible record.
MAX_LINE: Final = 65_535
LONGEST_LINE: Final = 128 * 1024  # bytes, in any version
MAX_RUNS: Final = 512  # in the seal of one record

TIME: Final = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"  # RFC 3339 full-date
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{9}Z"  # partial-time, nanoseconds, UTC
)
ID: Final = "[0-9a-f]{32}"  # of a chain
HASH: Final = "[0-9a-f]{64}"
REASONS: Final = frozenset(reason.value for reason in Reason)

_TIME, _ID, _HASH = (re.compile(pattern) for pattern in (TIME, ID, HASH))


class RecordError(ValueError):
    """These bytes are not a record.

    :attr:`code` is the verifier's word for why: ``too_long``, ``not_json``, ``not_canonical``,
    ``bad_field`` or ``version``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Members:
    """The closed list of keys that one object of a record may have.

    :ivar required: those that it must have.
    """

    strings: frozenset[str]
    integers: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of one version.

    :ivar sections: the fields that are objects. :ivar texts: the optional fields that are strings.
    :ivar max_line: bytes of a line, with its end. :ivar other: the other optional fields.
    :ivar allowed: all fields.
    """

    required: frozenset[str]
    sections: Mapping[str, Members]
    texts: Members
    max_line: int
    other: frozenset[str]
    allowed: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        texts = self.texts.strings | {f"{name}_len" for name in self.texts.strings}
        object.__setattr__(self, "allowed", self.required | self.sections.keys() | texts | self.other)


_COMMON: Final = frozenset({"v", "time", "seq", "chain", "prev", "event", "outcome", "sev"})
_WRITER: Final = frozenset({"pid"})
_OBJ: Final = Members(
    strings=frozenset(name for name, kind in MEMBERS.items() if kind is str),
    integers=frozenset(name for name, kind in MEMBERS.items() if kind is int),
)
_SHARED: Final = {
    "obj": _OBJ,
    "actor": Members(frozenset({"id"})),
    "http": Members(frozenset({"method", "path"}), frozenset({"status"})),
}
LAYOUTS: Final[Mapping[int, Layout]] = MappingProxyType(
    {
        1: Layout(
            required=_COMMON | {"src"},
            sections=MappingProxyType(
                {
                    **_SHARED,
                    "src": Members(
                        frozenset({"host", "version", "addr"}), _WRITER, frozenset({"host", "pid", "version"})
                    ),
                }
            ),
            texts=Members(frozenset({"req"})),
            max_line=LONGEST_LINE,
            other=frozenset({"reason"}),
        ),
        VERSION: Layout(
            required=_COMMON | {"host"},
            sections=MappingProxyType(
                {
                    **_SHARED,
                    "client": Members(frozenset({"addr", "peer"})),
                    "host": Members(
                        frozenset({"name", "version", "boot"}), _WRITER, frozenset({"name", "pid", "version"})
                    ),
                }
            ),
            texts=Members(frozenset({"req", "client_req"})),
            max_line=MAX_LINE,
            other=frozenset({"reason", "seal"}),
        ),
    }
)


def check(record: dict[str, object]) -> Layout:
    """Refuse a record outside the closed lists; return the layout of its version.

    :raises RecordError: what is wrong, and not whether the spelling is.
    """
    version = record.get("v")
    layout = LAYOUTS.get(version) if type(version) is int else None
    if layout is None:
        raise RecordError(
            "version", f"this version of securefs reads records with v={' or '.join(map(str, LAYOUTS))} only"
        )
    keys = record.keys()
    if not (keys >= layout.required and keys <= layout.allowed):
        odd = sorted((layout.required - keys) | (keys - layout.allowed))
        raise RecordError("bad_field", f"missing or unknown: {', '.join(ascii(key)[:40] for key in odd[:8])}")
    _check_position(record)
    _check_verdict(record)
    for section, members in layout.sections.items():
        if section in keys:
            _check_members(section, record[section], members)
    texts = {key: record[key] for key in keys if key.removesuffix("_len") in layout.texts.strings}
    if texts:
        _check_members("req", texts, layout.texts)
    if "seal" in keys or record["event"] == "audit.seal":
        check_seal(record.get("seal") if record["event"] == "audit.seal" else None)
    return layout


def _check_position(record: dict[str, object]) -> None:
    for key, pattern in (("time", _TIME), ("chain", _ID), ("prev", _HASH)):
        if not _matches(record[key], pattern):
            raise RecordError("bad_field", f"{key} is not in its format")
    if not is_count(record["seq"]):
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
    if not _is_one_of(record["reason"], REASONS):
        raise RecordError("bad_field", f"reason is not one of {', '.join(sorted(REASONS))}")


def _check_members(section: str, value: object, members: Members) -> None:
    if type(value) is not dict or not value:
        raise RecordError("bad_field", f"{section} is not an object with members")
    for key, member in value.items():
        if key in members.strings:
            good = type(member) is str and len(member) <= MAX_STRING
        elif key in members.integers:
            good = is_count(member)
        else:
            good = _is_length_of_cut(key, value, members)
        if not good:
            raise RecordError(
                "bad_field", f"{section}: {ascii(key)[:40]} is unknown or of a wrong type or size"
            )
    if not value.keys() >= members.required:
        raise RecordError("bad_field", f"{section} must have {', '.join(sorted(members.required))}")


def _is_length_of_cut(key: object, value: dict[str, object], members: Members) -> bool:
    """Return whether ``key`` is the ``…_len`` of a string that was cut."""
    if not (isinstance(key, str) and key.endswith("_len")):
        return False
    base = key.removesuffix("_len")
    if base not in members.strings:
        return False
    text, length = value.get(base), value[key]
    sizes = {MAX_STRING, SHORT_PATH} if base == "path" else {MAX_STRING}
    return type(text) is str and len(text) in sizes and type(length) is int and len(text) < length <= MAX_INT


def check_seal(seal: object) -> None:
    """Refuse what is no seal of an ``audit.seal`` record.

    :raises RecordError: it is none.
    """
    if type(seal) is not dict or seal.keys() != {"index", "key", "next", "runs", "size"}:
        raise RecordError(
            "bad_field", "seal is not an object with index, key, next, runs and size, as audit.seal has one"
        )
    keys = _matches(seal["key"], _HASH) and _matches(seal["next"], _HASH)
    if not (keys and is_count(seal["index"]) and is_count(seal["size"])):
        raise RecordError("bad_field", "seal: index, key, next or size is not in its format")
    runs = seal["runs"]
    if type(runs) is not list or not 1 <= len(runs) <= MAX_RUNS or not all(map(_is_run, runs)):
        raise RecordError("bad_field", f"seal: runs is not a list of 1 to {MAX_RUNS} runs")


def _is_run(run: object) -> bool:
    if type(run) is not list or len(run) != 3:  # noqa: PLR2004  # chain, from, to
        return False
    chain, start, last = run
    return _matches(chain, _ID) and is_count(start) and is_count(last) and start <= last


def is_count(value: object) -> bool:
    """Return whether it is an integer that a record may hold."""
    # `type is`, because a bool is an int to isinstance and would be written as true.
    return type(value) is int and 0 <= value <= MAX_INT


def _matches(value: object, pattern: re.Pattern[str]) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def _is_one_of(value: object, allowed: Collection[str]) -> bool:
    # The type first: a list in place of a string is not hashable.
    return type(value) is str and value in allowed
