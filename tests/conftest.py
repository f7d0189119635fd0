"""Settings of every test."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from support import schema_watch
from support.fuzzing import PROFILE
from support.marks import is_slow, marks_of

settings.load_profile(PROFILE)


def pytest_configure():
    """Let programs that tests start be interrupted: one started by a shell's `&` would inherit that SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    schema_watch.install()


@pytest.fixture(autouse=True)
def _records_follow_the_schema(request):
    """Hold every record that the test writes against the schema."""
    yield
    for value in request.node.funcargs.values():
        if isinstance(value, Path) and value.is_dir():
            schema_watch.look_at_folder(value)
    assert schema_watch.taken() == []


def pytest_ignore_collect(collection_path, config):
    return True if "not slow" in config.option.markexpr and is_slow(collection_path) else None


def pytest_collection_modifyitems(items):
    heavy = set()
    for item in items:
        for mark in sorted(marks_of(item)):
            item.add_marker(getattr(pytest.mark, mark))
            heavy.add(item.path)
    # Files with such tests come first: if one came last, the other workers would wait for its end.
    items.sort(key=lambda item: item.path not in heavy)


def pytest_collection_finish():
    """Let the garbage collector pass over the tests themselves: some tests collect, a thousand times."""
    gc.collect()
    gc.freeze()
