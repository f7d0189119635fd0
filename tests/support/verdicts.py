"""The verdict of the package on a journal of the corpus, as far as this version can give one."""

from __future__ import annotations

from securefs.audit import verify_journal

try:
    from securefs.audit import LogTerms
    from securefs.audit.note import parse_vkey
except ImportError:
    LogTerms = None

READS_LOGS = LogTerms is not None


def verdict_of(folder, made):
    """Return the report on a journal that was made by hand."""
    if not READS_LOGS:
        return verify_journal(folder)
    pins = [parse_vkey(pin) for pin in made.pins]
    return verify_journal(folder, None, LogTerms(pins=pins, now=made.now.timestamp()))


def unread(made) -> str:
    """Return why this version can say nothing of a journal, "" if it can."""
    if made.log and not READS_LOGS:
        return "this version reads no log"
    if not READS_LOGS and not made.chains:
        return "this version does not refuse an empty folder"
    return ""
