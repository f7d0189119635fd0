"""docs/monitoring.md: each metric and alert is there, the rules name no other, and the example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from securefs.cli.metrics import LogCollector
from securefs.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
RULES = yaml.safe_load((ROOT / "deploy" / "securefs.rules.yml").read_text("utf-8"))["groups"][0]["rules"]


def first_column(heading):
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([A-Za-z_]+)` \|", section, re.MULTILINE)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    registry = CollectorRegistry()
    Metrics(registry)
    journal = tmp_path_factory.mktemp("journal")
    registry.register(LogCollector(journal, journal / "log"))
    return list(registry.collect())


def test_the_table_has_each_metric(families):
    names = [f"{each.name}_total" if each.type == "counter" else each.name for each in families]
    assert first_column("The metrics") == names
    # Names of Prometheus: a prefix, a base unit, _total for what only grows.
    assert all(re.fullmatch(r"securefs_[a-z_]+", name) for name in names)


def test_the_number_of_time_series_is_bounded_as_it_says(families):
    labels = {"reason": 20, "outcome": 3}
    events = {
        sample.labels["event"] for each in families for sample in each.samples if "event" in sample.labels
    }
    (told,) = re.findall(r"some (\d+) time series at most", PAGE)
    failing = {s.labels["event"] for e in families for s in e.samples if s.labels.get("outcome") == "failure"}
    assert len(events) * labels["outcome"] + len(failing) * labels["reason"] <= int(told)


def test_the_table_has_each_alert_and_the_rules_name_metrics_that_there_are(families):
    assert first_column("Alerts") == [rule["alert"] for rule in RULES]
    known = set(first_column("The metrics"))
    for rule in RULES:
        named = set(re.findall(r"securefs_[a-z_]+", rule["expr"]))
        assert named <= known
        assert named or rule["expr"] == 'up{job="securefs"} == 0'
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"]["summary"]


def test_words_in_the_rules_are_words_of_the_labels(families):
    events = {sample.labels.get("event") for each in families for sample in each.samples}
    for name in re.findall(r'event="([^"]+)"', " ".join(rule["expr"] for rule in RULES)):
        assert name in events


def test_what_an_alert_on_a_first_failure_counts_is_there_from_the_start(families):
    """Prometheus sees no increase of a series that begins at 1."""
    there = [sample.labels for each in families for sample in each.samples]
    assert {"event": "file.integrity_failure", "outcome": "failure"} in there
    assert {"event": "file.rejected", "reason": "ciphertext_injection"} in there
    assert {"event": "file.open", "reason": "ciphertext_injection"} in there


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "uploads").mkdir()
    monkeypatch.setenv("FILE_KEY_BASE64", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(tmp_path / "journal"))
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    scope = {"app": lambda environ, start_response: []}
    exec(code, scope)
    assert type(scope["app"]).__name__ == "SecureFS"


def test_the_scrape_configuration_is_yaml():
    found = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert found["scrape_configs"][0]["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]
    assert [Path(name).name for name in found["rule_files"]] == ["securefs.rules.yml"]
