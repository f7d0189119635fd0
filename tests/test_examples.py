"""The applications in examples/, under gunicorn, used with twine, pip and curl as their users would."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.servers import DEADLINE, ROOT, app_environ, curl, gunicorn

from securefs.header import MAGIC

EXAMPLES = ROOT / "examples"
CANARY = b"canary: nobody may find this sentence on a disk of the server. "
PASSWORD = "correct horse battery staple"
TRACKER = "tracker.example"  # never looked up: curl is told where it is


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end. No index, proxy or configuration of this machine reaches it."""
    isolated = {"PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "*", "no_proxy": "*"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environ | isolated,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * DEADLINE,
    )


def verify(environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return run(environ, "securefs", "verify", str(folder))


def files_with_canary(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert found
    return [path for path in found if CANARY in content_of(path)]


def content_of(path: Path) -> bytes:
    """Return what is in a file; nothing if the program that runs has just removed it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def served(folder: Path, example: str, **variables: str):
    """Return (environment, server of the example to be entered); all that the server writes is below ``folder``."""
    (folder / "tmp").mkdir()
    environ = app_environ(folder, TMPDIR=str(folder / "tmp"), WEB_CONCURRENCY="1", **variables)
    return environ, gunicorn(folder / "log", environ, "--chdir", str(EXAMPLES / example), "wsgi:app")


@pytest.mark.parametrize("example", ["pypiserver", "roundup"])
def test_an_example_without_its_settings_says_so_in_one_line_and_does_not_start(example, tmp_path):
    environ = app_environ(tmp_path)
    for name in ("PYPI_PACKAGES", "PYPI_PASSWORD", "TRACKER_HOME"):
        environ.pop(name, None)
    arguments = ("--config", str(ROOT / "gunicorn.conf.py"), "--bind", "127.0.0.1:0", "--chdir")
    done = run(environ, "gunicorn", *arguments, str(EXAMPLES / example), "wsgi:app")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert line.startswith("securefs: set ")


# pypiserver


class PackageIndex:
    """pypiserver and its two clients."""

    def __init__(self, folder: Path, environ: dict[str, str], url: str, work: Path) -> None:
        self.folder, self.environ, self.url, self.work = folder, environ, url, work
        self.packages = folder / "packages"

    def upload(self, wheel: Path, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        options = ("--non-interactive", "--disable-progress-bar", "--config-file", os.devnull)
        login = {"TWINE_USERNAME": "anyone", "TWINE_PASSWORD": password}
        return run(
            self.environ | login, "twine", "upload", *options, "--repository-url", self.url + "/", str(wheel)
        )

    def download(self, target: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
        options = ("--isolated", "--disable-pip-version-check", "--no-cache-dir", "--retries", "0")
        index = ("--no-deps", "--index-url", f"{self.url}/simple/", "--dest", str(target))
        return run(self.environ, "pip", *options, "download", *index, *wanted)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder, work = tmp_path_factory.mktemp("pypiserver"), tmp_path_factory.mktemp("clients")
    packages = folder / "packages"
    packages.mkdir()
    environ, started = served(folder, "pypiserver", PYPI_PACKAGES=str(packages), PYPI_PASSWORD=PASSWORD)
    with started as server:
        yield PackageIndex(folder, environ, server.url, work)


def make_wheel(folder: Path, name: str) -> Path:
    """Write a wheel of two megabytes, stored and not compressed, so that the canary in it can be found."""
    info = f"{name}-1.0.dist-info"
    members = {
        f"{name}.py": b"# " + CANARY + b"\n#" + os.urandom(1_000_000).hex().encode() + b"\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    members[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for path, content in members.items():
            archive.writestr(path, content)
    assert CANARY in wheel.read_bytes()
    return wheel


def test_a_package_that_twine_uploads_is_ciphertext_on_disk_and_whole_for_pip(index, tmp_path):
    wheel = make_wheel(tmp_path, "wholepackage")
    uploaded = index.upload(wheel)
    assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
    stored = index.packages / wheel.name
    assert stored.read_bytes().startswith(MAGIC)
    assert files_with_canary(index.folder) == []
    checked = verify(index.environ, stored)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "1 verified, 0 failed")

    listing = curl(f"{index.url}/simple/wholepackage/").body.decode()
    assert re.findall(r'href="([^"]*)"', listing) == [f"/packages/{wheel.name}"]  # and no hash of ciphertext
    downloaded = index.download(tmp_path / "got", "wholepackage")
    assert downloaded.returncode == 0, downloaded.stdout + downloaded.stderr
    assert (tmp_path / "got" / wheel.name).read_bytes() == wheel.read_bytes()


def test_pip_can_pin_the_hash_of_the_package_as_it_was_built(index, tmp_path):
    wheel = make_wheel(tmp_path, "pinnedpackage")
    assert index.upload(wheel).returncode == 0
    requirements = tmp_path / "requirements.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements.write_text(f"pinnedpackage==1.0 --hash=sha256:{digest}\n")
    downloaded = index.download(tmp_path / "got", "--require-hashes", "--requirement", str(requirements))
    assert downloaded.returncode == 0, downloaded.stdout + downloaded.stderr
    of_ciphertext = hashlib.sha256((index.packages / wheel.name).read_bytes()).hexdigest()
    requirements.write_text(f"pinnedpackage==1.0 --hash=sha256:{of_ciphertext}\n")
    refused = index.download(tmp_path / "not", "--require-hashes", "--requirement", str(requirements))
    assert refused.returncode != 0
    assert "DO NOT MATCH" in refused.stderr


def test_pip_fails_on_a_package_that_was_changed_on_disk_and_verify_names_it(index, tmp_path):
    wheel = make_wheel(tmp_path, "changedpackage")
    assert index.upload(wheel).returncode == 0
    stored = index.packages / wheel.name
    flip(stored, stored.stat().st_size // 2)
    downloaded = index.download(tmp_path / "got", "changedpackage")
    assert downloaded.returncode != 0
    assert "500" in downloaded.stderr
    assert not list(tmp_path.glob("got/*"))
    checked = verify(index.environ, index.packages)
    assert checked.returncode == 1
    assert [line for line in checked.stdout.splitlines() if line.startswith(f"FAILED  {stored}: ")]
    stored.unlink()


def test_a_package_that_was_copied_into_the_store_is_refused_until_it_is_encrypted(index, tmp_path):
    wheel = make_wheel(tmp_path, "copiedpackage")
    stored = index.packages / wheel.name
    stored.write_bytes(wheel.read_bytes())
    downloaded = index.download(tmp_path / "got", "copiedpackage")
    assert downloaded.returncode != 0
    assert "500" in downloaded.stderr
    stored.unlink()
    encrypted = run(index.environ, "securefs", "encrypt", "--output", str(stored), str(wheel))
    assert encrypted.returncode == 0, encrypted.stderr
    downloaded = index.download(tmp_path / "got", "copiedpackage")
    assert downloaded.returncode == 0, downloaded.stderr
    assert (tmp_path / "got" / wheel.name).read_bytes() == wheel.read_bytes()


def test_pypiserver_still_decides_who_may_upload(index, tmp_path):
    wheel = make_wheel(tmp_path, "strangerspackage")
    uploaded = index.upload(wheel, password="guessed")
    assert uploaded.returncode != 0
    assert "403" in uploaded.stdout + uploaded.stderr
    assert not (index.packages / wheel.name).exists()


# Roundup


class Forms(HTMLParser):
    """Collects the forms of a page: for each the fields that a browser sends without anyone typing."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.names: list[set[str]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        fields = dict(attrs)
        if tag == "form":
            self.forms.append({})
            self.names.append(set())
        elif tag in {"input", "select"} and self.forms and fields.get("name"):
            self.names[-1].add(fields["name"])
            if fields.get("type") == "hidden":
                self.forms[-1][fields["name"]] = fields.get("value") or ""

    def with_field(self, name: str) -> dict[str, str]:
        (form,) = [form for form, names in zip(self.forms, self.names, strict=True) if name in names]
        return form


class Browser:
    """curl with what a browser brings: cookies, a referrer, and all encodings that it can undo."""

    def __init__(self, port: int, jar: Path) -> None:
        self._options = ["--connect-to", f"{TRACKER}:80:127.0.0.1:{port}", "--compressed"]
        self._options += ["--cookie", str(jar), "--cookie-jar", str(jar), "--referer", f"http://{TRACKER}/"]

    def get(self, path: str, *options: str):
        return curl(*self._options, *options, f"http://{TRACKER}/{path}")

    def log_in(self) -> None:
        form = Forms(self.get("").body).with_field("__login_name")
        form |= {"__login_name": "admin", "__login_password": PASSWORD}
        fields = [word for name, value in form.items() for word in ("--data-urlencode", f"{name}={value}")]
        self.get("", *fields)
        assert b"Hello, admin" in self.get("").body

    def attach(self, title: str, file: Path) -> str:
        """Create an issue with a file; return the path under which its page links to the file."""
        form = Forms(self.get("issue?@template=item").body).with_field("@file")
        assert form["@csrf"]
        form |= {"title": title, "priority": "bug"}
        fields = [word for name, value in form.items() for word in ("--form-string", f"{name}={value}")]
        created = self.get("issue", *fields, "--form", f"@file=@{file};type=application/octet-stream")
        assert created.status == 302, created.body
        issue = re.search(r"issue\d+", created.header("location"))[0]
        (link,) = re.findall(r'href="(file\d+/[^"]*)"', self.get(issue).body.decode())
        return link


class Tracker:
    """Roundup, and a browser that is logged in."""

    def __init__(self, folder: Path, environ: dict[str, str], browser: Browser) -> None:
        self.folder, self.environ, self.browser = folder, environ, browser
        self.files = folder / "tracker" / "db" / "files"

    def stored(self) -> set[Path]:
        return {path for path in self.files.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    folder, work = tmp_path_factory.mktemp("roundup"), tmp_path_factory.mktemp("browser")
    home = str(folder / "tracker")
    (settings,) = re.findall(r"^ +(tracker_web=\S+)$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    settings = re.sub(r"^tracker_web=[^,]+", f"tracker_web=http://{TRACKER}/", settings)
    environ, started = served(folder, "roundup", TRACKER_HOME=home)
    admin = ("roundup.scripts.roundup_admin", "-i", home)
    for command in (("install", "classic", "sqlite", settings), ("initialise", PASSWORD)):
        done = run(environ, *admin, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert Path(home, "config.ini").exists(), "Roundup did not take the settings of the README"
    with started as server:
        browser = Browser(server.port, work / "cookies")
        browser.log_in()
        yield Tracker(folder, environ, browser)


@pytest.mark.parametrize(
    "size", [pytest.param(0, id="one piece"), pytest.param(3_000_000, id="three megabytes, streamed")]
)
def test_a_file_attached_to_an_issue_is_ciphertext_on_disk_and_itself_in_the_browser(size, tracker, tmp_path):
    file = tmp_path / "Überblick 1.bin"
    content = CANARY + os.urandom(size) + CANARY
    file.write_bytes(content)
    before = tracker.stored()
    link = tracker.browser.attach("with a file", file)
    (stored,) = tracker.stored() - before
    assert stored.read_bytes().startswith(MAGIC)
    assert files_with_canary(tracker.folder) == []
    checked = verify(tracker.environ, stored)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "1 verified, 0 failed")

    answer = tracker.browser.get(link)
    assert (answer.status, answer.body) == (200, content)
    assert answer.header("content-length") == str(len(content))
    part = tracker.browser.get(link, "--range", "8-40")
    assert (part.status, part.body) == (206, content[8:41])


def test_plaintext_in_the_place_of_an_attachment_is_an_error(tracker, tmp_path):
    file = tmp_path / "replaced.bin"
    file.write_bytes(CANARY)
    before = tracker.stored()
    link = tracker.browser.attach("with a file that is replaced", file)
    (stored,) = tracker.stored() - before
    stored.write_bytes(b"somebody's own words")
    answer = tracker.browser.get(link)
    assert (answer.status, b"somebody" in answer.body) == (500, False)
    stored.unlink()


def test_an_attachment_that_was_changed_on_disk_is_an_error_and_verify_names_it(tracker, tmp_path):
    file = tmp_path / "changed.bin"
    file.write_bytes(CANARY * 5000)
    before = tracker.stored()
    link = tracker.browser.attach("with a file that changes", file)
    (stored,) = tracker.stored() - before
    assert tracker.browser.get(link).status == 200
    flip(stored, stored.stat().st_size // 2)
    answer = tracker.browser.get(link)
    assert answer.status == 500
    assert answer.header("content-type") == "application/problem+json"
    assert CANARY not in answer.body
    checked = verify(tracker.environ, tracker.files)
    assert checked.returncode == 1
    assert [line for line in checked.stdout.splitlines() if line.startswith(f"FAILED  {stored}: ")]
    stored.unlink()
