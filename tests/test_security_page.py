"""SECURITY.md: whatever it says that an attacker cannot do names a test, and that test is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support.journals import ROOT

PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
ATTACKERS = (
    "reads the storage",
    "writes to the storage",
    "uploads",
    "downloads",
    "can merely connect",
    "holds a retired key, or any other that the server accepts",
    "runs code as the app, or reads its memory",
)
SECTIONS = dict(re.findall(r"\n### Who (.+)\n((?:(?!\n##).|\n(?!##))*)", PAGE))
ROWS = [
    (title, *(cell.strip() for cell in line.strip("|").split("|")))
    for title, body in SECTIONS.items()
    for line in body.splitlines()
    if line.startswith("| ") and not line.startswith(("| cannot |", "| --- |"))
]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_page_knows_each_kind_of_attacker():
    assert tuple(SECTIONS) == ATTACKERS
    for title, body in SECTIONS.items():
        assert "**Can**" in body, title
        assert "| cannot | test | without declared places |" in body, title
    assert len(ROWS) >= 30


@pytest.mark.parametrize(
    ("attacker", "cannot", "tests", "undeclared"), ROWS, ids=[row[1][:60] for row in ROWS]
)
def test_whatever_an_attacker_cannot_do_names_its_test(attacker, cannot, tests, undeclared):
    names = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", tests)
    assert names
    assert re.sub(r"`[^`]+`", "", tests).strip() == "", "nothing but names"
    for path, name in names:
        assert name in functions_of(path), f"{path} has no {name}"
    assert undeclared, "what is left without declared places"


@pytest.mark.parametrize(
    "term", ["decryption oracle", "padding oracle", "rollback", "replay", "request smuggling"]
)
def test_the_words_that_a_reviewer_looks_for_are_there(term):
    assert f"**{term}**" in PAGE
