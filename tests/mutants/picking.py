"""The pytest plugin of a mutation campaign, loaded into the runs that it starts.

``MUTANTS_PICK`` names a file with the ids of the tests to run, in that order. ``MUTANTS_RECORD``
names one to write: how long each test that passed took, and which lines of the product it ran.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import coverage
import pytest

MEMORY = 8 << 30  # bytes of addresses that a mutant may take
FILE_SIZE = 3 << 30  # bytes of a file that it may write

_seconds: dict[str, float] = {}
_failed: set[str] = set()
_measured = None
if "MUTANTS_RECORD" in os.environ:
    folders = [str(Path(name).resolve()) for name in os.environ["MUTANTS_FOLDERS"].split(os.pathsep)]
    _measured = coverage.Coverage(data_file=None, source=folders, config_file=False)
    _measured.start()


def pytest_configure():
    for limit, size in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, FILE_SIZE)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def pytest_collection_modifyitems(config, items):
    if "MUTANTS_PICK" not in os.environ:
        return
    wanted = json.loads(Path(os.environ["MUTANTS_PICK"]).read_text())
    found = {item.nodeid: item for item in items}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in set(wanted)])
    items[:] = [found[name] for name in wanted if name in found]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    if _measured is not None:
        _measured.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        if _measured is not None:
            _measured.switch_context("")


def pytest_runtest_logreport(report):
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish():
    if _measured is None:
        return
    _measured.stop()
    data = _measured.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for file in data.measured_files():
        for line, tests in data.contexts_by_lineno(file).items():
            for test in tests:
                lines.setdefault(test, {}).setdefault(file, []).append(line)
    passed = {
        test: {"seconds": round(seconds, 3), "lines": lines.get(test, {})}
        for test, seconds in _seconds.items()
        if test not in _failed
    }
    Path(os.environ["MUTANTS_RECORD"]).write_text(json.dumps(passed))
