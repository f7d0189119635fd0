"""How much of a journal is sealed, as two figures for a monitor.

They are computed from the ends of the files, and from the sealer's records, which are read once.
Nothing is verified, so they are no evidence: whoever can write the files can make them look well.
``securefs audit verify`` gives the verdict.

Implements the section on the log of ``docs/monitoring.md``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.folder import open_regular
from securefs.audit.lines import chain_files, read_lines
from securefs.audit.log_folder import CHECKPOINTS
from securefs.audit.record import RecordError, parse_line
from securefs.audit.segments import PACKED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Figures", "LogFigures"]

# No string of a record can hold these bytes: quotes in it are escaped.
_SEAL: Final = b'"event":"audit.seal"'
_CUTOVER: Final = b'"event":"audit.cutover"'
# A run of a seal. There may be millions of seals: parsing each whole would take minutes.
_RUN: Final = re.compile(rb'\["([0-9a-f]{32})",[0-9]{1,16},([0-9]{1,16})\]')


class Figures(NamedTuple):
    """How much is sealed.

    :ivar unsealed: records that are not in the log. :ivar checkpoint: when its newest checkpoint
        was written, in seconds since 1970-01-01 UTC; 0 if there is none.
    """

    unsealed: int
    checkpoint: float


class LogFigures:
    """The figures of one journal. What was read once is remembered.

    :param journal: the folder of the chains. :param log: the folder of the log, which may be
        missing.
    """

    def __init__(self, journal: Path, log: Path) -> None:
        self._journal, self._log = journal, log
        self._taken: dict[str, int] = {}  # records of each chain that are in the log, or before it
        self._offsets: dict[Path, int] = {}  # how far the sealers' chains were read
        self._counts: dict[Path, tuple[int, int]] = {}  # sizes of files, and their records

    def read(self) -> Figures:
        """Return the figures of now.

        :raises OSError: a folder or a file can't be read.
        """
        log = self._log.is_dir()
        chains = chain_files(self._log) if log else []
        for _, _, path in chains:
            self._read_seals(path)
        counts: dict[str, int] = {}
        for chain, _, path in [*chain_files(self._journal), *chains]:
            # The last record of a later file counts those of the earlier ones, too.
            counts[chain] = max(counts.get(chain, 0), self._count(path))
        unsealed = sum(max(0, count - self._taken.get(chain, 0)) for chain, count in counts.items())
        return Figures(unsealed, _written(self._log / CHECKPOINTS) if log else 0)

    def _read_seals(self, path: Path) -> None:
        known = self._offsets.get(path, 0)
        if known and path.name.endswith(PACKED):
            return  # a file that was compressed grows no more
        for end, line in read_lines(path, known):
            self._offsets[path] = end
            for chain, last in _taken_by(line):
                self._taken[chain] = max(self._taken.get(chain, 0), last + 1)

    def _count(self, path: Path) -> int:
        """Return how many records a chain has, from the number of the last one in its file."""
        size = path.stat().st_size
        known = self._counts.get(path, (0, 0))
        if known[0] != size:
            known = self._counts[path] = size, _last_number(path, size, known[1])
        return known[1]


def _taken_by(line: bytes) -> list[tuple[str, int]]:
    """Return the chains that a record of the sealer took, each with its last record's number."""
    if _SEAL in line:
        return [(match[1].decode(), int(match[2])) for match in _RUN.finditer(line)]
    if _CUTOVER not in line:
        return []
    try:
        record: Mapping[str, object] = parse_line(line)
    except RecordError:
        return []
    obj = record.get("obj")
    return [(obj["chain"], obj["upto"])] if isinstance(obj, dict) and {"chain", "upto"} <= obj.keys() else []


def _last_number(path: Path, size: int, default: int) -> int:
    """Return the number after that of the last record in a file, ``default`` if there is none."""
    file = open_regular(path)
    if file is None:
        return default
    with file:
        file.seek(max(0, size - 2 * LONGEST_LINE))
        lines = file.read(2 * LONGEST_LINE).split(b"\n")[:-1]  # what follows the last one is torn
    try:
        number = parse_line(lines[-1])["seq"] if lines else None
    except RecordError:
        number = None
    return number + 1 if isinstance(number, int) else default


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0
