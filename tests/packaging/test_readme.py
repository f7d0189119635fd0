"""The README's first example runs as it stands, links lead somewhere, and variables are documented."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from support.wsgi_client import call

from securefs import Keyring, encrypt_file

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SECRET = bytes(range(32))


def test_the_first_example_protects_what_it_says(tmp_path, monkeypatch):
    """The others are pasted by test_quickstart.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(SECRET).decode())
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(tmp_path / "journal"))
    (tmp_path / "uploads").mkdir()
    stored = tmp_path / "uploads" / "f"

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](stored.open("rb"))

    names = {"app": app}
    first = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[1]
    assert "stores=" in first
    exec(first, names)
    stored.write_bytes(b"planted")
    assert call(names["app"]).status == 500
    (tmp_path / "plain").write_bytes(b"canary")
    encrypt_file("plain", stored, Keyring(SECRET), overwrite=True)
    assert call(names["app"]).body == b"canary"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_each_variable_of_the_code_is_documented_and_each_documented_one_exists():
    pattern = re.compile(r"\b(?:SECUREFS|FILE_KEY)_[A-Z0-9_]+[A-Z0-9]\b")
    sources = [
        path
        for room in ("securefs", "middleware", "audit")
        for path in (ROOT / room).rglob("*.py")
        if not path.is_symlink()
    ]
    used = set(
        pattern.findall(" ".join(path.read_text("utf-8") for path in [*sources, ROOT / "gunicorn.conf.py"]))
    )
    told = set(pattern.findall(" ".join(page.read_text("utf-8") for page in PAGES)))
    assert used - told == set()
    assert {name.removesuffix("_FILE") for name in told} - used == set()
