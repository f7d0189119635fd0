"""Declared places: what comes from there is ciphertext that verifies, and nothing else is decrypted."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from support.frameworks import FRAMEWORKS, make
from support.sealing import OTHER_KEY, seal, seal_1
from support.uploads import KEYRING, Lab
from support.wsgi_client import call, multipart

from securefs import ConfigurationError, Encryptor, Keyring
from securefs.header import MAGIC, PREAMBLE_SIZE, claimed_object_id
from securefs.middleware import Policy, SecureFS
from securefs.middleware.paths import readings

# CherryPy leaves the file of a response that is not sent to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TEXT = b"a stored file " * 500


def sealed(text=TEXT):
    return seal(text, ring=KEYRING)


STORED = sealed()
# What somebody who writes to the storage can put in a file's place.
TAMPERED = {
    **{f"bit {bit} of byte {byte}": (byte, bit) for byte in range(len(MAGIC)) for bit in (0, 7)},
    "zeros": bytes(len(STORED)),
    "zeros in the place of the magic": bytes(8) + STORED[8:],
    "cut to nothing": b"",
    "cut to 5 bytes": STORED[:5],
    "cut to 47 bytes": STORED[:47],
    "cut in a segment": STORED[:-1000],
    "plaintext": b"<script>planted</script>",
    "a file of another key": seal(TEXT, ring=Keyring(OTHER_KEY)),
    "format 1": seal_1(TEXT, bytes(range(32))),
}


def tampered(what):
    if isinstance(what, bytes):
        return what
    byte, bit = what
    changed = bytearray(STORED)
    changed[byte] ^= 1 << bit
    return bytes(changed)


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def protect(tmp_path, journal):
    """Put the middleware before an app."""

    def wrap(app, **options):
        return SecureFS(app, keyring=KEYRING, journal=journal, **options)

    return wrap


def serving(open_it, status="200 OK", headers=()):
    """An app that answers with what ``open_it(environ)`` returns."""

    def app(environ, start_response):
        result = open_it(environ)
        start_response(status, [("Content-Type", "a/b"), *headers])
        return result

    return app


WAYS = {
    "wrapped": lambda path: lambda environ: environ["wsgi.file_wrapper"](path.open("rb")),
    "itself": lambda path: lambda environ: path.open("rb"),
    "without a name": lambda path: (
        lambda environ: environ["wsgi.file_wrapper"](os.fdopen(os.open(path, os.O_RDONLY), "rb"))
    ),
    "unbuffered": lambda path: lambda environ: environ["wsgi.file_wrapper"](path.open("rb", buffering=0)),
    "by a relative name": lambda path: WAYS["wrapped"](Path(os.path.relpath(path))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stored_file_is_served(way, store, protect):
    (store / "f").write_bytes(STORED)
    answer = call(protect(serving(WAYS[way](store / "f")), stores=[store]), watched=way != "itself")
    assert (answer.status, answer.body) == (200, TEXT)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", TAMPERED.values(), ids=TAMPERED)
def test_nothing_else_is_served_from_a_store(way, what, store, protect, journal):
    (store / "f").write_bytes(tampered(what))
    answer = call(protect(serving(WAYS[way](store / "f")), stores=[store]), watched=way != "itself")
    assert answer.status == 500
    assert b"planted" not in answer.body
    assert [event for event, *_ in journal.events()] == ["file.integrity_failure"]


def test_a_store_may_be_reached_by_a_link_and_hold_folders(store, tmp_path, protect):
    (store / "deep" / "er").mkdir(parents=True)
    (store / "deep" / "er" / "f").write_bytes(b"planted")
    (tmp_path / "link").symlink_to(store)
    for declared in (store, tmp_path / "link", str(store), f"{store}/"):
        for opened in (store, tmp_path / "link"):
            app = protect(serving(WAYS["wrapped"](opened / "deep" / "er" / "f")), stores=[declared])
            assert call(app).status == 500


def test_a_link_that_leads_out_of_a_store_is_refused(store, tmp_path, protect):
    (tmp_path / "secret").write_bytes(b"of the machine")
    (store / "f").symlink_to(tmp_path / "secret")
    app = protect(serving(WAYS["wrapped"](store / "f")), stores=[store])
    assert call(app).status == 500
    # By its own name it is a file like others.
    app = protect(serving(WAYS["wrapped"](tmp_path / "secret")), stores=[store])
    assert call(app).body == b"of the machine"


def test_what_is_no_regular_file_is_refused(store, protect):
    os.mkfifo(store / "f")

    def nonblocking(environ):
        return environ["wsgi.file_wrapper"](
            os.fdopen(os.open(store / "f", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        )

    assert call(protect(serving(nonblocking), stores=[store])).status == 500


def test_a_file_that_is_exchanged_while_it_is_open_counts_by_where_it_was(store, protect):
    (store / "f").write_bytes(b"planted")

    def exchanged(environ):
        file = (store / "f").open("rb")
        (store / "f").unlink()
        return environ["wsgi.file_wrapper"](file)

    assert call(protect(serving(exchanged), stores=[store])).status == 500


def test_folders_beside_a_store_are_none(store, tmp_path, protect):
    (tmp_path / "store-of-others").mkdir()
    path = tmp_path / "store-of-others" / "f"
    path.write_bytes(b"a page")
    assert call(protect(serving(WAYS["wrapped"](path)), stores=[store])).body == b"a page"


def test_errors_and_pages_of_the_app_pass(store, protect):
    (store / "f").write_bytes(b"not found: a page of the app's")
    app = protect(serving(WAYS["wrapped"](store / "f"), status="404 Not Found"), stores=[store])
    assert (call(app).status, call(app).body) == (404, b"not found: a page of the app's")
    assert call(protect(serving(lambda _: [b"page"]), stores=[store])).body == b"page"


# --- decryption oracles


def stored_by_the_app(held):
    """Whatever reaches an app that takes bodies in its own way, it gives back."""

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "GET":
            data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if environ.get("CONTENT_TYPE") == "application/json":
                data = base64.b64decode(json.loads(data)["content"])
            if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
                data = gzip.decompress(data)
            held[path] = held.get(path, b"") + data
        start_response("200 OK", [("Content-Type", "a/b")])
        if environ["QUERY_STRING"]:
            return [unquote_to_bytes(environ["QUERY_STRING"])]
        return environ["wsgi.file_wrapper"](io.BytesIO(held.get(path, b"")))

    return app


@pytest.mark.parametrize("declared", ["stores", "protected_paths"])
def test_no_way_of_having_the_app_repeat_bytes_decrypts_them(declared, store, protect, journal, caplog):
    options = (
        {"stores": [store]} if declared == "stores" else {"policy": Policy(protected_paths=("/files/*",))}
    )
    app = protect(stored_by_the_app({}), **options)
    call(app, "PATCH", "/pieces", STORED[:4], [("Content-Type", "application/octet-stream")], length=4)
    rest = STORED[4:]
    call(app, "PATCH", "/pieces", rest, [("Content-Type", "application/octet-stream")], length=len(rest))
    document = json.dumps({"content": base64.b64encode(STORED).decode()}).encode()
    call(app, "PUT", "/json", document, [("Content-Type", "application/json")], length=len(document))
    packed = gzip.compress(STORED)
    call(app, "PUT", "/gzip", packed, [("Content-Encoding", "gzip")], length=len(packed))
    caplog.clear()
    for path, query in (("/pieces", ""), ("/json", ""), ("/gzip", ""), ("/echo", quote_from_bytes(STORED))):
        answer = call(app, path=path, QUERY_STRING=query)
        assert (answer.status, TEXT[:14] in answer.body) == (500, False)
    assert {record["reason"] for record in journal.records("file.decrypt")} == {"undeclared"}
    assert {record["sev"] for record in journal.records("file.decrypt")} == {3}
    assert len(caplog.messages) == 4
    for message in caplog.messages:
        assert message.startswith("'GET' '/"), "which request it was"
        assert "SECUREFS_STORES" in message
        assert "SECUREFS_PROTECTED_PATHS" in message


def test_ciphertext_of_a_status_that_is_no_success_is_not_decrypted_either(store, protect):
    app = protect(serving(lambda _: [STORED], status="404 Not Found"), stores=[store])
    assert call(app).status == 500


def test_on_a_protected_path_a_body_of_any_kind_is_decrypted(store, protect):
    policy = Policy(protected_paths=("/files/*",), stores=(str(store),))
    app = protect(serving(lambda _: iter([STORED])), policy=policy)
    assert call(app, path="/files/1").body == TEXT
    assert call(app, path="/other").status == 500


# What a client adds to the request for a page that repeats bytes, so that it looks like one for a file.
DISGUISES = [
    {"path": "/echo/../files/1"},
    {"path": "/echo/%2e%2e/files/1"},
    {"path": "/echo;/../files/1"},
    {"path": "/echo\xff/../files/1"},
    {"path": "/FILES/1"},
    {"path": "//files/1"},
    {"path": "/files/../echo"},
    {"path": "/files/%252e%252e/echo"},
    {"path": "/files/..;/echo"},
    {"path": "/echo", "headers": [("X-Original-URL", "/files/1")]},
    {"path": "/echo", "headers": [("X-Rewrite-URL", "/files/1")]},
    {"path": "/files/1", "headers": [("X-Original-URL", "/echo")]},
    {"path": "/echo", "headers": [("X-Forwarded-Prefix", "/files")]},
    {"path": "/echo", "headers": [("X-Vhm-Root", "/files")]},
    {"path": "/files/1", "headers": [("X-Vhm-Root", "/echo")]},
    {"path": "/echo", "RAW_URI": "/files/1"},
    {"path": "/echo", "headers": [("Script-Name", "/files")], "SCRIPT_NAME": "/files"},
    {"path": "/files/1", "headers": [("Script-Name", "/echo")], "SCRIPT_NAME": "/echo"},
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("rule", ["protected_paths", "format_1_paths"])
@pytest.mark.parametrize("disguise", DISGUISES, ids=str)
def test_a_page_that_only_looks_like_a_file_decrypts_nothing(disguise, rule, method, protect, journal):
    """A rule that protects takes many paths for its own; to decrypt, all readings must be."""
    policy = Policy(**{"protected_paths": ("/files/*",), rule: ("/files/*",)})
    app = protect(serving(lambda _: iter([STORED])), policy=policy)
    answer = call(app, method, **disguise)
    assert (answer.status, TEXT[:14] in answer.body) == (500, False)
    assert {record["reason"] for record in journal.records("file.decrypt")} == {"undeclared"}


@pytest.mark.parametrize(
    ("path", "script", "pattern"),
    [
        ("/files/1", "", "/files/*"),
        ("/files/1", "/app", "/files/*"),
        ("/files/1", "/app", "/app/files/*"),
        ("/Files/a b.txt", "", "/Files/*"),
        ("/files/%231?.txt", "", "/files/*"),
        ("/files/1/", "", "/files/*"),
        ("/gr%C3%BC%C3%9Fe/1", "", "/gr\u00fc\u00dfe/*"),
    ],
)
def test_a_file_is_decrypted_where_its_path_is_declared(path, script, pattern, protect):
    for rule in ("protected_paths", "format_1_paths"):
        app = protect(serving(lambda _: iter([STORED])), policy=Policy(**{rule: (pattern,)}))
        assert call(app, path=path, SCRIPT_NAME=script).body == TEXT


def test_where_the_app_says_which_file_it_is_the_spelling_makes_no_difference(store, protect):
    def expecting(environ):
        environ["securefs"].expect(claimed_object_id(STORED[:PREAMBLE_SIZE]))
        return iter([STORED])

    policy = Policy(protected_paths=("/files/*",))
    assert call(protect(serving(expecting), policy=policy), path="//files/1").body == TEXT
    (store / "f").write_bytes(STORED)
    app = protect(serving(WAYS["wrapped"](store / "f")), policy=policy, stores=[store])
    assert call(app, path="//files/1").body == TEXT


# --- paths

SPELLINGS = [
    "/files/1",
    "//files/1",
    "///files//1",
    "/./files/1",
    "/x/../files/1",
    "/files/./1",
    "/files/x/../1",
    "/files//1",
    "/\\files/1",
    "/%66iles/1",
    "/%2566iles/1",
    "/files%2F1",
    "/%2e/files/1",
    "/x/%2e%2e/files/1",
    "/FILES/1",
    "/Files/1",
    "/files;v=1/1",
    "/files/1;v=1",
    "/;/files/1",
    "/files/1/",
    "/files/1/.",
    "/files/1/x/..",
]


@pytest.mark.parametrize("path", SPELLINGS)
@pytest.mark.parametrize("script", ["", "/mounted"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_protected_path_is_one_however_it_is_spelled(path, script, method, protect):
    app = protect(serving(lambda _: [b"planted"]), policy=Policy(protected_paths=("/files/*",)))
    assert call(app, method, path, SCRIPT_NAME=script).status == 500
    app = protect(serving(lambda _: [b"planted"]), policy=Policy(protected_paths=("/mounted/files/*",)))
    assert call(app, method, path, SCRIPT_NAME="/mounted").status == 500


@pytest.mark.parametrize("path", ["/", "/file", "/files", "/xfiles/1", "/x/files/1"])
def test_other_paths_are_not_protected(path, protect):
    app = protect(serving(lambda _: [b"a page"]), policy=Policy(protected_paths=("/files/*",)))
    assert call(app, path=path).body == b"a page"


OVERRIDES = [
    {"headers": [("X-HTTP-Method-Override", "GET")]},
    {"headers": [("X-HTTP-Method", "get")]},
    {"headers": [("X-Method-Override", "HEAD")]},
    {"headers": [("X-HTTP-Verb", "GET")]},
    {"headers": [("Method", "POST, GET")]},
    {"QUERY_STRING": "x=1&_method=GET"},
    {"QUERY_STRING": "_METHOD=get"},
    {"QUERY_STRING": "%5Fmethod=GET"},
    {"QUERY_STRING": "x-http-method-override=GET"},
    {"QUERY_STRING": "override-method=GET"},
]
NO_OVERRIDES = [
    {},
    {"headers": [("X-HTTP-Method-Override", "DELETE")]},
    {"headers": [("X-Forwarded-Method", "POST")]},
    {"headers": [("X-Payment-Method", "card")]},
    {"headers": [("Access-Control-Request-Method", "GET")]},
    {"QUERY_STRING": "method=GET"},
    {"QUERY_STRING": "payment_method=GET&x"},
]


@pytest.mark.parametrize("more", OVERRIDES, ids=str)
def test_a_method_that_is_overridden_may_read(more, protect):
    app = protect(serving(lambda _: [b"planted"]), policy=Policy(protected_paths=("/files/*",)))
    assert call(app, "POST", "/files/1", **more).status == 500
    assert call(app, "POST", "/page", **more).status == 200


@pytest.mark.parametrize("more", NO_OVERRIDES, ids=str)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "post"])
def test_what_is_posted_is_answered_by_a_page(method, more, protect):
    app = protect(serving(lambda _: [b"a page"]), policy=Policy(protected_paths=("/files/*",)))
    assert call(app, method, "/files/1", watched=False, **more).status == 200


def test_a_method_that_a_form_names_is_not_looked_for(protect):
    app = protect(serving(lambda _: [b"a page"]), policy=Policy(protected_paths=("/files/*",)))
    kind = [("Content-Type", "application/x-www-form-urlencoded")]
    assert call(app, "POST", "/files/1", b"_method=GET", kind).status == 200


def test_a_request_that_asks_for_leave_is_answered_without_content(protect):
    def leave(environ, start_response):
        start_response("204 No Content", [])
        return []

    policy = Policy(protected_paths=("/files/*",))
    headers = [("X-Original-URL", "/files/1")]
    assert call(protect(leave, policy=policy), headers=headers, watched=False).status == 204
    assert call(protect(serving(lambda _: [b"yes"]), policy=policy), headers=headers).status == 500


@pytest.mark.parametrize("method", ["GET", "HEAD", "get", "Get", "TRACE", "QUERY", "SEARCH", "FETCH", "X"])
def test_other_methods_read_in_whatever_letters(method, protect):
    app = protect(serving(lambda _: [b"planted"]), policy=Policy(protected_paths=("/files/*",)))
    assert call(app, method, "/files/1", watched=False).status == 500
    assert call(app, method, "/page", watched=False).status == 200


METHODS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT", "GET"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rule", ["protected_paths", "format_1_paths"])
def test_a_file_is_one_whatever_the_method(way, method, rule, store, protect):
    """A view that looks at no method serves a file to POST, too."""
    app = protect(serving(WAYS[way](store / "f")), policy=Policy(**{rule: ("/files/*",)}))
    for stored, status, body in (
        (STORED, 200, TEXT),
        (b"planted", 500, None),
        (seal_1(TEXT, bytes(range(32))), 200 if rule == "format_1_paths" else 500, TEXT),
    ):
        (store / "f").write_bytes(stored)
        answer = call(app, method, "/files/1", watched=False)
        assert answer.status == status
        assert answer.body == body or status == 500


@pytest.mark.parametrize("path", SPELLINGS)
def test_a_raw_upload_is_sealed_however_its_path_is_spelled(path, tmp_path):
    seen = {}

    def app(environ, start_response):
        seen["body"] = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return []

    lab = Lab(tmp_path, app, policy=Policy(raw_uploads=("/files/*",)))
    assert lab.post("text/plain", b"secret", path=path).status == 200
    assert seen["body"].startswith(MAGIC)
    lab.close()


@pytest.mark.parametrize("method", ["PUT", "put", "Post", "PATCH"])
def test_an_empty_raw_upload_is_sealed_too(method, protect):
    seen = []

    def app(environ, start_response):
        seen.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    wrapped = protect(app, policy=Policy(raw_uploads=("/files/*",)))
    assert call(wrapped, method, "//files/1", watched=False).status == 200
    assert seen[0].startswith(MAGIC)


def test_readings_of_a_plain_path_are_few():
    assert readings({"SCRIPT_NAME": "", "PATH_INFO": "/files/1"}) == {"/files/1"}


# --- frameworks, configuration, posture


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_no_framework_serves_a_file_that_was_changed(name, declared, store, protect):
    """Undeclared, plaintext is served."""
    # CherryPy reads the file itself, so no store is seen, and an empty body may be a page.
    policy = Policy(protected_paths=("/file/*",) if declared and name == "cherrypy" else ())
    app = protect(make(name, store), policy=policy, **({"stores": [store]} if declared else {}))
    (store / "f").write_bytes(STORED)
    assert call(app, path="/file/f", headers=[("Host", "localhost")], watched=False).body == TEXT
    unseen = {"plaintext", "format 1"} | ({"cut to nothing"} if name == "cherrypy" else set())
    for what, change in TAMPERED.items():
        if declared or what not in unseen:
            (store / "f").write_bytes(tampered(change))
            answer = call(app, path="/file/f", headers=[("Host", "localhost")], watched=False)
            assert (answer.status, b"planted" in answer.body) == (500, False), what


def test_a_store_that_is_no_folder_stops_the_program(store, protect):
    (store / "f").write_bytes(b"")
    for wrong in (store / "missing", store / "f"):
        with pytest.raises(ConfigurationError, match=f"SECUREFS_STORES.*{wrong}"):
            protect(serving(lambda _: []), stores=[wrong])


def test_places_come_from_the_environment(store):
    environ = {
        "SECUREFS_STORES": f"{store}{os.pathsep}{store}",
        "SECUREFS_PROTECTED_PATHS": "/a/*, /b/*",
        "SECUREFS_RAW_UPLOADS": "/c/*",
    }
    policy = Policy.from_env(environ)
    assert policy.stores == (str(store), str(store))
    assert (policy.protected_paths, policy.raw_uploads) == (("/a/*", "/b/*"), ("/c/*",))


def test_an_app_that_declares_nothing_is_told_so(store, protect, journal, caplog):
    caplog.set_level(logging.WARNING, "securefs")
    protect(serving(lambda _: []), stores=[store])
    protect(serving(lambda _: []), policy=Policy(protected_paths=("/files/*",)))
    assert caplog.messages == []
    protect(serving(lambda _: []))
    (message,) = caplog.messages
    assert "SECUREFS_STORES" in message
    protect(serving(lambda _: []), stores=[store])
    journal.check()
    assert journal.records("server.start")[0]["obj"]["places"] == "undeclared", "one of them is enough"


def test_an_app_that_declares_its_places_says_so_in_the_journal(store, protect, journal):
    protect(serving(lambda _: []), stores=[store])
    journal.check()
    assert journal.records("server.start")[0]["obj"]["places"] == "declared"


def test_a_stored_file_of_an_upload_that_streams_is_one(store, protect):
    encryptor = Encryptor(KEYRING)
    (store / "f").write_bytes(encryptor.update(bytes(1_000_000)) + encryptor.finalize())
    app = protect(serving(WAYS["wrapped"](store / "f")), stores=[store])
    assert call(app, headers=[("Range", "bytes=999990-")]).body == bytes(10)


# --- where uploads are accepted


class Unread(io.RawIOBase):
    """A body that nobody may read."""

    def readable(self):
        return True

    def readinto(self, buffer):
        raise AssertionError("a byte of it was read")


FORM = ("multipart/form-data; boundary=B", b"--B--\r\n")


@pytest.mark.parametrize(
    "path", ["/other", "/upload/x", "/upload/../other", "//upload", "/upload;v=1", "/upload/"]
)
def test_forms_are_refused_unread_on_paths_that_expect_none(path, protect, journal):
    app = protect(serving(lambda _: [b"stored"]), policy=Policy(upload_paths=("/upload",)))
    headers = [("Content-Type", FORM[0])]
    answer = call(app, "POST", path, headers=headers, CONTENT_LENGTH="100", **{"wsgi.input": Unread()})
    assert answer.status == 415
    assert journal.events() == [("file.rejected", "failure", "undeclared")]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/upload", "/upload"),
        ("/Upload", "/Upload"),
        ("/upload/", "/upload/"),
        ("/upload/x", "/upload/*"),
        ("/up.load-1", "/up.load-1"),
        ("/gr\u00fc\u00dfe", "/gr\u00fc\u00dfe"),
    ],
)
def test_forms_are_accepted_where_they_are_expected(path, pattern, tmp_path):
    lab = Lab(tmp_path, policy=Policy(upload_paths=(pattern,)))
    assert lab.post(*FORM, path=path).status == 200
    lab.close()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/LD+JSON", 200),
        ("application/xml", 200),
        ("application/soap+xml", 200),
        ("text/plain", 200),
        ("text/csv;header=present", 200),
        ("application/x-www-form-urlencoded", 200),
        ("application/octet-stream", 415),
        ("image/png", 415),
        ("application/jsonx", 415),
        ("application/xjson", 415),
        ("xtext/plain", 415),
        ("application/x-piece", 415),
        ("", 415),
        (None, 415),
    ],
)
def test_bodies_of_other_kinds_are_refused_where_the_policy_says_so(kind, status, protect):
    headers = [] if kind is None else [("Content-Type", kind)]
    for other_bodies, expected in (("refuse", status), ("pass", 200)):
        seen = []

        def app(environ, start_response, seen=seen):
            seen.append(environ["wsgi.input"].read())
            start_response("200 OK", [])
            return [b"ok"]

        wrapped = protect(app, policy=Policy(other_bodies=other_bodies))
        assert call(wrapped, "PUT", "/x", b"body", headers, length=4).status == expected
        assert seen == ([b"body"] if expected == 200 else [])
        assert call(wrapped, "PUT", "/x", b"", headers, length=0).status == 200, "no body, no file"


def test_where_the_system_does_not_tell_what_was_opened_a_name_in_a_store_is_not_enough(
    store, protect, monkeypatch
):
    def untold(_):
        raise FileNotFoundError(2, "there is no /proc")

    (store / "f").write_bytes(STORED)
    app = protect(serving(WAYS["wrapped"](store / "f")), stores=[store])
    monkeypatch.setattr("os.readlink", untold)
    assert call(app).status == 500


@pytest.mark.parametrize("error", [AttributeError, OSError, ValueError, TypeError])
def test_what_has_no_descriptor_is_in_no_store(error, store, protect):
    class Odd(io.BytesIO):
        def fileno(self):
            raise error

    assert (
        call(
            protect(serving(lambda environ: environ["wsgi.file_wrapper"](Odd(b"page"))), stores=[store])
        ).body
        == b"page"
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SECUREFS_OTHER_BODIES": "maybe"}, "^SECUREFS_OTHER_BODIES must be pass or refuse"),
        ({"SECUREFS_OTHER_BODIES": ""}, None),
    ],
)
def test_a_wrong_choice_is_named(environ, message):
    if message is None:
        assert Policy.from_env(environ).other_bodies == "pass"
        return
    with pytest.raises(ConfigurationError, match=message):
        Policy.from_env(environ)
    with pytest.raises(ConfigurationError, match=r"^Policy\.other_bodies must be pass or refuse"):
        Policy(other_bodies="maybe")


def test_choices_come_from_the_environment():
    policy = Policy.from_env({"SECUREFS_OTHER_BODIES": "refuse", "SECUREFS_UPLOAD_PATHS": "/upload,/u/*"})
    assert (policy.other_bodies, policy.upload_paths) == ("refuse", ("/upload", "/u/*"))


def test_a_file_that_is_left_to_the_proxy_is_refused_in_a_store_too(store, protect):
    (store / "f").write_bytes(STORED)
    app = protect(serving(WAYS["wrapped"](store / "f"), headers=[("X-Accel-Redirect", "/f")]), stores=[store])
    assert call(app).status == 500


def test_a_file_of_a_store_behind_something_that_was_written_is_one(store, protect):
    (store / "f").write_bytes(b"planted")

    def app(environ, start_response):
        start_response("200 OK", [])(b"")
        return environ["wsgi.file_wrapper"]((store / "f").open("rb"))

    assert call(protect(app, stores=[store])).status == 500


@pytest.mark.parametrize("path", ["/gr\u00fc\u00dfe/1", "//gr\u00fc\u00dfe/1", "/gr%C3%BC%C3%9Fe/1"])
def test_a_pattern_that_is_not_ascii_protects_its_paths(path, protect):
    app = protect(serving(lambda _: [b"planted"]), policy=Policy(protected_paths=("/gr\u00fc\u00dfe/*",)))
    assert call(app, path=path).status == 500


def test_what_is_logged_of_a_refusal_is_one_line_of_ascii(protect, caplog):
    def inspect(part, chunks):
        raise RuntimeError(f"no scanner for {part.filename}\nGET '/': all is well")

    caplog.set_level(logging.INFO, "securefs")
    app = protect(serving(lambda _: []), inspect=inspect, policy=Policy(protected_paths=("/x",)))
    kind, body = multipart(("f", "\u202e.txt", b"x"))
    assert call(app, "POST", "/\n\x1b", body, [("Content-Type", kind)]).status == 503
    (message,) = caplog.messages
    assert message.isascii()
    assert message.isprintable()
    assert message.startswith("'POST' '/\\n\\x1b': the inspector failed")
