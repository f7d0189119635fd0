"""What became of each file, on standard output: one line a file and a summary, or JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from securefs.bulk import Status
from securefs.cli.terminal import DONE, FINDING, Progress, say, say_json
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from securefs.bulk import Verdict

__all__ = ["Report", "planted_slot"]

# How a line begins, and what a number of such files is called in the summary.
_WORDS: Final = {
    Status.VERIFIED: ("ok", "verified"),
    Status.REWRAPPED: ("rewrapped", "rewrapped"),
    Status.UNCHANGED: ("unchanged", "unchanged"),
    Status.IMPORTED: ("imported", "imported"),
    Status.REENCRYPTED: ("reencrypted", "re-encrypted"),
    Status.PLANNED: ("would be", "to be imported"),
    Status.DUE: ("would be", "to be re-encrypted"),
    Status.OPENS: ("needs", "encrypted"),
    Status.FAILED: ("FAILED", "failed"),
    Status.JOINED: ("JOINED", "joined from chunks"),
    Status.FORMAT_1: ("format1", "in Format 1"),
    Status.PLAIN: ("plain", "not encrypted"),
    Status.EMPTY: ("empty", "empty"),
    Status.LINK: ("link", "symbolic links"),
    Status.SPECIAL: ("special", "special files"),
    Status.GONE: ("gone", "removed meanwhile"),
    Status.REMOVED: ("removed", "leftovers removed"),
}
# Statuses of files of which one at least must be found.
_ENCRYPTED: Final = frozenset(
    {
        *(Status.VERIFIED, Status.REWRAPPED, Status.UNCHANGED, Status.IMPORTED, Status.PLANNED),
        *(Status.REENCRYPTED, Status.DUE, Status.OPENS, Status.FAILED, Status.JOINED, Status.FORMAT_1),
    }
)
_MORE: Final = {"planted": "with planted slots", "previous": "under a previous key"}


class Report:
    """Collects verdicts, and prints each as it comes unless the output is JSON.

    :param shown: the statuses that the summary has even if no file has them, in order.
    :param width: columns of a line before the path.
    """

    def __init__(
        self, arguments: argparse.Namespace, shown: Sequence[Status], width: int, progress: Progress
    ) -> None:
        self._arguments, self._shown, self._width, self._progress = arguments, shown, width, progress
        self.counts: Counter[Status] = Counter()
        self._entries: list[Mapping[str, object]] = []

    def add(self, verdict: Verdict, about: Mapping[str, object], *, silent: bool = False) -> None:
        """Take the verdict on a file, and what JSON has to say beyond it.

        :param silent: it is not worth a line.
        """
        self.counts[verdict.status] += 1
        if self._arguments.json:
            self._entries.append(_entry(verdict, about))
        elif verdict.failed or not (silent or self._arguments.quiet):
            self.line(_WORDS[verdict.status][0], verdict)

    def line(self, word: str, verdict: Verdict, message: str = "") -> None:
        """Print a line about a file."""
        text = message or verdict.message
        self._progress.wipe()
        say(f"{word:{self._width}}{verdict.path}{': ' if text else ''}{text}")

    def end(
        self,
        more: Mapping[str, int] | None = None,
        *,
        note: str = "",
        about: Mapping[str, object] | None = None,
    ) -> int:
        """Print the summary; return the exit code: 0 if nothing failed and ``more`` counts nothing.

        :param more: further counts, by their names in JSON.
        :param note: what the text's summary ends with.
        :param about: what JSON has besides.
        :raises ConfigurationError: no encrypted file was found.
        """
        self._progress.wipe()
        if not any(self.counts[status] for status in _ENCRYPTED):
            # Nothing failed and nothing was done: most likely the folder is wrong.
            raise ConfigurationError(f"no encrypted file found in {', '.join(self._arguments.paths)}")
        further = [status for status in Status if status not in self._shown and self.counts[status]]
        if self._arguments.json:
            counts = {status.value: self.counts[status] for status in (*self._shown, *_others(self._shown))}
            say_json({**counts, **(more or {}), **(about or {}), "files": self._entries})
        else:
            parts = [f"{self.counts[s]} {_WORDS[s][1]}" for s in (*self._shown, *further)]
            parts += [f"{count} {_MORE[name]}" for name, count in (more or {}).items() if count]
            say(", ".join(parts) + note)
        failed = self.counts[Status.FAILED] or self.counts[Status.JOINED]
        return FINDING if failed or any((more or {}).values()) else DONE


def _others(shown: Iterable[Status]) -> list[Status]:
    """Return the statuses that JSON counts besides: those that any command may find."""
    always = {Status.FORMAT_1, Status.JOINED}
    return [status for status in Status if status not in {*shown, *_ENCRYPTED} or status in always]


def _entry(verdict: Verdict, about: Mapping[str, object]) -> dict[str, object]:
    entry: dict[str, object] = {"path": str(verdict.path), "kind": verdict.status.value, **about}
    if verdict.containers is not None:
        count, broken = verdict.containers
        entry["containers"] = count
        if broken is not None:
            entry["broken"] = broken
    if verdict.failed:
        return {**entry, "error": verdict.message, "reason": verdict.reason and verdict.reason.value}
    return {**entry, "note": verdict.message} if verdict.message else entry


def planted_slot(slot: int, key_id: str, opened_by: str) -> str:
    """Return the message that a key's slot and the contents do not fit."""
    return f"slot {slot} (key {key_id}) and the contents (key {opened_by}) do not fit: somebody else has one of these keys"
