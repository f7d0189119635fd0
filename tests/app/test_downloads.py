"""What the reference app serves of a stored file, as it runs: headers that leave a browser nothing to run, and no file but the one asked for."""

from __future__ import annotations

import re

import pytest
from support.browsers import chromium, needs_chromium
from support.journals import all_records
from support.nginx import nginx, program
from support.servers import app_environ, curl, gunicorn, wait_until

from securefs.app.database import open_database
from securefs.app.tokens import Tokens

HARDENED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
}
# Says that it ran, by each way in which a document can make a browser ask for something.
EVIL = b"""<!doctype html><title>evil</title><body onload="said('onload')">
<script>const said = how => fetch("/ran?" + location.pathname + "&" + how); said("script");</script>
<img src="ran-image" onerror="said('onerror')"><svg onload="said('svg')"></svg>
<meta http-equiv="refresh" content="0;url=javascript:said('refresh')">
<iframe srcdoc="<script>parent.said('srcdoc')</script>"></iframe>
"""
# Opens the file in a frame and in a window; when it is told to go on, a copy of it that nothing
# guards.
PAGE = """<!doctype html><title>page</title><iframe src="%s"></iframe><script type="module">
window.open("%s");
while (!(await fetch("/html/go", {cache: "no-store"})).ok) await new Promise(done => setTimeout(done, 50));
const frame = document.createElement("iframe");
frame.src = "/html/evil.html";
document.body.append(frame);
</script>"""


class Site:
    """A running app with one user, whose token curl reads from a file."""

    def __init__(self, server, folder):
        self.url, self.folder = server.url, folder
        self.files = folder / "data" / "files"
        self.token = Tokens(open_database(folder / "data")).issue("alice").secret
        (folder / "authorization").write_text(f"Authorization: Bearer {self.token}\n")

    def curl(self, *arguments):
        return curl("-H", f"@{self.folder / 'authorization'}", *arguments)

    def upload(self, name, content):
        """Store a file that claims to be HTML; return its path in the URL, and that on the disk."""
        (self.folder / name).write_bytes(content)
        part = f"files=@{self.folder / name};type=text/html"
        (file,) = self.curl("-F", part, f"{self.url}/files").json()["files"]
        return file["url"], self.files / f"{file['id']}.enc"

    def reasons(self):
        found = all_records(self.folder / "journal")
        return [record["reason"] for record in found if record["event"] == "file.integrity_failure"]


@pytest.fixture
def site(tmp_path):
    # One worker: a second one that still boots when the server is told to stop would miss it, for
    # half a minute.
    with gunicorn(tmp_path / "log", app_environ(tmp_path, WEB_CONCURRENCY="1")) as server:
        yield Site(server, tmp_path)


WHOLE = ("whole", [], 200)
PART = ("part", ["-r", "0-3"], 206)
PARTS = ("parts", ["-r", "0-3,6-7"], 206)
NO_PART = ("no part", ["-r", "900000-"], 416)
HEAD = ("head", ["-I", "-o", "/dev/null"], 200)


@pytest.mark.parametrize(
    ("options", "status"),
    [pytest.param(options, status, id=name) for name, options, status in (WHOLE, PART, PARTS, NO_PART, HEAD)],
)
def test_every_answer_with_a_file_is_for_saving_and_runs_nothing(options, status, site):
    path, _ = site.upload("x.html", EVIL)
    reply = site.curl(*options, site.url + path)
    assert reply.status == status
    expected = HARDENED | {
        "content-disposition": "attachment; filename=\"x.html\"; filename*=UTF-8''x.html",
        "cache-control": "private, no-store",
    }
    assert {name: reply.header(name) for name in expected} == expected
    kind = reply.header("content-type")
    assert kind == "application/octet-stream" or kind.startswith("multipart/byteranges; ")


@pytest.mark.parametrize(
    "options", [[], ["-r", "0-3"], ["-I", "-o", "/dev/null"]], ids=["whole", "part", "head"]
)
def test_every_answer_without_the_file_runs_nothing_either(options, site):
    path, stored = site.upload("x.html", EVIL)
    stored.write_bytes(stored.read_bytes()[:-1])
    asked = {
        500: site.curl(*options, site.url + path),
        404: site.curl(*options, f"{site.url}/files/{'0' * 64}"),
        401: curl(*options, site.url + path),
    }
    for status, reply in asked.items():
        assert reply.status == status
        assert {name: reply.header(name) for name in HARDENED} == HARDENED
        assert "no-store" in reply.header("cache-control")
        assert reply.header("content-type") == "application/problem+json"


@pytest.mark.parametrize(
    "options", [[], ["-r", "0-3"], ["-I", "-o", "/dev/null"]], ids=["whole", "part", "head"]
)
def test_an_older_version_in_the_place_of_a_newer_one_is_refused(options, site):
    """Both are genuine files of the same owner, and of the same name."""
    _, old = site.upload("report.html", b"the first version")
    path, new = site.upload("report.html", b"the second version")
    assert site.curl(*options, site.url + path).status in {200, 206}
    new.write_bytes(old.read_bytes())
    reply = site.curl(*options, site.url + path)
    assert (reply.status, b"first" in reply.body) == (500, False)
    assert site.reasons() == ["wrong_object"]


@needs_chromium
@pytest.mark.skipif(program() is None, reason="nginx is not installed: apt-get install nginx-light")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param("", id="as it is"),
        pytest.param(
            "proxy_hide_header Content-Disposition; proxy_hide_header Content-Type; add_header Content-Type text/html;",
            id="shown as HTML",
        ),
    ],
)
def test_html_that_was_uploaded_never_runs_in_chromium(settings, site, tmp_path):
    """Opened as a page and in a frame of the app's own origin. nginx signs the browser in, and logs what it asks for."""
    path, _ = site.upload("evil.html", EVIL)
    root, log = tmp_path / "root", tmp_path / "access.log"
    (root / "html").mkdir(parents=True)
    (root / "html" / "evil.html").write_bytes(EVIL)
    (root / "html" / "page.html").write_text(PAGE % (path, path))
    proxied = (
        f"access_log {log}; location /html/ {{ types {{ text/html html; }} }} location /ran {{ return 204; }} location / {{"
        f' proxy_pass {site.url}; proxy_set_header Authorization "Bearer {site.token}"; {settings} }}'
    )

    def asked(start):
        return [target for target in re.findall(r'"GET (\S+) ', log.read_text()) if target.startswith(start)]

    with (
        nginx(root, tmp_path, proxied) as server,
        chromium(f"{server.url}/html/page.html", tmp_path, "--disable-popup-blocking"),
    ):
        wait_until(lambda: asked(path)[1:], "the page and the frame")
        (root / "html" / "go").touch()
        # The same document without the headers: what it says shows that it would have been heard.
        wait_until(lambda: "/ran?/html/evil.html&script" in asked("/ran"), "the copy that nothing guards")
    print(f"\n{asked('/ran')}")
    assert asked(path) == [path, path]
    assert not [target for target in asked("/ran") if target.startswith(f"/ran?{path}")]
    assert not asked("/files/ran-image")
