"""Pages for readers: links lead to a page and to a heading of it, prose keeps to 100 columns, and the glossary is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NAMES = ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = [*(ROOT / name for name in NAMES), *sorted(DOCS.rglob("*.md"))]
COLUMNS = 100
# What a reviewer searches for.
TERMS = (
    "container",
    "segment",
    "final segment",
    "slot",
    "keyring",
    "DEK",
    "KEK",
    "file key",
    "wrap",
    "key id",
    "commitment",
    "context",
    "store",
    "journal",
    "chain",
    "record",
    "seal",
    "epilogue",
    "padding",
    "held",
    "spooled",
    "rollback",
    "replay",
    "request smuggling",
    "key encryption key",
    "fail closed",
    "decryption oracle",
    "constant time",
    "authenticated encryption",
)


def prose_of(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchor(heading: str) -> str:
    """Return the fragment that GitHub gives to a heading."""
    text = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)}


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_a_page_and_to_a_heading_of_it(page):
    for target, fragment in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", prose_of(page)):
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        if fragment:
            assert fragment in anchors_of(there), f"{target}#{fragment}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_prose_keeps_to_its_columns(page):
    # Rows of tables can't be broken; what is indented by four columns is code.
    lines = [line for line in prose_of(page).splitlines() if not re.match(r"\||    ", line)]
    assert [line for line in lines if len(line) > COLUMNS] == []


def entries() -> dict[str, str]:
    parts = re.split(r"^### (.+)$", (DOCS / "glossary.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.partition("\n## ")[0] for part in parts[1::2]), strict=True))


@pytest.mark.parametrize("term", TERMS)
def test_the_glossary_has_each_term(term):
    assert re.search(rf"\b{term}\b", " ".join([*entries(), entries()["Key encryption key"]]), re.IGNORECASE)


@pytest.mark.parametrize("term", entries())
def test_an_entry_is_short_and_links_to_its_specification(term):
    text = " ".join(entries()[term].split())
    *_, last = text.split(" [")
    assert re.fullmatch(r"[^\]]+\]\([^)]+\)", last), "a link is last"
    sentences = re.sub(r",? ?\[[^\]]+\]\([^)]+\)", "", text)
    assert 1 <= len(re.findall(r"[.](?=[ )]|$)", sentences)) <= 3


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md"])
def test_the_glossary_and_the_map_are_linked(page):
    text = (ROOT / page).read_text("utf-8")
    assert "(docs/glossary.md)" in text
    assert "(docs/architecture.md)" in text


def lines_of(names: list[str]) -> int:
    """Return how many lines modules have. A name without a folder is in the folder of the one before."""
    folder, total = "", 0
    for name in names:
        folder = name.rpartition("/")[0] or folder
        path = ROOT / folder / name.rpartition("/")[2]
        total += sum(
            len(file.read_text("utf-8").splitlines())
            for file in ([path] if path.is_file() else path.glob("*.py"))
        )
    return total


def test_reviewers_are_told_how_much_there_is_to_read():
    rows = re.findall(r"^\| (`.+) \| ([\d,]+) \|", (ROOT / "SECURITY.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == 18
    for files, told in rows:
        assert lines_of(re.findall(r"`([^`]+)`", files)) == pytest.approx(
            int(told.replace(",", "")), rel=0.1
        ), files
    (core,) = re.findall(r"the core is some ([\d,]+) lines", (ROOT / "README.md").read_text("utf-8"))
    modules = [f"securefs/{path.name}" for path in (ROOT / "securefs").glob("*.py") if not path.is_symlink()]
    assert lines_of([*modules, "securefs/keys/"]) == pytest.approx(int(core.replace(",", "")), rel=0.1)


def test_files_that_contributors_are_sent_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:securefs|middleware|audit|tests|docs|bench)/[\w./]*)`", text)
    # What stands for another thing is no file: `tests/mutants/` comes with its own command.
    assert [path for path in paths if not (ROOT / path).exists() and path != "tests/mutants/"] == []
