"""The application for a server, and the view for MEDIA_URL."""

from __future__ import annotations

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.urls import path
from django.views.static import serve as djangos_own
from support import django_project
from support.django_project import project
from support.journals import all_records
from support.sealing import pattern

import securefs.testing
from securefs import ConfigurationError
from securefs.integrations.django import get_wsgi_application, serve
from securefs.integrations.django.testing import Client

TEXT = pattern(300_000)
REMOTE = {
    "BACKEND": "securefs.integrations.django.SealedStorage",
    "OPTIONS": {"storage": {"BACKEND": "django.core.files.storage.InMemoryStorage"}},
}
SEALED = {"BACKEND": "securefs.integrations.django.SealedStorage"}


@pytest.fixture
def media(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch, STORAGES={"default": SEALED, "remote": REMOTE}) as folder:
        django_project.urlpatterns += [
            path("media/<path:path>", serve),
            path("remote/<path:path>", serve, {"storage": "remote"}),
        ]
        yield folder


@pytest.mark.parametrize(("prefix", "alias"), [("media", "default"), ("remote", "remote")])
def test_files_are_verified_and_served_in_ranges(prefix, alias, media):
    storages[alias].save("a/photo.png", ContentFile(TEXT))
    storages[alias].save("page.html", ContentFile(TEXT))
    answer = Client().get(f"/{prefix}/a/photo.png")
    assert (answer.status_code, answer.getvalue(), answer["Content-Type"]) == (200, TEXT, "image/png")
    assert answer["Content-Disposition"].startswith("inline")
    part = Client().get(f"/{prefix}/a/photo.png", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.getvalue()) == (206, TEXT[5:10])
    saved = Client().get(f"/{prefix}/page.html")
    assert (saved["Content-Type"], saved["X-Content-Type-Options"]) == ("application/octet-stream", "nosniff")
    assert saved["Content-Disposition"].startswith('attachment; filename="page.html"')
    events = [record["event"] for record in all_records(media.parent / "audit")]
    assert events.count("file.decrypt") == 6


@pytest.mark.parametrize(
    "name", ["nothing", "a", "a/b/c", "../audit", "n" * 300, "a%00b", "file/below", "%2e%2e/audit"]
)
def test_what_is_no_file_is_404(name, media):
    (media / "a" / "b").mkdir(parents=True)
    (media / "file").write_bytes(b"")
    assert Client().get(f"/media/{name}").status_code == 404


def test_a_name_that_can_not_be_read_is_an_error(media):
    media.mkdir(exist_ok=True)
    (media / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        Client().get("/media/loop")


def test_a_file_that_was_damaged_is_an_error(media):
    default_storage.save("photo.png", ContentFile(TEXT))
    stored = bytearray((media / "photo.png").read_bytes())
    stored[len(stored) // 2] ^= 1
    (media / "photo.png").write_bytes(stored)
    assert Client().get("/media/photo.png").status_code == 500


def test_djangos_own_view_of_a_folder_is_served_verified_too(media):
    default_storage.save("photo.png", ContentFile(TEXT))
    django_project.urlpatterns.append(path("files/<path:path>", djangos_own, {"document_root": str(media)}))
    answer = Client().get("/files/photo.png")
    assert (answer.status_code, answer.getvalue()) == (200, TEXT)


def test_the_application_has_the_settings_of_the_project(media):
    default_storage.save("photo.png", ContentFile(TEXT))
    application = get_wsgi_application(authorize=lambda environ: "ann")
    client = securefs.testing.Client(application, journal=media.parent / "audit")
    assert client.get("/media/photo.png").body == TEXT
    assert client.records("file.decrypt")[-1]["actor"] == {"id": "ann"}
    with pytest.raises(ConfigurationError):
        get_wsgi_application(authorize=3)
