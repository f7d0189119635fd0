"""Fair pairs on a noisy machine: contenders take turns, medians are compared, and each ratio comes with its spread."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
PACKAGES = (
    "securefs",
    "pycryptodome",
    "cryptography",
    "tink",
    "pyrage",
    "aws-encryption-sdk",
    "gunicorn",
    "werkzeug",
    "flask",
    "django",
)
PROGRAMS = ("age", "rclone")


@dataclass
class Row:
    """One contender: a number for each turn, or none and why; and what else was seen of it over all turns."""

    name: str
    values: list[float] = field(default_factory=list)
    missing: str = ""
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The number to compare."""
        return statistics.median(self.values)

    def ratio(self, base: Row) -> tuple[float, float, float]:
        """Return (lowest, median, highest) of how many times ``base``'s number this one's was, turn by turn."""
        ratios = sorted(mine / theirs for mine, theirs in zip(self.values, base.values, strict=True))
        return ratios[0], statistics.median(ratios), ratios[-1]


@dataclass
class Table:
    """Contenders side by side. ``base`` is the row that the ratios are to; without one there are none."""

    title: str
    unit: str
    rows: list[Row]
    base: str = ""
    digits: int = 0

    def row(self, name: str) -> Row:
        """Return the row of one contender."""
        return next(row for row in self.rows if row.name == name)

    def markdown(self) -> str:
        """Return the table for a reader."""
        base = self.row(self.base) if self.base else None
        if base and base.missing:
            base = None
        notes = list(dict.fromkeys(note for row in self.rows for note in row.notes))
        heads = ["", self.unit, *([f"times {base.name} (lowest to highest)"] if base else []), *notes]
        lines = [_line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
        lines += [_line(self._cells(row, base, notes)) for row in self.rows]
        return "\n".join([f"### {self.title}", "", *lines, ""])

    def _cells(self, row: Row, base: Row | None, notes: list[str]) -> list[str]:
        if row.missing:
            return [row.name, f"not measured: {row.missing}", *[""] * (bool(base) + len(notes))]
        ratio = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*row.ratio(base))] if base else []
        seen = [f"{row.notes[note]:,.2f}" if note in row.notes else "" for note in notes]
        return [row.name, f"{row.median:,.{self.digits}f}", *ratio, *seen]

    def json(self) -> dict[str, object]:
        """Return the same for a program."""
        return asdict(self)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def seconds(run: Callable[[], object]) -> float:
    """Return how long one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(
    contenders: dict[str, Callable[[], object]], turns: int, amount: float = 1.0, *, warm: bool = True
) -> list[Row]:
    """Run every contender once to warm up, then ``turns`` times in alternation; the rows are in ``amount`` a second."""
    return turn_about({name: _rate(run, amount) for name, run in contenders.items()}, turns, warm=warm)


def _rate(run: Callable[[], object], amount: float) -> Callable[[], float]:
    return lambda: amount / seconds(run)


def turn_about(contenders: dict[str, Callable[[], float]], turns: int, *, warm: bool = True) -> list[Row]:
    """Do the same with contenders that return the number themselves. One that can't run is a row that says why.

    :param warm: False where a run takes so long that what the first one adds is lost in it.
    """
    rows = [Row(name) for name in contenders]
    for turn in range(-warm, turns):
        for row, run in zip(rows, contenders.values(), strict=True):
            if row.missing:
                continue
            try:
                value = run()
            except Exception as error:  # noqa: BLE001
                # A peer that is not there, or that can't do this, must not end the run.
                row.missing = f"{type(error).__name__}: {error}".splitlines()[0]
            else:
                row.values += [value] if turn >= 0 else []
    return rows


def machine() -> dict[str, str]:
    """Return what the numbers depend on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    found = {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": str(os.cpu_count()),
        "linux": platform.release(),
        "python": platform.python_version(),
        "openssl": _openssl(),
    }
    found |= {name: _version(name) for name in PACKAGES}
    return found | {name: _program(name) for name in PROGRAMS}


def _openssl() -> str:
    """Return the version of the OpenSSL that pyca cryptography brings."""
    try:
        from cryptography.hazmat.backends.openssl.backend import backend  # noqa: PLC0415
    except ImportError:
        return "not installed"
    return backend.openssl_version_text()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _program(name: str) -> str:
    if not shutil.which(name):
        return "not installed"
    said = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    return (said.stdout + said.stderr).splitlines()[0]
