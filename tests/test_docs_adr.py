"""docs/adr: the index lists each record and no other, and each record is made as the template says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "adr"
INDEX = (FOLDER / "README.md").read_text("utf-8")
RECORDS = [path for path in sorted(FOLDER.glob("*.md")) if path.name != "README.md"]
HEADINGS = ["Context", "Decision", "Consequences"]


def title_of(record: Path) -> tuple[str, str]:
    number, title = re.match(
        r"# (\d+)\. (.+)\n\nStatus: (?:accepted|replaced by \[)", record.read_text("utf-8")
    ).groups()
    return number, title


def test_the_index_lists_each_record_and_no_other():
    listed = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \|$", INDEX, re.MULTILINE)
    assert listed == [(record.name[:4], record.name, title_of(record)[1]) for record in RECORDS]


def test_records_are_numbered_without_a_gap():
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_a_record_follows_the_template(record):
    assert int(title_of(record)[0]) == int(record.name[:4])
    text = record.read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert "\n- *Negative:* " in text.partition("\n## Consequences\n")[2], "each decision costs something"


def test_the_template_is_one_of_these_records():
    (template,) = re.findall(r"```markdown\n(.*?)```", INDEX, re.DOTALL)
    assert re.findall(r"^## (.+)$", template, re.MULTILINE) == HEADINGS
    assert "Status: accepted" in template
