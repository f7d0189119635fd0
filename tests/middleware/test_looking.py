"""``environ["securefs"]``: an app looks into what this request uploaded and into its stores, and into nothing else."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import warnings
import weakref

import pytest
from support import frameworks
from support.frameworks import django_routes, django_settings, make
from support.sealing import BODY_START, pattern, seal, seal_1
from support.uploads import BROWSER_TYPE, KEYRING, browser_body, file
from support.wsgi_client import call

from securefs import ConfigurationError, FormatError, IntegrityError, SecureFSError, Suite
from securefs.errors import Reason
from securefs.header import claimed_object_id
from securefs.middleware import Policy, SecureFS

MIB = 1024 * 1024
TEXT = pattern(300_000)
STORED = seal(TEXT, ring=KEYRING)
ID = claimed_object_id(STORED)
CHUNKS = {"SERVER_SOFTWARE": "gunicorn/27"}  # a server whose chunks show a break


def stored_of(environ):
    """Return the stored bytes of the one file of a form, found as no framework would."""
    body = environ["wsgi.input"].read()
    start = body.index(b"\r\n\r\n") + 4
    boundary = environ["CONTENT_TYPE"].partition("boundary=")[2].encode()
    return body[start : body.index(b"\r\n--" + boundary)]


def answering(act):
    """Return an app that does something with its request, and answers with what that gives."""

    def app(environ, start_response):
        given = act(environ)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [given] if isinstance(given, bytes) else environ["wsgi.file_wrapper"](given)

    return app


def upload(lab, content=TEXT, **options):
    return lab.post(BROWSER_TYPE, browser_body([file(content=content, filename="photo.png")]), **options)


# --- what each framework calls an upload


def looked(exchange, given):
    """Return what the request tells of the object by which a framework shows an upload."""
    with exchange.open(given) as plain:
        digest = hashlib.sha256(plain.read()).hexdigest()
        plain.seek(0)
        assert plain.read(4) == pattern(4)
    given.seek(0)
    assert exchange.is_sealed(given)
    return digest, exchange.upload_of(given).filename


def looks_werkzeug(folder):
    from werkzeug.wrappers import Request, Response

    @Request.application
    def app(request):
        return Response(json.dumps(looked(request.environ["securefs"], request.files["f"])))

    return app


def looks_flask(folder):
    import flask

    app = flask.Flask("looking")

    @app.post("/upload")
    def view():
        return flask.jsonify(looked(flask.request.environ["securefs"], flask.request.files["f"].stream))

    return app


def looks_django(folder):
    django_settings()
    from django.http import JsonResponse
    from django.urls import path

    def view(request):
        return JsonResponse(looked(request.environ["securefs"], request.FILES["f"]), safe=False)

    return django_routes([path("upload", view)])


def looks_bottle(folder):
    import bottle

    app = bottle.Bottle()

    @app.post("/upload")
    def view():
        given = bottle.request.files["f"]
        return json.dumps(looked(bottle.request.environ["securefs"], given.file))

    return app


def looks_falcon(folder):
    import falcon

    class Resource:
        def on_post(self, request, response):
            for part in request.get_media():
                response.media = looked(request.env["securefs"], io.BytesIO(part.stream.read()))

    app = falcon.App()
    app.add_route("/upload", Resource())
    return app


def looks_pyramid(folder):
    make("pyramid", folder)  # its warnings are dealt with there
    from pyramid.config import Configurator

    def view(request):
        told = looked(request.environ["securefs"], request.POST["f"].file)
        request.body_file_raw.close()
        return told

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with Configurator() as config:
            config.add_route("upload", "/upload")
            config.add_view(view, route_name="upload", renderer="json")
            return config.make_wsgi_app()


def looks_cherrypy(folder):
    make("cherrypy", folder)
    import cherrypy

    class Root:
        @cherrypy.expose
        @cherrypy.tools.json_out()
        def upload(self, f):
            with f.file:
                return looked(cherrypy.request.wsgi_environ["securefs"], f.file)

    application = cherrypy.Application(Root(), "")
    application.log.screen = False
    application.log.access_log.disabled = application.log.error_log.disabled = True
    return application


LOOKING = {name.partition("_")[2]: app for name, app in vars().copy().items() if name.startswith("looks_")}


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("size", [1000, 3 * MIB], ids=["held in memory", "on the disk"])
@pytest.mark.parametrize(
    "policy", [Policy(), Policy(suite=Suite.GCM), Policy(format=1)], ids=["1", "2", "old"]
)
def test_what_a_framework_shows_of_an_upload_is_opened(name, size, policy, tmp_path, lab_of):
    if frameworks.installed(name) is None:
        pytest.skip(f"{name} is not installed")
    lab = lab_of(LOOKING[name](tmp_path), policy=policy)
    content = pattern(size)
    answer = upload(lab, content)
    assert answer.status == 200, answer.body
    assert json.loads(answer.body) == [hashlib.sha256(content).hexdigest(), "photo.png"]
    assert [record["outcome"] for record in lab.records("file.open")] == ["success"]


# --- what a request may open


def test_the_record_says_who_opened_what(lab_of):
    act = answering(lambda environ: environ["securefs"].open(io.BytesIO(stored_of(environ))).read())
    lab = lab_of(act, authorize=lambda environ: "ann")
    assert upload(lab, HTTP_X_REQUEST_ID="request-17").body == TEXT
    (record,) = lab.records("file.open")
    assert record["http"] == {"method": "POST", "path": "/upload"}
    assert {each["req"] for each in lab.records("file.encrypt")} == {record["req"]}
    assert record["actor"]["id"]
    encrypted = lab.records("file.encrypt")[-1]["obj"]
    assert {name: record["obj"][name] for name in encrypted if name != "field"} == {
        name: value for name, value in encrypted.items() if name != "field"
    }


def test_a_raw_upload_is_opened(lab_of):
    def act(environ):
        stored = environ["wsgi.input"].read()
        return environ["securefs"].open(io.BytesIO(stored)).read()

    lab = lab_of(answering(act), policy=Policy(raw_uploads=("/raw/*",)))
    assert lab.post("image/png", TEXT, path="/raw/1").body == TEXT


@pytest.mark.parametrize("stores", [(), ("store",)], ids=["nothing is declared", "a store is declared"])
@pytest.mark.parametrize("old", [False, True], ids=["format 2", "format 1"])
def test_a_ciphertext_that_the_request_did_not_seal_is_refused(stores, old, lab_of, tmp_path):
    (tmp_path / "store").mkdir()
    stolen = seal_1(TEXT) if old else STORED
    (tmp_path / "elsewhere").write_bytes(stolen)

    def act(environ):
        exchange = environ["securefs"]
        stored_of(environ)
        with (tmp_path / "elsewhere").open("rb") as there:
            for given in (io.BytesIO(stolen), tmp_path / "elsewhere", there, io.BytesIO(b"short")):
                assert exchange.upload_of(given) is None
                with pytest.raises(
                    FormatError, match=r"this request did not seal it.*SECUREFS_STORES"
                ) as caught:
                    exchange.open(given)
                assert caught.value.reason is Reason.UNDECLARED
        return b"refused"

    folders = tuple(str(tmp_path / name) for name in stores)
    lab = lab_of(answering(act), policy=Policy(stores=folders, format=1 if old else 2))
    assert upload(lab).body == b"refused"
    refused = [(record["outcome"], record.get("reason")) for record in lab.records("file.open")]
    assert refused == [("failure", "undeclared")] * 4


def test_an_upload_of_another_request_is_refused(lab_of):
    kept = []

    def act(environ):
        exchange = environ["securefs"]
        kept.append(stored_of(environ))
        for number, stored in enumerate(kept):
            if number == len(kept) - 1:
                assert exchange.open(io.BytesIO(stored)).read() == TEXT
            else:
                with pytest.raises(FormatError):
                    exchange.open(io.BytesIO(stored))
        return b"looked"

    lab = lab_of(answering(act))
    assert [upload(lab).body for _ in range(3)] == [b"looked"] * 3


@pytest.mark.parametrize("old", [False, True], ids=["format 2", "format 1"])
def test_an_upload_that_was_changed_meanwhile_is_refused(old, lab_of):
    def act(environ):
        stored = bytearray(stored_of(environ))
        stored[BODY_START + 100] ^= 1
        with pytest.raises(SecureFSError, match=r"the upload 'photo\.png': "):
            environ["securefs"].open(io.BytesIO(stored)).read()
        return b"refused"

    lab = lab_of(answering(act), policy=Policy(format=1 if old else 2))
    assert upload(lab).body == b"refused"
    assert [record["reason"] for record in lab.records("file.integrity_failure")] == ["tag_mismatch"]


def test_a_file_of_a_store_is_opened_and_expected(lab_of, tmp_path):
    (tmp_path / "file").write_bytes(STORED)

    def act(environ):
        exchange = environ["securefs"]
        with pytest.raises(IntegrityError):
            exchange.open(tmp_path / "file", object_id="0" * 64)
        with exchange.open(tmp_path / "file", object_id=ID) as plain:
            return plain.read()

    lab = lab_of(answering(act), stores=[tmp_path])
    assert call(lab.wrapped).body == TEXT


def test_a_plain_upload_is_nothing_to_open(lab_of):
    def act(environ):
        given = io.BytesIO(stored_of(environ))
        for claimed in (given, io.BytesIO()):
            assert environ["securefs"].upload_of(claimed) is None
        assert not environ["securefs"].is_sealed(given)
        with pytest.raises(FormatError):
            environ["securefs"].open(given)
        return given.getvalue()

    lab = lab_of(answering(act), policy=Policy(plain_uploads=("/upload",)))
    assert upload(lab).body == TEXT


# --- what the app makes


@pytest.mark.parametrize("old", [False, True], ids=["format 2", "format 1"])
def test_what_a_request_seals_it_opens_and_is_no_upload(old, lab_of, tmp_path):
    def act(environ):
        exchange = environ["securefs"]
        stored_of(environ)
        stored = exchange.seal(io.BytesIO(TEXT[:100]), name="small.png", content_type="image/png").read()
        assert [upload.filename for upload in exchange.uploads] == ["photo.png"]
        assert exchange.upload_of(io.BytesIO(stored)).filename == "small.png"
        return exchange.open(io.BytesIO(stored)).read()

    lab = lab_of(answering(act), policy=Policy(format=1 if old else 2))
    assert upload(lab, HTTP_X_REQUEST_ID="request-17").body == TEXT[:100]
    assert len(lab.records("file.encrypt")) == 4
    assert len({record["req"] for record in lab.records("file.encrypt")}) == 1
    assert [record["obj"].get("field") for record in lab.records("file.encrypt")] == ["f", "f", None, None]


# --- contexts


def test_files_of_a_request_are_in_its_context(lab_of, tmp_path):
    def act(environ):
        if environ["REQUEST_METHOD"] == "POST":
            exchange = environ["securefs"]
            plain = exchange.open(io.BytesIO(stored_of(environ))).read()
            exchange.seal(io.BytesIO(plain[:100])).save(tmp_path / "made")
            return b"stored"
        with environ["securefs"].open(tmp_path / "made") as file:
            return file.read()

    lab = lab_of(
        answering(act), stores=[tmp_path], context=lambda environ: environ.get("HTTP_TENANT", "").encode()
    )
    assert upload(lab, HTTP_TENANT="a").body == b"stored"
    assert call(lab.wrapped, HTTP_TENANT="a").body == TEXT[:100]
    with pytest.raises(IntegrityError):
        call(lab.wrapped, HTTP_TENANT="b")
    assert lab.records("file.integrity_failure")[-1]["reason"] == "commitment_mismatch"


def test_a_request_that_is_over_says_that_its_context_is_gone(lab_of, tmp_path):
    (tmp_path / "file").write_bytes(STORED)
    kept = []

    def act(environ):
        kept.append(environ["securefs"])
        return b"page"

    lab = lab_of(answering(act), stores=[tmp_path], context=lambda environ: b"")
    assert call(lab.wrapped).body == b"page"
    gc.collect()
    with pytest.raises(ConfigurationError, match=r"the request is over.*SecureFS\.vault"):
        kept[0].open(tmp_path / "file")


@pytest.mark.parametrize("context", [None, lambda environ: b"tenant"])
def test_a_request_that_looked_leaves_nothing_to_the_garbage_collector(context, journal, tmp_path):
    (tmp_path / "file").write_bytes(seal(TEXT, ring=KEYRING, context=context({}) if context else b""))
    left = []

    def app(environ, start_response):
        left.append(weakref.ref(environ["securefs"]))
        with environ["securefs"].open(tmp_path / "file") as file:
            environ["securefs"].seal(file).read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    options = {"keyring": KEYRING, "journal": journal, "policy": Policy(stores=(str(tmp_path),))}
    wrapped = SecureFS(app, context=context, **options)
    gc.collect()
    gc.disable()
    try:
        assert call(wrapped, watched=False).body == b"page"
        assert left[0]() is None
    finally:
        gc.enable()


# --- answers


@pytest.fixture
def serving(lab_of, tmp_path):
    (tmp_path / "file").write_bytes(STORED)
    act = answering(lambda environ: environ["securefs"].open(tmp_path / "file"))
    return lab_of(act, stores=[tmp_path])


def test_an_opened_file_in_an_answer_is_served_as_a_download(serving):
    assert call(serving.wrapped).body == TEXT
    part = call(serving.wrapped, headers=[("Range", "bytes=70000-70009")])
    assert (part.status, part.body) == (206, TEXT[70_000:70_010])
    head = call(serving.wrapped, "HEAD")
    assert (head.headers["content-length"], head.body) == ("300000", b"")
    told = [(record["event"], record["outcome"]) for record in serving.records() if record["seq"]]
    served = [("file.open", "success"), ("file.decrypt", "started"), ("file.decrypt", "success")]
    assert told == [*served, *served, ("file.open", "success")]


def test_an_opened_file_in_an_answer_is_verified_first(serving, tmp_path):
    data = bytearray(STORED)
    data[BODY_START + 200_000] ^= 1
    (tmp_path / "file").write_bytes(data)
    answer = call(serving.wrapped)
    assert answer.status == 500
    assert TEXT[:100] not in answer.body
    # Once: the delivery tells what it meets, and what the client got.
    (record,) = serving.records("file.integrity_failure")
    assert (record["reason"], record["http"]["status"]) == ("tag_mismatch", 500)


@pytest.mark.parametrize("swallows", [False, True], ids=["raises", "swallows"])
def test_an_answer_that_is_made_of_a_file_is_never_sent_half(swallows, lab_of, tmp_path):
    """An app that reads a file itself, and ends its answer as if the file was whole, is not believed."""
    data = bytearray(STORED)
    data[BODY_START + 200_000] ^= 1
    (tmp_path / "file").write_bytes(data)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/csv")])

        def rows():
            with environ["securefs"].open(tmp_path / "file") as file:
                try:
                    while data := file.read(1000):
                        yield data.hex().encode()
                except IntegrityError:
                    if not swallows:
                        raise

        return rows()

    lab = lab_of(app, stores=[tmp_path])
    answer = call(lab.wrapped, **CHUNKS)
    assert isinstance(answer.error, IntegrityError)
    assert len(answer.body) < 2 * len(TEXT)
    assert [record["reason"] for record in lab.records("file.integrity_failure")] == ["tag_mismatch"]


def test_an_app_may_answer_before_that_a_file_is_damaged(lab_of, tmp_path):
    data = bytearray(STORED)
    data[BODY_START + 200_000] ^= 1
    (tmp_path / "file").write_bytes(data)

    def act(environ):
        with environ["securefs"].open(tmp_path / "file") as file, pytest.raises(IntegrityError):
            file.read()
        return b"<p>this image is damaged"

    lab = lab_of(answering(act), stores=[tmp_path])
    assert call(lab.wrapped).body == b"<p>this image is damaged"
