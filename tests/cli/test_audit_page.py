"""``securefs audit page``."""

from __future__ import annotations

from support.page import PAGE


def test_the_page_is_printed_as_it_was_released(run):
    result = run("audit", "page")
    assert (result.code, result.out) == (0, PAGE.read_bytes())
