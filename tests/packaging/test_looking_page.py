"""docs/looking.md, pasted as it stands by a user without privileges, does what it shows."""

from __future__ import annotations

import pytest
from support.pasting import ROOT, blocks_of, terminal

BLOCKS = blocks_of(ROOT / "docs" / "looking.md")


def blocks_in(section):
    return [block for block in BLOCKS if block.section == section]


@pytest.fixture(scope="module")
def user():
    """A terminal in which the folder was prepared, and the programs were saved."""
    prepare = next(block for block in blocks_in("Flask") if block.kind == "sh")
    with terminal() as user:
        assert user.run(prepare.text) == ""
        for block in BLOCKS:
            if block.kind == "python":
                user.save(block.name, block.text)
        yield user


def test_each_program_has_a_name():
    names = [block.name for block in BLOCKS if block.kind == "python"]
    assert names == ["flask_looks.py", "werkzeug_looks.py", "tasks.py", "celeryconfig.py"]


@pytest.mark.parametrize("section", ["Flask", "Werkzeug"])
def test_a_program_does_what_it_shows(section, user):
    blocks = blocks_in(section)
    (start,) = [number for number, block in enumerate(blocks) if block.is_server]
    command, output = blocks[start + 1 :]
    assert (command.kind, output.kind) == ("sh", "text")
    with user.serving(blocks[start].text):
        assert user.run_elsewhere(command.text, "~/looking") == output.text
    if section == "Flask":
        assert user.run("FLASK_APP=flask_looks python -m flask securefs check").endswith("is encrypted\n")


def test_the_worker_does_what_it_shows(user):
    if user.run("[ -e answer ] || echo missing"):
        test_a_program_does_what_it_shows("Flask", user)
    start, command = [block for block in blocks_in("Workers") if block.kind == "sh"]
    (output,) = [block for block in blocks_in("Workers")[-1:] if block.kind == "text"]
    with user.running(start.text):
        assert user.run(command.text) == output.text
    records = user.run("cat journal/*.jsonl")
    assert '"event":"file.open"' in records


def test_the_five_lines_are_five():
    lines = [line for line in blocks_in("Flask")[0].text.splitlines() if line]
    assert len(lines) == 5
