"""Pages for readers: links lead to a page and to a heading of it, prose keeps to 100 columns, and the glossary is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NAMES = ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = [*(ROOT / name for name in NAMES), *sorted(DOCS.rglob("*.md"))]
# Made by generators in tests, which have the text around their tables.
MADE = {DOCS / name for name in ("matrix.md", "multipart.md", "servers.md")}
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


@pytest.mark.parametrize("page", [page for page in PAGES if page not in MADE], ids=ids)
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
