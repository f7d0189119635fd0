"""The options of ``securefs audit``."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("action", ["verify", "hash"])
def test_each_action_has_a_help_text(run, action):
    result = run("audit", action, "--help")
    assert result.code == 0
    assert b"usage: securefs audit" in result.out


def test_the_exit_codes_are_in_the_help(run):
    out = run("audit", "verify", "--help").out.replace(b"\n", b" ")
    assert b"--pin KEY" in out
    assert b"proven" in out
