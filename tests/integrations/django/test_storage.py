"""Storages: ciphertext in the one, plaintext that is told of in the other, and memory that stays small in both."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, InMemoryStorage, default_storage, storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.migrations.writer import MigrationWriter
from django.http import HttpResponse
from django.urls import path
from support import django_project
from support.django_project import STATIC, project
from support.journals import all_records
from support.sealing import pattern
from support.uploads import CANARY, KEYRING, MIB

from securefs import FormatError, IntegrityError, open_encrypted, verify
from securefs.header import MAGIC
from securefs.integrations.django import PlainStorage, SealedStorage
from securefs.integrations.django.storage import _Pieces
from securefs.integrations.django.testing import Client

TEXT = pattern(300_000)
REMOTE = {
    "BACKEND": "securefs.integrations.django.SealedStorage",
    "OPTIONS": {"storage": {"BACKEND": "django.core.files.storage.InMemoryStorage"}},
}


@pytest.fixture
def media(tmp_path, monkeypatch):
    """A project with a sealed, a remote and a plain storage."""
    aliases = {
        "default": {"BACKEND": "securefs.integrations.django.SealedStorage"},
        "remote": REMOTE,
        "public": {
            "BACKEND": "securefs.integrations.django.PlainStorage",
            "OPTIONS": {"location": str(tmp_path / "public")},
        },
        "staticfiles": STATIC,
    }
    with project(tmp_path, monkeypatch, STORAGES=aliases) as folder:
        yield folder


def records(media, event):
    return [record for record in all_records(media.parent / "audit") if record["event"] == event]


@pytest.mark.parametrize("alias", ["default", "remote"])
def test_what_the_app_makes_is_sealed_and_read_back(alias, media):
    storage = storages[alias]
    name = storage.save("a/thumbnail.png", ContentFile(TEXT))
    with storage.inner.open(name) as raw:
        assert raw.read(len(MAGIC)) == MAGIC
    with storage.open(name) as file:
        assert (file.size, file.read(5), file.seek(-3, io.SEEK_END), file.read()) == (
            len(TEXT),
            TEXT[:5],
            len(TEXT) - 3,
            TEXT[-3:],
        )
        assert b"".join(file.chunks()) == TEXT
    assert storage.size(name) == len(TEXT)
    assert storage.exists(name)
    assert storage.listdir("a") == ([], ["thumbnail.png"])
    assert storage.save("a/thumbnail.png", ContentFile(b"")) != name
    for told in (storage.get_accessed_time, storage.get_created_time, storage.get_modified_time):
        assert told(name).year > 2000
    storage.delete(name)
    assert not storage.exists(name)
    assert len(records(media, "file.open")) == 2


def test_a_sealed_file_has_its_name_and_its_type(media):
    storages["default"].save("a/photo.png", ContentFile(TEXT))
    with open_encrypted(media / "a" / "photo.png", KEYRING) as opened:
        assert opened.metadata == {"name": "photo.png", "type": "image/png"}


def test_text_is_sealed_as_utf_8_and_read_as_text(media):
    default_storage.save("a.csv", ContentFile("Überblick\n"))
    with default_storage.open("a.csv", "r") as file:
        assert file.read() == "Überblick\n"
    with default_storage.open("a.csv") as file:
        assert file.read() == "Überblick\n".encode()


def test_sealed_files_are_written_whole_and_have_no_path(media):
    with pytest.raises(ValueError, match="written whole"):
        default_storage.open("a", "wb")
    with pytest.raises(NotImplementedError):
        default_storage.path("a")
    with pytest.raises(TypeError, match="location"):
        SealedStorage({"BACKEND": "x"}, location="a")


def test_names_are_those_of_the_other_storage(media):
    assert default_storage.url("a b.png") == "/media/a%20b.png"
    assert default_storage.base_url == "/media/"
    assert default_storage.get_valid_name("a b?.png") == "a_b.png"
    assert default_storage.generate_filename("x/a b.png") == "x/a_b.png"
    assert default_storage.store == str(media)
    assert storages["remote"].store is None


@pytest.mark.parametrize("alias", ["default", "remote"])
def test_a_damaged_file_is_not_opened_and_another_is_not_found(alias, media):
    storage = storages[alias]
    storage.inner.save("plain", ContentFile(CANARY))
    storage.save("damaged", ContentFile(TEXT))
    with storage.inner.open("damaged", "rb") as file:
        stored = bytearray(file.read())
    stored[-1] ^= 1
    storage.inner.delete("damaged")
    storage.inner.save("damaged", ContentFile(bytes(stored)))
    with pytest.raises(FormatError):
        storage.open("plain")
    with pytest.raises(IntegrityError):
        storage.open("damaged")
    with pytest.raises(FileNotFoundError):
        storage.open("nothing")
    assert len(records(media, "file.integrity_failure")) == 2


def test_a_file_outside_of_the_stores_is_not_opened(media, tmp_path):
    elsewhere = SealedStorage(location=str(tmp_path / "elsewhere"))
    elsewhere.save("a", ContentFile(TEXT))
    with pytest.raises(FormatError, match="SECUREFS_STORES"):
        elsewhere.open("a")


def test_a_ciphertext_of_another_request_is_not_stored_as_if_it_were_plaintext(media):
    default_storage.save("a", ContentFile(TEXT))
    with pytest.raises(FormatError, match="sealed already"):
        default_storage.save("b", ContentFile((media / "a").read_bytes()))

    def view(request):
        with pytest.raises(FormatError, match="sealed already"):
            default_storage.save("b", ContentFile((media / "a").read_bytes()))
        return HttpResponse()

    django_project.urlpatterns.append(path("", view))
    assert Client().post("/", {"f": SimpleUploadedFile("x", CANARY)}).status_code == 200


def test_what_can_not_seek_is_stored_in_a_request_that_has_uploads(media):
    class Once:
        name = "once"

        def chunks(self):
            yield b""
            yield TEXT

    def view(request):
        assert len(request.FILES) == 1
        return HttpResponse(default_storage.save("once", Once()))

    django_project.urlpatterns.append(path("", view))
    assert Client().post("/", {"f": SimpleUploadedFile("x", CANARY)}).status_code == 200
    assert verify(media / "once", KEYRING).size == len(TEXT)


@pytest.mark.parametrize("offset", [-1, 150_000])
@pytest.mark.parametrize("cut", [True, False])
def test_a_copy_of_an_upload_that_is_not_whole_is_not_stored(offset, cut, media):
    def view(request):
        copy = bytearray(b"".join(request.FILES["f"].chunks()))
        if cut:
            del copy[offset:]
        else:
            copy[offset] ^= 1
        with pytest.raises(IntegrityError):
            default_storage.save("b", ContentFile(bytes(copy)))
        return HttpResponse()

    django_project.urlpatterns.append(path("", view))
    assert Client().post("/", {"f": SimpleUploadedFile("x", TEXT)}).status_code == 200
    assert not (media / "b").exists()


def test_what_an_object_store_opened_is_closed(media, monkeypatch):
    storage = storages["remote"]
    storage.save("a", ContentFile(TEXT))
    storage.inner.save("plain", ContentFile(CANARY))
    closed = []
    opening = storage.inner.open

    def noting(name, mode):
        raw = opening(name, mode)
        raw.close = lambda: closed.append(name)  # that of a file in memory does nothing
        return raw

    monkeypatch.setattr(storage.inner, "open", noting)
    with storage.open("a"):
        assert closed == []
    with pytest.raises(FormatError):
        storage.open("plain")
    assert closed == ["a", "plain"]


def test_a_file_of_one_storage_is_sealed_anew_in_another(media):
    default_storage.save("a", ContentFile(TEXT))
    with default_storage.open("a") as file:
        storages["remote"].save("b", file)
    with storages["remote"].open("b") as file:
        assert file.read() == TEXT


def test_a_request_opens_and_seals_in_an_object_store(media):
    def view(request):
        storage = storages["remote"]
        storage.save("upload", request.FILES["f"])
        storage.save("made", ContentFile(TEXT))
        return HttpResponse(storage.open("upload").read() + storage.open("made").read())

    django_project.urlpatterns.append(path("", view))
    answer = Client().post("/", {"f": SimpleUploadedFile("x", CANARY)})
    assert answer.content == CANARY + TEXT
    told = records(media, "file.open")
    assert [record["obj"]["size"] for record in told] == [len(CANARY), len(TEXT)]
    assert all(record["http"]["path"] == "/" for record in told)


@pytest.mark.parametrize("how", ["upload", "wrapped", "copied", "made"])
def test_a_plain_storage_keeps_plaintext_and_the_journal_says_so(how, media):
    def view(request):
        upload = request.FILES["f"]
        content = {
            "upload": upload,
            "wrapped": File(upload),
            "copied": ContentFile(b"".join(upload.chunks())),
            "made": ContentFile(TEXT),
        }[how]
        return HttpResponse(storages["public"].save("logo.png", content))

    django_project.urlpatterns.append(path("", view))
    assert Client().post("/", {"f": SimpleUploadedFile("x", TEXT)}).status_code == 200
    storage = storages["public"]
    with storage.open("logo.png") as file:
        assert file.read() == TEXT
    assert storage.size("logo.png") == len(TEXT)
    assert Path(storage.path("logo.png")).read_bytes() == TEXT
    told = records(media, "file.plain")
    assert [record["outcome"] for record in told] == ["started", "success"]
    assert told[1]["obj"] == {"name": "logo.png", "size": len(TEXT)}


def test_a_plain_file_that_can_not_be_stored_is_told(media):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        storages["public"].save("a", File(Broken(b"x"), "a"))
    assert [record["outcome"] for record in records(media, "file.plain")] == ["started", "failure"]


def test_a_file_that_the_other_storage_does_not_take_is_told(media, monkeypatch):
    def full(self, name, content):
        content.read(70_000)
        raise OSError("no space left")

    monkeypatch.setattr(FileSystemStorage, "_save", full)
    with pytest.raises(OSError, match="no space left"):
        default_storage.save("a", ContentFile(TEXT))
    assert [record["outcome"] for record in records(media, "file.encrypt")] == ["started", "failure"]


def test_storages_stand_in_migrations(media):
    for kind in (SealedStorage, PlainStorage):
        text, imports = MigrationWriter.serialize(kind(location="/srv/a"))
        assert text == f"securefs.integrations.django.{kind.__name__}(location='/srv/a')"
        assert imports == {"import securefs.integrations.django"}


def test_a_storage_reads_what_it_is_given_once_and_knows_how_long_it_is(media):
    class Asking(FileSystemStorage):
        def _save(self, name, content):
            assert (content.tell(), content.seek(0), content.multiple_chunks()) == (0, 0, True)
            with pytest.raises(io.UnsupportedOperation):
                content.seek(5)
            seen.append((content.size, content.read(5)))
            with pytest.raises(io.UnsupportedOperation):
                content.seek(0)
            rest = content.read()
            return super()._save(name, ContentFile(seen[-1][1] + rest))

    seen = []
    default_storage.inner.__class__ = Asking
    default_storage.save("a", ContentFile(TEXT))
    assert seen[0][0] == (media / "a").stat().st_size
    storages["public"].inner.__class__ = Asking
    seen[:] = [(None, b"")]
    with pytest.raises(io.UnsupportedOperation):
        storages["public"].save("a", ContentFile(TEXT))  # nobody knows how long what an app makes will be

    class Unsized(File):
        size = property(lambda self: None)

    default_storage.inner.__class__ = FileSystemStorage
    default_storage.save("b", Unsized(io.BytesIO(TEXT), "b"))
    assert verify(media / "b", KEYRING).size == len(TEXT)


class Zeros(io.RawIOBase):
    """So many zero bytes, none of which is held."""

    def __init__(self, size):
        self.size = self.left = size

    def read(self, size=-1):
        size = min(self.left, size)
        self.left -= size
        return bytes(size)


@pytest.mark.parametrize("alias", ["default", "public"])
def test_memory_does_not_depend_on_the_size_of_what_is_saved_and_read(alias, media):
    size = 256 * MIB
    storage = storages[alias]
    storage.save("warm", ContentFile(b"x"))
    tracemalloc.start()
    try:
        storage.save("large", File(Zeros(size), "large"))
        with storage.open("large") as file:
            assert sum(len(chunk) for chunk in file.chunks()) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert storage.size("large") == size


def test_pieces_are_read_like_a_file():
    pieces = _Pieces(iter(["ü", b"", b"bc"]))
    assert (pieces.read(1), pieces.tell(), pieces.read(), pieces.read(5)) == (b"\xc3", 1, b"\xbcbc", b"")


def test_the_other_storage_may_be_any(media):
    assert isinstance(storages["remote"].inner, InMemoryStorage)
