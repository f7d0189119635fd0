"""What a log should cover: every chain, up to now, under keys that the auditor trusts.

Guarantees: a chain of which the log knows more than there is, or that is not what the sealer saw
when its writer was dead, is a :class:`Finding`, and so is a record that the sealer had a minute to
take and did not. What a running server may have written since the last seal is no finding. Whatever
stands between the log and a proof is told in a sentence. The clock is an argument.

Implements the section on verdicts of ``docs/log.md``.
"""

from __future__ import annotations

import calendar
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.audit.log_files import read_lines, size_of
from securefs.audit.note import ED25519
from securefs.audit.verify_chain import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from securefs.audit.note import VerificationKey
    from securefs.audit.segments import ChainFiles
    from securefs.audit.verify_chain import ChainSummary
    from securefs.audit.verify_state import LogState

__all__ = [
    "GRACE",
    "Unsealed",
    "check_adopted",
    "check_retired",
    "find_unsealed",
    "reasons",
    "seconds",
    "vouched_breaks",
]

GRACE: Final = 60  # seconds that a sealer has for a record, and for which a checkpoint is fresh
_TIME: Final = re.compile(rb'"time":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z)"')


@dataclass(slots=True)
class Unsealed:
    """Records that are not in the log: how many, and the times of the oldest and the newest."""

    count: int = 0
    oldest: str = ""
    newest: str = ""

    def add(self, count: int, oldest: str, newest: str) -> None:
        """Add those of one chain."""
        self.count += count
        self.oldest = min(self.oldest or oldest, oldest)
        self.newest = max(self.newest, newest)


def seconds(text: str) -> float:
    """Return a record's time in POSIX seconds; 0 for an empty text or a day that there is not."""
    try:
        return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0.0


def check_adopted(
    state: LogState,
    summaries: Mapping[str, ChainSummary],
    told: Collection[str],
    report: Callable[[Finding], None],
) -> frozenset[str]:
    """Compare chains with what the log says of them; return those whose torn tail it explains."""
    explained = set()
    for chain, place in state.places.items():
        gone = chain in state.retired and state.retired[chain].count == place.count
        if place.count and chain not in summaries and chain not in told and not gone:
            message = f"the log has {place.count} records of chain {chain}, and its file is missing"
            report(Finding("log", "", chain, None, 0, message))
    for chain, adopted in state.adopted.items():
        summary = summaries.get(chain)
        if summary is None:
            continue
        torn = 0 if summary.torn is None else summary.torn.size
        head = summary.head if summary.records else ""
        if (summary.records, head, torn) == (adopted.count, adopted.head, adopted.torn):
            explained.add(chain)
        elif chain not in told:
            message = (
                f"its writer was dead when the sealer saw {adopted.count} records and {adopted.torn} torn bytes; "
                f"now it has {summary.records} and {torn}, or others"
            )
            report(Finding("log", summary.file, chain, None, 0, message))
    return frozenset(explained)


def check_retired(
    state: LogState,
    paths: Mapping[str, ChainFiles],
    summaries: Mapping[str, ChainSummary],
    report: Callable[[Finding], None],
) -> None:
    """Report files that are missing and were not retired, or are not those that were."""
    for chain, files in paths.items():
        first, retired, summary = files.segments[0], state.retired.get(chain), summaries.get(chain)
        count, head = (0, "") if retired is None else (retired.count, retired.head)
        begin = files.begin
        if first.number and (begin.count > count or (begin.count == count and begin.head != head)):
            message = f"it begins with file {first.number}, and no sealed record retired those before"
            report(Finding("segment", first.path.name, chain, None, 0, message))
        elif (
            retired is not None
            and summary is not None
            and (summary.records < count or (summary.records == count and summary.head != head))
        ):
            message = f"{count} records of it were retired, and what is here is not these"
            report(Finding("log", files.name, chain, None, 0, message))


def find_unsealed(
    state: LogState,
    summaries: Mapping[str, ChainSummary],
    paths: Mapping[str, ChainFiles],
    report: Callable[[Finding], None],
) -> Unsealed:
    """Return what is not in the log; report what should be in it by now."""
    unsealed = Unsealed()
    for chain, summary in summaries.items():
        place = state.places.get(chain)
        taken, offset = (0, 0) if place is None else (place.count, place.offset)
        if summary.records <= taken:
            continue
        oldest, newest = _times(paths[chain], offset)
        # The sealer has been at work for a minute since the record was written: it has seen it.
        had_time = (
            bool(state.last) and seconds(state.last) - max(seconds(newest), seconds(state.begun)) > GRACE
        )
        if had_time and not summary.live:
            message = (
                f"{summary.records - taken} records are not in the log, which was sealed until {state.last}: "
                f"they were added, or taken out of the log"
            )
            report(Finding("unlogged", summary.file, chain, taken, offset, message))
        else:
            unsealed.add(summary.records - taken, oldest, newest)
    return unsealed


def _times(path: ChainFiles, offset: int) -> tuple[str, str]:
    """Return the times of the first and the last record from this byte on."""
    oldest = newest = ""
    for _, line in read_lines(path, offset, size_of(path)):
        found = _TIME.search(line)
        if found is not None:
            newest = found[1].decode("ascii")
            oldest = oldest or newest
    return oldest, newest


def vouched_breaks(state: LogState, pins: Sequence[VerificationKey]) -> tuple[int, ...]:
    """Return the breaks (the number of the first checkpoint after) that a pinned key vouches for.

    A key vouches for the checkpoint that it signed, and so for everything before it: the root is
    over all of that.
    """
    signed = [state.keys[str(pin)] for pin in pins if str(pin) in state.keys]
    return tuple(one.index for one in state.breaks if signed and max(signed) >= one.index)


def reasons(state: LogState, unsealed: Unsealed, pins: Sequence[VerificationKey], now: float) -> list[str]:
    """Return why this log proves nothing about now, in sentences; none if it does."""
    found = _unproven_keys(state, [pin for pin in pins if pin.kind == ED25519])
    if not state.last:
        return ["the log has no checkpoint yet", *found]
    age = now - seconds(state.last)
    if age < -GRACE:
        found.append(f"the last checkpoint is of {state.last}, which is in the future")
    elif age > GRACE and not state.closed:
        found.append(
            f"the last checkpoint is of {state.last}: the sealer stopped without ending in order, or what came "
            f"later was cut off (for an archived copy, --as-of tells when it was made)"
        )
    if unsealed.count and not abs(now - seconds(unsealed.oldest)) <= GRACE:
        found.append(
            f"{unsealed.count} records are not sealed, the oldest of {unsealed.oldest or 'an unknown time'}"
        )
    return found


def _unproven_keys(state: LogState, pins: Sequence[VerificationKey]) -> list[str]:
    if not pins:
        return ["no key is pinned: whoever can write these files can make a whole log anew (--pin)"]
    signed = [state.keys[str(pin)] for pin in pins if str(pin) in state.keys]
    if not state.last:
        return []
    if not signed:
        return ["no key that you pinned has signed anything here: this log is another one, or was made anew"]
    if state.breaks and max(signed) < state.breaks[-1].index:
        last = state.breaks[-1]
        what = f"no key that you pinned vouches for what was sealed after the break of {last.after}"
        return [f"{what}: if you know that this sealer was yours, pin {last.vkey}"]
    return []
