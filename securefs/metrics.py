"""Prometheus metrics: what was done to files, how it ended, and what the journal lost.

For any app::

    from securefs.audit import Journal
    from securefs.metrics import Metrics

    metrics = Metrics()
    journal = Journal.from_env(on_loss=metrics.on_loss)
    app = SecureFS(app, journal=journal, on_event=metrics.on_event)

Guarantees: labels are words of securefs alone (events, outcomes, reasons), so their number is
bounded and no name, path, address or id of anybody is in them. With several worker processes,
prometheus-client adds up what each one counted if ``PROMETHEUS_MULTIPROC_DIR`` is set before it is
imported. Needs the extra ``metrics``. docs/monitoring.md lists the metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from securefs.audit.events import EVENTS

if TYPE_CHECKING:
    from securefs.audit import Entry

__all__ = ["Metrics"]

_NO_REASON: Final = "none"  # of a failure


class _Counters:
    """The counters of one registry, which has each of them once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.operations = Counter(
            "securefs_operations", "Records of the journal.", ["event", "outcome"], registry=registry
        )
        self.failures = Counter(
            "securefs_failures", "Failures, by their reason.", ["event", "reason"], registry=registry
        )
        self.uploaded = Counter(
            "securefs_upload_bytes", "Plaintext bytes of files that were accepted.", registry=registry
        )
        self.downloaded = Counter(
            "securefs_download_bytes", "Bytes of decrypted files that were sent.", registry=registry
        )
        self.outages = Counter(
            "securefs_journal_outages",
            "Times that the journal could no longer be written.",
            registry=registry,
        )
        self.lost = Counter(
            "securefs_journal_lost_records", "Records that could not be written.", registry=registry
        )
        # From 0 on, so that the first one is an increase, too.
        for event, known in EVENTS.items():
            for outcome in known.severity:
                self.operations.labels(event, outcome)
            for reason in known.by_reason:
                self.failures.labels(event, reason.value)


_counters: Final[WeakKeyDictionary[CollectorRegistry, _Counters]] = WeakKeyDictionary()


class Metrics:
    """Counts events. All objects of one registry count together.

    :param registry: of prometheus-client; its default one unless another is given.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        found = _counters.get(registry)
        if found is None:
            found = _counters[registry] = _Counters(registry)
        self._counters = found

    def on_event(self, entry: Entry) -> None:
        """Count a record that the journal took: for ``SecureFS(on_event=…)`` and ``Vault``."""
        counters, obj = self._counters, entry.obj
        counters.operations.labels(entry.event, entry.outcome).inc()
        if entry.outcome == "failure":
            reason = _NO_REASON if entry.reason is None else entry.reason.value
            counters.failures.labels(entry.event, reason).inc()
        elif entry.outcome == "success" and entry.event in {"file.encrypt", "file.plain"}:
            counters.uploaded.inc(int(obj.get("size", 0)))
        # A download that failed half-way sent something, too.
        counters.downloaded.inc(int(obj.get("sent", 0)))

    def on_loss(self, first: bool) -> None:
        """Count a record that could not be written: for ``Journal(on_loss=…)``.

        :param first: whether it is the first one of an outage.
        """
        self._counters.lost.inc()
        self._counters.outages.inc(int(first))
