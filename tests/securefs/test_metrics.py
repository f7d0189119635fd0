"""Metrics: what is counted, and that no label has anything of a user."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.exports import kinds
from support.sealing import RING
from support.wsgi_client import call

from securefs.audit import Entry, Journal
from securefs.audit.events import EVENTS
from securefs.errors import JournalError, Reason
from securefs.metrics import Metrics
from securefs.middleware import SecureFS


def samples(registry):
    """Return the values above 0, as name{labels}."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.value and not sample.name.endswith("_created"):
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_operations_failures_and_bytes_are_counted(registry):
    on_event = Metrics(registry).on_event
    on_event(Entry("file.encrypt", "started", obj={"size": 1}))
    on_event(Entry("file.encrypt", obj={"size": 1000}))
    on_event(Entry("file.plain", obj={"size": 30}))
    on_event(Entry("file.decrypt", "started"))
    on_event(Entry("file.decrypt", obj={"size": 1000, "sent": 10}))
    on_event(Entry("file.decrypt", "failure", Reason.CLIENT_GONE, obj={"size": 1000, "sent": 5}))
    on_event(Entry("request.answered", "failure"))
    assert samples(registry) == {
        "securefs_operations_total{event=file.encrypt,outcome=started}": 1,
        "securefs_operations_total{event=file.encrypt,outcome=success}": 1,
        "securefs_operations_total{event=file.plain,outcome=success}": 1,
        "securefs_operations_total{event=file.decrypt,outcome=started}": 1,
        "securefs_operations_total{event=file.decrypt,outcome=success}": 1,
        "securefs_operations_total{event=file.decrypt,outcome=failure}": 1,
        "securefs_operations_total{event=request.answered,outcome=failure}": 1,
        "securefs_failures_total{event=file.decrypt,reason=client_gone}": 1,
        "securefs_failures_total{event=request.answered,reason=none}": 1,
        "securefs_upload_bytes_total": 1030,
        "securefs_download_bytes_total": 15,
    }


def test_every_operation_is_there_from_the_start(registry):
    Metrics(registry)
    text = generate_latest(registry).decode()
    for event, known in EVENTS.items():
        for outcome in known.severity:
            assert f'securefs_operations_total{{event="{event}",outcome="{outcome}"}} 0.0' in text


def test_labels_are_words_of_securefs_alone(registry):
    metrics = Metrics(registry)
    for event, outcome, reason in kinds():
        obj = dict.fromkeys(EVENTS[event].members & {"name", "id", "principal"}, "alice")
        metrics.on_event(
            Entry(
                event, outcome, reason, obj, "alice", "alice", "alice", {"method": "alice", "path": "/alice"}
            )
        )
    found = samples(registry)
    assert "alice" not in "".join(found)
    # The greatest number of time series that there can be.
    assert len(found) <= sum(len(known.severity) + len(Reason) + 1 for known in EVENTS.values()) + 2


def test_all_metrics_of_a_registry_count_together(registry):
    """A server that reloads makes its app anew: the registry refuses a second counter of a name."""
    Metrics(registry).on_event(Entry("server.stop"))
    Metrics(registry).on_event(Entry("server.stop"))
    assert samples(registry) == {"securefs_operations_total{event=server.stop,outcome=success}": 2}


def test_the_default_registry_is_the_default():
    before = REGISTRY.get_sample_value("securefs_journal_lost_records_total") or 0
    Metrics().on_loss(first=True)
    assert REGISTRY.get_sample_value("securefs_journal_lost_records_total") == before + 1


def test_what_the_journal_loses_is_counted(registry, tmp_path):
    metrics = Metrics(registry)
    folder = tmp_path / "journal"
    journal = Journal(folder, on_loss=metrics.on_loss)
    journal.record(Entry("file.open"))
    folder.rename(tmp_path / "away")
    for _ in range(3):
        with pytest.raises(JournalError):
            journal.record(Entry("file.open"))
    (tmp_path / "away").rename(folder)
    journal.record(Entry("file.open"))
    journal.close()
    with pytest.raises(JournalError):
        journal.record(Entry("file.open"))
    assert samples(registry) == {
        "securefs_journal_outages_total": 2,
        "securefs_journal_lost_records_total": 4,
    }


def test_a_refused_upload_is_counted_by_its_reason(registry, tmp_path):
    """Through the middleware, as an app uses it."""
    journal = Journal(tmp_path / "journal")
    app = SecureFS(
        lambda environ, start: start("200 OK", []) or [b""],
        keyring=RING,
        journal=journal,
        stores=[tmp_path],
        on_event=Metrics(registry).on_event,
    )
    headers = [("Content-Type", "multipart/form-data; boundary=x")]
    assert call(app, "POST", "/", b"no form", headers).status == 400
    journal.close()
    assert samples(registry) == {
        "securefs_operations_total{event=file.rejected,outcome=failure}": 1,
        "securefs_failures_total{event=file.rejected,reason=malformed_multipart}": 1,
    }
