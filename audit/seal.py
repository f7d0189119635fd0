"""What a seal record says: which records the log took, in which order, and which keys sign.

:mod:`securefs.audit.fields` says what is one, when it is written and when it is read. Whether it
continues the seal before it is for its reader to compare. Pure.

Implements the section on the seal record of ``docs/log.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Run", "Seal", "read_seal"]


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one chain that follow each other: numbers ``first`` to ``last``, both included."""

    chain: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Seal:
    """The member ``seal`` of a record.

    :ivar index: the number of the checkpoint, from 0.
    :ivar key: 64 hex digits, the Ed25519 public key that signs it. :ivar next_key: the one that
        signs the next checkpoint.
    :ivar runs: what the log took since the last seal, in the order of its leaves; the last run ends
        with this very record. :ivar size: leaves in the log after this record.
    """

    index: int
    key: str
    next_key: str
    runs: tuple[Run, ...]
    size: int

    def member(self) -> dict[str, object]:
        """Return the object that the record holds."""
        return {
            "index": self.index,
            "key": self.key,
            "next": self.next_key,
            "runs": [[run.chain, run.first, run.last] for run in self.runs],
            "size": self.size,
        }


def read_seal(record: Mapping[str, object]) -> Seal | None:
    """Return the seal in a record that was parsed; None if it has none."""
    if "seal" not in record:
        return None
    value = cast("dict[str, object]", record["seal"])  # as parse_line has checked
    runs = cast("list[tuple[str, int, int]]", value["runs"])
    return Seal(
        index=cast("int", value["index"]),
        key=cast("str", value["key"]),
        next_key=cast("str", value["next"]),
        runs=tuple(Run(chain, first, last) for chain, first, last in runs),
        size=cast("int", value["size"]),
    )
