"""The Django applications in examples/, under gunicorn, used with curl as a browser: nothing but ciphertext is on a disk."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.canaries import COLOUR, image, is_canary, leaks
from support.django_apps import APPS, need
from support.servers import DEADLINE, ROOT, app_environ, curl, gunicorn

from securefs.header import MAGIC

CANARY = b"canary-5b1e07ac2d48"
PASSWORD = "correct horse battery staple"


class Site:
    """A running project, and a browser that is logged in as its administrator."""

    def __init__(self, folder: Path, example: str, environ: dict[str, str], work: Path) -> None:
        self.folder, self.environ = folder, environ
        self.media = folder / "media"
        self._example, self._jar = ROOT / "examples" / example, work / "cookies"
        self.url, self.log = "", None

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self._example,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * DEADLINE,
        )

    def managed(self, *arguments: str) -> str:
        done = self.manage(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str, *options: str):
        return curl("--cookie", str(self._jar), "--cookie-jar", str(self._jar), *options, self.url + path)

    def post(self, path: str, *fields: str, page: str | None = None):
        """Send a form: each field is what curl's --form takes."""
        shown = self.get(page or path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', shown.body.decode())[1]
        sent = [word for one in (f"csrfmiddlewaretoken={token}", *fields) for word in ("--form", one)]
        return self.get(path, "--referer", self.url + path, *sent)

    def log_in(self, path: str = "/admin/login/") -> None:
        answer = self.post(path, "username=admin", f"password={PASSWORD}")
        assert answer.status == 302, answer.body

    def stored(self) -> dict[str, bytes]:
        files = [path for path in self.media.rglob("*") if path.is_file()]
        return {path.relative_to(self.media).as_posix(): path.read_bytes() for path in files}

    def check_disks(self) -> None:
        """No word, no image and no name of an upload is on the disk, and what is stored verifies."""
        assert leaks([self.media, self.folder / "tmp", self.folder / "cache"], [CANARY]) == []
        stored = self.stored()
        assert stored
        assert {data[: len(MAGIC)] for data in stored.values()} == {MAGIC}
        assert self.managed("securefs", "verify").splitlines()[-1] == f"{len(stored)} verified"
        assert "Traceback" not in self.log(), self.log()


def site(folder: Path, example: str, work: Path, prefix: str):
    for name in ("tmp", "cache", "media"):
        (folder / name).mkdir()
    (folder / "cache" / "made-by-the-test").touch()
    environ = app_environ(folder, TMPDIR=str(folder / "tmp"), WEB_CONCURRENCY="1")
    environ |= {f"{prefix}_DATA": str(folder), f"{prefix}_SECRET_KEY": "only for tests"}
    environ["PYTHONPATH"] = os.pathsep.join([environ["PYTHONPATH"], str(APPS)])
    made = Site(folder, example, environ, work)
    made.managed("migrate", "--run-syncdb", "--verbosity", "0")
    environ |= {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    made.managed("createsuperuser", "--noinput", "--username", "admin", "--email", "admin@example.com")
    return made


@contextmanager
def running(tmp_path_factory, example: str, prefix: str):
    folder, work = tmp_path_factory.mktemp(example), tmp_path_factory.mktemp("browser")
    made = site(folder, example, work, prefix)
    arguments = ("--chdir", str(ROOT / "examples" / example), "wsgi:application")
    with gunicorn(folder / "log", made.environ, *arguments) as server:
        made.url, made.log = server.url, lambda: server.log
        made.log_in()
        yield made


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    need("easy_thumbnails", "import_export")
    with running(tmp_path_factory, "django", "ALBUM") as made:
        yield made


def add_photo(album, tmp_path, content, name="photo.png", notes=b"", title="Canary"):
    (tmp_path / name).write_bytes(content)
    fields = [f"title={title}", f"image=@{tmp_path / name};type=image/png"]
    if notes:
        (tmp_path / "notes.txt").write_bytes(notes)
        fields.append(f"notes=@{tmp_path / 'notes.txt'}")
    return album.post("/admin/album/photo/add/", *fields)


def newest_photo(album) -> int:
    listed = album.get("/admin/album/photo/").body.decode()
    return max(map(int, re.findall(r"/admin/album/photo/(\d+)/change/", listed)))


def test_the_settings_have_no_fault(album):
    assert "no issues" in album.managed("check")


@pytest.mark.parametrize("kind", ["small", "larger than memory"])
def test_an_image_of_the_admin_is_measured_shown_and_ciphertext_on_disk(kind, album, tmp_path):
    # A PNG with bytes behind its end is one still.
    content = image() + (os.urandom(4_000_000) if kind != "small" else b"")
    answer = add_photo(album, tmp_path, content, notes=CANARY * 100)
    assert answer.status == 302, answer.body
    number = newest_photo(album)
    page = album.get(f"/admin/album/photo/{number}/change/").body.decode()
    assert '<td class="field-width">320</td>' in album.get("/admin/album/photo/").body.decode()
    photo, notes = re.findall(r'href="(/media/[^"]+)"', page)
    shown = album.get(photo)
    assert (shown.status, shown.body, shown.header("content-type")) == (200, content, "image/png")
    assert shown.header("content-length") == str(len(content))
    part = album.get(photo, "--range", "10-29")
    assert (part.status, part.body) == (206, content[10:30])
    assert album.get(notes).body == CANARY * 100
    assert curl(album.url + photo).status == 302  # who is not logged in is led to do that
    album.check_disks()


def test_a_thumbnail_is_made_of_plaintext_and_stored_as_ciphertext(album, tmp_path):
    assert add_photo(album, tmp_path, image()).status == 302
    answer = album.get(f"/thumbnail/{newest_photo(album)}")
    assert answer.status == 302, album.log()
    small = album.get(answer.header("location"))
    assert (small.status, is_canary(small.body)) == (200, True)
    from PIL import Image

    assert Image.open(io.BytesIO(small.body)).size == (64, 64)
    assert any(".64x64_" in name for name in album.stored())
    album.check_disks()


def test_what_is_no_image_is_refused_by_the_form(album, tmp_path):
    before = album.stored().keys()
    answer = add_photo(album, tmp_path, CANARY)
    assert answer.status == 200
    assert b"Upload a valid image" in answer.body
    assert album.stored().keys() == before


def test_an_image_is_replaced_and_removed(album, tmp_path):
    assert add_photo(album, tmp_path, image(), "first.png").status == 302
    number = newest_photo(album)
    (tmp_path / "second.png").write_bytes(image((50, 40)))
    path = f"/admin/album/photo/{number}/change/"
    assert album.post(path, "title=b", f"image=@{tmp_path / 'second.png'};type=image/png").status == 302
    assert '<td class="field-width">50</td>' in album.get("/admin/album/photo/").body.decode()
    assert album.post(f"/admin/album/photo/{number}/delete/", "post=yes").status == 302
    assert album.get(path).status == 302
    album.check_disks()


def test_a_table_is_imported_and_left_nowhere(album, tmp_path):
    (tmp_path / "pay.csv").write_bytes(b"id,name,amount\n,Ann,4321\n,canary-row,77\n")
    path = "/admin/album/salary/import/"
    preview = album.post(path, "format=0", "resource=0", f"import_file=@{tmp_path / 'pay.csv'};type=text/csv")
    assert preview.status == 200
    assert b"canary-row" in preview.body, album.log()
    assert leaks([album.media, album.folder / "tmp"], [b"canary-row", b"4321"]) == []
    text = preview.body.decode()
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text)
    hidden = [f"{name}={value}" for name, value in hidden if name != "csrfmiddlewaretoken"]
    confirmed = album.post("/admin/album/salary/process_import/", *hidden, page=path)
    assert confirmed.status == 302, confirmed.body
    assert "canary-row" in album.get("/admin/album/salary/").body.decode()
    exported = album.post(
        "/admin/album/salary/export/",
        "format=0",
        "resource=0",
        "salaryresource_id=on",
        "salaryresource_name=on",
        "salaryresource_amount=on",
    )
    assert b"Ann,4321" in exported.body
    album.check_disks()


def test_a_photo_that_was_damaged_is_an_error_and_found(album, tmp_path):
    assert add_photo(album, tmp_path, image(), "damaged.png").status == 302
    stored = next(path for path in (album.media / "photos").iterdir() if path.name.startswith("damaged"))
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert album.get(f"/media/photos/{stored.name}").status == 500
    failed = album.manage("securefs", "verify")
    assert failed.returncode == 1
    assert stored.name in failed.stdout
    stored.write_bytes(whole)


# Wagtail


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    need("wagtail")
    with running(tmp_path_factory, "wagtail", "PAGES") as made:
        yield made


def test_the_settings_of_wagtail_have_no_fault(pages):
    assert "no issues" in pages.managed("check")


def test_an_image_of_wagtail_has_renditions_that_are_ciphertext_on_disk(pages, tmp_path):
    content = image((640, 480), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(content)
    added = pages.post("/admin/images/add/", "title=Red", f"file=@{tmp_path / 'photo.jpg'};type=image/jpeg")
    assert added.status == 302, added.body
    listed = pages.get("/admin/images/").body.decode()
    (number,) = set(re.findall(r"/admin/images/(\d+)/", listed))
    renditions = set(re.findall(r'src="(/media/images/[^"]+)"', listed))
    assert renditions
    for rendition in renditions:
        shown = pages.get(rendition)
        assert (shown.status, is_canary(shown.body)) == (200, True)
    edited = pages.get(f"/admin/images/{number}/").body.decode()
    assert "640" in edited  # Wagtail knows its size
    original = next(name for name in pages.stored() if name.startswith("original_images/"))
    assert pages.get(f"/media/{original}").body == content
    pages.check_disks()


def test_a_document_of_wagtail_is_served_in_ranges_and_ciphertext_on_disk(pages, tmp_path):
    content = CANARY * 30_000
    (tmp_path / "report.txt").write_bytes(content)
    added = pages.post(
        "/admin/documents/add/", "title=Report", f"file=@{tmp_path / 'report.txt'};type=text/plain"
    )
    assert added.status == 302, added.body
    link = re.search(r'href="(/documents/[^"]+)"', pages.get("/admin/documents/").body.decode())[1]
    served = pages.get(link)
    assert (served.status, served.body) == (200, content)
    part = pages.get(link, "--range", "100-149")
    assert (part.status, part.body) == (206, content[100:150])
    pages.check_disks()


def test_what_is_no_image_is_refused_by_wagtail(pages, tmp_path):
    before = pages.stored().keys()
    (tmp_path / "photo.png").write_bytes(CANARY)
    answer = pages.post("/admin/images/add/", "title=No", f"file=@{tmp_path / 'photo.png'};type=image/png")
    assert answer.status == 200
    assert b"error" in answer.body
    assert pages.stored().keys() == before


# django-filer


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    need("filer", "easy_thumbnails")
    with running(tmp_path_factory, "filer", "LIBRARY") as made:
        yield made


def test_the_settings_of_filer_have_no_fault(library):
    assert "no issues" in library.managed("check")


def upload_to_filer(library, path, kind):
    return library.post(
        "/admin/filer/clipboard/operations/upload/no_folder/",
        f"file=@{path};type={kind}",
        page="/admin/password_change/",
    )


def test_an_image_of_filer_is_measured_and_has_thumbnails_that_are_ciphertext_on_disk(library, tmp_path):
    content = image((640, 480), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(content)
    added = upload_to_filer(library, tmp_path / "photo.jpg", "image/jpeg")
    assert added.status == 200, library.log()
    number = added.json()["file_id"]
    icon = library.get(f"/admin/filer/image/icon/{number}/120")
    assert icon.status == 302, library.log()
    assert is_canary(library.get(icon.header("location")).body)
    assert any("filer_public_thumbnails" in name for name in library.stored())
    page = library.get(f"/admin/filer/image/{number}/change/").body.decode()
    assert "640" in page
    assert "480" in page
    (original,) = [name for name in library.stored() if name.startswith("filer_public/")]
    assert library.get(f"/media/{original}").body == content
    library.check_disks()


def test_a_file_of_filer_is_served_in_ranges_and_ciphertext_on_disk(library, tmp_path):
    (tmp_path / "report.txt").write_bytes(CANARY * 1000)
    added = upload_to_filer(library, tmp_path / "report.txt", "text/plain")
    assert added.status == 200, library.log()
    asked = f"from filer.models import File; print(File.objects.get(pk={added.json()['file_id']}).sha1)"
    digest = hashlib.sha1(CANARY * 1000, usedforsecurity=False).hexdigest()
    assert library.managed("shell", "--verbosity", "0", "-c", asked).split() == [digest]
    (name,) = [name for name in library.stored() if name.endswith("report.txt")]
    part = library.get(f"/media/{name}", "--range", "100-149")
    assert (part.status, part.body) == (206, (CANARY * 1000)[100:150])
    library.check_disks()


def test_canaries_would_be_found(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100 + image(kind="JPEG"))
    (tmp_path / "b").write_bytes(b"x" + CANARY)
    (tmp_path / "c").write_bytes(MAGIC + os.urandom(1000))
    assert sorted(path.name for path in leaks([tmp_path], [CANARY])) == ["a", "b"]
    assert COLOUR
