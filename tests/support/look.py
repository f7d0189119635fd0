"""Verify a log of support/logs.py as an auditor does who pinned its first key."""

from securefs.audit import LogTerms, verify_journal
from securefs.audit.note import parse_vkey


def look(log, *pins, now=None, **terms):
    """Verify with the key of the first checkpoint pinned, or with these."""
    keys = [parse_vkey(pin) for pin in pins or (log.vkey(),)]
    now = log.seconds if now is None else now
    return verify_journal(log.folder, None, LogTerms(pins=keys, now=now, **terms))


def codes(report):
    """The codes of all findings."""
    return {finding.code for finding in report.findings}
