"""The audit journal: records of what was done to files, and their verifier.

The journal is a folder of hash chains, one for each worker process. It fails closed: an operation
that cannot be recorded does not happen. This package knows no file key and imports only the errors
of securefs and its disk helpers. ``docs/journal.md`` says what the chains prove and what they do
not.
"""

from securefs.audit.journal import Journal
from securefs.audit.name_keys import hash_name
from securefs.audit.record import Entry
from securefs.audit.report import LogReport, Report
from securefs.audit.verify_chain import ChainSummary, Finding, TornTail
from securefs.audit.verify_journal import LogTerms, verify_journal

__all__ = [
    "ChainSummary",
    "Entry",
    "Finding",
    "Journal",
    "LogReport",
    "LogTerms",
    "Report",
    "TornTail",
    "hash_name",
    "verify_journal",
]
