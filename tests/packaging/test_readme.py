"""The first examples of README and of the settings run as they stand, links lead somewhere, and variables are documented."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from support.uploads import Recorder
from support.wsgi_client import call, multipart

from securefs import Keyring, encrypt_file
from securefs.middleware import SecureFS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SECRET = bytes(range(32))
FORM = "multipart/form-data; boundary=x"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A function that runs a block of Python, of README or of a page, with an app, and returns its names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(SECRET).decode())
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(tmp_path / "journal"))
    (tmp_path / "uploads").mkdir()

    def run(page, number, app):
        names = {"app": app}
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
        assert 'stores=["uploads"]' in blocks[number]
        # This machine may have a clamd.
        exec(blocks[number].replace("/run/clamav/clamd.ctl", "no-clamd.ctl"), names)
        return names

    return run


def test_the_first_example_protects_what_it_says(example, tmp_path):
    """The others are pasted by test_quickstart.py."""
    stored = tmp_path / "uploads" / "f"

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](stored.open("rb"))

    names = example("README.md", 0, app)
    stored.write_bytes(b"planted")
    assert call(names["app"]).status == 500
    (tmp_path / "plain").write_bytes(b"canary")
    encrypt_file("plain", stored, Keyring(SECRET), overwrite=True)
    assert call(names["app"]).body == b"canary"


def post(app, *file, **environ):
    kind, body = multipart(("file", *file))
    return call(app, "POST", "/upload", body, [("Content-Type", kind)], **environ)


def test_the_examples_of_the_settings(example):
    page = "docs/deployment.md"
    app = example(page, 0, Recorder())["app"]
    assert post(app, "a.txt", b"canary").status == 401
    assert post(app, "a.txt", b"canary", REMOTE_USER="ann").status == 200
    names = example(page, 1, Recorder())
    assert post(names["app"], "a.pdf", b"%PDF-", "application/pdf").status == 503, "no clamd is there"
    app = SecureFS(Recorder(), stores=["uploads"], inspect=names["no_empty_files"])
    assert [post(app, "a", data).status for data in (b"", b"canary")] == [400, 200]
    recorder = Recorder()
    names = example(page, 2, recorder)
    assert post(names["app"], "a", b"canary").status == 200
    assert b"canary" not in recorder.got
    assert names["counts"]["file.encrypt"] == 2
    answer = call(names["app"], "POST", "/", b"x", [("Content-Type", FORM)], length=1 << 50)
    assert (answer.status, answer.body[:11]) == (413, b"Too large: ")


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
