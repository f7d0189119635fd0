from __future__ import annotations

import pytest
from support.reference_app import Site


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)
