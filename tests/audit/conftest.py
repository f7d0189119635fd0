"""Fixtures of the audit tests."""

import itertools
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from support.days import DAY, NOON


@pytest.fixture
def open_folder():
    """A folder that another user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def written(tmp_path_factory):
    """Write journals that were made by hand, each to a folder of its own; None is for an empty one.

    Not in ``tmp_path``: whatever the tests write there is held against the schema of what securefs
    writes, and these hold what attackers write, too.
    """
    base = tmp_path_factory.mktemp("made")
    count = itertools.count()

    def write(made):
        folder = base / str(next(count))
        if made is None:
            folder.mkdir()
        else:
            made.write(folder)
        return folder

    return write


@pytest.fixture
def clock(monkeypatch):
    """Noon, until told otherwise."""
    now = [NOON]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])

    def advance(days):
        now[0] += days * DAY

    return advance
