"""Attacks on chains, for a self-test: a copy of a journal in, the same after an attack out.

Guarantees: what comes out is what somebody leaves who can write every file. The copy that went in
is not changed. An attack for which the copy is too small gives None. Pure: it opens no file.

Implements the section on attacks of ``docs/verifying.md``, for what needs no key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from securefs.audit.record import NO_LINE, RecordError, encode_record, line_hash, parse_line
from securefs.audit.seal import read_seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from securefs.audit.seal import Seal


__all__ = [
    "Chain",
    "Copy",
    "add_chain",
    "change",
    "cut",
    "delete",
    "edit",
    "insert",
    "relink",
    "relink_from",
    "remove",
    "reorder",
    "repeat",
    "rewrite",
    "seals",
    "target",
]

_FEWEST: Final = 4  # records: with fewer there is nothing to cut or to reorder


@dataclass(frozen=True, slots=True)
class Chain:
    """The lines of a file, without line ends, and the bytes after the last line end."""

    lines: tuple[bytes, ...]
    torn: bytes = b""

    @classmethod
    def split(cls, data: bytes) -> Chain:
        """Return the chain in the bytes of a file."""
        *lines, torn = data.split(b"\n")
        return cls(tuple(lines), torn)

    def data(self) -> bytes:
        """Return the bytes of the file."""
        return b"\n".join((*self.lines, self.torn))

    def upto(self, count: int) -> Chain:
        """Return the first ``count`` lines; with what is torn if these are all."""
        return self if count >= len(self.lines) else Chain(self.lines[:count])


@dataclass(frozen=True, slots=True)
class Copy:
    """A journal and its log, by chain ids; ``files`` are the log's further files by name.

    ``files`` is None if there is no log.
    """

    chains: Mapping[str, Chain]
    sealers: Mapping[str, Chain]
    files: Mapping[str, bytes] | None = None

    def with_chain(self, name: str, lines: Sequence[bytes]) -> Copy:
        """Return a copy in which a chain has these lines."""
        torn = self.chains[name].torn if name in self.chains else b""
        return replace(self, chains={**self.chains, name: Chain(tuple(lines), torn)})


def seals(copy: Copy) -> Iterator[tuple[Seal, str, int]]:
    """Yield (seal, sealer's chain, record) of each seal of the log, by their numbers."""
    found = []
    for name, chain in copy.sealers.items():
        for number, line in enumerate(chain.lines):
            if b'"seal":' not in line:
                continue
            try:
                seal = read_seal(parse_line(line))
            except RecordError:
                seal = None  # the chain's verifier finds it
            if seal is not None:
                found.append((seal, name, number))
    yield from sorted(found, key=lambda one: (one[0].index, one[1], one[2]))


def target(copy: Copy) -> tuple[str, int] | None:
    """Return the chain to attack, and how many of its records are sealed; None if all are short.

    It is the one with the most of them. Without a log all records count.
    """
    counts = {name: len(chain.lines) for name, chain in copy.chains.items()}
    if copy.files is not None:
        sealed: dict[str, int] = {}
        for seal, _, _ in seals(copy):
            sealed |= {run.chain: run.last + 1 for run in seal.runs}
        counts = {name: min(count, sealed.get(name, 0)) for name, count in counts.items()}
    count, name = max(((count, name) for name, count in counts.items()), default=(0, ""))
    return (name, count) if count >= _FEWEST else None


def change(line: bytes) -> bytes:
    """Return a record with another time, a nanosecond away, and nothing else changed."""
    record = parse_line(line)
    time = cast("str", record["time"])
    return encode_record({**record, "time": f"{time[:-2]}{(int(time[-2]) + 1) % 10}Z"})


def relink(lines: Sequence[bytes], start: int = 0, **more: object) -> list[bytes]:
    """Return the lines with numbers and links that fit from line ``start`` on.

    :param more: members that each of these records gets.
    """
    new = list(lines)
    for number in range(start, len(new)):
        prev = line_hash(new[number - 1]) if number else NO_LINE
        new[number] = encode_record({**parse_line(new[number]), **more, "seq": number, "prev": prev})
    return new


def _on_lines(attack: Callable[[list[bytes], int], None]) -> Callable[[Copy], Copy | None]:
    """Return an attack on a copy: ``attack`` changes the lines of a chain around its middle."""

    def run(copy: Copy) -> Copy | None:
        found = target(copy)
        if found is None:
            return None
        name, count = found
        lines = list(copy.chains[name].lines)
        attack(lines, count // 2)
        return copy.with_chain(name, lines)

    return run


def _edit(lines: list[bytes], at: int) -> None:
    lines[at] = change(lines[at])


def _delete(lines: list[bytes], at: int) -> None:
    del lines[at]


def _reorder(lines: list[bytes], at: int) -> None:
    lines[at - 1], lines[at] = lines[at], lines[at - 1]


def _repeat(lines: list[bytes], at: int) -> None:
    lines.insert(at, lines[at])


def _insert(lines: list[bytes], at: int) -> None:
    lines.insert(at + 1, relink([*lines[: at + 1], lines[at]], at + 1)[-1])


def _relink(lines: list[bytes], at: int) -> None:
    lines[at] = change(lines[at])
    lines[:] = relink(lines, at)


def _rewrite(lines: list[bytes], _: int) -> None:
    lines[:] = relink([change(line) for line in lines])


edit: Final = _on_lines(_edit)
delete: Final = _on_lines(_delete)
reorder: Final = _on_lines(_reorder)
repeat: Final = _on_lines(_repeat)
insert: Final = _on_lines(_insert)
relink_from: Final = _on_lines(_relink)
rewrite: Final = _on_lines(_rewrite)


def cut(copy: Copy) -> Copy | None:
    """Remove the last sealed record of a chain, and what follows it."""
    found = target(copy)
    return None if found is None else copy.with_chain(found[0], copy.chains[found[0]].lines[: found[1] - 1])


def remove(copy: Copy) -> Copy | None:
    """Remove a chain."""
    found = target(copy)
    if found is None:
        return None
    return replace(copy, chains={name: chain for name, chain in copy.chains.items() if name != found[0]})


def add_chain(copy: Copy) -> Copy | None:
    """Add a chain with the first records of another one, and their times."""
    found = target(copy)
    if found is None:
        return None
    name = line_hash(found[0].encode())[:32]
    return copy.with_chain(name, relink(copy.chains[found[0]].lines[: found[1] // 2], chain=name))
