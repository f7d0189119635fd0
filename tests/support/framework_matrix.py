"""Every framework on every server: the cases of docs/matrix.md, and a client that uploads through each framework's idiom.

:func:`sites` starts one row of the matrix, each server a process of its own, and the bare app
beside them. :func:`try_all` takes one of them through the cases: what is stored must be containers
that decrypt to what was sent, under the names that the bare app would have got.
"""

from __future__ import annotations

import html
import json
import random
import re
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

from securefs import open_encrypted
from securefs.header import MAGIC
from securefs.middleware.filename import decode
from support import server_table
from support.framework_app import KEYRING, PASSWORD
from support.hostile_corpus import Expected
from support.server_matrix import SERVERS as ALL_SERVERS
from support.server_matrix import TIMEOUT, Site, running, version
from support.uploads import BROWSER_TYPE, MIB, browser_body

# wsgiref is for trying things out.
SERVERS = tuple(server for server in ALL_SERVERS if server != "wsgiref")
BARE_SERVER = "cheroot"  # what a bare app makes of a form is not the server's affair
CANARY = b"canary-5d0b7f3e91c6"
MANY = 20  # files in one request
NAMES = ("größe.txt", "日本.txt", "a%22b.txt")  # the last is a"b.txt as browsers write it

Files = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Outcome:
    """What an app answered to an upload: the names that it saw, and where under its folder it stored the files."""

    names: list[str]
    stored: list[str]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Browser:
    """A client with cookies on one connection, or one for each request where the server keeps none.

    :ivar kept: of each response, whether the connection stayed.
    """

    port: int
    keeps: bool
    cookies: dict[str, str] = field(default_factory=dict)
    kept: list[bool] = field(default_factory=list)

    def __enter__(self):
        self.connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        return self

    def __exit__(self, *_error: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.connection.request(method, path, body, sent)
        with self.connection.getresponse() as response:
            content = response.read()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        self.kept.append(self._stays())
        return Answer(
            response.status, {name.lower(): value for name, value in response.headers.items()}, content
        )

    def _stays(self) -> bool:
        """Return whether the connection is still there; of a server that keeps none, wait for its end, which not all announce."""
        if self.connection.sock is None or self.keeps:
            return self.connection.sock is not None
        with suppress(ConnectionResetError):
            assert self.connection.sock.recv(1) == b"", "more than the response"
        self.connection.close()
        return False

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def token(self, path: str) -> str:
        """Return the token against cross-site requests in the form at ``path``."""
        page = self.get(path)
        assert page.status == 200, page
        return re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)[1].decode()

    def submit(self, path: str, fields: dict[str, str], files: list[tuple[str, str, bytes]]) -> Answer:
        """Send a form: its fields, then (field, name, content) of each file."""
        parts = [Expected(name, value.encode()) for name, value in fields.items()]
        parts += [Expected(name, data, filename, "text/plain") for name, filename, data in files]
        return self.ask("POST", path, browser_body(parts), Content_Type=BROWSER_TYPE)


def by_view(browser: Browser, files: Files) -> Outcome:
    """Upload to an app of :mod:`support.frameworks`, which numbers what it stores."""
    answer = browser.submit("/upload", {}, [("file", name, data) for name, data in files])
    assert answer.status == 200, answer
    names = [name for _, name, _ in json.loads(answer.body)["files"]]
    return Outcome(names, [f"{number}.bin" for number in range(len(names))])


def by_model_form(browser: Browser, files: Files) -> Outcome | None:
    """Upload one file by a form, several by a set of them; None where the form finds them wrong."""
    many = len(files) > 1
    path = "/add-many" if many else "/add"
    fields = {"csrfmiddlewaretoken": browser.token(path)}
    if many:
        fields |= {"form-TOTAL_FORMS": str(len(files)), "form-INITIAL_FORMS": "0"}
    inputs = [(f"form-{n}-file" if many else "file", *file) for n, file in enumerate(files)]
    return _outcome(browser.submit(path, fields, inputs))


def by_serializer(browser: Browser, files: Files) -> Outcome | None:
    """Upload to the REST framework's view set; None where the serializer finds the files wrong."""
    return _outcome(browser.submit("/api/documents/", {}, [("files", *file) for file in files]))


def _outcome(answer: Answer) -> Outcome | None:
    if answer.status == 400 and b"submitted file is empty" in answer.body:
        return None
    assert answer.status in {200, 201}, answer
    document = json.loads(answer.body)
    return Outcome(document["names"], document["stored"])


def log_in(browser: Browser) -> None:
    """Log in to the admin by its form."""
    form = {"csrfmiddlewaretoken": browser.token("/admin/login/"), "username": "admin", "password": PASSWORD}
    kind = "application/x-www-form-urlencoded"
    answer = browser.ask("POST", "/admin/login/?next=/admin/", urlencode(form).encode(), Content_Type=kind)
    assert (answer.status, answer.headers["location"]) == (302, "/admin/"), answer


def by_admin(browser: Browser, files: Files) -> Outcome | None:
    """Add a document, or a folder of several, and read on the page of what was added where they are."""
    if "sessionid" not in browser.cookies:
        log_in(browser)
    many = len(files) > 1
    path = f"/admin/django_site/{'folder' if many else 'document'}/add/"
    fields = {"csrfmiddlewaretoken": browser.token(path), "_continue": "1"}
    if many:
        counts = {"TOTAL": len(files), "INITIAL": 0, "MIN_NUM": 0, "MAX_NUM": 1000}
        fields |= {f"document_set-{name}_FORMS": str(count) for name, count in counts.items()}
        fields["name"] = "many"
    inputs = [(f"document_set-{n}-file" if many else "file", *file) for n, file in enumerate(files)]
    answer = browser.submit(path, fields, inputs)
    if answer.status == 200 and b"submitted file is empty" in answer.body:
        return None
    assert answer.status == 302, answer
    page = browser.get(answer.headers["location"]).body.decode()
    stored = [unquote(html.unescape(link)) for link in re.findall(r'<a href="/file/([^"]+)"', page)]
    return Outcome(stored, stored)


@dataclass(frozen=True)
class Row:
    """A framework as it is used. ``app`` names it to :mod:`support.framework_app`."""

    distribution: str
    app: str
    upload: Callable[[Browser, Files], Outcome | None]


ROWS = {
    "Werkzeug": Row("werkzeug", "werkzeug", by_view),
    "Flask": Row("flask", "flask", by_view),
    "Django, function view": Row("django", "django", by_view),
    "Django, ModelForm": Row("django", "project", by_model_form),
    "Django, admin": Row("django", "project", by_admin),
    "Django REST framework": Row("djangorestframework", "project", by_serializer),
    "Bottle": Row("bottle", "bottle", by_view),
    "Pyramid": Row("pyramid", "pyramid", by_view),
    "Falcon": Row("falcon", "falcon", by_view),
    "CherryPy": Row("cherrypy", "cherrypy", by_view),
}


def keeps_connections(server: str) -> bool:
    """Return whether a server keeps connections for another request, as docs/servers.md says."""
    return server_table.expected(server, "upload").endswith("kept")


def content(size: int) -> bytes:
    """Return data to upload: the canary in every KiB, the rest random, the same each time."""
    block = random.Random(size).randbytes(1024 - len(CANARY)) + CANARY
    return (block * (size // 1024 + 1))[:size]


@dataclass
class Trial:
    """One app on one server in one case, over one connection."""

    row: str
    folder: Path
    browser: Browser

    def upload(self, files: Files) -> Outcome | None:
        return ROWS[self.row].upload(self.browser, files)

    def store(self, files: Files, bare: Outcome | None) -> Outcome:
        """Upload, and hold what was stored and the names against what was sent and what the bare app made of it."""
        outcome = self.upload(files)
        assert outcome is not None, "refused"
        if bare is not None:
            assert outcome.names == bare.names
        for (name, data), place in zip(files, outcome.stored, strict=True):
            path = self.folder / "files" / place
            assert path.read_bytes()[: len(MAGIC)] == MAGIC
            with open_encrypted(path, KEYRING) as file:
                assert file.metadata == {"name": decode(name), "type": "text/plain"}
                assert file.read() == data
        leaks = [path for path in self.folder.rglob("*") if path.is_file() and CANARY in path.read_bytes()]
        assert not leaks, f"plaintext in {leaks}"
        return outcome

    def fetch(self, place: str, **headers: str) -> Answer:
        return self.browser.get(f"/file/{quote(place)}", **headers)

    def end(self) -> None:
        """Every response kept the connection, or none did, and a plain page is answered after them."""
        assert self.browser.get("/page/").body == b"plain page\n"
        assert set(self.browser.kept) == {self.browser.keeps}, f"connection kept: {self.browser.kept}"


# What an upload case sends.
UPLOADS: dict[str, Files] = {
    "small file": [("small.txt", content(1500))],
    "10 MiB": [("large.txt", content(10 * MIB))],
    "many files": [(f"many-{number}.txt", content(3000 + number)) for number in range(MANY)],
    "empty file": [("empty.txt", b"")],
    "names": [(name, content(2000 + number)) for number, name in enumerate(NAMES)],
}
DATA = content(3 * MIB + 17)
FIRST, LAST = 1_000_000, 1_100_000  # bytes of a range


def download(trial: Trial) -> Answer:
    (place,) = trial.upload([("download.txt", DATA)]).stored
    return trial.fetch(place)


def part(trial: Trial) -> Answer:
    (place,) = trial.upload([("range.txt", DATA)]).stored
    return trial.fetch(place, Range=f"bytes={FIRST}-{LAST}")


def holds(case: str, trial: Trial, bare: object) -> str | None:
    """Take ``trial`` through a case; return the key of a note where the bare app would have answered otherwise."""
    if case in UPLOADS:
        outcome = trial.store(UPLOADS[case], bare)
        for (_, data), place in zip(UPLOADS[case], outcome.stored, strict=True):
            answer = trial.fetch(place)
            assert (answer.status, answer.body) == (200, data)
        if bare is None:
            return "empty"
        return "latin-1" if NAMES[0].encode().decode("latin-1") in bare.names else None
    if case == "download":
        answer = download(trial)
        assert (answer.status, answer.body) == (200, DATA)
        assert answer.headers["content-length"] == str(len(DATA))
        return None
    if case == "range":
        answer = part(trial)
        assert (answer.status, answer.body) == (206, DATA[FIRST : LAST + 1])
        # Of a body that is read once, nothing proves yet where it ends.
        assert answer.headers["content-range"] in {
            f"bytes {FIRST}-{LAST}/{len(DATA)}",
            f"bytes {FIRST}-{LAST}/*",
        }
        return "range" if bare.status == 200 else None
    for number, data in enumerate((content(5000), DATA)):
        outcome = trial.store([(f"again-{number}.txt", data)], None)
        assert trial.fetch(outcome.stored[0]).body == data
    return None


CASES = {
    "small file": "1,500 bytes",
    "10 MiB": "a file that streams",
    "many files": f"{MANY} files in one request; with a ModelForm as a form set, in the admin as an inline",
    "empty file": "a name and no content",
    "names": '`größe.txt`, `日本.txt` and `a"b.txt` in one request',
    "download": "a file of 3 MiB, whole, with its Content-Length",
    "range": f"{LAST - FIRST + 1:,} bytes out of the middle of 3 MiB",
    "connection": "upload, download, upload and download again, over one connection where the server keeps it",
}
# What differs without us, or looks wrong and is the framework's own.
NOTES = {
    "empty": "Django's forms and serializers refuse an empty file. Here they see a container, which is not empty, so they accept it. "
    "Its download is empty again. If that matters, an inspector can refuse it.",
    "range": "`FileResponse` of Django and streams of Falcon do not support ranges; SecureFS adds them.",
    "latin-1": "CherryPy reads UTF-8 names as Latin-1, with SecureFS as without. The name in the container is right.",
}


def expectations(row: str, site: Site) -> dict[str, object]:
    """Return what the bare app makes of each case that depends on it."""
    seen: dict[str, object] = {}
    with Browser(site.server.port, keeps_connections(BARE_SERVER)) as browser:
        trial = Trial(row, site.folder, browser)
        for case, files in UPLOADS.items():
            seen[case] = trial.upload(files)
        seen["range"] = part(trial)
    return seen


def try_all(row: str, site: Site, bare: dict[str, object]) -> dict[str, str | None]:
    """Return {case: None, the key of a note, or how it failed}."""
    seen = {}
    for case in CASES:
        try:
            with Browser(site.server.port, keeps_connections(site.name)) as browser:
                trial = Trial(row, site.folder, browser)
                seen[case] = holds(case, trial, bare.get(case))
                trial.end()
        except (AssertionError, HTTPException, OSError) as error:
            seen[case] = "failed: " + "".join(traceback.format_exception(error, limit=-2))[-2000:]
    return seen


@contextmanager
def sites(row: str, folder: Path):
    """Yield {server: site} of the servers that are installed, started all at once, and under "bare" the app without us."""
    with ExitStack() as stack:

        def start(server: str, name: str, **variables: str) -> Site:
            own = folder / name.replace(" ", "-")
            own.mkdir()
            variables["MATRIX_ROW"] = ROWS[row].app
            return stack.enter_context(running(server, own, "support.framework_app", **variables))

        with ThreadPoolExecutor(len(SERVERS) + 1) as pool:
            pending = {name: pool.submit(start, name, name) for name in SERVERS if version(name)}
            pending["bare"] = pool.submit(start, BARE_SERVER, "bare", MATRIX_BARE="1")
        started = {name: future.result() for name, future in pending.items()}
        yield started
        for site in started.values():
            site.server.process.terminate()
