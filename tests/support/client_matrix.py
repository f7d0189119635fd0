"""Upload clients in front of a real server: the cases of docs/clients.md, and what becomes of them.

Each client is a program in ``tests/clients/programs`` that is written as the client's users write
theirs. It is started once, with a file that has one line for each case, its members divided by tabs:
how to send (``plain``, ``stream`` in chunks, ``expect``: wait for 100 Continue), where to upload,
where to download the first file and where to save that, then for each part ``file``, its field, a
path and a file name, or ``field``, its name, its value and its type. The program prints the
client's version, then a line for each case: the status of the upload and that of the download, ``-``
where the client has no such way to send, or what went wrong. It sends the same to the app without
SecureFS.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from securefs import open_encrypted
from securefs.header import MAGIC
from support.client_app import KEYRING
from support.server_matrix import Site, running
from support.servers import ROOT, python_environ

PROGRAMS = ROOT / "tests" / "clients" / "programs"
INSTALLED = Path(sys.prefix) / "clients"  # by `make clients`
REQUIRED = "SECUREFS_TEST_CLIENTS"  # set: a client of the first ten that is missing is a failure
CANARY = b"canary-71c0a9e4d2b8"
MIB = 1024 * 1024
LIMIT = 120  # seconds that one client may take for all its cases

CASES = {
    "ASCII": "a small file, `report.txt`",
    "ü": "a file name that Latin-1 has, `größe.txt`",
    "漢字 😀": "a file name that Latin-1 does not have, `漢字😀.txt`",
    'a"b': 'a quotation mark in the file name, `a"b.txt`',
    "odd": "a space, a semicolon and a percent sign in the file name, `a b;c%41.txt`",
    "a\\b": "a backslash in the file name, `a\\b.txt`",
    "empty": "a file without content",
    "1 MiB": "random bytes, with all line ends and with `--`",
    "several": "three files in one field",
    "fields": "a file, a field with `Zürich 漢字` and one of the type `application/json`",
    "chunked": "1 MiB with `Transfer-Encoding: chunked`, where the client has a way to send a form so",
    "Expect": "1 MiB with `Expect: 100-continue`, where the client offers it",
}
NAMES = {
    "ASCII": ["report.txt"],
    "ü": ["größe.txt"],
    "漢字 😀": ["漢字😀.txt"],
    'a"b': ['a"b.txt'],
    "odd": ["a b;c%41.txt"],
    "a\\b": ["a\\b.txt"],
    "several": ["one.txt", "two.txt", "three.txt"],
}
FIELDS = [("city", "Zürich 漢字", ""), ("data", '{"a": [1, "ü"]}', "application/json")]
MODES = {"chunked": "stream", "Expect": "expect"}


@dataclass(frozen=True)
class Client:
    """A client of the page.

    :ivar command: of its program, without the job. :ivar needs: programs, files (patterns of paths)
        and modules (``python:NAME``) that must be there. :ivar install: what installs it.
        :ivar always: it is one of the ten that continuous integration must have.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...]
    install: str
    always: bool = False

    def missing(self) -> str | None:
        """Return what is not installed, None if nothing is missing."""
        return next((need for need in self.needs if not _is_there(need)), None)

    def environ(self) -> dict[str, str]:
        """Return an environment without proxies, in which programs find what `make clients` installed."""
        kept = {
            name: value
            for name, value in python_environ(NO_PROXY="*", no_proxy="*", LC_ALL="C.UTF-8").items()
            if not name.lower().endswith("http_proxy") and not name.startswith("COVERAGE_")
        }
        return kept | {"NODE_PATH": str(INSTALLED / "node_modules"), "PYTHONPATH": str(INSTALLED / "python")}


def _is_there(need: str) -> bool:
    kind, _, name = need.partition(":")
    if kind == "python":
        return importlib.util.find_spec(name) is not None or (INSTALLED / "python" / name).exists()
    if kind == "npm":
        return (INSTALLED / "node_modules" / name).exists()
    if need.startswith("/"):
        return Path(need).exists()
    return shutil.which(need) is not None


def _python(module: str, program: str) -> Client:
    command = (sys.executable, str(PROGRAMS / program))
    return Client(command, (f"python:{module}",), "make clients", always=True)


def _node(package: str, program: str, *, always: bool = False) -> Client:
    needs = ("node", f"npm:{package}") if package else ("node",)
    return Client(("node", str(PROGRAMS / program)), needs, "make clients", always=always)


def _debian(packages: str, command: str, program: str, *paths: str, always: bool = False) -> Client:
    words = command.split()
    file, *arguments = program.split()
    whole = (*words, str(PROGRAMS / file), *arguments)
    return Client(whole, (words[0], *paths), f"apt-get install {packages}", always=always)


def _java(packages: str, program: str, *jars: str) -> Client:
    paths = [f"/usr/share/java/{jar}.jar" for jar in jars]
    command = f"java -XX:TieredStopAtLevel=1 -cp {os.pathsep.join(paths)}"
    return _debian(f"default-jdk-headless {packages}", command, program, "javac", *paths)


_HTTPCLIENT = ("httpmime", "httpclient", "httpcore", "commons-logging", "commons-codec")


_OLD = INSTALLED / "urllib3-1.24"
CLIENTS = {
    "curl": Client(
        (sys.executable, str(PROGRAMS / "curl.py")), ("curl",), "apt-get install curl", always=True
    ),
    "requests": _python("requests", "with_requests.py"),
    "requests-toolbelt": _python("requests_toolbelt", "with_toolbelt.py"),
    "urllib3": _python("urllib3", "with_urllib3.py"),
    "urllib3 1.24": Client(
        (sys.executable, str(PROGRAMS / "with_urllib3.py"), str(_OLD)),
        (str(_OLD),),
        "make clients",
        always=True,
    ),
    "httpx": _python("httpx", "with_httpx.py"),
    "aiohttp": _python("aiohttp", "with_aiohttp.py"),
    "axios": _node("axios", "axios.cjs", always=True),
    "undici (fetch)": _node("undici", "undici.cjs", always=True),
    "form-data": _node("form-data", "form-data.cjs", always=True),
    "got": _node("got", "got.cjs"),
    "Node.js fetch": _node("", "fetch.cjs"),
    "Go net/http": _debian("golang-go", "go run", "nethttp.go"),
    "LWP (Perl)": _debian("libwww-perl", "perl", "lwp.pl", "/usr/share/perl5/LWP.pm"),
    "Mojolicious (Perl)": _debian("libmojolicious-perl", "perl", "mojo.pl", "/usr/share/perl5/Mojo.pm"),
    "Net::HTTP (Ruby)": _debian("ruby", "ruby", "nethttp.rb"),
    "rest-client (Ruby)": _debian(
        "ruby-rest-client", "ruby", "restclient.rb", "/usr/lib/ruby/vendor_ruby/rest-client.rb"
    ),
    "Faraday (Ruby)": _debian(
        "ruby-faraday ruby-multipart-post", "ruby", "faraday.rb", "/usr/share/doc/ruby-faraday"
    ),
    "HTTP.rb (Ruby)": _debian("ruby-http", "ruby", "httprb.rb", "/usr/lib/ruby/vendor_ruby/http.rb"),
    "curl (PHP)": _debian("php-cli php-curl", "php", "curl.php"),
    "Guzzle (PHP)": _debian(
        "php-cli php-curl php-guzzlehttp-guzzle",
        "php",
        "guzzle.php",
        "/usr/share/php/GuzzleHttp/autoload.php",
    ),
    "Symfony HttpClient (PHP)": _debian(
        "php-cli php-symfony-http-client php-symfony-mime",
        "php",
        "symfony.php",
        "/usr/share/php/Symfony/Component/HttpClient/autoload.php",
        "/usr/share/php/Symfony/Component/Mime/autoload.php",
    ),
    "HttpClient (Mono)": _debian(
        "mono-runtime mono-mcs libmono-system-net-http4.0-cil",
        "sh",
        "mono.sh",
        "/usr/bin/mono",
        "/usr/bin/mcs",
    ),
    "Apache HttpClient 4": _java("libhttpmime-java", "Apache4.java STRICT", *_HTTPCLIENT),
    "Apache HttpClient 4, RFC6532": _java("libhttpmime-java", "Apache4.java RFC6532", *_HTTPCLIENT),
    "Apache HttpClient 5": _java(
        "libhttpclient5-java", "Apache5.java", "httpclient5", "httpcore5", "httpcore5-h2", "slf4j-api"
    ),
    "OkHttp": _java("libokhttp-java", "OkHttp.java", "okhttp", "okio"),
}


@dataclass(frozen=True)
class Seen:
    """What came of one case with one app."""

    line: str
    app: dict
    stored: list[Path]
    downloaded: bytes


@dataclass(frozen=True)
class Sites:
    """The app behind SecureFS, the app without it, and the files that clients send."""

    wrapped: Site
    bare: Site
    files: Path

    def content(self, case: str, number: int) -> Path:
        """Return the file that is sent."""
        large = case in {"1 MiB", "chunked", "Expect"}
        return self.files / ("empty" if case == "empty" else "large" if large else f"small-{number}")


@contextmanager
def sites(folder: Path):
    """Yield the servers, ready to answer, and what is to be sent."""
    for name in ("wrapped", "bare", "sent"):
        (folder / name).mkdir(mode=0o700)
    noise = random.Random(7).randbytes(MIB - 4 * len(CANARY) - 100)
    marks = CANARY + b"\r\n--" + CANARY + b"--\r\n\n\r\0" + CANARY
    (folder / "sent" / "large").write_bytes((noise + marks + b"x" * MIB)[: MIB - len(CANARY)] + CANARY)
    (folder / "sent" / "empty").touch()
    for number in range(3):
        (folder / "sent" / f"small-{number}").write_bytes(CANARY + b" %d\r\n" % number)
    module = "support.client_app"
    with (
        running("gunicorn gthread", folder / "wrapped", module) as wrapped,
        running("gunicorn gthread", folder / "bare", module, MATRIX_BARE="1") as bare,
    ):
        yield Sites(wrapped, bare, folder / "sent")


def _job(site: Site, sent: Sites, key: str, case: str) -> list[str]:
    name = f"{key}-{list(CASES).index(case)}"
    save = site.folder.parent / "sent" / f"{site.folder.name}-{name}"
    line = [MODES.get(case, "plain"), f"{site.url}/upload/{name}", f"{site.url}/file/{name}-0", str(save)]
    for number, filename in enumerate(meant(case)):
        line += ["file", "file", str(sent.content(case, number)), filename]
    for field in FIELDS if case == "fields" else ():
        line += ["field", *field]
    return line


def plaintext(site: Site) -> list[Path]:
    """Return the files under the site's folder, temporary ones and logs among them, that hold what was sent."""
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    return [path for path in files if CANARY in path.read_bytes()]


def unsealed(case: str, seen: Seen, sent: Sites) -> str | None:
    """Return why a stored file is not what was sent, encrypted; None if it is."""
    for number, path in enumerate(seen.stored):
        content = path.read_bytes()
        if not content.startswith(MAGIC):
            return "plaintext"
        with open_encrypted(path, KEYRING) as file:
            if file.read() != sent.content(case, number).read_bytes():
                return "another content"
    return None


def sealed_names(seen: Seen) -> list[str]:
    """Return the names in the containers."""
    names = []
    for path in seen.stored:
        with open_encrypted(path, KEYRING) as file:
            names.append(file.metadata["name"])
    return names


def meant(case: str) -> list[str]:
    """Return the file names that the client was given."""
    return NAMES.get(case, ["report.bin"])


def run(name: str, sent: Sites) -> tuple[str, dict[str, tuple[Seen, Seen]]]:
    """Send all cases with one client. Return its version, and of each case what the two apps saw."""
    client, key = CLIENTS[name], f"c{list(CLIENTS).index(name)}"
    jobs = [_job(site, sent, key, case) for site in (sent.wrapped, sent.bare) for case in CASES]
    job = sent.files / f"{key}.job"
    job.write_text("".join("\t".join(line) + "\n" for line in jobs), "utf-8")
    done = subprocess.run(
        [*client.command, str(job)],
        cwd=sent.files,
        env=client.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    version, *lines = done.stdout.decode("utf-8", "replace").splitlines() or [""]
    told = done.stderr.decode("utf-8", "replace")[-2000:]
    assert len(lines) == len(jobs), f"{name} printed {lines} for {len(jobs)} cases: {told}"
    seen = [_seen(*each) for each in zip(jobs, lines, strict=True)]
    half = len(CASES)
    return version, dict(zip(CASES, zip(seen[:half], seen[half:], strict=True), strict=True))


def _seen(job: list[str], line: str) -> Seen:
    save = Path(job[3])
    folder = save.parent.parent / save.name.partition("-")[0] / "files"
    name = job[1].rpartition("/")[2]
    record = folder / f"{name}.json"
    app = json.loads(record.read_text("utf-8")) if record.exists() else {}
    stored = [folder / f"{name}-{number}" for number in range(len(app.get("files", ())))]
    return Seen(line, app, stored, save.read_bytes() if save.exists() else b"")
