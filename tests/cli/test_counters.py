"""The files of ended workers: nothing is lost, nothing counted twice, and there are not ever more of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from support.servers import python_environ

from securefs.cli.counters import fold, mark_ended

# A worker: counts, and ends.
WORKER = """
import os
from prometheus_client import Counter, Gauge, Histogram
Counter("c", "", ["l"]).labels("x").inc(3)
Histogram("h", "", buckets=[1]).observe(2)
Gauge("g", "", multiprocess_mode="livesum").set(5)
print(os.getpid())
"""


@pytest.fixture
def worker(tmp_path):
    """Return a function that runs a worker and returns its process id."""

    def run():
        environ = python_environ(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
        return int(
            subprocess.run(
                [sys.executable, "-c", WORKER], env=environ, capture_output=True, check=True
            ).stdout
        )

    return run


def read(folder):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    value = registry.get_sample_value
    return value("c_total", {"l": "x"}), value("h_count"), value("h_sum"), value("g")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_ended_workers_counted_is_kept_in_one_file(worker, tmp_path):
    for number in range(1, 4):
        pid = worker()
        before = read(tmp_path)
        mark_ended(tmp_path, pid)
        fold(tmp_path)
        # A gauge is of those that live.
        assert read(tmp_path) == (*before[:3], None) == (3 * number, number, 2 * number, None)
        assert files(tmp_path) == ["counter_total.db", "histogram_total.db"]


def test_workers_that_live_keep_their_files(worker, tmp_path):
    pids = worker(), worker()
    mark_ended(tmp_path, pids[0])
    fold(tmp_path)
    assert read(tmp_path) == (6, 2, 4, 5)
    assert f"counter_{pids[1]}.db" in files(tmp_path)
    assert f"counter_{pids[0]}.db" not in files(tmp_path)


def test_a_worker_that_got_the_number_of_an_ended_one_goes_on(tmp_path):
    """Its file is read as that of a worker that lives, until it ends, too."""
    name = tmp_path / f"counter_{os.getpid()}.db"
    name.write_bytes(b"")
    mark_ended(tmp_path, os.getpid())
    fold(tmp_path)
    assert files(tmp_path) == sorted([name.name, f"ended_{os.getpid()}"])


def test_a_process_of_somebody_else_lives(tmp_path, monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    mark_ended(tmp_path, 1)
    fold(tmp_path)
    assert files(tmp_path) == ["ended_1"]


def test_a_worker_that_never_counted_has_no_file(worker, tmp_path):
    pid = worker()
    for path in tmp_path.iterdir():
        path.unlink()
    mark_ended(tmp_path, pid)
    fold(tmp_path)
    assert files(tmp_path) == []


def test_what_an_interrupted_fold_left_is_begun_anew(worker, tmp_path):
    pid = worker()
    (tmp_path / "counter_total.new").write_bytes(b"half")
    mark_ended(tmp_path, pid)
    fold(tmp_path)
    assert read(tmp_path)[0] == 3
    assert files(tmp_path) == ["counter_total.db", "histogram_total.db"]


def test_a_folder_that_is_gone_is_not_marked(tmp_path):
    mark_ended(tmp_path / "gone", 1)
    assert files(tmp_path) == []
