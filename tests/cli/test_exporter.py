"""The metrics endpoint beside a server: its folder, its process, and what is left of both."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import ROOT, python_environ, wait_until

from securefs import ConfigurationError
from securefs.cli import exporter
from securefs.cli.exporter import prepare

ADDRESS = "127.0.0.1:0"


def prepared(**variables):
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SECUREFS_METRICS": ADDRESS, **variables}
    return prepare(environ, user=os.geteuid(), group=os.getegid()), environ


def test_without_the_variable_there_are_no_metrics():
    environ = {}
    assert prepare(environ, user=0, group=0) is None
    assert environ == {}


def test_the_folder_of_the_counters_is_private_and_named_to_the_workers():
    made, environ = prepared(PROMETHEUS_MULTIPROC_DIR="/another/server's")
    try:
        assert environ["PROMETHEUS_MULTIPROC_DIR"] == str(made.folder)
        assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700
    finally:
        made.stop()
    assert not made.folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another user")
def test_the_folder_belongs_to_the_user_that_the_workers_become():
    made = prepare({"SECUREFS_METRICS": ADDRESS}, user=65534, group=65533)
    status = made.folder.stat()
    made.stop()
    assert (status.st_uid, status.st_gid) == (65534, 65533)


def test_an_address_of_others_is_refused_before_anything_is_made():
    with pytest.raises(ConfigurationError, match="it must be a loopback address"):
        prepared(SECUREFS_METRICS="192.0.2.7:9464")


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setattr(exporter, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"run pip install 'securefs\[metrics\]'"):
        prepared()


def test_the_endpoint_runs_until_it_is_stopped():
    made, _ = prepared(FILE_KEY_BASE64="secret", FILE_KEY_BASE64_PREVIOUS="secret")
    made.start()
    proc = Path("/proc", str(made._process.pid))
    wait_until(lambda: b"metrics" in (proc / "cmdline").read_bytes(), "the endpoint's command")
    assert b"FILE_KEY" not in (proc / "environ").read_bytes()
    made.stop()
    assert made._process.returncode == 0
    assert not made.folder.exists()


def test_an_endpoint_that_does_not_end_is_left(monkeypatch):
    monkeypatch.setattr(exporter, "PATIENCE", 0.01)
    made, _ = prepared()
    made.start()
    held = os.dup(made._writing)  # as a worker that still runs has it
    made.stop()
    assert made._process.returncode is None
    os.close(held)
    # With an error where it had not begun, and finds no folder.
    made._process.wait(30)


SERVER = """
import os, sys
from securefs.cli.exporter import prepare
made = prepare(os.environ, user=os.geteuid(), group=os.getegid())
if os.fork() == 0:
    sys.exit()
assert os.wait()[1] == 0
print(made.folder, made.folder.is_dir())
raise ValueError
"""


def test_a_server_that_fails_leaves_no_folder_and_its_workers_leave_it_alone(tmp_path):
    environ = python_environ(SECUREFS_METRICS=ADDRESS, TMPDIR=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", SERVER], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith(" True\n"), done.stderr
    assert list(tmp_path.glob("securefs-metrics-*")) == []


def test_workers_that_ended_are_marked():
    made, _ = prepared()
    made.ended(4711)
    assert [path.name for path in made.folder.iterdir()] == ["ended_4711"]
    made.stop()
