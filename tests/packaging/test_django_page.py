"""docs/django.md, pasted as it stands by a user without privileges, does what it shows."""

from __future__ import annotations

import ast
import re

import pytest
from support.pasting import ROOT, blocks_of, terminal

PAGE = ROOT / "docs" / "django.md"
PROGRAM = [block for block in blocks_of(PAGE) if block.section == "A whole program"]


@pytest.fixture(scope="module")
def user():
    """A terminal in which the folder was prepared, and the program was saved."""
    with terminal() as user:
        assert user.run(PROGRAM[0].text) == ""
        for block in PROGRAM:
            if block.kind == "python":
                user.save(block.name, block.text)
        yield user


def test_the_program_does_what_it_shows(user):
    check, no_issues, server, client, output, verify, verified = [
        block for block in PROGRAM[1:] if block.kind != "python"
    ]
    assert user.run(check.text) == no_issues.text
    with user.serving(server.text):
        assert user.run_elsewhere(client.text, "~/album") == output.text
    assert user.run(verify.text) == verified.text


def test_the_five_lines_are_five():
    lines = [line for line in blocks_of(PAGE)[0].text.splitlines() if line]
    assert len(lines) == 5


def test_the_page_lists_the_checks_that_there_are():
    source = (ROOT / "securefs" / "integrations" / "django" / "checks.py").read_text("utf-8")
    strings = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    there = {
        text for text in strings if isinstance(text, str) and re.fullmatch(r"securefs\.[EW][0-9]{3}", text)
    }
    assert (
        set(re.findall(r"^\| `(securefs\.[EW][0-9]{3})` \|", PAGE.read_text("utf-8"), re.MULTILINE)) == there
    )
