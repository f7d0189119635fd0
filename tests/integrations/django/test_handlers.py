"""Upload handlers: which of them has a file, what a handler of one's own gets, and large files in small memory."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tracemalloc
from types import SimpleNamespace

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path
from support import django_project
from support.django_project import HANDLERS, project
from support.uploads import CANARY, KEYRING, MIB

from securefs import ConfigurationError, verify
from securefs.integrations.django import SealedUploads, TemporaryFileUploadHandler, config
from securefs.integrations.django.testing import Client
from securefs.middleware import SecureFS


class Counting(FileUploadHandler):
    """A handler of a project's own that keeps nothing: another one has the file."""

    def receive_data_chunk(self, raw_data, start):
        return raw_data

    def file_complete(self, file_size):
        return None


class Nothing(SealedUploads, Counting):
    """The mixin in front of it."""


def test_a_handler_of_ones_own_leaves_the_file_to_the_next(tmp_path, monkeypatch):
    handlers = [f"{__name__}.Nothing", *HANDLERS]
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Nothing=Nothing))
    with project(tmp_path, monkeypatch, FILE_UPLOAD_HANDLERS=handlers) as media:
        view = lambda request: HttpResponse(default_storage.save("a", request.FILES["f"]))  # noqa: E731
        django_project.urlpatterns.append(path("", view))
        assert Client().post("/", {"f": SimpleUploadedFile("x", CANARY)}).status_code == 200
        assert verify(media / "a", KEYRING).size == len(CANARY)


def test_the_file_of_a_handler_without_the_middleware_is_closed(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch):
        handler = TemporaryFileUploadHandler()
        handler.request = type("Request", (), {"META": {}})()
        handler.new_file("f", "x", "text/plain", None)
        handler.receive_data_chunk(b"x", 0)
        with pytest.raises(ConfigurationError, match="not in front of Django"):
            handler.file_complete(1)
        assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_a_file_is_shown_like_another_where_it_is_declared(declared, tmp_path, monkeypatch):
    """The handlers have it from a parser of Django REST framework."""
    from rest_framework.parsers import FileUploadParser
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class View(APIView):
        parser_classes = (FileUploadParser,)
        authentication_classes = permission_classes = ()

        def put(self, request, **_named):
            upload = request.data["file"]
            return Response([upload.read().decode(), default_storage.save("a", upload)])

    settings = {"SECUREFS_RAW_UPLOADS": ["/raw/*"]} if declared else {}
    with project(tmp_path, monkeypatch, **settings) as media:
        django_project.urlpatterns.append(path("raw/<str:filename>", View.as_view()))
        client = Client(raise_request_exception=False)
        answer = client.put("/raw/report.txt", CANARY, content_type="text/csv")
        if declared:
            assert answer.json() == [CANARY.decode(), "a"]
            assert verify(media / "a", KEYRING).size == len(CANARY)
        else:
            assert (answer.status_code, list(media.iterdir())) == (500, [])


class Form:
    """The body of a form with one file of so many bytes, of which few are held at a time."""

    def __init__(self, size):
        self.start = b'--b\r\nContent-Disposition: form-data; name="f"; filename="large"\r\n\r\n'
        self.end = b"\r\n--b--\r\n"
        self.length = len(self.start) + size + len(self.end)
        self.pieces = self._pieces(size)
        self.rest = b""

    def _pieces(self, size):
        yield self.start
        while size:
            yield bytes(min(size, 64 * 1024))
            size -= min(size, 64 * 1024)
        yield self.end

    def read(self, size=-1):
        if not self.rest:
            self.rest = next(self.pieces, b"")
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


@pytest.mark.parametrize(
    ("limit", "size", "most"),
    [
        pytest.param(0, 256 * MIB, 12 * MIB, id="temporary file"),
        # Django's own handler holds what is in memory, and joins it once: that is the limit that one sets.
        pytest.param(40 * MIB, 32 * MIB, 3 * 34 * MIB, id="memory"),
    ],
)
def test_memory_does_not_depend_on_the_size_of_an_upload(limit, size, most, tmp_path, monkeypatch):
    def view(request):
        upload = request.FILES["f"]
        digest = hashlib.sha256()
        while data := upload.read(64 * 1024):
            digest.update(data)
        default_storage.save("large", upload)
        return HttpResponse(f"{upload.size} {digest.hexdigest()}")

    with project(tmp_path, monkeypatch, FILE_UPLOAD_MAX_MEMORY_SIZE=limit) as media:
        django_project.urlpatterns.append(path("", view))
        found = config.means()
        front = SecureFS(WSGIHandler(), keyring=found.keyring, journal=found.journal, policy=found.policy)
        form = Form(size)
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.input": form,
            "wsgi.url_scheme": "http",
            "CONTENT_TYPE": "multipart/form-data; boundary=b",
            "CONTENT_LENGTH": str(form.length),
        }
        tracemalloc.start()
        try:
            with contextlib.closing(front(environ, lambda *_: None)) as answer:
                body = b"".join(answer)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        expected = hashlib.sha256()
        for _ in range(size // MIB):
            expected.update(bytes(MIB))
        assert body.decode() == f"{size} {expected.hexdigest()}"
        assert verify(media / "large", KEYRING).size == size
    assert peak < most
