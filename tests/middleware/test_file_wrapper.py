"""Files that the app hands over: behind what is put around them, and opened by the app itself."""

from __future__ import annotations

import contextlib
import io
import itertools

import flask
import pytest
import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from support import frameworks
from support.sealing import RING, pattern, seal, seal_1
from support.wsgi_client import call
from werkzeug.wrappers import Response as WerkzeugResponse
from werkzeug.wsgi import ClosingIterator, wrap_file

from securefs import Suite, open_encrypted
from securefs.errors import SecureFSError
from securefs.header import claimed_object_id
from securefs.middleware import Policy, SecureFS
from securefs.middleware.file_wrapper import FileWrapper, opened_by_app
from securefs.middleware.refusal import BodyRefusedError

TEXT = pattern(300_000)
STORED = seal(TEXT)
PAGE = b"<p>plaintext</p>" * 5000
CHUNKS = {"SERVER_SOFTWARE": "gunicorn/27"}  # a server whose chunks show a break


def ask(app, journal, method="GET", path="/files/1", headers=(), **options):
    app = SecureFS(app, keyring=RING, journal=journal, **options)
    return call(app, method, path, headers=headers, watched=False, **CHUNKS)


def test_a_file_without_close_needs_none():
    class Bare:
        def read(self, size):
            return b""

    wrapper = FileWrapper(Bare())
    assert list(wrapper) == []
    assert not hasattr(wrapper, "close")
    assert wrapper.seekable_file() is None


# --- what is put around a file


class Counting:
    """A wrapper as those who measure or report write it."""

    def __init__(self, chunks):
        self.chunks, self.closed = chunks, 0

    def __iter__(self):
        yield from self.chunks

    def close(self):
        self.closed += 1
        self.chunks.close()


def spanning(chunks):
    """A generator that ends a span after the last chunk, as OpenTelemetry does."""
    try:
        yield from chunks
    finally:
        chunks.close()


def peeked(chunks):
    """What middleware does that needs start_response to have been called."""
    return ClosingIterator(itertools.chain([next(chunks)], chunks), [chunks.close])


def copying(chunks):
    return ClosingIterator((bytes(bytearray(chunk)) for chunk in chunks), [chunks.close])


AROUND = {
    "class": Counting,
    "generator": spanning,
    "Werkzeug": lambda chunks: ClosingIterator(chunks, [chunks.close]),
    "peeking": peeked,
    "copying": copying,
    "after an empty chunk": lambda chunks: ClosingIterator(itertools.chain([b""], chunks), [chunks.close]),
    "two": lambda chunks: Counting(spanning(chunks)),
}


class Watched(io.FileIO):
    """A file that counts how often it is closed while it is open."""

    closings = 0

    def close(self):
        if not self.closed:
            type(self).closings += 1
        super().close()


@pytest.fixture(params=AROUND)
def around(request):
    return AROUND[request.param]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "f").write_bytes(STORED)
    return folder


def wrapping(path, around, length="right", block_size=8192, opener=open):
    """An app that puts something around the file that it serves."""

    def app(environ, start_response):
        size = path.stat().st_size if length == "right" else length
        headers = [("Content-Type", "a/b")]
        start_response("200 OK", headers if size is None else [*headers, ("Content-Length", str(size))])
        return around(environ["wsgi.file_wrapper"](opener(path, "rb"), block_size))

    return app


PLACES = {
    "undeclared": lambda store: {},
    "store": lambda store: {"stores": [store]},
    "protected": lambda store: {"policy": Policy(protected_paths=("/files/*",), verify_first=0)},
    "streamed": lambda store: {"policy": Policy(verify_first=0)},
}


@pytest.mark.parametrize("suite", [Suite.CBC_HMAC, Suite.GCM])
@pytest.mark.parametrize("places", PLACES)
def test_a_file_behind_something_is_still_the_file(places, suite, around, store, journal, monkeypatch):
    """With its length, its ranges, and no copy of it anywhere."""
    monkeypatch.setattr("securefs.middleware.response.Spool", None)
    (store / "f").write_bytes(seal(TEXT, suite))
    Watched.closings = 0
    app = wrapping(store / "f", around, opener=Watched)
    options = PLACES[places](store)
    answer = ask(app, journal, **options)
    assert (answer.status, answer.body, answer.error) == (200, TEXT, None)
    assert (answer.headers["content-length"], answer.headers["accept-ranges"]) == (str(len(TEXT)), "bytes")
    answer = ask(app, journal, "HEAD", **options)
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(TEXT)))
    for asked, expected in (("0-9", TEXT[:10]), ("-10", TEXT[-10:]), ("299990-", TEXT[-10:])):
        answer = ask(app, journal, headers=[("Range", f"bytes={asked}")], **options)
        assert (answer.status, answer.body) == (206, expected)
        assert answer.headers["content-range"].endswith(f"/{len(TEXT)}")
    answer = ask(app, journal, headers=[("Range", "bytes=300000-")], **options)
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(TEXT)}")
    assert Watched.closings == 6


def test_what_is_around_a_file_is_closed_once(store, journal):
    made = []

    def counting(chunks):
        made.append(Counting(chunks))
        return made[-1]

    for method in ("GET", "HEAD"):
        assert ask(wrapping(store / "f", counting), journal, method).status == 200
    assert [wrapper.closed for wrapper in made] == [1, 1]


def test_a_changed_file_behind_something_is_refused(around, store, journal):
    (store / "f").write_bytes(STORED[:-1000])
    assert ask(wrapping(store / "f", around), journal).status == 500
    assert journal.events() == [("file.integrity_failure", "failure", "truncated")]


@pytest.mark.parametrize(
    ("length", "cut"),
    [
        pytest.param(80_000, 80_000, id="and says so"),
        pytest.param(None, 80_000, id="without a length"),
    ],
)
def test_what_gives_a_part_of_a_file_is_not_the_file(length, cut, store, journal):
    """A preview for those who have not paid: the rest must not be served to them."""

    def preview(chunks):
        left = cut
        for chunk in chunks:
            yield chunk[:left]
            left -= len(chunk[:left])
            if not left:
                return

    for options in ({}, {"stores": [store]}):
        answer = ask(wrapping(store / "f", preview, length), journal, **options)
        assert answer.status == 500
        assert TEXT[:100] not in answer.body
        assert journal.events()[-1] == ("file.integrity_failure", "failure", "truncated")


def changing_first(chunks):
    return ClosingIterator((chunk[:-1] + b"x" for chunk in chunks), [chunks.close])


def in_other_steps(chunks):
    data = b"".join(chunks)
    return ClosingIterator((data[at : at + 1000] for at in range(0, len(data), 1000)), [chunks.close])


def test_what_gives_other_chunks_than_the_file_s_is_read_as_it_comes(store, journal):
    app = wrapping(store / "f", changing_first)
    assert ask(app, journal).status == 500
    app = wrapping(store / "f", in_other_steps)
    assert ask(app, journal).body == TEXT


def test_a_file_without_a_length_behind_something_is_read_as_it_comes(around, store, journal):
    answer = ask(wrapping(store / "f", around, None), journal, stores=[store])
    assert (answer.status, answer.body) == (200, TEXT)


def test_a_file_with_another_length_behind_something_is_read_as_it_comes(around, store, journal):
    answer = ask(wrapping(store / "f", around, 12), journal, stores=[store])
    assert (answer.status, answer.body) == (200, TEXT)


def test_a_file_beside_another_one_is_the_one_whose_bytes_come(store, tmp_path, journal, monkeypatch):
    """Whatever else the app draws from on the way."""
    monkeypatch.setattr("securefs.middleware.response.Spool", None)
    (tmp_path / "config").write_bytes(PAGE)

    def app(environ, start_response):
        config = environ["wsgi.file_wrapper"]((tmp_path / "config").open("rb"))
        wrapper = environ["wsgi.file_wrapper"]((store / "f").open("rb"))
        start_response("200 OK", [("Content-Type", "a/b"), ("Content-Length", str(len(STORED)))])
        pairs = zip(config, wrapper, strict=False)
        return ClosingIterator((chunk for _, chunk in pairs), [config.close, wrapper.close])

    answer = ask(app, journal, headers=[("Range", "bytes=-10")], stores=[store])
    assert (answer.status, answer.body) == (206, TEXT[-10:])


def test_an_app_that_begins_its_response_early_may_return_a_stored_file(store, journal):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b")])(b"")
        return environ["wsgi.file_wrapper"]((store / "f").open("rb"))

    answer = ask(app, journal, headers=[("Range", "bytes=-10")], stores=[store])
    assert (answer.status, answer.body) == (206, TEXT[-10:])


def test_a_file_that_does_not_stand_at_its_beginning_is_read_as_it_comes(around, tmp_path, journal):
    (tmp_path / "f").write_bytes(b"?" + STORED)

    def started(path, mode):
        file = path.open(mode)
        file.read(1)
        return file

    app = wrapping(tmp_path / "f", around, len(STORED), opener=started)
    assert ask(app, journal).body == TEXT
    app = wrapping(tmp_path / "f", around, len(STORED) + 1, opener=started)
    assert ask(app, journal).body == TEXT


class Lost(io.FileIO):
    """A file that can't tell where it ends, once it was read."""

    def seek(self, offset, whence=0):
        if whence:
            raise OSError("not on this device")
        return super().seek(offset, whence)


def test_a_file_whose_end_is_unknown_is_read_as_it_comes(around, store, journal):
    answer = ask(wrapping(store / "f", around, opener=Lost), journal)
    assert (answer.status, answer.body) == (200, TEXT)


@pytest.mark.parametrize("size", [0, 5, 300, len(PAGE)])
def test_plaintext_behind_something_in_a_store_is_refused(size, around, store, journal):
    (store / "f").write_bytes(PAGE[:size] if size != 5 else STORED[:5])
    if size == 0 and around is peeked:
        around = spanning  # nothing can be peeked at
    for length in ("right", None):
        answer = ask(wrapping(store / "f", around, length), journal, stores=[store])
        assert (answer.status, b"plaintext" in answer.body) == (500, False)
    assert set(journal.events()) == {("file.integrity_failure", "failure", "not_encrypted")}


def test_a_link_out_of_a_store_behind_something_is_refused(around, store, tmp_path, journal):
    (tmp_path / "secret").write_bytes(PAGE)
    (store / "link").symlink_to(tmp_path / "secret")
    assert ask(wrapping(store / "link", around), journal, stores=[store]).status == 500


def test_a_plain_file_behind_something_passes_through_it(around, tmp_path, store, journal):
    (tmp_path / "page").write_bytes(PAGE)
    app = wrapping(tmp_path / "page", around)
    answer = ask(app, journal, stores=[store])
    assert (answer.status, answer.body) == (200, PAGE)
    answer = ask(app, journal, headers=[("Range", "bytes=7-16")], stores=[store])
    assert (answer.status, answer.body) == (206, PAGE[7:17])
    assert answer.headers["content-range"] == f"bytes 7-16/{len(PAGE)}"
    assert journal.events() == []


def test_a_stored_file_lets_nothing_else_be_decrypted(store, journal):
    """An app that reads a stored file, and answers with what the client sent, is no oracle."""

    def echo(chunks):
        next(chunks)
        yield STORED

    assert ask(wrapping(store / "f", echo, None), journal, stores=[store]).status == 500
    assert journal.events() == [("file.decrypt", "failure", "undeclared")]

    def echo_behind_the_magic(chunks):
        yield next(chunks)
        yield STORED[8:]

    # The first eight bytes are those of any file.
    (store / "f").write_bytes(seal(b"of somebody else", label="another"))
    assert ask(wrapping(store / "f", echo_behind_the_magic, None, 8), journal, stores=[store]).status == 500
    assert journal.events()[-1] == ("file.decrypt", "failure", "undeclared")

    def another(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b")])
        next(environ["wsgi.file_wrapper"]((store / "f").open("rb")))
        return Counting(environ["wsgi.file_wrapper"](io.BytesIO(STOLEN)))

    assert ask(another, journal, stores=[store]).status == 500
    assert journal.events()[-1] == ("file.decrypt", "failure", "undeclared")


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("rule", ["protected_paths", "format_1_paths"])
def test_plaintext_behind_something_on_a_protected_path_is_refused_whatever_the_method(
    method, rule, around, store, journal
):
    policy = Policy(**{rule: ("/files/*",)})
    (store / "f").write_bytes(PAGE)
    for length in ("right", None):
        answer = ask(wrapping(store / "f", around, length), journal, method, policy=policy)
        assert (answer.status, b"plaintext" in answer.body) == (500, False)
    (store / "f").write_bytes(STORED)
    assert ask(wrapping(store / "f", around), journal, method, policy=policy).body == TEXT


def test_an_emptied_file_behind_something_is_refused_with_nothing_declared(around, store, journal):
    if around is peeked:
        around = spanning  # nothing can be peeked at
    for stored, length in ((b"", "right"), (b"", None), (bytes(300), "right")):
        (store / "f").write_bytes(stored)
        assert ask(wrapping(store / "f", around, length), journal).status == 500
    assert set(journal.events()) == {("file.integrity_failure", "failure", "not_encrypted")}


@pytest.mark.parametrize("places", ["store", "protected"])
@pytest.mark.parametrize("stored", [PAGE, STORED, b""], ids=["plaintext", "ciphertext", "nothing"])
@pytest.mark.parametrize("itself", [True, False])
def test_a_file_behind_what_the_app_has_written_is_not_sent(places, stored, itself, store, journal):
    """The page before it is with the client; of the file, no byte may follow."""
    (store / "f").write_bytes(stored)

    def app(environ, start_response, status="200 OK"):
        start_response(status, [("Content-Type", "a/b")])(b"<h1>")
        file = (store / "f").open("rb")
        return file if itself else environ["wsgi.file_wrapper"](file)

    options = {"stores": [store]} if places == "store" else {"policy": Policy(protected_paths=("/files/*",))}
    with pytest.raises(BodyRefusedError):
        ask(app, journal, "POST", **options)
    assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]
    # Elsewhere, and with an error page, it is the app's.
    (store.parent / "page").write_bytes(PAGE)

    def page(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b")])(b"<h1>")
        return environ["wsgi.file_wrapper"]((store.parent / "page").open("rb"))

    assert ask(page, journal, path="/page", **options).body == b"<h1>" + PAGE
    failed = ask(lambda *given: app(*given, "404 Not Found"), journal, "POST", **options)
    assert failed.body == b"<h1>" + stored


@pytest.mark.parametrize("stored", [PAGE, STORED], ids=["plaintext", "ciphertext"])
@pytest.mark.parametrize("caught", [False, True])
def test_a_stored_file_that_is_read_behind_a_page_is_not_sent(stored, caught, store, journal):
    """Not by a generator that has given something else before, whether it catches the error or not."""
    (store / "f").write_bytes(stored)

    def app(environ, start_response, status="200 OK", name="f"):
        start_response(status, [("Content-Type", "a/b")])
        yield b"<h1>a page</h1>"
        with contextlib.suppress(*([SecureFSError] if caught else [])), (store / name).open("rb") as opened:
            yield from environ["wsgi.file_wrapper"](opened)
        yield b"</html>"

    aborted = ask(app, journal, stores=[store])
    assert isinstance(aborted.error, SecureFSError)
    assert aborted.body == b"<h1>a page</h1>"
    assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]
    # A file from elsewhere, and one on an error page, is the app's.
    (store.parent / "page").write_bytes(PAGE)
    page = ask(lambda *given: app(*given, name="../page"), journal, stores=[store])
    assert page.body == b"<h1>a page</h1>" + PAGE + b"</html>"
    failed = ask(lambda *given: app(*given, status="404 Not Found"), journal, stores=[store])
    assert failed.body == b"<h1>a page</h1>" + stored + b"</html>"


def test_what_was_written_before_a_stored_file_is_no_part_of_it(store, journal):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b")])(STORED[:4])
        return environ["wsgi.file_wrapper"](io.BytesIO(STORED[4:]))

    assert ask(app, journal, stores=[store]).status == 500
    assert journal.events() == [("file.decrypt", "failure", "undeclared")]

    def stored(environ, start_response):
        (store / "rest").write_bytes(STORED[4:])
        start_response("200 OK", [("Content-Type", "a/b")])(STORED[:4])
        return environ["wsgi.file_wrapper"]((store / "rest").open("rb"))

    assert ask(stored, journal, stores=[store]).status == 500
    assert journal.events()[-1] == ("file.decrypt", "failure", "undeclared")


def test_a_format_1_file_behind_something_is_still_the_file(around, store, journal):
    (store / "f").write_bytes(seal_1(TEXT))
    policy = Policy(format_1_paths=("/files/*",))
    app = wrapping(store / "f", around)
    answer = ask(app, journal, headers=[("Range", "bytes=-10")], policy=policy)
    assert (answer.status, answer.body) == (206, TEXT[-10:])
    answer = ask(app, journal, "HEAD", policy=Policy(format_1_paths=("/files/*",), max_format_1=1000))
    assert answer.status == 500, "its length is known without a pass over it"
    (store / "f").write_bytes(seal_1(TEXT) + b"x")
    assert ask(app, journal, "HEAD", policy=policy).status == 500, "no Format 1 file has that length"


def sentry(app):
    return SentryWsgiMiddleware(app)


def passing_no_object(path):
    """Werkzeug's response puts a generator and its ClosingIterator around what it is given."""

    def app(environ, start_response):
        response = WerkzeugResponse(wrap_file(environ, path.open("rb")), mimetype="application/pdf")
        response.content_length = path.stat().st_size
        return response(environ, start_response)

    return app


def flask_app(folder):
    app = flask.Flask("demo")
    app.get("/files/<name>")(lambda name: flask.send_file(folder / name, mimetype="application/pdf"))
    return app.wsgi_app


@pytest.mark.parametrize("declared", [True, False], ids=["store", "undeclared"])
@pytest.mark.parametrize("reporter", [lambda app: app, sentry], ids=["bare", "Sentry"])
@pytest.mark.parametrize(
    "framework",
    [
        pytest.param(flask_app, id="Flask"),
        pytest.param(lambda store: frameworks.make("django", store), id="Django"),
        pytest.param(lambda store: passing_no_object(store / "f"), id="Werkzeug"),
    ],
)
def test_files_of_frameworks_behind_an_error_reporter(
    framework, reporter, declared, store, journal, monkeypatch
):
    monkeypatch.setattr("securefs.middleware.response.Spool", None)
    path = "/files/f" if framework is flask_app else "/file/f"
    with sentry_sdk.new_scope():
        app = reporter(framework(store))
        options = {"stores": [store]} if declared else {}
        answer = ask(app, journal, path=path, **options)
        assert (answer.status, answer.body) == (200, TEXT)
        assert answer.headers["content-length"] == str(len(TEXT))
        assert ask(app, journal, "HEAD", path, **options).headers["content-length"] == str(len(TEXT))
        answer = ask(app, journal, path=path, headers=[("Range", "bytes=5-9")], **options)
        assert (answer.status, answer.body) == (206, TEXT[5:10])


# --- what the app opened itself

STOLEN = seal(b"the victim's secret " * 5000, label="victim")
NESTED = seal(STOLEN, label="the thief's upload")


def opened(stored=NESTED, **options):
    return open_encrypted(io.BytesIO(stored), RING, **options)


def answering(way, headers=(), status="200 OK", stored=NESTED):
    def app(environ, start_response):
        start_response(status, [("Content-Type", "a/b"), *headers])
        return way(environ, stored)

    return app


def as_django_file(environ, stored):
    from django.core.files.base import File

    return environ["wsgi.file_wrapper"](File(opened(stored)))


OPENED = {
    "file wrapper": lambda environ, stored: environ["wsgi.file_wrapper"](opened(stored)),
    "itself": lambda environ, stored: opened(stored),
    "buffered": lambda environ, stored: environ["wsgi.file_wrapper"](io.BufferedReader(opened(stored))),
    "buffered, itself": lambda environ, stored: io.BufferedReader(opened(stored)),
    "Django's File": as_django_file,
    "in a temporary file's place": lambda environ, stored: environ["wsgi.file_wrapper"](
        io.BufferedReader(io.BufferedReader(opened(stored)))
    ),
}
ANYWHERE = {
    "undeclared": lambda store: {},
    "store": lambda store: {"stores": [store]},
    "protected": lambda store: {"policy": Policy(protected_paths=("/files/*",))},
    "format 1": lambda store: {"policy": Policy(format_1_paths=("/files/*",))},
}


@pytest.mark.parametrize("places", ANYWHERE)
@pytest.mark.parametrize("way", OPENED)
def test_what_the_app_opened_is_served_and_not_decrypted_again(way, places, store, journal):
    app = answering(OPENED[way])
    options = ANYWHERE[places](store)
    answer = ask(app, journal, **options)
    assert (answer.status, answer.body) == (200, STOLEN)
    assert journal.events() == [("file.decrypt", "started", None), ("file.decrypt", "success", None)]
    assert journal.records("file.decrypt")[0]["obj"]["id"] == claimed_object_id(NESTED)
    answer = ask(app, journal, headers=[("Range", "bytes=8-17")], **options)
    assert (answer.status, answer.body) == (206, STOLEN[8:18])
    answer = ask(app, journal, "HEAD", **options)
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(STOLEN)))


@pytest.mark.parametrize("way", OPENED)
def test_what_the_app_opened_is_verified_first_and_must_be_what_is_expected(way, journal):
    changed = bytearray(NESTED)
    changed[1000] ^= 1
    answer = ask(answering(OPENED[way], stored=bytes(changed)), journal)
    assert (answer.status, STOLEN[:50] in answer.body) == (500, False)
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "tag_mismatch")
    for stored, status in ((NESTED, 200), (STORED, 500)):

        def app(environ, start_response, stored=stored):
            environ["securefs"].expect(claimed_object_id(NESTED))
            return answering(OPENED[way], stored=stored)(environ, start_response)

        assert ask(app, journal).status == status
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "wrong_object")


def with_werkzeug(environ, start_response):
    response = WerkzeugResponse(wrap_file(environ, opened()), direct_passthrough=True)
    return response(environ, start_response)


def with_flask(environ, start_response):
    app = flask.Flask("demo")
    app.get("/files/1")(lambda: flask.send_file(opened(), download_name="a.pdf"))
    return app.wsgi_app(environ, start_response)


def with_django(environ, start_response, wrap=lambda file: file):
    frameworks.make("django", None)
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse
    from django.urls import clear_url_caches, path

    frameworks.urlpatterns[:] = [
        path("files/1", lambda request: FileResponse(wrap(opened()), filename="a.pdf"))
    ]
    clear_url_caches()
    return WSGIHandler()(environ, start_response)


def with_django_s_file(environ, start_response):
    from django.core.files.base import File

    return with_django(environ, start_response, File)


@pytest.mark.parametrize("reporter", [lambda app: app, sentry], ids=["bare", "Sentry"])
@pytest.mark.parametrize("places", ANYWHERE)
@pytest.mark.parametrize("framework", [with_werkzeug, with_flask, with_django, with_django_s_file])
def test_what_the_app_opened_passes_through_its_framework(framework, places, reporter, store, journal):
    options = ANYWHERE[places](store)
    answer = ask(reporter(framework), journal, **options)
    sized = framework in {with_django, with_django_s_file}
    if reporter is sentry and not sized and places in {"protected", "format 1"}:
        assert answer.status == 500, "behind something, a length tells that it is the file"
    else:
        assert (answer.status, answer.body) == (200, STOLEN)


def part_of(environ, stored):
    file = opened(stored)
    file.seek(100)
    return environ["wsgi.file_wrapper"](file)


def generated(environ, stored):
    wrapper = environ["wsgi.file_wrapper"](opened(stored))
    return (chunk[:4000] for chunk in wrapper)


PARTS = {
    "from its middle": (part_of, "200 OK", [], STOLEN[100:]),
    "206": (OPENED["file wrapper"], "206 Partial Content", [("Content-Range", "bytes 0-9/10")], STOLEN),
    "a length of its own": (OPENED["file wrapper"], "200 OK", [("Content-Length", "100")], STOLEN),
    "changed on its way": (
        generated,
        "200 OK",
        [],
        b"".join(STOLEN[at : at + 4000] for at in range(0, len(STOLEN), 8192)),
    ),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("places", ANYWHERE)
def test_a_part_of_what_the_app_opened_is_plaintext(part, places, store, journal):
    """It passes where plaintext passes, and is never decrypted: not even if it begins like a ciphertext."""
    way, status, headers, body = PARTS[part]
    answer = ask(answering(way, headers, status), journal, **ANYWHERE[places](store))
    if places in {"protected", "format 1"}:
        assert answer.status == 500
        assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]
    else:
        assert (answer.status, answer.body) == (int(status[:3]), body)
        assert journal.events() == []


def test_another_file_beside_what_the_app_opened_is_not_taken_for_it(tmp_path, journal):
    """Both are of the same size, and something was drawn of both."""
    (tmp_path / "page").write_bytes(PAGE)

    def both(environ, stored):
        config = environ["wsgi.file_wrapper"](opened(seal(bytes(len(PAGE)))))
        page = environ["wsgi.file_wrapper"]((tmp_path / "page").open("rb"))
        return ClosingIterator((chunk for _, chunk in zip(config, page, strict=True)), [page.close])

    answer = ask(answering(both, [("Content-Length", str(len(PAGE)))]), journal)
    assert (answer.status, answer.body) == (200, PAGE)


def test_what_was_written_before_what_the_app_opened_does_not_make_it_ciphertext(journal):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b")])(STOLEN[:8])
        file = opened()
        file.seek(8)
        return environ["wsgi.file_wrapper"](file)

    assert ask(app, journal).body == STOLEN
    assert journal.events() == []


def test_text_around_what_the_app_opened_is_no_body(journal):
    app = answering(
        lambda environ, stored: environ["wsgi.file_wrapper"](io.TextIOWrapper(opened(), "latin-1"))
    )
    with pytest.raises(Exception, match=r"str|UnsupportedOperation|binary"):
        ask(app, journal)


def test_what_was_closed_is_the_app_s_error(journal):
    def closed(environ, stored):
        with opened() as file:
            return environ["wsgi.file_wrapper"](file)

    with pytest.raises(Exception, match="closed file"):
        ask(answering(closed), journal)


def test_restored_names_are_those_of_what_the_app_opened(journal):
    stored = seal(TEXT, metadata_text=b'{"name":"r.pdf","type":"application/pdf"}')
    answer = ask(answering(OPENED["itself"], stored=stored), journal, policy=Policy(restore_metadata=True))
    assert answer.headers["content-type"] == "application/pdf"
    assert 'filename="r.pdf"' in answer.headers["content-disposition"]


class Changing(io.BufferedReader):
    def read(self, size=-1):
        return super().read(size).swapcase()


def test_what_may_change_the_bytes_is_not_what_the_app_opened():
    file = opened()
    assert opened_by_app(file) is file
    assert opened_by_app(io.BufferedReader(file)) is file
    assert opened_by_app(Changing(opened())) is None
    for other in (io.BytesIO(), [], None, io.BufferedReader(io.BytesIO())):
        assert opened_by_app(other) is None


READ = {
    "at once": lambda file: [file.read()],
    "its start": lambda file: [file.read(4096)],
    "in pieces": lambda file: iter(lambda: file.read(1000), b""),
    "byte by byte at first": lambda file: [file.read(1) + file.read()],
    "joined": lambda file: [b"".join(file)],
    "from behind": lambda file: [(file.seek(100), file.read(), file.seek(0), file.read())[3]],
    "as a copy": lambda file: [bytes(bytearray(file.read()))],
    "by a framework": lambda file: WerkzeugResponse(file.read()).iter_encoded(),
}


@pytest.mark.parametrize("places", ["undeclared", "protected"])
@pytest.mark.parametrize("stolen", [STOLEN, seal(b"short", label="short victim")], ids=["long", "short"])
@pytest.mark.parametrize("way", READ)
def test_bytes_that_the_app_read_of_an_encrypted_file_are_not_decrypted(way, stolen, places, store, journal):
    """A preview by the app itself, of an upload that was a stolen ciphertext."""
    nested = seal(stolen, label="the thief's upload")
    app = answering(lambda environ, stored: READ[way](opened(stored)), stored=nested)
    answer = ask(app, journal, **ANYWHERE[places](store))
    assert (answer.status, b"victim" in answer.body, b"short" in answer.body) == (500, False, False)
    if way == "its start" and stolen is STOLEN:
        assert journal.events() == [("file.integrity_failure", "failure", "truncated")]
    else:
        assert journal.events() == [("file.decrypt", "failure", "ciphertext_injection")]
    # The genuine file is served by the next request of the same thread.
    app = answering(lambda environ, stored: [stored], stored=stolen)
    assert ask(app, journal, **ANYWHERE[places](store)).status == 200


def test_a_file_that_the_app_opened_is_served_though_it_read_it_in_another_one(journal):
    def both(environ, stored):
        opened(stored).read()
        return opened(STOLEN)

    assert ask(answering(both), journal).body == b"the victim's secret " * 5000
