"""Mutated uploads through every framework: refused by us, or read alike by all, and every stored file a container.

``SECUREFS_FUZZ=50`` looks fifty times as long.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frameworks import FRAMEWORKS, make
from support.fuzzing import examples
from support.hostile_corpus import Expected, load
from support.uploads import (
    BROWSER_TYPE,
    KEYRING,
    Lab,
    Recorder,
    browser_body,
    canonical_parts,
    opened,
    seen_by,
)
from support.wsgi_client import call

from securefs import open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS

CANARY = b"canary"  # in nearly every body of the corpus
SEEDS = [
    case
    for case in load()
    if case.content_type == "multipart/form-data; boundary=XX"
    and len(case.headers) == 1
    and len(case.body) < 3000
    and not case.policy
]
SCRAPS = [
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"--XX",
        b"--XX--\r\n",
        b"\r\n--XX\r\n",
        b"\r\n\r\n",
        b'"',
        b"\\",
        b'\\"',
        b";",
        b" ",
        b"\t",
    ),
    *(
        b"\0",
        b"\xff",
        b"=",
        b"%22",
        b"filename",
        b'; filename="b"',
        b"; filename*=UTF-8''b",
        b'name="n"',
        b"; name=",
        b"*0",
    ),
    *(
        b"Content-Disposition: form-data",
        b"Content-Type: text/plain\r\n",
        b"Content-Type: application/x-www-form-urlencoded\r\n",
        b"Content-Type: text/plain; charset=utf-7\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
    ),
    *(
        b'\r\nContent-Disposition: form-data; name="g"; filename="g"\r\n\r\n',
        MAGIC,
        CANARY,
        b"/",
        b"..",
        b"C:",
    ),
]


# What became of the bodies of each framework, shrinking and repeated ones included.
COUNTS: dict[str, Counter[str]] = {}
RAN: set[tuple[str, str]] = set()  # tests that count, and the frameworks that went through them


class Trio:
    """A framework's app bare and wrapped, and the middleware in front of an app that records the new body."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.plain, self.sealed = folder / "plain", folder / "sealed"
        self.plain.mkdir()
        self.sealed.mkdir()
        self.bare = make(name, self.plain)
        self.lab = Lab(folder, make(name, self.sealed), policy=Policy())

    def strict(self, body, content_type):
        """Return what we read in a body, None where we refuse it."""
        recorder = Recorder()
        wrapped = SecureFS(recorder, keyring=KEYRING, journal=self.lab.journal, policy=Policy())
        headers = [("Content-Type", content_type)]
        answer = call(wrapped, "POST", "/upload", body, headers)
        assert answer.status in {200, 400, 413}
        return seen_by(recorder) if answer.status == 200 else None

    def send_bare(self, content_type, body):
        clear(self.plain)
        headers = [("Host", "localhost"), ("Content-Type", content_type), ("Content-Length", str(len(body)))]
        answer = call(self.bare, "POST", "/upload", b"", headers, **{"wsgi.input": io.BytesIO(body)})
        return answer.status, answer.body, contents(self.plain)

    def send(self, content_type, body):
        clear(self.sealed)
        answer = self.lab.post(content_type, body)
        raw = contents(self.sealed)
        for data in raw.values():
            assert CANARY not in data, "plaintext was stored"
            assert not data or data.startswith(MAGIC)
        return answer, {name: decrypted(data) for name, data in raw.items()}


def clear(folder):
    for path in folder.iterdir():
        path.unlink()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def decrypted(data):
    if not data:
        return data
    with open_encrypted(io.BytesIO(data), KEYRING) as file:
        return file.read()


@pytest.fixture(scope="module", params=FRAMEWORKS)
def trio(request, tmp_path_factory):
    trio = Trio(request.param, tmp_path_factory.mktemp(request.param))
    yield trio
    trio.lab.close()


@pytest.fixture
def counted(request, trio):
    """Note that a framework went through all bodies of a test."""
    yield
    RAN.add((request.node.originalname, trio.name))


def check(trio, content_type, body):
    counts = COUNTS.setdefault(trio.name, Counter())
    strict = trio.strict(body, content_type)
    answer, stored = trio.send(content_type, body)
    if strict is None:
        assert answer.status in {400, 413}
        assert answer.headers["content-type"] == "application/problem+json"
        assert stored == {}, "nothing was handed on"
        counts["refused by us"] += 1
        return False
    # The bare app's reading of what we read, written as a current browser writes it.
    status, document, plain = trio.send_bare(BROWSER_TYPE, browser_body(strict))
    assert answer.status == status
    if status == 200:
        assert json.loads(answer.body) == json.loads(document)
        assert stored == plain
    counts["read alike" if status == 200 else "refused by the framework, with us as without"] += 1
    return True


mutations = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 8), st.sampled_from(SCRAPS) | st.binary(max_size=4) | st.just(None)
    ),
    min_size=1,
    max_size=4,
)


def mutate(body, changes):
    """Exchange a few bytes at each of these places (0 to 1) for a scrap, for themselves twice, or for nothing."""
    for place, length, scrap in changes:
        start = int(place * len(body))
        old = body[start : start + length]
        body = body[:start] + (old * 2 if scrap is None else scrap) + body[start + length :]
    return body


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@examples(150)
@given(st.sampled_from(SEEDS), mutations)
def test_a_mutated_body_is_refused_or_read_alike(trio, counted, case, changes):
    # A length of nothing is no body.
    check(trio, case.content_type, mutate(case.body, changes) or b"-")


text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), min_size=1, max_size=12
)
tricky = st.lists(
    st.sampled_from(
        ["a", ".", "..", "/", "\\", "%22", "%", ";", "=", ",", " ", "'", "&quot;", "ä", "\u202e", "*", "C:"]
    ),
    min_size=1,
    max_size=8,
).map("".join)
forms = st.lists(
    st.builds(
        Expected,
        name=text | tricky,
        content=st.binary(max_size=40).map(lambda data: data.hex().encode()),
        filename=text | tricky | st.just(""),
        content_type=st.sampled_from(["text/plain", "application/octet-stream", 'a/b; c="d"']),
    )
    | st.builds(
        Expected,
        name=text | tricky,
        content=st.binary(max_size=40).map(lambda data: data.hex().encode())
        | st.just("Zürich".encode("latin-1")),
        content_type=st.sampled_from(
            [
                None,
                "application/json",
                "text/plain; charset=ISO-8859-1",
                "text/plain;charset=koi8-r",
                "text/html",
            ]
        ),
    ),
    max_size=4,
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@examples(100)
@given(forms)
def test_what_a_browser_sends_is_seen_as_without_us(trio, counted, parts):
    """Any names, file names and types: the wrapped app sees what the bare app sees, but for the path in a file name."""
    body = browser_body(parts)
    if not check(trio, BROWSER_TYPE, body):
        assert any("\\" in value for part in parts for value in (part.name, part.filename or "")), (
            "refused without need"
        )
        return
    answer, stored = trio.send(BROWSER_TYPE, body)
    status, document, plain = trio.send_bare(BROWSER_TYPE, body)
    if status != 200:
        return
    with_us, without = json.loads(answer.body), json.loads(document)
    if all(map(ordinary, parts)):
        assert with_us == without
        assert stored == plain


def ordinary(part):
    """Whether a part has neither a path nor dots in front of its name, which we take away, nor data without a file name."""
    name = part.filename
    if not name:
        return name is None or not part.content
    return not (set("/\\") & set(name) or name.startswith(".") or name[1:2] == ":")


def test_the_new_body_is_the_one_form_whatever_came(tmp_path):
    lab = Lab(tmp_path)
    for case in SEEDS:
        if case.status is None:
            lab.app.got.clear()
            assert lab.send(case).status == 200
            assert [
                opened(part) for part in canonical_parts(lab.app.content_type, bytes(lab.app.got))
            ] == list(case.parts)
    lab.close()


def test_every_framework_was_given_bodies_of_each_kind(capsys):
    """The figures of this run, for whoever reads its output."""
    counting = (
        test_a_mutated_body_is_refused_or_read_alike,
        test_what_a_browser_sends_is_seen_as_without_us,
    )
    missing = {(test.__name__, name) for test in counting for name in FRAMEWORKS} - RAN
    if missing:
        pytest.skip(f"only a part of this module was run: {len(missing)} counts are missing")
    for counts in COUNTS.values():
        assert counts["refused by us"] >= 50
        assert counts["read alike"] >= 50
    total = sum(COUNTS.values(), Counter())
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))
    with capsys.disabled():
        print(f"\n{total.total()} bodies through {len(COUNTS)} frameworks: {outcomes}; none otherwise")
