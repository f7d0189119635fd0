"""What a verifier keeps of a log that it verified, so that the next run reads only what was added.

Guarantees: a state that was read is one that could have been written; anything else is refused with
one sentence. It holds no secret, and of records only hashes, sizes and times. It is the verifier's
own evidence: keep it where the journal's writers cannot change it. Pure.

Implements the section on verifying again of ``docs/log.md``.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Final

from securefs.audit.tree import CompactRange
from securefs.errors import ConfigurationError

__all__ = ["Adopted", "Break", "LogState", "Place", "read_state", "write_state"]

_VERSION: Final = 1
_HASH: Final = re.compile(r"(?:[0-9a-f]{64})?")
_CHAIN: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Place:
    """How far a chain was read: whole lines, their bytes, and the hashes of the last two (hex).

    A hash is empty where there is no such line.
    """

    count: int = 0
    offset: int = 0
    head: str = ""
    before: str = ""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What the sealer saw of a dead writer's chain: whole lines, the last hash, torn bytes."""

    count: int
    head: str
    torn: int


@dataclass(frozen=True, slots=True)
class Break:
    """A new line of keys, which nothing under the old one announced.

    :ivar index: of the first checkpoint under the new keys. :ivar size: leaves in the last
        checkpoint before it. :ivar before: the time of that one. :ivar after: of the first after.
    :ivar vkey: the verification key of the first checkpoint after it.
    """

    index: int
    size: int
    before: str
    after: str
    vkey: str


@dataclass(slots=True)
class LogState:
    """How far a log was verified.

    :ivar tree: the leaves. :ivar places: how far each chain is in the log.
    :ivar index: the number of the next checkpoint. :ivar key: the key that should sign it, hex.
    :ivar read: bytes of the checkpoints that were read.
    :ivar first: the time of the first seal. :ivar last: of the last one. :ivar begun: of the first
        seal in ``sealer``, the chain of the last one. :ivar closed: its server.stop is sealed.
    :ivar older: records that are older than the log, and were named by it when it began.
    :ivar retired: chains whose oldest files were removed for good, and up to where.
    :ivar keys: trusted keys (as text) that signed, each with the number of the last checkpoint.
    """

    origin: str = ""
    tree: CompactRange = field(default_factory=CompactRange)
    places: dict[str, Place] = field(default_factory=dict)
    index: int = 0
    key: str = ""
    read: int = 0
    first: str = ""
    last: str = ""
    begun: str = ""
    sealer: str = ""
    closed: bool = False
    older: int = 0
    ended: list[str] = field(default_factory=list)
    adopted: dict[str, Adopted] = field(default_factory=dict)
    retired: dict[str, Adopted] = field(default_factory=dict)
    breaks: list[Break] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)


_PLAIN: Final = (
    "origin",
    "index",
    "key",
    "read",
    "first",
    "last",
    "begun",
    "sealer",
    "closed",
    "older",
    "ended",
    "keys",
)


def write_state(state: LogState) -> bytes:
    """Return the state as one JSON object."""
    data: dict[str, object] = {name: getattr(state, name) for name in _PLAIN}
    data |= {
        "v": _VERSION,
        "size": state.tree.size,
        "peaks": [peak.hex() for peak in state.tree.peaks],
        "places": {chain: asdict(place) for chain, place in sorted(state.places.items())},
        "adopted": {chain: asdict(adopted) for chain, adopted in sorted(state.adopted.items())},
        "retired": {chain: asdict(one) for chain, one in sorted(state.retired.items())},
        "breaks": [asdict(one) for one in state.breaks],
    }
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def read_state(data: bytes) -> LogState:
    """Return the state that :func:`write_state` wrote.

    :raises ConfigurationError: these bytes are something else.
    """
    try:
        found = json.loads(data)
        state = _build(found)
        if found["v"] == _VERSION and write_state(state) == data and _holds(state):
            return state
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise ConfigurationError(
        "the file that --since names is not a state that `securefs audit verify --since` wrote; "
        "name another, or a new one to begin with"
    )


def _build(found: dict[str, object]) -> LogState:
    peaks, places, adopted, retired, breaks = (
        found[name] for name in ("peaks", "places", "adopted", "retired", "breaks")
    )
    return LogState(
        **{name: found[name] for name in _PLAIN},  # type: ignore[arg-type] # compared in read_state
        tree=CompactRange(found["size"], [bytes.fromhex(peak) for peak in peaks]),  # type: ignore[arg-type, attr-defined]
        places={chain: Place(**place) for chain, place in places.items()},  # type: ignore[attr-defined]
        adopted={chain: Adopted(**one) for chain, one in adopted.items()},  # type: ignore[attr-defined]
        retired={chain: Adopted(**one) for chain, one in retired.items()},  # type: ignore[attr-defined]
        breaks=[Break(**one) for one in breaks],  # type: ignore[attr-defined]
    )


def _holds(state: LogState) -> bool:
    """Return whether each value has its type: equal JSON does not say so."""
    texts = [state.origin, state.first, state.last, state.begun, state.sealer]
    counts = [state.index, state.read, state.older, *state.keys.values()]
    hashes = [state.key]
    for place in state.places.values():
        counts += [place.count, place.offset]
        hashes += [place.head, place.before]
    for adopted in (*state.adopted.values(), *state.retired.values()):
        counts += [adopted.count, adopted.torn]
        hashes.append(adopted.head)
    for one in state.breaks:
        counts += [one.index, one.size]
        texts += [one.before, one.after, one.vkey]
    chains = [*state.places, *state.adopted, *state.retired, *state.ended]
    return (
        all(type(text) is str for text in texts)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(type(value) is str and _HASH.fullmatch(value) for value in hashes)
        and all(type(chain) is str and _CHAIN.fullmatch(chain) for chain in chains)
        and (type(state.closed), type(state.ended)) == (bool, list)
    )
