"""Downloads through the middleware beside the same bytes unencrypted: from Werkzeug's ``send_file``, and from nginx.

Random requests go to all three. What a client would see must be the same, but for the differences
that docs/http.md lists under "Where we differ"; each is a predicate here, and where one holds the
bytes themselves are still compared.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.nginx import nginx, program
from support.server_matrix import Connection
from support.wsgi_client import call
from werkzeug.exceptions import HTTPException
from werkzeug.utils import send_file

from securefs import Encryptor, Suite
from securefs.middleware import Policy, SecureFS

SIZE = 150_000  # bytes: two segments and a part of suite 1, nine and a part of suite 2
DATA = os.urandom(SIZE)
MODIFIED = 1_790_000_000  # seconds
TAG = f"{MODIFIED:x}-{SIZE:x}"  # as nginx makes it
DOCS = Path(__file__).resolve().parents[2] / "docs" / "http.md"
MAX_RANGES = 4


def date(offset: int) -> str:
    return formatdate(MODIFIED + offset, usegmt=True)


numbers = st.one_of(
    st.sampled_from(
        [0, 1, 99, 16_383, 16_384, 65_535, 65_536, 65_537, SIZE - 2, SIZE - 1, SIZE, SIZE + 1, 10**12]
    ),
    st.integers(0, SIZE),
)
well_formed = st.one_of(
    st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    numbers.map(lambda first: f"{first}-"),
    numbers.map(lambda suffix: f"-{suffix}"),
)
odd = st.one_of(
    st.tuples(numbers, numbers).map(lambda pair: f"{max(pair) + 1}-{min(pair)}"),
    st.sampled_from(["", "x-y", "1", "--1", "-", "1 -2", "+1-2", "1-2-3", "0x1-2", "\u00b2-3"]),
)
several = st.lists(st.one_of(well_formed, well_formed, well_formed, odd), min_size=2, max_size=5)
range_headers = st.one_of(
    well_formed.map("bytes={}".format),
    well_formed.map("Bytes= {}".format),
    odd.map("bytes={}".format),
    st.tuples(st.sampled_from([",", ", ", " , "]), several).map(
        lambda pair: "bytes=" + pair[0].join(pair[1])
    ),
    st.lists(well_formed, min_size=2, max_size=4).map(lambda specs: "bytes=" + ",".join(specs)),
    st.sampled_from(["bytes", "lines=0-1", "bytes =0-1", "bytes=,0-1", "bytes: 0-1", "0-1", "none"]),
)
STRONG = f'"{TAG}"'
if_range = st.sampled_from([STRONG, date(0), f'W/"{TAG}"', '"other"', date(-10), date(10), "yesterday", TAG])
conditions = st.sampled_from(
    [
        *(("If-None-Match", value) for value in (STRONG, f'W/"{TAG}"', '"other"', "*", f'"a", "{TAG}"')),
        *(("If-Match", value) for value in (STRONG, f'W/"{TAG}"', '"other"', "*")),
        *(("If-Modified-Since", value) for value in (date(0), date(-10), date(10), "yesterday")),
        ("If-Unmodified-Since", date(0)),
        ("Accept-Encoding", "gzip"),
        ("Accept-Encoding", "identity;q=0, *"),
    ]
)


@st.composite
def requests(draw):
    headers = {} if draw(st.integers(0, 2)) else dict(draw(st.lists(conditions, max_size=2)))
    if draw(st.integers(0, 7)):
        headers["Range"] = draw(range_headers)
        if not draw(st.integers(0, 3)):
            headers["If-Range"] = draw(if_range)
    return draw(st.sampled_from(["GET", "GET", "GET", "HEAD"])), headers


class Answer:
    """What a client sees: the status, headers that matter, and which bytes of the file it got."""

    def __init__(self, method, status, headers, body):
        self.status = status
        self.range = headers.get("content-range")
        self.type = headers.get("content-type", "")
        self.parts: list[tuple[int, int]] = []
        self.seen: tuple = (status, self.range)
        if status not in {200, 206}:
            return
        if self.type.startswith("multipart/byteranges"):
            assert headers["content-length"] == str(len(body)) or method == "HEAD"
            self._read_parts(body)
            self.type = "multipart/byteranges"
        elif method != "HEAD":
            first = int(re.match(r"bytes (\d+)-", self.range)[1]) if self.range else 0
            assert headers["content-length"] == str(len(body))
            self._add(first, body)
        length = headers["content-length"] if self.type != "multipart/byteranges" else None
        # nginx leaves Accept-Ranges out of a 206, as it may: the client knows by then.
        accepts = headers.get("accept-ranges") if status == 200 else None
        self.seen = (status, self.range, length, accepts, self.type, tuple(self.parts))

    def _add(self, first, data):
        assert DATA[first : first + len(data)] == data, "bytes of another place"
        self.parts.append((first, first + len(data)))

    def _read_parts(self, body):
        """RFC 9110 section 14.6, RFC 2046: each part with its type and its range."""
        boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", self.type)[1].encode()
        if not body:
            return
        assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
        for part in body.split(b"\r\n--" + boundary)[1:-1]:
            head, _, data = part.partition(b"\r\n\r\n")
            lines = dict(line.lower().split(b": ", 1) for line in head.strip().split(b"\r\n"))
            first, last, size = map(
                int, re.fullmatch(rb"bytes (\d+)-(\d+)/(\d+)", lines[b"content-range"]).groups()
            )
            assert (size, last + 1 - first) == (SIZE, len(data))
            assert lines[b"content-type"] == b"application/octet-stream"
            self._add(first, data)

    @property
    def bytes(self):
        return set().union(*(range(first, last) for first, last in self.parts))


def elements(header: str) -> list[str]:
    """Return the elements of a Range header in the unit bytes, [""] for what is none."""
    unit, _, rest = header.partition("=")
    return [element.strip(" \t") for element in rest.split(",")] if unit.lower() == "bytes" else [""]


def is_malformed(header: str) -> bool:
    for element in filter(None, elements(header)):
        match = re.fullmatch(r"(\d+)-(\d*)|-\d+", element, re.ASCII)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            return True
    return not any(elements(header))


# Where another server answers otherwise, and why it may: (server, name in docs/http.md, predicate).
DIFFERENCES = (
    ("both", "HEAD with a Range", lambda method, headers: method == "HEAD" and "Range" in headers),
    ("both", "Malformed ranges", lambda method, headers: is_malformed(headers.get("Range", "bytes=0-"))),
    ("both", "Empty elements", lambda method, headers: "" in elements(headers.get("Range", "bytes=0-"))),
    ("both", "Too many ranges", lambda method, headers: headers.get("Range", "").count(",") >= MAX_RANGES),
    ("werkzeug", "Several ranges", lambda method, headers: "," in headers.get("Range", "")),
    (
        "werkzeug",
        "Long suffixes",
        lambda method, headers: any(
            element.startswith("-") and int(element) < -SIZE for element in elements(headers.get("Range", ""))
        ),
    ),
    (
        "werkzeug",
        "If-Range",
        lambda method, headers: (
            "Range" in headers
            and (
                headers.get("If-Range", STRONG) not in {STRONG, '"other"', date(0), date(-10)}
                # It forgets the date where there is a tag to match.
                or (headers.get("If-Range") == date(0) and {"If-Match", "If-None-Match"} & headers.keys())
            )
        ),
    ),
    ("nginx", "Overlapping ranges", lambda method, headers: "," in headers.get("Range", "")),
)


def difference(server: str, method: str, headers: dict) -> str | None:
    """Return the name of the first listed difference that this request may show, None where there must be none."""
    return next(
        (name for who, name, holds in DIFFERENCES if who in {"both", server} and holds(method, headers)), None
    )


def application(path: Path):
    def app(environ, start_response):
        try:
            response = send_file(
                path,
                environ,
                mimetype="application/octet-stream",
                conditional=True,
                etag=TAG,
                last_modified=MODIFIED,
            )
        except HTTPException as error:
            response = error.get_response(environ)
        return response(environ, start_response)

    return app


COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    (folder / "a.bin").write_bytes(DATA)
    os.utime(folder / "a.bin", (MODIFIED, MODIFIED))
    yield folder
    print(f"\nrequests compared: {dict(sorted(COUNTS.items()))}")


@pytest.fixture
def wrapped(suite, keyring, journal, tmp_path):
    encryptor = Encryptor(keyring, suite)
    (tmp_path / "a.bin").write_bytes(encryptor.update(DATA) + encryptor.finalize())
    policy = Policy(max_ranges=MAX_RANGES)
    return SecureFS(application(tmp_path / "a.bin"), keyring=keyring, journal=journal, policy=policy)


def ask(app, method, headers):
    answer = call(app, method, "/a.bin", headers=headers.items())
    return Answer(method, answer.status, answer.headers, answer.body)


def without_range(headers):
    return {name: value for name, value in headers.items() if name not in {"Range", "If-Range"}}


def compare(server, method, headers, ours, theirs):
    name = difference(server, method, headers)
    COUNTS[f"{server}: {name or 'same'}"] += 1
    if name is None:
        assert ours.seen == theirs.seen
    elif name in {"HEAD with a Range", "Malformed ranges", "Too many ranges"}:
        # The header is of no effect.
        assert ours.status == 200 or "If" in "".join(headers)
        assert ours.range is None
    elif name == "Overlapping ranges":
        # The same bytes, none of them twice.
        assert ours.status in {200, 206, 304, 412, 416}
        assert sum(last - first for first, last in ours.parts) == len(ours.bytes)
        assert ours.bytes == theirs.bytes or (theirs.status == 200 and ours.status == 206)


EXAMPLES = 500


@pytest.mark.parametrize("suite", Suite)
def test_werkzeug_answers_the_same(suite, wrapped, plain_folder):
    plain = application(plain_folder / "a.bin")

    @examples(EXAMPLES)
    @given(requests())
    def same(sent):
        method, headers = sent
        ours, bare = ask(wrapped, method, headers), ask(plain, method, without_range(headers))
        if bare.status == 200:
            compare("werkzeug", method, headers, ours, ask(plain, method, headers))
        else:
            COUNTS["werkzeug: Conditions before ranges"] += 1
            assert ours.seen == bare.seen

    same()


@pytest.mark.skipif(program() is None, reason="nginx is not installed: apt-get install nginx-light")
@pytest.mark.parametrize("suite", Suite)
def test_nginx_answers_the_same(suite, wrapped, plain_folder, tmp_path):
    """Where the app and nginx disagree on a condition, the app's word stands: only what comes behind it is compared."""
    with nginx(plain_folder, tmp_path) as server:

        def ask_nginx(method, headers):
            with Connection(server.port) as connection:
                answer = connection.ask(method, "/a.bin", headers.items())
            return Answer(method, answer.status, answer.headers, answer.body)

        @examples(EXAMPLES)
        @given(requests())
        def same(sent):
            method, headers = sent
            bare = without_range(headers)
            if ask(wrapped, method, bare).status != ask_nginx(method, bare).status:
                COUNTS["nginx: Conditional requests"] += 1
                return
            compare("nginx", method, headers, ask(wrapped, method, headers), ask_nginx(method, headers))

        same()


@pytest.mark.skipif(program() is None, reason="nginx is not installed: apt-get install nginx-light")
@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("asked", ["0-", "0-0", "-5", "7-"])
def test_an_empty_file_is_sent_whatever_range_is_asked_for(asked, suite, keyring, journal, tmp_path):
    for folder in ("plain", "sealed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "plain" / "a.bin").touch()
    (tmp_path / "sealed" / "a.bin").write_bytes(Encryptor(keyring, suite).finalize())
    wrapped = SecureFS(
        application(tmp_path / "sealed" / "a.bin"), keyring=keyring, journal=journal, policy=Policy()
    )
    headers = {"Range": f"bytes={asked}"}
    ours = ask(wrapped, "GET", headers)
    with nginx(tmp_path / "plain", tmp_path) as server, Connection(server.port) as connection:
        theirs = connection.ask("GET", "/a.bin", headers.items())
    assert ours.status == 200
    assert theirs.status == (416 if asked == "7-" else 200)
    assert ask(application(tmp_path / "plain" / "a.bin"), "GET", headers).status == 200
    assert ours.seen == ask(wrapped, "GET", {}).seen


def test_every_difference_is_listed_for_users():
    section = DOCS.read_text("utf-8").partition("## Where we differ")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE))
    assert listed == {name for _, name, _ in DIFFERENCES} | {
        "An empty file",
        "Conditional requests",
        "Conditions before ranges",
        "The order of several ranges",  # of more than 1 MiB in all: test_selection.py
    }
