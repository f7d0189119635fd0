"""What the tests of an app are given: a key, a journal, and a client behind the middleware."""

from __future__ import annotations

import io
import sys
from wsgiref.validate import validator

import pytest

from securefs import ConfigurationError, IntegrityError, Keyring, encrypt_file, open_encrypted
from securefs.audit import Journal
from securefs.middleware import FileRules, Policy, SecureFS
from securefs.testing import Client, client, environment


def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Type", environ.get("CONTENT_TYPE", ""))])
    said = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ['QUERY_STRING']} "
    return [said.encode("latin-1"), environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))]


class Shop:
    """An app that keeps the parts of the last form, and serves a file."""

    def __init__(self, folder):
        self.folder, self.form = folder, None

    def __call__(self, environ, start_response):
        from werkzeug.wrappers import Request, Response

        if environ["REQUEST_METHOD"] == "POST":
            with Request(environ) as request:
                files = {name: (file.filename, file.mimetype) for name, file in request.files.items()}
                self.form = (request.form.to_dict(), files)
                for name, file in request.files.items():
                    file.save(self.folder / f"{name}.enc")
            return Response(status=201)(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"]((self.folder / "doc.enc").open("rb"))


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "store").mkdir()
    return Shop(tmp_path / "store")


def test_what_is_uploaded_is_stored_encrypted_served_and_recorded(shop):
    with client(shop, stores=[shop.folder]) as it:
        answer = it.post("/", files={"doc": ("a.txt", b"hello", "text/plain")}, fields={"title": "größe"})
        assert (answer.status, answer.body) == (201, b"")
        assert shop.form == ({"title": "größe"}, {"doc": ("a.txt", "text/plain")})
        assert b"hello" not in (shop.folder / "doc.enc").read_bytes()
        with open_encrypted(shop.folder / "doc.enc", it.keyring) as file:
            assert (file.read(), file.metadata["name"]) == (b"hello", "a.txt")
        answer = it.get("/doc", headers={"Range": "bytes=1-2"})
        assert (answer.status, answer.text, answer.headers["CONTENT-RANGE"]) == (206, "el", "bytes 1-2/5")
        events = [record["event"] for record in it.records()]
        assert events[0] == "server.start"
        assert it.records("file.encrypt")[-1]["obj"]["name"] == "a.txt"
        assert {record["event"] for record in it.records("file.decrypt")} == {"file.decrypt"}
        assert it.records("file.delete") == []


@pytest.mark.parametrize("name", ['quo"te', "line\r\nbreak"])
def test_names_are_written_as_browsers_write_them(shop, name):
    with client(shop, stores=[shop.folder]) as it:
        assert it.post("/", files={"doc": (name, b"1")}, fields={name: "x"}).status == 201
    fields, files = shop.form
    escaped = name.replace("\r", "%0D").replace("\n", "%0A")
    assert files["doc"] == (escaped, "application/octet-stream")
    assert set(fields) == {escaped}


def test_a_request_is_what_a_server_makes_of_it():
    with client(echo) as it:
        assert it.get("/a%20b%C3%BC?q=%20").body == "GET /a bü q=%20 ".encode()
        answer = it.request("PUT", "/x", body=b'{"a": 1}', headers={"Content-Type": "application/json"})
        assert answer.body == b'PUT /x  {"a": 1}'
        assert answer.headers["x-type"] == "application/json"
        assert it.post("/", body=b"[1]").body == b"POST /  [1]"
    assert Client(validator(echo)).get("/").status == 200


def test_json_is_read():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"a": ', b"1}"]

    with client(app) as it:
        assert it.get("/").json() == {"a": 1}


def test_what_an_app_writes_is_received_and_what_it_returns_is_closed():
    closed = []

    class Body(io.BytesIO):
        def close(self):
            closed.append(True)
            super().close()

    def app(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        try:
            raise ValueError
        except ValueError:
            write = start_response("200 OK", [("Content-Type", "text/plain")], sys.exc_info())
        write(b"one ")
        return Body(b"two")

    answer = Client(app).get("/")
    assert (answer.status, answer.body, closed) == (200, b"one two", [True])


def test_an_error_of_the_app_and_a_file_that_fails_on_its_way_are_raised(shop, tmp_path):
    def broken(environ, start_response):
        raise LookupError("no such thing")

    with client(broken) as it, pytest.raises(LookupError, match="no such thing"):
        it.get("/")
    (tmp_path / "plain").write_bytes(bytes(4_000_000))
    with client(shop, stores=[shop.folder], policy=Policy(verify_first=0)) as it:
        encrypt_file(tmp_path / "plain", shop.folder / "doc.enc", it.keyring)
        data = bytearray((shop.folder / "doc.enc").read_bytes())
        data[3_000_000] ^= 1
        (shop.folder / "doc.enc").write_bytes(data)
        with pytest.raises(IntegrityError):
            it.get("/doc")
        assert it.records("file.decrypt")[-1]["outcome"] != "success"


def test_the_environment_is_not_read(monkeypatch, shop):
    monkeypatch.setenv("FILE_KEY_BASE64", "nonsense")
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "/nonexistent/journal")
    monkeypatch.setenv("SECUREFS_STORES", "/nonexistent/store")
    with client(shop, stores=[shop.folder]) as it:
        assert it.post("/", files={"doc": ("a", b"1")}).status == 201


def test_each_client_has_a_key_of_its_own_and_leaves_nothing(shop):
    keys, folders = set(), []
    for _ in range(2):
        with client(shop, stores=[shop.folder]) as it:
            it.post("/", files={"doc": ("a", b"1")})
            keys.add(it.keyring.primary_id)
            folders.append(it._journal)
            assert it.records()
    assert len(keys) == 2
    assert [folder for folder in folders if folder.exists()] == []


def test_the_other_choices_reach_the_middleware(shop):
    with client(
        shop,
        stores=[shop.folder],
        context=lambda environ: b"ann",
        authorize=lambda environ: environ.get("HTTP_X_USER"),
    ) as it:
        assert it.post("/", files={"doc": ("a.txt", b"1")}).status == 401
        user = {"X-User": "ann"}
        assert it.post("/", files={"doc": ("a.txt", b"1")}, headers=user).status == 201
        with open_encrypted(shop.folder / "doc.enc", it.keyring, b"ann") as file:
            assert file.read() == b"1"
    with client(echo, inspect=FileRules(max_size=1)) as it:
        assert it.post("/", files={"doc": ("a.txt", b"22")}).status == 400
        assert it.post("/", files={"doc": ("a.txt", b"2")}).status == 200


def test_an_app_that_wraps_itself_gets_its_variables_and_a_client(shop, tmp_path, monkeypatch):
    variables = environment(tmp_path)
    assert set(variables) == {"FILE_KEY_BASE64", "SECUREFS_AUDIT_DIR", "SECUREFS_AUDIT_NAMES"}
    assert environment(tmp_path)["FILE_KEY_BASE64"] != variables["FILE_KEY_BASE64"]
    journal = Journal.from_env(variables)
    app = SecureFS(shop, stores=[shop.folder], keyring=Keyring.from_env(variables), journal=journal)
    it = Client(app, journal=variables["SECUREFS_AUDIT_DIR"])
    assert it.post("/", files={"doc": ("a.txt", b"1")}).status == 201
    assert it.records("file.encrypt")[-1]["obj"]["name"] == "a.txt"
    assert it.keyring is None
    journal.close()
    with pytest.raises(ConfigurationError, match=r"give it to securefs\.testing\.Client"), client(app):
        pass
    with pytest.raises(ValueError, match="which journal"):
        Client(app).records()
