"""How long property tests look: ``SECUREFS_FUZZ=50`` gives each of them fifty times as many examples.

A normal run takes the same examples every time, so that a red test is a change's fault; a longer one takes new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("SECUREFS_FUZZ", "1"))


def examples(count: int) -> settings:
    """Return settings for ``count`` examples in a normal run. No example has a deadline: machines differ."""
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
