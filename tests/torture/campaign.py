"""A mutation campaign against the file format, which ends by itself: see the README beside it.

``python tests/torture/campaign.py --mutants 1000000 --seed 1`` runs one. It exits with 0 only if it
found nothing.
"""

from __future__ import annotations

import argparse
import base64
import multiprocessing
import os
import signal
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from torture.dice import Dice  # noqa: E402  # found by way of the line above
from torture.keyed import KEYED  # noqa: E402
from torture.mutants import KEYLESS  # noqa: E402
from torture.pool import Pool  # noqa: E402
from torture.readers import Finding, Judge, short  # noqa: E402

if TYPE_CHECKING:
    from torture.expected import Mutant

SHARD = 5000  # mutants that share files and keys, and are made and judged together
LONGEST = 10  # seconds for one mutant
SHOWN = 12  # kinds of findings that are told in full
INLINE = 4096  # bytes of a mutant that is printed; larger ones are written to a file
FOLDER = HERE.parents[1] / "build" / "torture"

NAMES = (*KEYLESS, *KEYED)


@dataclass
class Tally:
    """The results of some mutants.

    Outcomes are counted by (class, outcome), findings by (class, kind). Of each kind of finding the
    shortest mutant is kept as an example.
    """

    counts: Counter = field(default_factory=Counter)
    findings: Counter = field(default_factory=Counter)
    # An example is the length of the mutant, its index, and the detail of the finding.
    examples: dict[tuple[str, str], tuple[int, int, str]] = field(default_factory=dict)

    def add(self, index: int, mutant: Mutant, outcome: str, findings: list[Finding]) -> None:
        self.counts[mutant.name, outcome] += 1
        for finding in findings:
            name = mutant.name, finding.kind
            self.findings[name] += 1
            example = len(mutant.data), index, finding.detail
            self.examples[name] = min(example, self.examples.get(name, example))

    def merge(self, other: Tally) -> None:
        self.counts += other.counts
        self.findings += other.findings
        for name, example in other.examples.items():
            self.examples[name] = min(example, self.examples.get(name, example))


class Maker:
    """Makes the mutants of one campaign. ``names`` restricts it to some classes."""

    def __init__(self, seed: int, names: Sequence[str] = NAMES) -> None:
        self.seed, self.names = seed, names
        self._weights = list(accumulate((KEYLESS | KEYED)[name][0] for name in names))
        self._shard, self._pool = -1, Pool()

    def make(self, index: int) -> tuple[Mutant, Dice]:
        """Return mutant ``index`` and the dice to read it with. Seed and index decide both."""
        if index // SHARD != self._shard:
            self._shard = index // SHARD
            self._pool = Pool(self.seed, "files", self._shard)
        dice = Dice(self.seed, "mutant", index)
        drawn = dice.below(self._weights[-1])
        name = self.names[bisect_right(self._weights, drawn)]
        if name in KEYLESS:
            return KEYLESS[name][1](name, dice, self._pool), dice
        return KEYED[name][1](name, dice), dice


class TooSlowError(BaseException):
    """A mutant took too long. Derived from BaseException, so that no reader catches it."""


def run(seed: int, indices: range, names: Sequence[str] = NAMES, limit: float = 0) -> Tally:
    """Make and judge mutants in this process, each within ``limit`` seconds (0: no limit)."""
    judge, maker, tally = Judge(), Maker(seed, names), Tally()
    for index in indices:
        mutant, dice = maker.make(index)
        if limit:
            signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            outcome, findings = judge.judge(mutant, dice)
        except TooSlowError:
            outcome, findings = "too slow", [Finding("too slow", f"more than {limit} seconds")]
        finally:
            if limit:
                signal.setitimer(signal.ITIMER_REAL, 0)
        tally.add(index, mutant, outcome, findings)
    return tally


def _too_slow(number, frame) -> NoReturn:
    raise TooSlowError


def _prepare() -> None:
    """Prepare a process: a mutant that hangs becomes a finding and the campaign goes on."""
    signal.signal(signal.SIGALRM, _too_slow)


def _part(seed: int, indices: range) -> Tally:
    return run(seed, indices, limit=LONGEST)


def campaign(seed: int, mutants: int, processes: int, part: int = SHARD) -> Tally:
    """Run a whole campaign.

    Its results depend neither on the number of processes nor on ``part``, the number of mutants
    that a process takes at a time.
    """
    parts = [range(at, min(at + part, mutants)) for at in range(0, mutants, part)]
    tally, began = Tally(), time.monotonic()
    # Spawned, not forked: no state of a library is shared. An executor, unlike a Pool, notices a
    # process that dies.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _prepare) as executor:
        for done, future in enumerate(as_completed([executor.submit(_part, seed, one) for one in parts]), 1):
            tally.merge(future.result())
            if sys.stderr.isatty():
                left = (time.monotonic() - began) / done * (len(parts) - done)
                print(f"\r{done * part:>12,} mutants, {left:.0f} seconds left ", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return tally


def table(counts: Counter) -> Iterator[str]:
    """Yield the counts: a line for each class, a column for each outcome."""
    outcomes = sorted({outcome for _, outcome in counts}, key=lambda outcome: (outcome != "opened", outcome))
    width = max(len(name) for name in NAMES)
    columns = [max(len(outcome), 9) for outcome in outcomes]

    def line(name: str, cells: list[str]) -> str:
        return "  ".join(
            [f"{name:<{width}}", *(f"{cell:>{size}}" for cell, size in zip(cells, columns, strict=True))]
        )

    yield line("", outcomes)
    for name in NAMES:
        yield line(
            name, [f"{counts[name, outcome]:,}" if counts[name, outcome] else "-" for outcome in outcomes]
        )
    totals = [sum(counts[name, outcome] for name in NAMES) for outcome in outcomes]
    yield line("all", [f"{total:,}" for total in totals])


def told(seed: int, tally: Tally) -> Iterator[str]:
    """Yield the count of every kind of finding, then details of the most frequent kinds."""
    for (name, kind), count in tally.findings.most_common():
        yield f"FINDING, {count:,} times: {name}: {kind}"
    for (name, kind), _ in tally.findings.most_common(SHOWN):
        _, index, detail = tally.examples[name, kind]
        mutant, _ = Maker(seed).make(index)
        yield f"\n{name}: {kind}"
        yield f"  {detail}"
        yield f"  mutant {index} of seed {seed}: {mutant.how}"
        yield f"  in base64: {stored(seed, index, mutant)}"
        yield f"  again: python tests/torture/campaign.py --replay {seed}:{index}"


def stored(seed: int, index: int, mutant: Mutant) -> str:
    if len(mutant.data) <= INLINE:
        return base64.b64encode(mutant.data).decode()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{seed}-{index}.bin"
    path.write_bytes(mutant.data)
    return f"too long, it is in {path}"


def replay(seed: int, index: int) -> int:
    """Make one mutant again and print what each reader finds."""
    mutant, dice = Maker(seed).make(index)
    print(f"mutant {index} of seed {seed}: {mutant.name}: {mutant.how}")
    print(f"  {len(mutant.data)} bytes, in base64: {stored(seed, index, mutant)}")
    print(
        f"  keys {[key.hex() for key in mutant.ring]}, context {mutant.context.hex()!r}, Format {2 - mutant.format_1}"
    )
    _, findings = Judge().judge(mutant, dice)
    mutant, dice = Maker(seed).make(index)
    for name, found in Judge().read(mutant, dice, []).items():
        print(f"  {name}: {short(found)}")
    for finding in findings:
        print(f"  FINDING: {finding.kind}: {finding.detail}")
    return 1 if findings else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=int(os.environ.get("TORTURE_MUTANTS", "1000000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("TORTURE_SEED", "1")))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--replay", metavar="SEED:INDEX", help="make this one mutant again and print what each reader finds"
    )
    options = parser.parse_args()
    if options.replay:
        return replay(*map(int, options.replay.split(":")))
    began = time.monotonic()
    tally = campaign(options.seed, options.mutants, options.processes)
    seconds = time.monotonic() - began
    print("\n".join(table(tally.counts)))
    print("\n".join(told(options.seed, tally)))
    rate = options.mutants / seconds
    end = f"{sum(tally.findings.values()):,} findings" if tally.findings else "nothing found"
    print(
        f"{tally.counts.total():,} mutants of seed {options.seed}, each read by five readers, in {seconds:.0f} seconds "
        f"({rate:,.0f} a second on {options.processes} processes): {end}"
    )
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
