"""securefs metrics: an endpoint that only this machine reaches."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.servers import curl, launch, python_environ, stopped, wait_until

from securefs import ConfigurationError
from securefs.audit import Entry, Journal
from securefs.cli import main
from securefs.cli.metrics import LogCollector, _listen, registry_of

COUNTING = """
from prometheus_client import Counter
Counter("securefs_operations", "", ["event", "outcome"]).labels("file.open", "success").inc(3)
"""


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.record(Entry("file.open"))
    journal.close()
    return tmp_path / "journal"


@pytest.fixture
def counted(tmp_path):
    folder = tmp_path / "counters"
    folder.mkdir()
    environ = python_environ(PROMETHEUS_MULTIPROC_DIR=str(folder))
    subprocess.run([sys.executable, "-c", COUNTING], env=environ, check=True)
    return folder


def start(tmp_path, *arguments, **variables):
    command = [sys.executable, "-m", "securefs", "metrics", *map(str, arguments)]
    return launch(command, tmp_path / "log", python_environ(**variables))


def url_of(server):
    found = wait_until(lambda: re.search(r"metrics on (http://\S+)\n", server.log), "the endpoint's line")
    return found[1]


def values(body):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_counters_and_the_figures_of_the_journal_are_served(tmp_path, journal, counted):
    variables = {
        "PROMETHEUS_MULTIPROC_DIR": str(counted),
        "SECUREFS_METRICS": "127.0.0.1:0",
        "SECUREFS_AUDIT_DIR": str(journal),
    }
    with stopped(start(tmp_path, **variables)) as server:
        url = url_of(server)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        reply = curl(url)
        assert reply.status == 200
        assert reply.header("content-type").startswith("text/plain; version=")
        assert values(reply.body) == {
            ("securefs_operations_total", "file.open", "success"): 3,
            ("securefs_journal_readable",): 1,
            ("securefs_journal_unsealed_records",): 3,
            ("securefs_journal_checkpoint_timestamp_seconds",): 0,
        }
        openmetrics = curl("-H", "Accept: application/openmetrics-text; version=1.0.0", url)
        assert openmetrics.body.endswith(b"# EOF\n")
        assert curl(url.replace("/metrics", "/")).status == 404
        assert curl(f"{url}?a=1").status == 200
        assert server.stop() == 128 + signal.SIGTERM
    assert server.log.count("\n") == 2  # none for a request


def test_a_browser_that_was_led_here_gets_nothing(tmp_path, journal):
    """DNS rebinding: a page of evil.example has its own name lead to 127.0.0.1."""
    with stopped(start(tmp_path, "--listen", "127.0.0.1:0", journal)) as server:
        url = url_of(server)
        reply = curl("-H", "Host: evil.example", url)
        assert (reply.status, b"securefs_" in reply.body) == (403, False)
        assert curl("-H", "Host: localhost:1", url).status == 200


def test_an_address_of_ipv6(tmp_path, journal):
    with stopped(start(tmp_path, "--listen", "[::1]:0", journal)) as server:
        assert url_of(server).startswith("http://[::1]:")
        assert curl("--globoff", url_of(server)).status == 200


def test_a_client_that_says_nothing_does_not_stop_the_others(tmp_path, journal):
    with stopped(start(tmp_path, "--listen", "127.0.0.1:0", journal)) as server:
        url = url_of(server)
        port = int(re.search(r":(\d+)/", url)[1])
        with socket.create_connection(("127.0.0.1", port)):
            assert curl(url).status == 200


def test_it_ends_with_its_input(tmp_path, journal):
    environ = python_environ(SECUREFS_METRICS="127.0.0.1:0", SECUREFS_AUDIT_DIR=str(journal))
    command = [sys.executable, "-m", "securefs", "metrics", "--stdin"]
    process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr.readline().startswith(b"securefs: metrics on ")
    process.stdin.close()
    assert process.wait(30) == 0
    process.stderr.close()


def test_an_address_that_is_in_use_is_told_and_tried_again(tmp_path, journal):
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        server = start(tmp_path, "--listen", f"127.0.0.1:{port}", journal)
        wait_until(lambda: "no metrics yet: SECUREFS_METRICS" in server.log, "the complaint")
    with stopped(server):
        assert curl(url_of(server)).status == 200
        assert server.log.count("no metrics yet") == 1


def test_it_ends_with_its_input_before_the_address_is_free(tmp_path, journal):
    with socket.create_server(("127.0.0.1", 0)) as first:
        environ = python_environ(SECUREFS_AUDIT_DIR=str(journal))
        listen = f"127.0.0.1:{first.getsockname()[1]}"
        command = [sys.executable, "-m", "securefs", "metrics", "--stdin", "--listen", listen]
        process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert b"no metrics yet" in process.stderr.readline()
        process.stdin.close()
        assert process.wait(30) == 0
        process.stderr.close()


def test_a_journal_that_cannot_be_read_is_told(tmp_path):
    registry = CollectorRegistry()
    registry.register(LogCollector(tmp_path / "missing", tmp_path / "log"))
    value = registry.get_sample_value
    assert value("securefs_journal_readable") == 0
    assert value("securefs_journal_unsealed_records") is None


def test_the_log_may_be_elsewhere(journal, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "checkpoints").write_bytes(b"\n")
    os.utime(elsewhere / "checkpoints", (7, 7))
    value = registry_of(None, str(journal), str(elsewhere)).get_sample_value
    assert value("securefs_journal_checkpoint_timestamp_seconds") == 7


def test_nothing_to_serve_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="there is nothing to serve: set PROMETHEUS_MULTIPROC_DIR"):
        registry_of(None, None, None)
    with pytest.raises(ConfigurationError, match=r"^PROMETHEUS_MULTIPROC_DIR: there is no folder '"):
        registry_of(str(tmp_path / "missing"), None, None)


def test_an_address_must_be_named_and_be_of_this_machine(capsys, monkeypatch, journal):
    assert main(["metrics", str(journal)]) == 2
    assert "name an address with --listen" in capsys.readouterr().err
    monkeypatch.setenv("SECUREFS_METRICS", "0.0.0.0:9464")
    assert main(["metrics", str(journal)]) == 2
    assert "SECUREFS_METRICS is '0.0.0.0:9464': it must be a loopback address" in capsys.readouterr().err


def test_counters_alone_are_served_without_a_journal(counted):
    registry = registry_of(str(counted), None, None)
    labels = {"event": "file.open", "outcome": "success"}
    assert registry.get_sample_value("securefs_operations_total", labels) == 3
    assert registry.get_sample_value("securefs_journal_readable") is None


def test_nothing_listens_once_the_input_ended():
    ended = threading.Event()
    ended.set()
    assert _listen(("127.0.0.1", 0), CollectorRegistry(), ended) is None


class AfterThree(threading.Event):
    """Ends after three waits, and does not wait."""

    waits = 0

    def wait(self, timeout=None):
        self.waits += 1
        if self.waits == 3:
            self.set()
        return self.is_set()


def test_an_address_that_stays_in_use_is_told_once(capsys):
    ended = AfterThree()
    with socket.create_server(("127.0.0.1", 0)) as first:
        assert _listen(first.getsockname(), CollectorRegistry(), ended) is None
    assert ended.waits == 3
    assert capsys.readouterr().err.count("no metrics yet: SECUREFS_METRICS: ") == 1
