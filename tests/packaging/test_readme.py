"""The README's examples run as they stand, and its links lead somewhere."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import wsgiref.simple_server
from pathlib import Path

import pytest
from support.wsgi_client import call, multipart

from securefs import Keyring, encrypt_file, open_encrypted

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
SECRET = bytes(range(32))


def block(word: str) -> str:
    (found,) = [text for text in BLOCKS if word in text]
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(SECRET).decode())
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(tmp_path / "journal"))
    return tmp_path


def test_the_flask_example(place):
    names = {"__name__": "example"}
    exec(block("from flask"), names)
    kind, body = multipart(("file", "r.pdf", b"%PDF canary"))
    answer = call(names["app"], "POST", "/upload", body, [("Content-Type", kind)])
    assert answer.status == 200
    assert b"canary" not in (place / "uploads/report.enc").read_bytes()
    assert call(names["app"], path="/report").body == b"%PDF canary"


def test_the_plain_wsgi_example_and_reading_what_was_stored(place, monkeypatch, capsys):
    (place / "uploads").mkdir()
    (place / "plain").write_bytes(b"%PDF canary")
    encrypt_file("plain", "uploads/report.enc", Keyring(SECRET), metadata={"name": "r.pdf"})
    names = {}
    served = []
    monkeypatch.setattr(wsgiref.simple_server, "make_server", lambda host, port, app: served.append(app))
    exec(block("make_server"), names)
    assert call(served[0]).body == b"%PDF canary"
    exec(block("open_encrypted"), {})
    assert capsys.readouterr().out == "r.pdf 11 b'%PDF canary'\n"
    with open_encrypted("uploads/report.enc", Keyring(SECRET)) as file:
        assert file.read() == b"%PDF canary"


def test_the_django_example(place, monkeypatch):
    program = [sys.executable, "-W", "error", "-c", DJANGO.replace("EXAMPLE", block("django.core.wsgi"))]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        program, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


DJANGO = """
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
import os
os.mkdir("media")
settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MEDIA_ROOT="media")
EXAMPLE
from support.wsgi_client import call
print(call(application).body.decode())
"""


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
