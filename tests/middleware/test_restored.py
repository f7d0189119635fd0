"""What the sealed name and type of a file become: headers that any server sends and any client takes, and nothing that a browser runs."""

from __future__ import annotations

import http.client
import io
import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from socketserver import ThreadingMixIn
from urllib.parse import unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.browsers import chromium, needs_chromium
from support.fuzzing import examples
from support.sealing import SUITES, pattern
from support.servers import wait_until
from support.wsgi_client import call

from securefs import Encryptor, Keyring, Suite
from securefs.middleware import Policy, SecureFS
from securefs.middleware.restored import restored

POLICY = "sandbox; default-src 'none'"
TEXT = pattern(70_000)
RING = Keyring(bytes(range(32)))


def seal(data, suite=Suite.CBC_HMAC, metadata=None):
    encryptor = Encryptor(RING, suite, b"", metadata)
    return encryptor.update(data) + encryptor.finalize()


def named(headers):
    return {name.lower(): value for name, value in headers}


def test_name_and_type_are_restored_and_the_file_is_for_saving():
    own = [("content-type", "image/png"), ("Content-Disposition", "inline"), ("x-content-type-options", "x")]
    found = restored([*own, ("ETag", '"e"')], {"name": "a.html", "type": "text/html"})
    assert found == [
        ("ETag", '"e"'),
        ("Content-Disposition", "attachment; filename=\"a.html\"; filename*=UTF-8''a.html"),
        ("Content-Type", "text/html"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", POLICY),
    ]


@pytest.mark.parametrize("name", [pytest.param({}, id="none"), {"name": ""}, {"name": 5}, {"name": ["a"]}])
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], "attachment"),
        (["inline"], "attachment"),
        (["inline; filename=x"], "attachment"),
        (["form-data; name=attachment"], "attachment"),
        (["attachments"], "attachment"),
        (["attachment", "inline"], "attachment"),
        ([""], "attachment"),
        (["attachment"], "attachment"),
        ([' ATTACHMENT ; filename="report.pdf"'], ' ATTACHMENT ; filename="report.pdf"'),
    ],
    ids=repr,
)
def test_a_file_without_a_name_is_for_saving_too_under_a_name_of_the_app(name, own, expected):
    found = restored([("Content-Disposition", value) for value in own], name)
    assert [value for key, value in found if key == "Content-Disposition"] == [expected]


@pytest.mark.parametrize(
    "own",
    [
        pytest.param("default-src 'self'; script-src 'unsafe-inline'", id="weaker"),
        pytest.param("sandbox; default-src 'none'; frame-ancestors 'none'", id="stricter"),
    ],
)
def test_a_policy_of_the_app_stays_and_a_browser_enforces_both(own):
    found = restored([("Content-Security-Policy", own)], {})
    policies = [value for key, value in found if key == "Content-Security-Policy"]
    assert policies == [own, POLICY]
    assert restored([("content-security-policy", POLICY)], {}).count(("Content-Security-Policy", POLICY)) == 0


@pytest.mark.parametrize(
    "media_type",
    [
        "text/javascript",
        "application/javascript",
        "Text/JavaScript; charset=utf-8",
        "application/x-ecmascript",
        "text/javascript1.5",
        "text/jscript",
        "text/livescript",
        "text/css",
    ],
)
def test_a_script_or_a_style_sheet_is_text_to_a_browser(media_type):
    assert named(restored([], {"type": media_type}))["content-type"] == "text/plain"


@pytest.mark.parametrize(
    "media_type", ["image/png", "text/html; charset=utf-8", "application/json", "text/cssx"]
)
def test_any_other_type_is_restored(media_type):
    assert named(restored([], {"type": media_type}))["content-type"] == media_type


values = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text("./\\:\r\n\0\x7f\x85\u202e\u2028é😀\"';", max_size=400),
    st.integers(),
    st.none(),
    st.lists(st.text(max_size=3), max_size=2),
    st.sampled_from(["😀" * 9000 + ".pdf", "a" * 65_000, "." * 500, "x." + "y" * 400, "text/" + "x" * 200]),
)


@examples(300)
@given(st.fixed_dictionaries({}, optional={"name": values, "type": values, "other": values}))
def test_whatever_is_sealed_every_header_is_short_ascii_and_printable(metadata):
    found = restored([("Content-Type", "image/png")], metadata)
    for name, value in found:
        assert re.fullmatch(r"[A-Za-z-]+", name)
        assert value.isascii()
        assert value.isprintable()
        assert len(value) < 1200
    assert [name for name, _ in found].count("Content-Disposition") == 1
    assert [name for name, _ in found].count("Content-Type") == 1


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("../../.profile", "profile"),
        ("C:\\Users\\a.txt", "a.txt"),
        ("...", "unnamed"),
        ("é" * 200 + ".pdf", "é" * 125 + ".pdf"),
        ("a" * 300 + "." + "b" * 300, "a" * 255),
        ("a" * 251 + ".txt", "a" * 251 + ".txt"),
        ("a" * 252 + ".txt", "a" * 251 + ".txt"),
    ],
)
def test_the_last_component_is_offered_and_no_more_than_a_file_system_takes(name, offered):
    encoded = named(restored([], {"name": name}))["content-disposition"].partition("UTF-8''")[2]
    assert unquote(encoded) == offered


SEALED = {
    "Chinese": {"name": "报告.pdf", "type": "application/pdf"},
    "controls": {"name": "a\r\nSet-Cookie: x=1\0\x7f\x85.txt", "type": "text/plain\r\nX: y"},
    "direction": {"name": "inv\u202efdp.exe", "type": "text/plain; a=\u202e"},
    "long name": {"name": "n" * 65_000 + ".txt"},
    "long name of many bytes": {"name": "\U0001f600" * 16_000},
    "long type": {"type": "text/" + "x" * 65_000},
    "type of 127": {"type": "text/" + "x" * 122},
    "no ASCII type": {"type": "téxt/pläin"},
    "quotes": {"name": "\"';,\\%", "type": 'text/plain; a="\\""'},
    "no text": {"name": {"a": 1}, "type": [1]},
    "path": {"name": "/../..", "type": "/"},
    "multipart": {"type": "multipart/byteranges; boundary=x"},
    "nothing": {},
}
ASKED = {
    "GET": ("GET", None, 200),
    "HEAD": ("HEAD", None, 200),
    "range": ("GET", "bytes=5-9", 206),
    "ranges": ("GET", "bytes=0-1,5-9", 206),
    "beyond": ("GET", "bytes=900000-", 416),
}


def serving(stored, way):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png"), ("Content-Length", str(len(stored)))])
        if way == "file":
            return environ["wsgi.file_wrapper"](io.BytesIO(stored))
        return iter([stored[at : at + 9000] for at in range(0, len(stored), 9000)])

    return app


def wrap(app, journal, **fields):
    return SecureFS(app, keyring=RING, journal=journal, policy=Policy(restore_metadata=True, **fields))


@pytest.mark.parametrize("way", ["file", "generator"])
@pytest.mark.parametrize("metadata", SEALED.values(), ids=SEALED)
@pytest.mark.parametrize("suite", SUITES)
def test_nothing_that_can_be_sealed_makes_a_download_fail(suite, metadata, way, journal):
    """``call`` checks the protocol as servers do; none of the headers is more than some servers and proxies take."""
    app = wrap(
        serving(seal(TEXT, suite, metadata=metadata), way),
        journal,
        verify_first=0 if way == "generator" else None,
    )
    for method, header, status in ASKED.values():
        answer = call(
            app,
            method,
            headers=[("Range", header)] if header else [],
            SERVER_SOFTWARE="gunicorn/27",
        )
        assert answer.error is None
        assert answer.status in ({status} if way == "file" else {200, 206})
        if status == 200 and method == "GET":
            assert answer.body == TEXT
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == POLICY
        assert sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) < 3000


def test_format_1_has_no_metadata_and_is_for_saving_too(journal):
    sealer = RING.format_1_sealer()
    stored = sealer.update(TEXT) + sealer.finalize()
    app = wrap(serving(stored, "file"), journal, format_1_paths=("/",))
    for method in ("GET", "HEAD"):
        answer = call(app, method)
        assert (answer.status, answer.headers["content-disposition"]) == (200, "attachment")
        assert answer.headers["content-security-policy"] == POLICY


def test_without_the_policy_the_headers_are_the_app_s(journal):
    stored = seal(TEXT, metadata={"name": "a", "type": "text/html"})
    answer = call(SecureFS(serving(stored, "file"), keyring=RING, journal=journal))
    assert answer.headers.keys() == {"content-type", "content-length", "accept-ranges", "etag"}


# --- over a socket


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def served(app):
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_client_reads_whatever_was_sealed(journal):
    """http.client takes no header line of more than 64 KiB; a name of 65,000 characters was one."""
    apps = {name: serving(seal(TEXT, metadata=metadata), "file") for name, metadata in SEALED.items()}

    def app(environ, start_response):
        return apps[environ["QUERY_STRING"].replace("+", " ")](environ, start_response)

    with served(wrap(app, journal)) as port:
        for name in apps:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", f"/?{name.replace(' ', '+')}")
            answer = client.getresponse()
            assert (answer.status, answer.read() == TEXT) == (200, True), name
            client.close()


# --- in a browser

SAID = 'fetch("/ran?" + location.pathname + ":%s");'
HTML = f"""<!doctype html><title>evil</title><body onload='{SAID % "onload"}'>
<script>{SAID % "script"}</script><img src="/ran?/USED/image" onerror='{SAID % "onerror"}'>
<form id="f" action="/ran"><input name="/USED/form"></form><script>f.submit()</script>"""
SVG = f"""<svg xmlns="http://www.w3.org/2000/svg" onload='{SAID % "onload"}'><script>{SAID % "script"}</script></svg>"""
XML = f"""<?xml version="1.0"?><a xmlns:h="http://www.w3.org/1999/xhtml"><h:script>{SAID % "script"}</h:script></a>"""
PDF = b"""%PDF-1.7
1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS(this.submitForm('/ran?/USED/pdf'))>>>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj
trailer<</Root 1 0 R>>
"""
DOCUMENTS = {
    "html": ("text/html", HTML.encode()),
    "xhtml": ("application/xhtml+xml", XML.encode()),
    "svg": ("image/svg+xml", SVG.encode()),
    "xml": ("application/xml", XML.encode()),
    "pdf": ("application/pdf", PDF),
}
USED = {
    "js": ("text/javascript", b'fetch("/ran?/USED/js");'),
    "css": ("text/css", b'body { background: url("/ran?/USED/css"); }'),
}
PAYLOADS = DOCUMENTS | USED
# Shows the documents of a folder in every way, uses the others, and reports which frames show one.
PAGE = """<!doctype html><title>page</title><body><script type="module">
const show = async folder => {
  const frames = %(documents)s.map(name => {
    const frame = document.createElement("iframe");
    frame.src = folder + name;
    document.body.append(frame);
    window.open(folder + name);
    const object = document.createElement("object");
    object.data = folder + name;
    document.body.append(object);
    return frame;
  });
  const script = document.createElement("script");
  script.src = folder + "js";
  document.head.append(script);
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = folder + "css";
  document.head.append(style);
  return frames;
};
const shown = frame => {
  try { return frame.contentWindow.location.href !== "about:blank"; } catch { return true; }
};
const go = async step => {
  while (!(await fetch("/go?" + step, {cache: "no-store"})).ok) await new Promise(done => setTimeout(done, 50));
};
const report = (which, frames) => fetch("/report?" + which, {method: "POST", body: JSON.stringify(frames.map(shown))});
const guarded = await show("/files/");
await go("plain");
const plain = await show("/plain/");
await go("report");
await report("files", guarded);
await report("plain", plain);
</script>"""


class Site:
    """Gives the payloads sealed under ``/files/``, and as they are under ``/plain/``; notes what a browser asks for."""

    def __init__(self, journal):
        self.stored = {
            name: seal(
                payload.replace(b"USED", b"files"), Suite.GCM, metadata={"name": f"a.{name}", "type": kind}
            )
            for name, (kind, payload) in PAYLOADS.items()
        }
        self.asked = []
        self.steps = set()
        self.reports = {}
        self.wrapped = wrap(self.respond, journal)

    def respond(self, environ, start_response):
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        self.asked.append(f"{path}?{query}" if query else path)
        _, folder, name = (*path.split("/"), "")[:3]
        if folder == "files":
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](io.BytesIO(self.stored[name]))
        if folder == "plain":
            kind, payload = PAYLOADS[name]
            start_response("200 OK", [("Content-Type", kind)])
            return [payload.replace(b"USED", b"plain")]
        if folder == "report":
            self.reports[query] = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        found = folder != "go" or query in self.steps
        start_response("200 OK" if found else "404 Not Found", [("Content-Type", "text/html")])
        return [(PAGE % {"documents": json.dumps([*DOCUMENTS])}).encode() if path == "/" else b"ok"]

    def shown(self, environ, start_response):
        """The site behind something that takes the disposition away, so that the browser shows the file."""

        def start(status, headers, *rest):
            return start_response(
                status, [pair for pair in headers if pair[0] != "Content-Disposition"], *rest
            )

        return self.wrapped(environ, start)

    def ran(self, folder):
        return {target for target in self.asked if target.startswith("/ran") and folder in target}


@needs_chromium
@pytest.mark.parametrize("way", ["wrapped", "shown"])
def test_nothing_that_was_uploaded_runs_in_chromium(way, tmp_path, journal):
    site = Site(journal)
    with (
        served(partial(getattr(Site, way), site) if way == "shown" else site.wrapped) as port,
        chromium(f"http://127.0.0.1:{port}/", tmp_path, "--disable-popup-blocking"),
    ):
        every = {f"/files/{name}" for name in PAYLOADS}
        wait_until(lambda: every <= set(site.asked), "every file", 60)
        wait_until(
            lambda: all(site.asked.count(f"/files/{name}") >= 3 for name in DOCUMENTS), "every way", 60
        )
        site.steps.add("plain")
        # The same without the headers: what they say shows that it would have been heard.
        heard = {f"/ran?/plain/{name}:script" for name in ("html", "xhtml", "svg", "xml")}
        heard |= {"/ran?/plain/js", "/ran?/plain/css"}
        wait_until(lambda: heard <= site.ran("plain"), "what nothing guards", 60)
        site.steps.add("report")
        wait_until(lambda: site.reports.keys() == {"files", "plain"}, "the page's report", 60)
    print(f"\n{sorted(set(site.asked))}\n{site.reports}")
    assert site.ran("files") == set()
    assert site.reports["plain"] == [True] * len(DOCUMENTS)
    if way == "wrapped":
        assert site.reports["files"] == [False] * len(DOCUMENTS), "offered for saving, and not shown"
