"""Uploads of a Django app: what it reads is plaintext, what it stores is ciphertext, and memory stays small."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import FileField, ImageField
from django.http import FileResponse, HttpResponse
from django.urls import path
from support import django_project
from support.django_project import project
from support.journals import all_records
from support.sealing import pattern
from support.uploads import CANARY, KEYRING

from securefs import open_encrypted
from securefs.header import MAGIC
from securefs.integrations.django import SealedUpload
from securefs.integrations.django.testing import Client

TEXT = pattern(300_000)
MEMORY, TEMPORARY = 10_000_000, 0


@pytest.fixture(params=[MEMORY, TEMPORARY], ids=["memory", "temporary file"])
def media(request, tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch, FILE_UPLOAD_MAX_MEMORY_SIZE=request.param) as folder:
        yield folder


def post(view, content=TEXT, name="photo.png", **fields):
    django_project.urlpatterns.append(path("", view))
    return Client().post("/", {"f": SimpleUploadedFile(name, content), **fields})


def plain(file: Path) -> bytes:
    with open_encrypted(file, KEYRING) as opened:
        return opened.read()


def events(media, event):
    return [record for record in all_records(media.parent / "audit") if record["event"] == event]


def test_an_app_reads_plaintext_and_stores_ciphertext(media):
    def view(request):
        upload = request.FILES["f"]
        assert isinstance(upload, SealedUpload)
        assert (upload.size, upload.name, upload.multiple_chunks()) == (len(TEXT), "photo.png", True)
        assert not hasattr(upload, "temporary_file_path")
        held = {item.read_bytes()[:4] for item in (media.parent / "tmp").iterdir()}
        assert held <= {MAGIC[:4]}
        assert upload.open("rb").read(10) == TEXT[:10]
        assert upload.seek(-5, io.SEEK_END) == len(TEXT) - 5
        assert upload.read() == TEXT[-5:]
        assert upload.open().read(3) == TEXT[:3]
        assert b"".join(upload) == TEXT
        return HttpResponse(default_storage.save("a/b.png", upload))

    answer = post(view)
    assert (answer.status_code, answer.content) == (200, b"a/b.png")
    assert plain(media / "a" / "b.png") == TEXT
    (opened,) = events(media, "file.open")
    assert opened["obj"]["name"] == "photo.png"
    assert not list((media.parent / "tmp").iterdir())


def test_an_app_that_does_not_look_leaves_no_record_of_it(media):
    post(lambda request: HttpResponse(default_storage.save("a", request.FILES["f"])))
    assert plain(media / "a") == TEXT
    assert events(media, "file.open") == []


def test_what_is_stored_is_what_was_sealed(media):
    def view(request):
        upload = request.FILES["f"]
        default_storage.save("direct", upload)
        default_storage.save("wrapped", File(upload, "x"))
        default_storage.save("copied", ContentFile(b"".join(upload.chunks(1000))))
        default_storage.save("read", ContentFile(upload.read()))
        return HttpResponse(upload.upload.object_id)

    object_id = post(view).content.decode()
    ids = {}
    for name in ("direct", "wrapped", "copied", "read"):
        with open_encrypted(media / name, KEYRING) as opened:
            assert opened.read() == TEXT
            ids[name] = opened.object_id
    assert {name for name, found in ids.items() if found == object_id} == {"direct", "wrapped", "copied"}


@pytest.mark.parametrize(
    "rewrite",
    [
        pytest.param(
            lambda upload: (upload.seek(0), upload.truncate(), upload.write(b"clean")), id="truncate, write"
        ),
        pytest.param(lambda upload: (upload.write(b"clean"), upload.truncate()), id="write, truncate"),
        pytest.param(lambda upload: setattr(upload, "file", io.BytesIO(b"clean")), id="replace"),
        pytest.param(
            lambda upload: (upload.truncate(3), upload.seek(0), upload.write(b"clean")), id="cut, overwrite"
        ),
    ],
)
def test_what_a_sanitizer_writes_is_sealed_anew(rewrite, media):
    def view(request):
        upload = request.FILES["f"]
        rewrite(upload)
        assert (upload.size, upload.is_rewritten, upload.writable()) == (5, True, True)
        assert upload.open().read() == b"clean"
        default_storage.save("a", upload)
        return HttpResponse(b"".join(upload.chunks()))

    answer = post(view)
    assert plain(media / "a") == b"clean"
    assert (
        answer.content.startswith(MAGIC) is False
    )  # what the app repeats is no file of a store: it is refused
    assert answer.status_code == 500


def test_an_upload_that_is_too_long_is_not_changed_in_its_place(media, monkeypatch):
    monkeypatch.setattr("securefs.integrations.django.uploads.MAX_REWRITTEN", 100)

    def view(request):
        upload = request.FILES["f"]
        with pytest.raises(io.UnsupportedOperation, match="too long to be changed"):
            upload.write(b"x")
        return HttpResponse(default_storage.save("a", upload))

    post(view)
    assert plain(media / "a") == TEXT


def test_a_closed_upload_says_so(media):
    def view(request):
        upload = request.FILES["f"]
        with pytest.raises(ValueError, match="as bytes"):
            upload.open("w")
        upload.read(1)
        upload.close()
        assert upload.closed
        with pytest.raises(ValueError, match="while it is open"):
            upload.open()
        return HttpResponse()

    assert post(view).status_code == 200


def test_an_empty_upload_is_empty(media):
    post(
        lambda request: HttpResponse(default_storage.save(f"a{request.FILES['f'].size}", request.FILES["f"])),
        b"",
    )
    assert plain(media / "a0") == b""


def test_a_declared_plain_field_is_as_it_was_sent_and_sealed_by_a_sealed_storage(media, settings_of):
    settings_of(SECUREFS_PLAIN_FIELDS=["f"])

    def view(request):
        assert not isinstance(request.FILES["f"], SealedUpload)
        return HttpResponse(default_storage.save("a", request.FILES["f"]))

    assert post(view).status_code == 200
    assert plain(media / "a") == TEXT
    assert [record["outcome"] for record in events(media, "file.plain")] == ["started", "success"]


def test_what_the_middleware_did_not_seal_is_refused(media):
    """Something between the middleware and Django changed the body."""
    from django.core.handlers.wsgi import WSGIHandler

    from securefs.integrations.django import config
    from securefs.middleware import SecureFS

    django_project.urlpatterns.append(path("", lambda request: HttpResponse(str(len(request.FILES)))))
    inner = WSGIHandler()

    def between(environ, start_response):
        body = environ["wsgi.input"].read()
        body = body.replace(MAGIC, b"x" * len(MAGIC))
        return inner(
            {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}, start_response
        )

    import securefs.testing

    found = config.means()
    client = securefs.testing.Client(
        SecureFS(between, keyring=found.keyring, journal=found.journal, policy=found.policy)
    )
    answer = client.post("/", files={"f": ("a.txt", CANARY)})
    assert answer.status == 500


def test_without_the_middleware_uploads_are_refused(media):
    from django.test import Client as DjangosOwn

    from securefs import ConfigurationError

    django_project.urlpatterns.append(path("", lambda request: HttpResponse(str(len(request.FILES)))))
    with pytest.raises(ConfigurationError, match="not in front of Django"):
        DjangosOwn().post("/", {"f": SimpleUploadedFile("a", CANARY)})
    assert not list((media.parent / "tmp").iterdir())


def test_a_response_made_of_a_stored_file_is_verified_and_served_in_ranges(media):
    default_storage.save("a.png", ContentFile(TEXT))
    django_project.urlpatterns.append(path("a", lambda request: FileResponse(default_storage.open("a.png"))))
    answer = Client().get("/a")
    assert (answer.status_code, answer.getvalue()) == (200, TEXT)
    assert answer["Content-Length"] == str(len(TEXT))
    part = Client().get("/a", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.getvalue()) == (206, TEXT[5:10])
    assert (part["Content-Range"], part["Content-Length"]) == (f"bytes 5-9/{len(TEXT)}", "5")
    assert events(media, "file.decrypt")
    stored = bytearray((media / "a.png").read_bytes())
    stored[len(stored) // 2] ^= 1
    (media / "a.png").write_bytes(stored)
    assert Client().get("/a").status_code == 500


@pytest.mark.parametrize("kind", [FileField, ImageField])
def test_a_response_made_of_a_field_is_served_by_the_middleware(kind, media):
    default_storage.save("a.png", ContentFile(TEXT))

    def view(request):
        field = kind(storage=default_storage)
        field.name = "photo"
        return FileResponse(field.attr_class(SimpleNamespace(), field, "a.png").open())

    django_project.urlpatterns.append(path("a", view))
    part = Client().get("/a", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.getvalue()) == (206, TEXT[5:10])
    assert [record["outcome"] for record in events(media, "file.decrypt")] == ["started", "success"]


@pytest.fixture
def settings_of():
    from django.test import override_settings

    entered = []

    def change(**settings):
        entered.append(override_settings(**settings))
        entered[-1].enable()

    yield change
    for one in entered:
        one.disable()
