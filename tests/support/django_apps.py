"""The Django applications of ``make apps``: where they are, and what a test does without them."""

from __future__ import annotations

import os

import pytest

from support.servers import ROOT

APPS = ROOT / ".venv" / "apps"
REQUIRED = "SECUREFS_TEST_APPS"  # set: an application that is missing is a failure


def need(*names: str) -> None:
    """Skip the test, or fail, where one of the packages is not installed."""
    missing = [name for name in names if not (APPS / name).is_dir()]
    if missing:
        text = f"{', '.join(missing)} is not installed: make apps"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(text)
