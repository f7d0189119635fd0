"""docs/testing.md: each example runs as it stands, and what is said of other test clients is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import securefs
import securefs.testing

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text("utf-8"), re.DOTALL)
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def block(word, blocks=BLOCKS):
    (found,) = [text for text in blocks if word in text]
    return found


def run(folder, *command):
    """Run a program whose own key and journal, if it needs them, come from the examples."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SECUREFS_", "FILE_KEY_"))
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**kept, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_no_other_example():
    assert len(BLOCKS) == 5


def test_the_first_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain.txt").write_text("hello")
    (tmp_path / "store").mkdir()
    exec(block("def app("), {"folder": tmp_path / "store", "securefs": securefs})


PYTEST_APP = """
from flask import Flask, request, send_file
app = Flask(__name__)
@app.post("/upload")
def upload():
    request.files["file"].save(app.config["UPLOADS"] / "a.enc")
    return ""
@app.get("/report")
def report():
    return send_file(app.config["UPLOADS"] / "a.enc", download_name="a.txt")
"""
PYTEST_TEST = """
def test_it(client, tmp_path):
    assert client.post("/upload", files={"file": ("a.txt", b"hello")}).status == 200
    assert b"hello" not in (tmp_path / "a.enc").read_bytes()
    assert client.get("/report").body == b"hello"
"""


def test_the_fixture(tmp_path):
    (tmp_path / "myapp.py").write_text(PYTEST_APP)
    (tmp_path / "conftest.py").write_text(block("@pytest.fixture"))
    (tmp_path / "test_it.py").write_text(PYTEST_TEST)
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")


def test_flask_with_the_app_of_the_readme(tmp_path):
    (tmp_path / "myapp.py").write_text(block("from flask", README))
    (tmp_path / "conftest.py").write_text(block("TemporaryDirectory"))
    (tmp_path / "test_it.py").write_text(block("test_client()"))
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")


DJANGO_SETTINGS = """
from pathlib import Path
SECRET_KEY, ROOT_URLCONF, ALLOWED_HOSTS = "x", "mysite.urls", ["localhost", "testserver"]
MEDIA_ROOT = Path(__file__).parent / "media"
MEDIA_ROOT.mkdir(exist_ok=True)
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
"""
DJANGO_URLS = """
from django.core.files.storage import default_storage
from django.http import FileResponse, HttpResponse
from django.urls import path
def upload(request):
    default_storage.save("a.txt", request.FILES["file"])
    return HttpResponse()
urlpatterns = [
    path("upload", upload),
    path("report", lambda request: FileResponse(default_storage.open("a.txt"))),
]
"""
DJANGO_RUN = """
import os, tempfile, securefs.testing
folder = tempfile.TemporaryDirectory()
os.environ.update(securefs.testing.environment(folder.name), DJANGO_SETTINGS_MODULE="mysite.settings")
import django
from django.conf import settings
from django.test.utils import get_runner
django.setup()
failures = get_runner(settings)(verbosity=2).run_tests(["test_it"])
raise SystemExit(bool(failures))
"""
DJANGO_OWN_CLIENT = """
import os
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase
class Own(TestCase):
    def test_own_client(self):
        self.client.post("/upload", {"file": SimpleUploadedFile("a.txt", b"hello")})
        with open(os.path.join(settings.MEDIA_ROOT, "a.txt"), "rb") as file:
            assert file.read() == b"hello"
"""


@pytest.mark.parametrize("own", [False, True], ids=["ours", "its own"])
def test_django_with_the_application_of_the_readme(tmp_path, own):
    """Its own client stores plaintext, as the page warns."""
    site = tmp_path / "mysite"
    site.mkdir()
    (site / "settings.py").write_text(DJANGO_SETTINGS)
    (site / "urls.py").write_text(DJANGO_URLS)
    (site / "wsgi.py").write_text(block("django.core.wsgi", README))
    (tmp_path / "test_it.py").write_text(DJANGO_OWN_CLIENT if own else block("django.test import TestCase"))
    run(tmp_path, "-c", DJANGO_RUN)
