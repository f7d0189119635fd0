"""Django's test client, behind the middleware: what it shows is what a browser would get."""

from __future__ import annotations

import unittest

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import SimpleTestCase
from django.urls import path
from django.views.decorators.csrf import csrf_protect
from support import django_project
from support.django_project import project
from support.uploads import CANARY

from securefs.header import MAGIC
from securefs.integrations.django import serve
from securefs.integrations.django.testing import Client


@pytest.fixture
def media(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch) as folder:
        yield folder


def route(name, view):
    django_project.urlpatterns.append(path(name, view))


def test_a_test_case_of_django_stores_ciphertext_and_reads_plaintext(media):
    route("", lambda request: HttpResponse(default_storage.save("a", request.FILES["f"])))
    route("media/<path:path>", serve)

    class Uploads(SimpleTestCase):
        client_class = Client

        def runTest(self):  # noqa: N802  # unittest's name
            answer = self.client.post("/", {"f": SimpleUploadedFile("x", CANARY)})
            self.assertContains(answer, "a")
            assert answer.resolver_match.route == ""
            assert answer.wsgi_request.FILES["f"].size == len(CANARY)
            assert self.client.get("/media/a").getvalue() == CANARY

    result = unittest.TestResult()
    Uploads()(result)
    assert (result.failures, result.errors) == ([], [])
    assert (media / "a").read_bytes().startswith(MAGIC)


def test_responses_are_djangos_own(media):
    def cookies(request):
        answer = JsonResponse({"a": 1})
        answer.set_cookie("seen", "yes")
        return answer

    route("json", cookies)
    route("stream", lambda request: StreamingHttpResponse(iter([b"a", b"b"])))
    client = Client()
    answer = client.get("/json")
    assert (answer.json(), client.cookies["seen"].value) == ({"a": 1}, "yes")
    assert client.get("/stream").getvalue() == b"ab"
    assert client.get("/nothing").status_code == 404


def test_a_refusal_of_the_middleware_is_a_response(media):
    route("", lambda request: HttpResponse("fine"))
    refused = Client().post("/", b"x", content_type="multipart/form-data; boundary=")
    assert (refused.status_code, refused.content == b"fine") == (400, False)
    default_storage.inner.save("plain", ContentFile(CANARY))
    route("raw", lambda request: FileResponse(default_storage.inner.open("plain")))
    assert Client().get("/raw").status_code == 500


def test_an_exception_of_a_view_is_raised(media):
    def view(request):
        raise LookupError("of the app")

    route("", view)
    with pytest.raises(LookupError, match="of the app"):
        Client().get("/")
    assert Client(raise_request_exception=False).get("/").status_code == 500


def test_the_check_of_forgery_may_be_enforced(media):
    route("", csrf_protect(lambda request: HttpResponse()))
    assert Client().post("/").status_code == 200
    assert Client(enforce_csrf_checks=True).post("/").status_code == 403
