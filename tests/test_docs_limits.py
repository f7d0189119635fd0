"""docs/limits.md: what goes around the middleware, or gets ciphertext, and what then helps."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import inspect
import io
import json
import re
import threading
import zipfile
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import PIL.Image
import pytest
from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from support.frameworks import django_app, django_settings, flask_app
from support.journals import all_records, told
from support.nginx import nginx, program
from support.servers import curl
from support.uploads import KEYRING, Lab
from support.wsgi_client import call, multipart

from securefs import ConfigurationError, encrypt_file, open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "limits.md").read_text("utf-8")
CANARY = b"canary: plaintext of a stored file"
FORM, BODY = multipart(("file", "letter.txt", CANARY))
# What holds each row of the page: a test of this file, or one that was there before.
HELD = {
    "ASGI apps": [
        "securefs/test_arguments.py::test_an_asgi_app_is_refused",
        "test_docs_limits.py::test_django_s_asgi_application_is_refused",
    ],
    "Django's test client": [
        "test_docs_limits.py::test_django_s_test_client_goes_around_the_middleware",
        "test_docs_limits.py::test_django_s_live_server_goes_around_it_too",
        "test_docs_limits.py::test_flask_s_test_client_does_not",
    ],
    "Files that the web server sends": [
        "test_docs_limits.py::test_a_file_that_nginx_sends_by_itself_is_ciphertext",
        "middleware/test_places.py::test_a_file_that_is_left_to_the_proxy_is_refused_in_a_store_too",
    ],
    "Presigned URLs": ["middleware/test_places.py::test_on_a_protected_path_a_body_of_any_kind_is_decrypted"],
    "Other writers to a store": [
        "test_docs_limits.py::test_plaintext_of_another_writer_is_refused_and_a_copy_of_ciphertext_served",
        "test_examples.py::test_a_package_that_was_copied_into_the_store_is_refused_until_it_is_encrypted",
    ],
    "Background workers and scripts": [
        "packaging/test_quickstart.py::test_the_readme_s_flask_app_wsgi_app_and_script"
    ],
    "CDN and proxy caches": ["test_docs_limits.py::test_what_a_cache_is_told_is_up_to_the_app"],
    "ZIP archives": ["test_docs_limits.py::test_what_the_app_makes_of_stored_files"],
    "JSON or XML": ["test_docs_limits.py::test_what_the_app_makes_of_stored_files"],
    "Hashes and sizes": [
        "test_docs_limits.py::test_hashes_and_sizes_are_of_ciphertext",
        "middleware/test_upload.py::test_the_app_learns_what_was_uploaded",
    ],
    "Image fields": [
        "test_docs_limits.py::test_an_image_field_refuses_ciphertext_and_a_thumbnail_can_be_made"
    ],
    "Virus scanners": ["middleware/test_inspection.py::test_clamd_decides"],
    "Mail attachments": ["test_docs_limits.py::test_what_the_app_makes_of_stored_files"],
    "Form fields": [
        "test_docs_limits.py::test_fields_pass_and_a_declared_one_is_a_file",
        "middleware/test_declared_fields.py::test_a_part_without_a_file_name_is_a_file_where_its_name_says_so",
    ],
    "Files in JSON": [
        "test_docs_limits.py::test_other_bodies_pass_unless_they_are_declared_or_refused",
        "middleware/test_raw.py::test_whatever_its_type_a_body_there_is_a_file",
    ],
    "Uploads in pieces": [
        "middleware/test_docs_chunked_uploads.py::test_what_it_sends_is_refused_and_allowed_on_demand"
    ],
}


def test_each_row_is_held_by_a_test_that_exists():
    rows = [row for row in re.findall(r"^\| ([^\s|][^|]*) \| ", PAGE, re.MULTILINE) if row != "---"]
    assert len(rows) == len(HELD)
    for row, (start, tests) in zip(rows, HELD.items(), strict=True):
        assert row.startswith(start)
        for test in tests:
            file, _, name = test.partition("::")
            assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text("utf-8"), test


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def stored(store, tmp_path):
    """The path of a stored file."""
    (tmp_path / "plain").write_bytes(CANARY)
    encrypt_file(tmp_path / "plain", store / "f", KEYRING)
    return store / "f"


def sending(make):
    """Return an app that answers with what ``make`` gives."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return make(environ)

    return app


def ask(tmp_path, store, app):
    return call(Lab(tmp_path, app, stores=[store]).wrapped)


def zipped(file) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("f", file.read())
    return archive.getvalue()


def mailed(file) -> bytes:
    mail = EmailMessage()
    mail.add_attachment(file.read(), maintype="application", subtype="octet-stream", filename="f")
    return mail.as_bytes()


def in_mail(data: bytes) -> bytes:
    from email import message_from_bytes, policy

    (attachment,) = message_from_bytes(data, policy=policy.default).iter_attachments()
    return attachment.get_content()


MADE = {
    "ZIP": (zipped, lambda data: zipfile.ZipFile(io.BytesIO(data)).read("f")),
    "JSON": (
        lambda file: json.dumps({"content": base64.b64encode(file.read()).decode()}).encode(),
        lambda data: base64.b64decode(json.loads(data)["content"]),
    ),
    "mail": (mailed, in_mail),
}


@pytest.mark.parametrize("made", MADE)
def test_what_the_app_makes_of_stored_files(made, stored, store, tmp_path):
    make, content_of = MADE[made]
    with stored.open("rb") as file:
        answer = ask(tmp_path, store, sending(lambda _: [make(file)]))
    assert answer.status == 200
    assert content_of(answer.body) == stored.read_bytes()
    assert content_of(answer.body).startswith(MAGIC)
    with open_encrypted(stored, KEYRING) as file:
        answer = ask(tmp_path, store, sending(lambda _: [make(file)]))
    assert answer.status == 200
    assert content_of(answer.body) == CANARY


def test_hashes_and_sizes_are_of_ciphertext(stored, store, tmp_path):
    encrypt_file(tmp_path / "plain", store / "again", KEYRING)
    contents = {CANARY, stored.read_bytes(), (store / "again").read_bytes()}
    assert len({hashlib.sha256(content).digest() for content in contents}) == 3
    assert stored.stat().st_size > len(CANARY)
    with open_encrypted(stored, KEYRING) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(CANARY).digest()


def test_an_image_field_refuses_ciphertext_and_a_thumbnail_can_be_made(store, tmp_path):
    django_settings()
    from django.core.exceptions import ValidationError
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.forms import FileField, ImageField

    PIL.Image.new("RGB", (200, 100)).save(tmp_path / "plain.png")
    encrypt_file(tmp_path / "plain.png", store / "f.png", KEYRING)
    plain = SimpleUploadedFile("f.png", (tmp_path / "plain.png").read_bytes(), "image/png")
    assert ImageField().clean(plain) is plain
    arrived = SimpleUploadedFile("f.png", (store / "f.png").read_bytes(), "image/png")
    with pytest.raises(ValidationError, match="Upload a valid image"):
        ImageField().clean(arrived)
    assert FileField().clean(arrived) is arrived
    with pytest.raises(PIL.UnidentifiedImageError):
        PIL.Image.open(store / "f.png")
    with open_encrypted(store / "f.png", KEYRING) as file, PIL.Image.open(file) as image:
        image.thumbnail((50, 50))
        assert image.size == (50, 25)


def test_django_s_test_client_goes_around_the_middleware(store, tmp_path):
    wrapped = Lab(tmp_path, django_app(store), stores=[store]).wrapped
    assert call(wrapped, "POST", "/upload", BODY, [("Content-Type", FORM)]).status == 200
    assert CANARY not in (store / "0.bin").read_bytes()
    from django.test import Client

    # The routes are those of the app that was asked last.
    client = Client()
    assert b"".join(client.get("/file/0.bin").streaming_content).startswith(MAGIC)
    assert client.post("/upload", BODY, content_type=FORM).status_code == 200
    assert (store / "0.bin").read_bytes() == CANARY
    assert call(wrapped, path="/file/0.bin").status == 500


def test_django_s_live_server_goes_around_it_too(store):
    """It makes a handler of its own, and does not ask for WSGI_APPLICATION."""
    django_app(store)({"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}, lambda *_: None).close()
    from django.test.testcases import LiveServerThread

    server = LiveServerThread("127.0.0.1", lambda handler: handler, connections_override={})
    server.daemon = True
    server.start()
    server.is_ready.wait()
    try:
        assert server.error is None
        url = f"http://127.0.0.1:{server.port}/upload"
        assert curl("--form", "file=@-;filename=letter.txt", url, data=CANARY).status == 200
    finally:
        server.terminate()
    assert (store / "0.bin").read_bytes() == CANARY


def test_django_s_asgi_application_is_refused():
    django_settings()
    from django.core.handlers.asgi import ASGIHandler

    with pytest.raises(ConfigurationError, match="this is an ASGI app"):
        SecureFS(ASGIHandler(), keyring=KEYRING)


def test_flask_s_test_client_does_not(store, tmp_path):
    app = flask_app(store)
    app.wsgi_app = Lab(tmp_path, app.wsgi_app, stores=[store]).wrapped
    client = app.test_client()
    assert client.post("/upload", data=BODY, content_type=FORM).status_code == 200
    assert CANARY not in (store / "0.bin").read_bytes()
    with client.get("/file/0.bin") as answer:
        assert answer.data == CANARY


@pytest.mark.skipif(program() is None, reason="nginx is not installed")
def test_a_file_that_nginx_sends_by_itself_is_ciphertext(stored, store, tmp_path):
    (tmp_path / "nginx").mkdir()
    with nginx(store, tmp_path / "nginx") as server:
        assert curl(f"{server.url}/f").body == stored.read_bytes()


class Named(http.server.BaseHTTPRequestHandler):
    """Answers with the server's name."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.name)

    def log_message(self, *_):
        pass


@contextmanager
def named(name: bytes):
    """Yield the port of a server that answers with its name."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Named) as server:
        server.name = name
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(program() is None, reason="nginx is not installed")
def test_a_proxy_sends_the_paths_of_files_to_the_wsgi_app(tmp_path):
    (settings,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    with named(b"wsgi") as wsgi, named(b"asgi") as asgi:
        settings = settings.replace(":8000", f":{wsgi}").replace(":8001", f":{asgi}")
        with nginx(tmp_path, tmp_path, settings) as server:
            paths = ("/upload", "/files/a", "/", "/uploads", "/files")
            answers = [curl(f"{server.url}{path}").body for path in paths]
    # nginx itself redirects /files to the location that has the slash.
    assert answers[:4] == [b"wsgi", b"wsgi", b"asgi", b"asgi"]
    assert b"301 Moved" in answers[4]


def test_plaintext_of_another_writer_is_refused_and_a_copy_of_ciphertext_served(stored, store, tmp_path):
    (store / "copied").write_bytes(stored.read_bytes())
    (store / "put").write_bytes(CANARY)
    statuses = {}
    for name in ("copied", "put"):
        (tmp_path / name).mkdir()
        lab = Lab(
            tmp_path / name,
            sending(lambda environ, name=name: environ["wsgi.file_wrapper"]((store / name).open("rb"))),
            stores=[store],
        )
        answer = call(lab.wrapped)
        statuses[name] = (answer.status, answer.body == CANARY)
    assert statuses == {"copied": (200, True), "put": (500, False)}
    assert [record["reason"] for record in lab.records("file.integrity_failure")] == ["not_encrypted"]


def test_what_a_cache_is_told_is_up_to_the_app(stored, store, tmp_path):
    for own in ([("Cache-Control", "public, max-age=3600")], []):

        def app(environ, start_response, own=own):
            start_response("200 OK", [("Content-Type", "text/plain"), *own])
            return environ["wsgi.file_wrapper"](stored.open("rb"))

        answer = ask(tmp_path, store, app)
        assert answer.body == CANARY
        assert answer.headers.get("cache-control") == dict(own).get("Cache-Control")


@pytest.mark.parametrize("declared", [(), ("comment",)])
def test_fields_pass_and_a_declared_one_is_a_file(declared, tmp_path):
    lab = Lab(tmp_path, policy=Policy(file_fields=declared))
    kind, body = multipart(("comment", CANARY))
    assert call(lab.wrapped, "POST", "/", body, [("Content-Type", kind)]).status == 200
    assert (CANARY in lab.app.got) == (not declared)


def test_other_bodies_pass_unless_they_are_declared_or_refused(tmp_path):
    document = json.dumps({"content": base64.b64encode(CANARY).decode()}).encode()
    for kind, body, refused in (("application/json", document, 200), ("application/pdf", CANARY, 415)):
        headers = [("Content-Type", kind)]
        lab = Lab(tmp_path)
        assert call(lab.wrapped, "PUT", "/", body, headers).status == 200
        assert lab.app.got == body
        lab = Lab(tmp_path, policy=Policy(other_bodies="refuse"))
        assert call(lab.wrapped, "PUT", "/", body, headers).status == refused


def asgi_request(app, method, path, body=b"", kind="text/plain", arrivals=()):
    """Ask an ASGI app; return (status, body). ``arrivals`` are the pieces in which the body comes, if not as one."""
    pieces = [*arrivals, body]
    body = b"".join(pieces)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_a_wsgi_app_is_mounted_in_an_asgi_app_as_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(bytes(range(32))).decode())
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(tmp_path / "journal"))
    (tmp_path / "uploads").mkdir()
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"app": Starlette(), "files": flask_app(tmp_path / "uploads")}
    exec(example, names)
    for size in (1, 5000):
        kind, body = multipart(("file", "a", CANARY * size))
        assert asgi_request(names["app"], "POST", "/files/upload", body, kind)[0] == 200
        assert CANARY not in (tmp_path / "uploads/0.bin").read_bytes()
        assert asgi_request(names["app"], "GET", "/files/file/0.bin") == (200, CANARY * size)
    (tmp_path / "uploads/0.bin").write_bytes(b"planted")
    assert asgi_request(names["app"], "GET", "/files/file/0.bin")[0] == 500
    # Each response was closed, so each download has its outcome.
    outcomes = [event[:2] for event in told(all_records(tmp_path / "journal")) if event[0] == "file.decrypt"]
    assert outcomes.count(("file.decrypt", "success")) == 2


def test_the_adapter_hands_on_what_arrives_and_has_ten_threads():
    arrivals = [b"first", b"second", b"third"]
    seen = []

    def app(environ, start_response):
        seen.append(environ["wsgi.input"].read(5))
        seen.append(len(environ["wsgi.input"].receive.__closure__[0].cell_contents))
        start_response("200 OK", [])
        return [b"x"]

    assert asgi_request(WSGIMiddleware(app), "POST", "/", arrivals=arrivals) == (200, b"x")
    assert seen == [b"first", 3]
    assert inspect.signature(WSGIMiddleware).parameters["workers"].default == 10


def test_another_adapter_writes_long_bodies_to_a_file_and_closes_no_response():
    from asgiref.wsgi import WsgiToAsgi

    seen = []

    class Response(list):
        def close(self):
            seen.append("closed")

    def app(environ, start_response):
        seen.append(environ["wsgi.input"]._rolled)
        start_response("200 OK", [])
        return Response([b"x"])

    for size in (64 * 1024, 64 * 1024 + 1):
        asgi_request(WsgiToAsgi(app), "POST", "/", bytes(size))
    assert seen == [False, True]
