"""How long property tests look: ``SECUREFS_FUZZ=50`` gives each of them fifty times as many examples.

A normal run takes the same examples every time, so that a red test is a change's fault; a longer
one takes new ones. That holds of every Hypothesis test, whatever settings it asks for:
``conftest.py`` loads :data:`PROFILE` before any test is imported.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("SECUREFS_FUZZ", "1"))
PROFILE = "securefs"
USUAL = 100  # examples of a test that does not say how many

# No example has a deadline, and none is too slow: machines differ.
settings.register_profile(
    PROFILE,
    max_examples=USUAL * FACTOR,
    derandomize=FACTOR == 1,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def examples(count: int) -> settings:
    """Return settings for ``count`` examples in a normal run."""
    return settings(settings.get_profile(PROFILE), max_examples=count * FACTOR)
