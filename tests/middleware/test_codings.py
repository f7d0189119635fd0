"""Content-Encoding: what describes the plaintext passes, and compressed ciphertext is never sent."""

from __future__ import annotations

import gzip
import io
import logging
import sys
import zlib

import brotli
import flask
import pytest
import zstandard
from flask_compress import Compress
from support import frameworks
from support.sealing import RING, seal, seal_1
from support.wsgi_client import call, make_environ

from securefs.errors import Reason
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS
from securefs.middleware.codings import LOOKED_AT, decoder_of

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

# Flask-Compress leaves the file that it compressed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TEXT = b"name,value\n" + b"".join(b"row%d,%d\n" % (number, number) for number in range(20_000))
STORED = seal(TEXT)
REMEDY = "compress outside of SecureFS(app)"
SOURCES = ("file", "list", "small chunks", "write()")
LIBRARIES = {
    "br": ("brotli", "brotlicffi"),
    "zstd": ("compression.zstd", "backports.zstd", "pyzstd", "zstandard"),
}


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "stored": ("gzip", lambda data: gzip.compress(data, 0)),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "br, fast": ("BR ", lambda data: brotli.compress(data, quality=1)),
    "zstd": ("zstd", zstd.compress),
    "twice": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "twice the same": ("gzip, identity ,gzip", lambda data: gzip.compress(gzip.compress(data))),
    "beside an unknown name": ("aws-chunked, gzip", gzip.compress),
}


@pytest.fixture(params=PACKED)
def packed(request):
    return PACKED[request.param]


@pytest.fixture
def without_libraries(monkeypatch):
    for name in (*LIBRARIES["br"], *LIBRARIES["zstd"]):
        monkeypatch.setitem(sys.modules, name, None)


# --- the first bytes inside


@pytest.mark.parametrize("size", [1, 8, 1000])
def test_the_first_bytes_inside_are_decoded(packed, size):
    coding, pack = packed
    assert decoder_of(coding)(pack(TEXT)[:LOOKED_AT], size) == TEXT[:size]
    assert decoder_of(coding)(pack(b""), size) == b""
    short = decoder_of(coding)(pack(TEXT)[:3], size)
    assert TEXT.startswith(short) or short == pack(TEXT)[: min(3, size)]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_what_is_not_coded_is_looked_at_as_it_is(coding):
    for start in (MAGIC, b"<p>a page</p>", bytes(100), b"\xff" * 100):
        # To brotli some of them look like the beginning of something.
        assert decoder_of(coding)(start, 8) in {start[:8]} | ({b""} if "br" in coding else set())


@pytest.mark.parametrize("coding", [None, "", "identity", "None", "compress", "aws-chunked", "utf-8", ", ,"])
def test_what_is_no_coding_is_none(coding):
    assert decoder_of(coding)(STORED[:100], 8) == MAGIC


def test_a_library_that_is_not_loaded_is_not_loaded_for_this(without_libraries):
    for coding in ("br", "zstd", "gzip, br", "br, gzip", "Zstd"):
        assert decoder_of(coding) is None
    assert decoder_of("gzip") is not None


def test_zstd_is_decoded_by_the_other_library_too(without_libraries, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", zstandard)
    packed = zstd.compress(STORED)
    assert decoder_of("zstd")(packed[:LOOKED_AT], 8) == MAGIC
    assert decoder_of("zstd")(b"no zstd at all", 8) == b"no zstd "


def test_little_is_decoded_of_what_would_become_much():
    """A bomb of the app's own must not cost more than a look at it."""
    zeros = bytes(8 * 1024 * 1024)
    for coding, packed in (
        ("gzip", gzip.compress(zeros)),
        ("zstd", zstd.compress(zeros)),
        ("br", brotli.compress(zeros)),
    ):
        assert decoder_of(coding)(packed[:LOOKED_AT], 8) == bytes(8)


# --- responses


def sending(source, body, coding, extra=()):
    """An app that sends ``body`` with a Content-Encoding."""

    def app(environ, start_response):
        headers = [("Content-Type", "a/b"), ("Content-Encoding", coding), *extra]
        write = start_response("200 OK", headers)
        if source == "file":
            return environ["wsgi.file_wrapper"](io.BytesIO(body))
        if source == "small chunks":
            return (body[at : at + 7] for at in range(0, len(body), 7))
        if source == "write()":
            for at in range(0, len(body), 5000):
                write(body[at : at + 5000])
            return []
        return [body]

    return app


def ask(app, journal, path="/files/1", method="GET", headers=(), **options):
    app = SecureFS(app, keyring=RING, journal=journal, **options)
    return call(app, method, path, headers=headers, SERVER_SOFTWARE="gunicorn/27")


PLACES = {"undeclared": {}, "protected": {"policy": Policy(protected_paths=("/files/*",))}}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("source", SOURCES)
def test_compressed_ciphertext_is_never_sent(packed, source, places, journal, caplog):
    """The browser would unpack it and show ciphertext."""
    coding, pack = packed
    caplog.set_level(logging.WARNING, "securefs")
    # Of pages in small chunks, the first few thousand bytes are looked at again and again.
    stored = seal(TEXT[:2000]) if source == "small chunks" else STORED
    answer = ask(sending(source, pack(stored), coding), journal, **PLACES[places])
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert journal.events() == [("file.decrypt", "failure", "compressed")]
    assert journal.records("file.decrypt")[0]["sev"] == 3
    (message,) = [line for line in caplog.messages if line.startswith("'GET'")]
    assert REMEDY in message
    assert f"Content-Encoding: {coding}" in message


@pytest.mark.parametrize(
    ("lines", "pack"),
    [
        *(
            (name, gzip.compress)
            for name in ("GZIP", " gzip\t", "gzip,", ",gzip", "gzip;q=1", '"gzip"', "gz")
        ),
        *((name, gzip.compress) for name in ("identity, gzip", "aws-chunked,gzip", "gzip None")),
        *((name, zlib.compress) for name in ("x-deflate", "zlib", "Deflate")),
        *((name, brotli.compress) for name in ("x-br", "brotli", "BR")),
        *((name, zstandard.compress) for name in ("x-zstd", "zst")),
        ("gzip|br", lambda data: brotli.compress(gzip.compress(data))),
        ("br|gzip", lambda data: gzip.compress(brotli.compress(data))),
        ("gzip", lambda data: gzip.compress(b"") * 3 + gzip.compress(data)),
        ("gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
        ("gzip", lambda data: gzip.compress(data[:6]) + b"and no other member"),
    ],
)
def test_however_the_coding_is_written(lines, pack, journal):
    """In odd spelling, in several header lines, and in several members of gzip."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Encoding", line) for line in lines.split("|")])
        return [pack(STORED)]

    wrapped = SecureFS(app, keyring=RING, journal=journal)
    assert call(wrapped, watched=False).status == 500
    assert journal.events() == [("file.decrypt", "failure", "compressed")]


def test_a_page_of_many_members_passes(journal):
    body = gzip.compress(b"") * 100 + gzip.compress(TEXT[:1000])
    answer = ask(sending("list", body, "gzip"), journal)
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("source", SOURCES)
def test_a_compressed_page_passes(packed, source, journal):
    coding, pack = packed
    for page in (TEXT[:3000], b"", b"x"):
        body = pack(page)  # once: gzip writes the time
        answer = ask(sending(source, body, coding), journal)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-encoding"] == coding
    assert journal.events() == []


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "None", "gzip, br", "identity"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_coding_of_the_plaintext_is_kept(source, coding, places, journal):
    """Of name.tar.gz or drawing.svgz, frameworks say so where they send it for showing."""
    if source == "write()" and places == "undeclared":
        source = "file"
    app = sending(source, STORED, coding)
    answer = ask(app, journal, **PLACES[places])
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers["content-encoding"] == coding
    answer = ask(app, journal, headers=[("Range", "bytes=5-9")], **PLACES[places])
    assert (answer.status, answer.body, answer.headers["content-encoding"]) == (206, TEXT[5:10], coding)
    answer = ask(app, journal, method="HEAD", **PLACES[places])
    assert (answer.status, answer.headers["content-encoding"]) == (200, coding)
    # HEAD does not read the body to its end, unless it is there already.
    known = None if source == "small chunks" else str(len(TEXT))
    assert answer.headers.get("content-length") == known


def test_a_coding_of_the_plaintext_is_kept_for_format_1(journal):
    policy = Policy(format_1_paths=("/files/*",))
    answer = ask(sending("file", seal_1(TEXT), "gzip"), journal, policy=policy)
    assert (answer.status, answer.body, answer.headers["content-encoding"]) == (200, TEXT, "gzip")


def test_compressed_format_1_is_refused_too(journal):
    """Nothing tells what it was."""
    policy = Policy(format_1_paths=("/files/*",))
    for pack in (gzip.compress, lambda data: gzip.compress(data, 0)):
        assert ask(sending("list", pack(seal_1(TEXT)), "gzip"), journal, policy=policy).status == 500
    assert {event for event, *_ in journal.events()} == {"file.integrity_failure"}


@pytest.mark.parametrize(
    ("body", "coding", "reason"),
    [
        pytest.param(gzip.compress(TEXT), "gzip", Reason.NOT_ENCRYPTED, id="gzip in the file's place"),
        pytest.param(TEXT, "gzip", Reason.NOT_ENCRYPTED, id="text in the place of gzip"),
        pytest.param(brotli.compress(TEXT), "br", Reason.NOT_ENCRYPTED, id="br in the file's place"),
        pytest.param(TEXT, "None", Reason.NOT_ENCRYPTED, id="no coding"),
        pytest.param(MAGIC[:3] + STORED[3:], "gzip", Reason.TRUNCATED, id="a changed file"),
    ],
)
def test_what_was_put_in_a_file_s_place_is_tampering_whatever_the_coding_says(body, coding, reason, journal):
    if reason is Reason.TRUNCATED:
        body, reason = STORED[:-10], "truncated"
    assert ask(sending("list", body, coding), journal, **PLACES["protected"]).status == 500
    assert journal.events() == [("file.integrity_failure", "failure", str(getattr(reason, "value", reason)))]
    assert journal.records("file.integrity_failure")[0]["sev"] == 4


def test_without_a_library_a_body_that_nobody_can_decode_is_not_called_tampering(without_libraries, journal):
    for coding, pack in (PACKED["br"], PACKED["zstd"]):
        assert ask(sending("list", pack(STORED), coding), journal, **PLACES["protected"]).status == 500
    assert set(journal.events()) == {("file.decrypt", "failure", "compressed")}
    # Nothing is declared, and nothing is known of it: it may be a page.
    packed = brotli.compress(STORED)
    assert ask(sending("list", packed, "br"), journal).body == packed


def test_what_was_read_of_a_store_itself_was_compressed_by_nobody(without_libraries, journal, tmp_path):
    (tmp_path / "f.br").write_bytes(brotli.compress(TEXT))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b"), ("Content-Encoding", "br")])
        return environ["wsgi.file_wrapper"]((tmp_path / "f.br").open("rb"))

    assert ask(app, journal, stores=[tmp_path]).status == 500
    assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]


def test_a_store_behind_compression_is_known(journal, tmp_path):
    (tmp_path / "f").write_bytes(STORED)
    (tmp_path / "planted").write_bytes(TEXT)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b"), ("Content-Encoding", "gzip")])
        wrapped = environ["wsgi.file_wrapper"]((tmp_path / environ["PATH_INFO"].strip("/")).open("rb"))

        def compressed():
            packer = zlib.compressobj(wbits=31)
            for chunk in wrapped:
                yield packer.compress(chunk)
            yield packer.flush()
            wrapped.close()

        return compressed()

    assert ask(app, journal, "/f", stores=[tmp_path]).status == 500
    assert ask(app, journal, "/planted", stores=[tmp_path]).status == 500
    assert [reason for *_, reason in journal.events()] == ["compressed", "not_encrypted"]


# --- what real frameworks do


def flask_app(folder, compress=None):
    app = flask.Flask("demo")
    if compress is not None:
        app.config.update(compress)
        Compress(app)

    @app.get("/<name>")
    def get(name):
        return flask.send_file(folder / name)

    @app.get("/excepted/<name>")
    def excepted(name):
        response = flask.send_file(folder / name, mimetype="application/json")
        response.headers["Content-Encoding"] = "identity"
        return response

    return app.wsgi_app


def django_app(folder, middleware=()):
    """A Django site with the view that serves files by their name."""
    frameworks.make("django", folder)
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse
    from django.test import override_settings
    from django.urls import clear_url_caches, path
    from django.views.static import serve

    def excepted(request, name):
        return FileResponse((folder / name).open("rb"), headers={"Content-Encoding": "identity"})

    patterns = [path("excepted/<name>", excepted), path("<path:path>", serve, {"document_root": str(folder)})]
    with override_settings(MIDDLEWARE=list(middleware)):
        inner = WSGIHandler()

    def app(environ, start_response):
        frameworks.urlpatterns[:] = patterns
        clear_url_caches()
        return inner(environ, start_response)

    return app


@pytest.mark.parametrize("name", ["drawing.svgz", "logs.tar.gz", "data.json.gz", "page.html"])
@pytest.mark.parametrize("framework", [flask_app, django_app])
def test_frameworks_that_name_the_coding_of_a_file_serve_it_as_without_securefs(
    framework, name, journal, tmp_path
):
    (tmp_path / "plain").mkdir()
    (tmp_path / "stored").mkdir()
    data = gzip.compress(TEXT) if name.endswith("z") else TEXT
    (tmp_path / "plain" / name).write_bytes(data)
    (tmp_path / "stored" / name).write_bytes(seal(data))
    bare = call(framework(tmp_path / "plain"), path=f"/{name}", watched=False)
    served = ask(framework(tmp_path / "stored"), journal, f"/{name}", stores=[tmp_path / "stored"])
    assert (served.status, served.body) == (bare.status, bare.body) == (200, data)
    for header in ("content-encoding", "content-type", "content-length"):
        assert served.headers.get(header) == bare.headers.get(header), header


@pytest.mark.parametrize("declared", [True, False], ids=["store", "undeclared"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_flask_compress_inside_is_refused_by_its_name(coding, declared, journal, tmp_path, caplog):
    (tmp_path / "a.json").write_bytes(STORED)
    app = flask_app(tmp_path, {"COMPRESS_ALGORITHM": [coding], "COMPRESS_ALGORITHM_STREAMING": [coding]})
    options = {"stores": [tmp_path]} if declared else {}
    for accepted in (coding, ""):
        answer = ask(app, journal, "/a.json", headers=[("Accept-Encoding", accepted)], **options)
        assert TEXT[:20] not in answer.body or not accepted
        assert (answer.status, answer.body == TEXT) == ((500, False) if accepted else (200, True))
    assert ("file.decrypt", "failure", "compressed") in journal.events()
    assert "file.integrity_failure" not in {event for event, *_ in journal.events()}
    assert any(REMEDY in message for message in caplog.messages)
    excepted = ask(app, journal, "/excepted/a.json", headers=[("Accept-Encoding", coding)], **options)
    assert (excepted.status, excepted.body) == (200, TEXT)


@pytest.mark.parametrize("declared", [True, False], ids=["store", "undeclared"])
def test_django_s_compression_inside_is_refused_by_its_name(declared, journal, tmp_path, caplog):
    (tmp_path / "a.pdf").write_bytes(STORED)
    app = django_app(tmp_path, ["django.middleware.gzip.GZipMiddleware"])
    options = {"stores": [tmp_path]} if declared else {}
    answer = ask(app, journal, "/a.pdf", headers=[("Accept-Encoding", "gzip")], **options)
    assert answer.status == 500
    assert journal.events()[-1] == ("file.decrypt", "failure", "compressed")
    assert any(REMEDY in message for message in caplog.messages)
    for path, accepted in (("/a.pdf", ""), ("/excepted/a.pdf", "gzip")):
        answer = ask(app, journal, path, headers=[("Accept-Encoding", accepted)], **options)
        assert (answer.status, answer.body) == (200, TEXT)


def test_compression_outside_compresses_the_plaintext(journal, tmp_path):
    (tmp_path / "a.json").write_bytes(STORED)
    outer = flask.Flask("outer")
    Compress(outer)

    @outer.get("/<path:path>")
    def through(path):
        inner = SecureFS(flask_app(tmp_path), keyring=RING, journal=journal, stores=[tmp_path])
        return flask.Response.from_app(inner, flask.request.environ)

    answer = call(outer.wsgi_app, path="/a.json", headers=[("Accept-Encoding", "deflate")], watched=False)
    assert (answer.headers["content-encoding"], zlib.decompress(answer.body)) == ("deflate", TEXT)


def test_no_more_is_drawn_of_a_page_than_is_looked_at(journal):
    """Of some codings nothing is known for long: this one has a name of 600,000 bytes, of which no end is in sight."""
    drawn = []

    def chunks():
        yield b"\x1f\x8b\x08\x08" + bytes(6)
        for _ in range(600):
            drawn.append(1)
            yield b"n" * 1000
        yield b"\0" + raw_deflate(STORED)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b"), ("Content-Encoding", "gzip")])
        return chunks()

    result = SecureFS(app, keyring=RING, journal=journal)(make_environ(), lambda *_: None)
    assert len(drawn) < 2 * LOOKED_AT // 1000
    assert sum(map(len, result)) > 600_000
    result.close()
