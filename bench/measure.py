"""Fair pairs on a noisy machine: contenders take turns, medians are compared, and each ratio comes with its spread."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Row:
    """One contender's runs: each a number of seconds for ``amount`` of ``unit``."""

    name: str
    amount: float
    unit: str
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Amount a second, at the median run."""
        return self.amount / statistics.median(self.seconds)

    def ratio(self, base: Row) -> tuple[float, float, float]:
        """Return (lowest, median, highest) of how many times as fast as ``base`` this was, turn by turn."""
        ratios = sorted(
            (self.amount / mine) / (base.amount / theirs)
            for mine, theirs in zip(self.seconds, base.seconds, strict=True)
        )
        return ratios[0], statistics.median(ratios), ratios[-1]


def take_turns(
    contenders: dict[str, Callable[[], object]], amount: float, unit: str, turns: int
) -> list[Row]:
    """Run every contender once to warm up, then ``turns`` times in alternation."""
    rows = [Row(name, amount, unit) for name in contenders]
    for run in contenders.values():
        run()
    for _ in range(turns):
        for row, run in zip(rows, contenders.values(), strict=True):
            start = time.perf_counter()
            run()
            row.seconds.append(time.perf_counter() - start)
    return rows


def table(title: str, rows: list[Row], base: int = 0) -> str:
    """Return a Markdown table; the ratios are to row ``base``."""
    lines = [
        f"### {title}",
        "",
        f"| | {rows[0].unit}/s | times {rows[base].name} (lowest to highest) |",
        "| --- | ---: | ---: |",
    ]
    for row in rows:
        low, middle, high = row.ratio(rows[base])
        lines.append(f"| {row.name} | {row.rate:,.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join([*lines, ""])


def as_json(title: str, rows: list[Row]) -> dict[str, object]:
    """Return the same for a program."""
    return {
        "title": title,
        "rows": [
            {"name": row.name, "amount": row.amount, "unit": row.unit, "seconds": row.seconds} for row in rows
        ],
    }


def machine() -> dict[str, str]:
    """Return what the numbers depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    names = ("securefs", "pycryptodome", "cryptography", "werkzeug", "gunicorn", "flask", "django")
    return {"cpu": cpu, "python": platform.python_version()} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
