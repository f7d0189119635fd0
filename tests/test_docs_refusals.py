"""docs/http.md says what is still refused of uploads, by kinds: each refused body of the corpus is of one of them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from support.hostile_corpus import refused

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "http.md").read_text("utf-8")
SECTION = PAGE.partition("### What is still refused, and why it is worth it")[2].partition("\n### ")[0]
ROWS = [line for line in SECTION.splitlines() if line.startswith("| ") and "`" in line]
PATTERNS = [pattern for row in ROWS for pattern in re.findall(r"`([^`]+)`", row.split("|")[3])]


def cases_of_the_page():
    """The refused cases, but for limits and declared places, which say what they are by a setting."""
    return [case for case in refused() if case.status == 400 and case.reason != "limit"]


def test_each_refused_body_is_of_a_kind_that_the_page_names():
    missing = [
        case.name
        for case in cases_of_the_page()
        if not any(fnmatchcase(case.name, pattern) for pattern in PATTERNS)
    ]
    assert missing == []


def test_the_page_names_no_kind_that_nothing_is_of():
    names = [case.name for case in cases_of_the_page()]
    unused = [pattern for pattern in PATTERNS if not any(fnmatchcase(name, pattern) for name in names)]
    assert unused == []


def test_only_pieces_of_widgets_are_sent_by_a_client_that_is_known():
    assert "No client is known that sends one of these, but for the pieces of widgets." in " ".join(
        SECTION.split()
    )
    known = {case.name for case in cases_of_the_page() if case.clients}
    assert {name for name in known if not name.startswith("chunk-")} == set()
