"""What real frameworks make of our bodies: the same fields, files and names as of a current browser's body without us."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from support import multipart_table
from support.frameworks import FRAMEWORKS, make
from support.hostile_corpus import accepted, load, params
from support.uploads import BROWSER_TYPE, KEYRING, MIB, Lab, browser_body
from support.wsgi_client import call

from securefs import Suite, open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy
from securefs.middleware.spool import HELD_IN_MEMORY

# Frameworks leave temporary files to the garbage collector, which may come at any time.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CANARY = b"canary-9f2c61d07be4"


class Pair:
    """One framework's app twice: bare, and behind the middleware."""

    def __init__(self, name: str, folder: Path, **policy) -> None:
        self.name = name
        self.plain, self.sealed = folder / "plain", folder / "sealed"
        self.plain.mkdir()
        self.sealed.mkdir()
        self.bare = make(name, self.plain)
        self.lab = Lab(folder, make(name, self.sealed), policy=Policy(**policy))

    def send_bare(self, content_type, body):
        empty(self.plain)
        return call(
            self.bare,
            "POST",
            "/upload",
            b"",
            [("Host", "localhost"), ("Content-Type", content_type), ("Content-Length", str(len(body)))],
            **{"wsgi.input": io.BytesIO(body)},
        )

    def send(self, content_type, body, **options):
        empty(self.sealed)
        return self.lab.post(content_type, body, **options)

    def let_go(self):
        """Make the framework forget the last request, which some keep in a thread's storage, with its files."""
        self.send(BROWSER_TYPE, browser_body([]))
        gc.collect()

    def stored(self):
        """Return what the wrapped app stored, decrypted; a file in plaintext fails."""
        return {path.name: open_stored(path.read_bytes()) for path in self.sealed.iterdir()}

    def stored_bare(self):
        return {path.name: path.read_bytes() for path in self.plain.iterdir()}


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def open_stored(data: bytes) -> bytes:
    if not data:
        return data  # an empty file input
    assert data.startswith(MAGIC), "stored in plaintext"
    with open_encrypted(io.BytesIO(data), KEYRING) as file:
        return file.read()


@pytest.fixture(scope="module", params=FRAMEWORKS)
def pair(request, tmp_path_factory):
    pair = Pair(request.param, tmp_path_factory.mktemp(request.param))
    yield pair
    pair.lab.close()


@pytest.mark.parametrize("case", params([case for case in accepted() if not case.policy]))
def test_an_app_sees_what_it_would_have_seen_of_a_browser(pair, case):
    bare = pair.send_bare(BROWSER_TYPE, browser_body(case.parts))
    empty(pair.sealed)
    wrapped = pair.lab.send(case)
    assert wrapped.status == bare.status
    if bare.status == 200:
        assert json.loads(wrapped.body) == json.loads(bare.body)
    else:
        # Fields that are no text, and names of 8 KiB, are too much for some frameworks, whoever
        # sends them.
        assert case.name in {"field-begins-as-ciphertext", "header-8-kib"}
    assert pair.stored() == pair.stored_bare()


@pytest.mark.parametrize("case", params([case for case in accepted() if not case.policy]))
def test_what_the_bare_app_takes_for_a_file_is_a_file(pair, case):
    """Whichever of its readings of a client's own body a framework would have chosen, no file is left in plaintext."""
    empty(pair.plain)
    with contextlib.suppress(Exception):
        pair.send_bare(case.content_type, case.body)
    fields = [part.content for part in case.parts if part.filename is None]
    for content in pair.stored_bare().values():
        assert not content or content not in fields, "a file for the framework, a field for us"


# What frameworks make of these file names differs: escaped quotes, encoded words, filename*, quotes
# that nobody escaped. And one is shortened.
NAMED_OTHERWISE = {
    "client-curl-old",
    "client-dotnet-encoded-word",
    "client-go",
    "client-guzzle-quote",
    "client-react-native",
    "client-react-native-escaped",
    "client-retrofit",
    "client-retrofit-space",
    "client-spring",
    "client-urllib3-1",
}


@pytest.mark.parametrize("case", params([case for case in load() if case.name.startswith("client-")]))
def test_a_client_s_own_body_is_refused_or_read_as_the_bare_app_reads_it(pair, case):
    wrapped = pair.send(case.content_type, case.body)
    if case.status:
        assert wrapped.status == case.status
        assert pair.stored() == {}
        return
    assert wrapped.status == 200
    if case.name in NAMED_OTHERWISE:
        # Their names arrive as a current browser would have sent them; bare frameworks differ on
        # them.
        return
    bare = pair.send_bare(case.content_type, case.body)
    if bare.status != 200:
        # Falcon refuses every Content-Transfer-Encoding; it does not see any now.
        assert (pair.name == "falcon" and b"Content-Transfer-Encoding" in case.body) or (
            (pair.name, case.name) == ("bottle", "client-curl-trailing-semicolon")
        )
        return
    seen, expected = json.loads(wrapped.body), json.loads(bare.body)
    for parts in (seen["files"], expected["files"]):
        for part in parts:
            # A file that came without a type gets the one that RFC 7578 leaves to the reader.
            part[2] = part[2] or "application/octet-stream"
            if part[2] == "text/plain" and case.parts[-1].content_type == "application/octet-stream":
                part[2] = "application/octet-stream"
    assert seen == expected
    assert pair.stored() == pair.stored_bare()


LONG = "----geckoformboundary00112233445566778899aabbccddeeff"


def large_body(size: int, tail: bytes = b"") -> bytes:
    """Return a body with a field, a file of ``size`` bytes, and whatever follows."""
    return body_of((CANARY * (size // len(CANARY) + 1))[:size], tail)


def body_of(data: bytes, tail: bytes = b"") -> bytes:
    head = f'--{LONG}\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--{LONG}\r\n'
    head += 'Content-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
    return head.encode() + data + b"\r\n" + tail + f"--{LONG}--\r\n".encode()


@pytest.mark.parametrize("size", [pytest.param(2 * MIB + n, id=f"+{n}") for n in (0, 1, 15, 16)])
def test_the_padding_of_a_streamed_body_is_invisible(pair, size):
    """Padding is odd for some of these sizes and even for others: the lone LF harms no framework."""
    body = large_body(size)
    answer = pair.send(BROWSER_TYPE, body)
    assert answer.status == 200, answer.error
    assert json.loads(answer.body)["fields"] == [["x", "y"]]
    assert pair.stored() == {"0.bin": (CANARY * (size // len(CANARY) + 1))[:size]}


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"x", id="garbled boundary"),
        pytest.param(
            f'--{LONG}\r\nContent-Disposition: form-data; name="g"; filename*0=b\r\n\r\n'.encode()
            + CANARY
            + b"\r\n",
            id="filename*0",
        ),
        pytest.param(
            f'--{LONG}\r\nContent-Disposition: form-data; name="g"\r\n\r\n'.encode() + MAGIC + b"\r\n",
            id="ciphertext in a field",
        ),
    ],
)
def test_nothing_is_stored_of_a_body_that_turns_out_bad_while_it_streams(pair, tail):
    answer = pair.send(BROWSER_TYPE, large_body(2 * MIB, tail))
    assert answer.status == 400
    assert not any(CANARY in path.read_bytes() for path in pair.sealed.iterdir())
    complete = [path for path in pair.sealed.iterdir() if path.stat().st_size > 2 * MIB]
    # Falcon hands parts out one by one: the first was whole when the app stored it, and the journal
    # says so.
    assert not complete or (pair.name == "falcon" and len(complete) == 1)
    pair.let_go()


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_no_position_of_a_boundary_at_the_edge_of_a_read_costs_a_byte(pair, tmp_path, suite):
    """Every framework here reads in multiples of 8 KiB: the end of the body moves over such an edge byte by byte."""
    lab = Lab(tmp_path, pair.lab.app, policy=Policy(suite=suite))
    closing = len(LONG) + 8  # bytes of the last delimiter, whose end is the body's
    start = 65536 - 16
    while length_of_rewritten(lab, large_body(start)) > 65536 - 8:
        start -= 16
    seen = set()
    for size in range(start, start + closing + 32):
        empty(pair.sealed)
        data = os.urandom(size - 2) + b"\r\n"
        answer = lab.post(BROWSER_TYPE, body_of(data))
        assert answer.status == 200
        assert json.loads(answer.body)["fields"] == [["x", "y"]]
        assert pair.stored() == {"0.bin": data}, size
        seen.add(length_of_rewritten(lab, body_of(data)) - 65536)
    # Suite 1 grows by blocks of 16 bytes: there some positions are skipped.
    assert min(seen) < 0
    assert max(seen) > closing
    lab.close()
    pair.let_go()


def length_of_rewritten(lab, body) -> int:
    lengths = []

    def app(environ, start_response):
        lengths.append(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [])
        return []

    inner, lab.wrapped._app = lab.wrapped._app, app
    lab.post(BROWSER_TYPE, body)
    lab.wrapped._app = inner
    return lengths[0]


def test_no_position_of_what_follows_a_file_costs_a_byte(pair, tmp_path):
    """A field's header and a file's, with the beginnings of both, move over the edge of a read byte by byte."""
    lab = Lab(tmp_path, pair.lab.app, policy=Policy(suite=Suite.GCM))
    head = f"--{LONG}\r\nContent-Disposition: form-data; name="
    tail = f'{head}"y"\r\n\r\nz\r\n{head}"g"; filename="b.bin"\r\nContent-Type: text/plain\r\n\r\nsecond\r\n'.encode()
    container = 700  # bytes: more than the second file's
    start = 65536 - length_of_rewritten(lab, body_of(b"", tail))
    assert length_of_rewritten(lab, body_of(bytes(start), tail)) in range(65536, 65536 + 100)
    data = os.urandom(start + container + len(tail))
    for size in range(start, len(data)):
        empty(pair.sealed)
        answer = lab.post(BROWSER_TYPE, body_of(data[:size], tail))
        assert answer.status == 200
        assert json.loads(answer.body)["fields"] == [["x", "y"], ["y", "z"]]
        assert pair.stored() == {"0.bin": data[:size], "1.bin": b"second"}, size
    # The whole tail has passed the edge.
    assert length_of_rewritten(lab, body_of(data, tail)) > 65536 + container + len(tail)
    lab.close()
    pair.let_go()


BREAKS = {"3.1.3", "3.1.5", "3.1.6", "3.1.8"}  # versions on which full reads lose a part at some position


@pytest.mark.parametrize("version", [None, "3.1.3", "3.1.4", "3.1.5", "3.1.6", "3.1.8"])
def test_no_version_of_werkzeug_loses_a_byte(version, tmp_path):
    """Set SECUREFS_TEST_VERSIONS=1 to let pip fetch others than the installed one into a temporary folder."""
    if version is not None:
        fetch_werkzeug(version, tmp_path)
    root = Path(__file__).resolve().parents[2]
    paths = [str(tmp_path), str(root), str(root / "tests")]
    done = subprocess.run(
        [sys.executable, "-m", "support.werkzeug_sweep"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("version") == (version or metadata.version("werkzeug"))
    assert len(found) == 10
    for counted in found.values():
        assert (counted["bad"], counted["missed"]) == (0, 0), found
    if version in BREAKS:
        # The sweep sees what it looks for.
        assert sum(counted["control"] for counted in found.values()), found


def fetch_werkzeug(version, folder):
    if not os.environ.get("SECUREFS_TEST_VERSIONS"):
        pytest.skip("SECUREFS_TEST_VERSIONS is not set: other versions are not fetched")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, f"werkzeug=={version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"werkzeug {version} can't be installed: {done.stderr.strip().splitlines()[-1]}")


def test_the_page_on_how_parsers_differ_is_current():
    page = multipart_table.PAGE.read_text("utf-8")
    if multipart_table.versions() not in page:
        pytest.skip(f"made with other versions than {multipart_table.versions()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert multipart_table.page() == page, "run tests/support/multipart_table.py"
        gc.collect()


def test_bodies_that_are_spooled_to_a_file_arrive_the_same(pair, tmp_path):
    lab = Lab(tmp_path, pair.lab.app, policy=Policy(spool=True))
    size = HELD_IN_MEMORY + 12345
    empty(pair.sealed)
    assert lab.post(BROWSER_TYPE, large_body(size), length="absent").status == 200
    assert len(pair.stored()["0.bin"]) == size
    lab.close()
