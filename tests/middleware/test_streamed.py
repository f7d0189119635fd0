"""Files that can be read once: what needs the beginning alone reads no more of the app's body."""

from __future__ import annotations

import gc
import io
import tempfile
import tracemalloc
import weakref
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import BODY_START, RING, pattern, seal
from support.wsgi_client import call

from securefs import Suite
from securefs.header import FIXED_SIZE, claimed_least
from securefs.middleware import Policy, SecureFS
from securefs.middleware.conditions import entity_tag
from securefs.middleware.selection import KEPT
from securefs.middleware.spool import SealedSpool
from securefs.middleware.streamed import _with_end
from securefs.stream import TRAILER, Decryptor

KIB = 1024
MIB = KIB * KIB
STEP = 8 * KIB  # bytes of a chunk
TEXT = pattern(3 * MIB + 100)
SUITES = [pytest.param(suite, id=suite.label) for suite in Suite]
CHUNKS = {"SERVER_SOFTWARE": "gunicorn/27"}  # a server whose chunks show a break
STORED = {suite: seal(TEXT, suite) for suite in Suite}


@dataclass
class Store:
    """An app that serves one object as an object store does, and counts what is read of it."""

    stored: bytes
    way: str = "generator"
    announces: bool = True
    headers: tuple = ()
    step: int = STEP
    drawn: list = field(default_factory=list)
    closed: int = 0

    @property
    def count(self):
        return sum(self.drawn)

    def __call__(self, environ, start_response):
        assert not {"HTTP_RANGE", "HTTP_IF_RANGE"} & environ.keys()
        length = [("Content-Length", str(len(self.stored)))] if self.announces else []
        start_response("200 OK", [("Content-Type", "video/mp4"), *length, *self.headers])
        if self.way == "file":
            return environ["wsgi.file_wrapper"](OneWay(self), self.step)
        if self.way == "list":
            return [self.stored]
        return self.chunks()

    def chunks(self):
        try:
            for at in range(0, len(self.stored), self.step):
                chunk = self.stored[at : at + self.step]
                self.drawn.append(len(chunk))
                yield chunk
        finally:
            self.closed += 1


class OneWay(io.RawIOBase):
    """The body of a response of a client library: it can't seek."""

    def __init__(self, store):
        self.store, self.file = store, io.BytesIO(store.stored)

    def readable(self):
        return True

    def read(self, size=-1, /):
        data = self.file.read(size)
        self.store.drawn.append(len(data))
        return data

    def close(self):
        self.store.closed += not self.closed
        super().close()


def ask(store, journal, spec=None, method="GET", policy=None, **conditions):
    headers = [(name.replace("_", "-"), value) for name, value in conditions.items()]
    headers += [] if spec is None else [("Range", f"bytes={spec}")]
    app = SecureFS(store, keyring=RING, journal=journal, policy=policy or Policy())
    return call(app, method, headers=headers, **CHUNKS)


def needed(suite, stop):
    """Return how many stored bytes prove the plaintext before byte ``stop``: whole segments, and one byte."""
    return BODY_START + -(-stop // suite.segment_size) * suite.sealed_size + 1


def in_chunks(size):
    return -(-size // STEP) * STEP


# --- HEAD and conditions


@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("way", ["generator", "file"])
@pytest.mark.parametrize("suite", SUITES)
def test_head_reads_the_header_alone(suite, way, announces, journal):
    store = Store(STORED[suite], way, announces)
    answer = ask(store, journal, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert (store.count, store.closed) == (STEP, 1)
    # Where the file ends is a claim of the app's, which a truncated file makes, too.
    assert not {"content-length", "accept-ranges"} & answer.headers.keys()
    assert answer.headers["content-type"] == "video/mp4"
    assert "etag" in answer.headers
    assert journal.events() == []


def test_head_reads_as_many_chunks_as_the_header_has(journal):
    stored = seal(TEXT, Suite.GCM, metadata_text=b'{"name":"%s"}' % (b"a" * 60_000))
    store = Store(stored)
    assert ask(store, journal, method="HEAD").status == 200
    header = BODY_START + 60_011 + 16
    assert store.count == in_chunks(header)


@pytest.mark.parametrize(
    "change", [lambda stored: b"\0" + stored[1:], lambda stored: stored[:60] + b"?" + stored[61:]]
)
def test_head_of_a_header_that_does_not_verify_is_a_500(change, journal):
    store = Store(change(STORED[Suite.GCM]))
    assert ask(store, journal, method="HEAD").status == 500
    assert store.count == STEP


def test_a_file_that_ends_inside_its_header_is_a_500(journal):
    for method in ("HEAD", "GET"):
        store = Store(STORED[Suite.GCM][:100], announces=False)
        assert ask(store, journal, spec="0-9", method=method).status == 500
        assert journal.events()[-1] == ("file.integrity_failure", "failure", "truncated")


@pytest.mark.parametrize(("way", "step"), [("list", STEP), ("generator", 10 * MIB)])
@pytest.mark.parametrize("suite", SUITES)
def test_head_of_what_is_in_memory_already_is_complete(suite, way, step, journal):
    """Nothing more is asked of the app, so the end is verified, and the length is named."""
    store = Store(STORED[suite], way, step=step)
    answer = ask(store, journal, method="HEAD")
    assert answer.headers["content-length"] == str(len(TEXT))
    assert answer.headers["accept-ranges"] == "bytes"
    store = Store(STORED[suite][:-1], way, step=step)
    assert ask(store, journal, method="HEAD").status == 500
    part = ask(Store(STORED[suite], way, step=step), journal, "0-1")
    assert (part.status, part.headers["content-range"]) == (206, f"bytes 0-1/{len(TEXT)}")


def test_head_of_everything_that_is_verified_first_is_complete(journal):
    store = Store(STORED[Suite.GCM])
    answer = ask(store, journal, method="HEAD", policy=Policy(verify_first=None))
    assert answer.headers["content-length"] == str(len(TEXT))


@pytest.mark.parametrize("policy", [Policy(), Policy(verify_first=None), Policy(verify_first=0)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_that_does_not_hold_reads_the_header_alone(method, policy, journal):
    tag = entity_tag(STORED[Suite.GCM][16:48].hex())
    for conditions, status in (({"If_None_Match": tag}, 304), ({"If_Match": '"other"'}, 412)):
        store = Store(STORED[Suite.GCM])
        answer = ask(store, journal, "0-9", method, policy, **conditions)
        assert (answer.status, answer.body) == (status, b"")
        assert (store.count, store.closed) == (STEP, 1)
    assert journal.events() == []


# --- ranges


@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("way", ["generator", "file"])
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("start", [0, 1, 65_535, 65_536, 500_000, 2 * MIB])
@pytest.mark.parametrize("size", [1, 100, 65_536])
def test_a_range_reads_up_to_the_segment_that_holds_its_end(size, start, suite, way, announces, journal):
    store = Store(STORED[suite], way, announces)
    answer = ask(store, journal, f"{start}-{start + size - 1}")
    assert (answer.status, answer.body) == (206, TEXT[start : start + size])
    assert answer.headers["content-range"] == f"bytes {start}-{start + size - 1}/*"
    assert answer.headers["content-length"] == str(size)
    assert "accept-ranges" not in answer.headers
    assert store.count <= in_chunks(needed(suite, start + size))
    assert store.closed == 1
    assert journal.events() == [("file.decrypt", "started", None), ("file.decrypt", "success", None)]


@given(st.data())
@examples(80)
def test_any_range_is_right_or_names_no_total(journal, data):
    """Against the plaintext, of files of every length around a segment, in chunks of any length."""
    suite = data.draw(st.sampled_from(list(Suite)))
    segment = suite.segment_size
    size = data.draw(st.sampled_from([0, 1, 100, segment - 1, segment, segment + 1, 3 * segment + 7]))
    store = Store(
        seal(TEXT[:size], suite), step=data.draw(st.integers(500, 40_000)), announces=data.draw(st.booleans())
    )
    start = data.draw(st.integers(0, size + 2))
    stop = data.draw(st.integers(start + 1, size + 40))
    answer = ask(store, journal, f"{start}-{stop - 1}")
    if not size:
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")
        assert "content-range" not in answer.headers
        return
    if start >= size:
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{size}")
        assert answer.body == b""
        return
    last = min(stop, size) - 1
    assert (answer.status, answer.body) == (206, TEXT[start : last + 1])
    expected = {f"bytes {start}-{last}/{size}"} | ({f"bytes {start}-{last}/*"} if stop <= size else set())
    assert answer.headers["content-range"] in expected


@pytest.mark.parametrize("suite", SUITES)
def test_of_a_file_without_announced_length_a_range_beyond_its_end_is_known_at_the_end(suite, journal):
    store = Store(STORED[suite], announces=False)
    answer = ask(store, journal, f"{len(TEXT) - 10}-{len(TEXT) + 10}")
    assert (answer.status, answer.body) == (206, TEXT[-10:])
    assert answer.headers["content-range"] == f"bytes {len(TEXT) - 10}-{len(TEXT) - 1}/{len(TEXT)}"
    for start in (len(TEXT), 400 * suite.segment_size, 10**17):
        store = Store(STORED[suite], announces=False)
        answer = ask(store, journal, f"{start}-{start + 10}")
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(TEXT)}")
        assert (answer.body, store.count) == (b"", len(STORED[suite]))


@pytest.mark.parametrize("suite", SUITES)
def test_a_range_that_is_longer_than_what_is_held_asks_for_the_end(suite, journal):
    """As some clients write an open range."""
    answer = ask(Store(STORED[suite], announces=False), journal, f"100-{2**62}")
    assert (answer.status, answer.body) == (206, TEXT[100:])
    assert answer.headers["content-range"] == f"bytes 100-{len(TEXT) - 1}/{len(TEXT)}"


@pytest.mark.parametrize("spec", ["0-", "100-", "-5", "0-1,5-6", None])
@pytest.mark.parametrize("suite", SUITES)
def test_what_needs_the_end_is_held_until_it_is_verified(suite, spec, journal):
    store = Store(STORED[suite][:-1])
    assert ask(store, journal, spec).status == 500
    assert ask(Store(STORED[suite]), journal, spec).status == (200 if spec is None else 206)


@pytest.mark.parametrize("suite", SUITES)
def test_a_range_beyond_what_is_verified_first_is_streamed(suite, journal):
    store = Store(STORED[suite])
    answer = ask(store, journal, "5-500000", policy=Policy(verify_first=1000))
    assert (answer.status, answer.body) == (206, TEXT[5:500_001])
    assert answer.headers["content-range"] == "bytes 5-500000/*"
    # Without a length nothing tells that the range ends before the file does.
    store = Store(STORED[suite], announces=False)
    answer = ask(store, journal, "5-500000", policy=Policy(verify_first=1000))
    assert (answer.status, answer.body) == (200, TEXT)


@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("size", [100, KEPT, KEPT + 1, 2 * MIB])
@pytest.mark.parametrize("suite", SUITES)
def test_a_range_is_verified_before_its_first_byte_is_sent(suite, size, announces, journal):
    start = 50_000
    index = (start + size - 1) // suite.segment_size
    changed = bytearray(STORED[suite])
    changed[BODY_START + index * suite.sealed_size + 40] ^= 1
    answer = ask(Store(bytes(changed), announces=announces), journal, f"{start}-{start + size - 1}")
    assert (answer.status, answer.broken_off) == (500, False)
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "tag_mismatch")
    answer = ask(Store(STORED[suite], announces=announces), journal, f"{start}-{start + size - 1}")
    assert (answer.status, answer.body) == (206, TEXT[start : start + size])


@pytest.mark.parametrize("suite", SUITES)
def test_a_file_that_was_cut_within_the_range_is_a_500(suite, journal):
    """Also at the end of a segment, and with a trailer: only a segment that is not the final one was proven."""
    for keep in (BODY_START + suite.sealed_size, BODY_START + suite.sealed_size + 50, BODY_START):
        for tail in (b"", TRAILER):
            for announces in (True, False):
                store = Store(STORED[suite][:keep] + tail, announces=announces)
                answer = ask(store, journal, f"10-{suite.segment_size + 10}")
                assert answer.status == 500, (keep, tail)


@pytest.mark.parametrize("suite", SUITES)
def test_a_file_that_was_cut_behind_the_range_gives_its_bytes_and_no_end(suite, journal):
    store = Store(STORED[suite][: BODY_START + 3 * suite.sealed_size + 900], announces=False)
    answer = ask(store, journal, "10-99")
    assert (answer.status, answer.body) == (206, TEXT[10:100])
    assert answer.headers["content-range"] == "bytes 10-99/*"


def test_a_body_of_another_length_than_announced_gives_no_range(journal):
    class Lying(Store):
        def chunks(self):
            yield from [self.stored[:1000], self.stored[1000:100_000]]

    store = Lying(STORED[Suite.GCM])
    assert ask(store, journal, "500000-500099").status == 500
    assert journal.events()[-1] == ("file.integrity_failure", "failure", "truncated")


def test_a_file_that_is_shorter_than_its_app_announced_gives_no_range_there(journal):
    """It is genuine, and the app took it for another one."""
    stored = seal(TEXT[:100_000], Suite.GCM)
    more = (("Content-Length", str(len(stored) + 70_000)),)
    store = Store(stored, headers=more, announces=False)
    assert ask(store, journal, "100-120000").status == 500
    assert ask(Store(stored, headers=more, announces=False), journal, "100-199").body == TEXT[100:200]


def test_if_range_is_compared_with_the_tag_that_the_file_gets(journal):
    tag = entity_tag(STORED[Suite.GCM][16:48].hex())
    store = Store(STORED[Suite.GCM])
    assert ask(store, journal, "0-9", If_Range=tag).headers["content-range"] == "bytes 0-9/*"
    assert store.count <= in_chunks(needed(Suite.GCM, 10))
    assert ask(Store(STORED[Suite.GCM]), journal, "0-9", If_Range='"other"').status == 200
    own = Store(STORED[Suite.GCM], headers=(("ETag", '"own"'),))
    assert ask(own, journal, "0-9", If_Range=tag).status == 200


def test_an_app_whose_body_fails_within_the_range_gets_its_error(journal):
    class Failing(Store):
        def chunks(self):
            yield self.stored[:1000]
            raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        ask(Failing(STORED[Suite.GCM]), journal, "500000-500099")
    assert journal.events() == [("file.decrypt", "started", None), ("file.decrypt", "failure", "io_error")]


def test_a_client_that_leaves_gets_no_more_of_a_range_that_is_held(journal):
    store = Store(STORED[Suite.GCM])
    app = SecureFS(store, keyring=RING, journal=journal)
    environ = {"REQUEST_METHOD": "GET", "HTTP_RANGE": f"bytes=0-{2 * MIB}", **CHUNKS}
    result = app(environ, lambda status, headers, exc_info=None: None)
    assert next(iter(result)) == TEXT[: 256 * KIB]
    result.close()
    assert journal.events()[-1] == ("file.decrypt", "failure", "client_gone")
    assert store.closed == 1


def test_a_range_is_held_in_constant_memory_and_on_disk_as_ciphertext(journal, tmp_path, monkeypatch):
    """What exceeds 1 MiB goes to a temporary file, which never has plaintext."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written = []
    original = SealedSpool.finish

    def finish(self):
        file = self._spool._file
        held = original(self)
        if file._rolled:
            here = file.tell()
            file.seek(0)
            written.append(file.read())
            file.seek(here)
        return held

    monkeypatch.setattr(SealedSpool, "finish", finish)
    size = 24 * MIB
    text = pattern(size)
    store = Store(seal(text, Suite.GCM), step=64 * KIB)
    answer = ask(store, journal, f"0-{5 * MIB}")
    assert answer.body == text[: 5 * MIB + 1]
    assert len(written) == 1
    assert len(written[0]) > 5 * MIB
    assert text[:32] not in written[0]
    tracemalloc.start()
    app = SecureFS(store, keyring=RING, journal=journal)
    environ = {"REQUEST_METHOD": "GET", "HTTP_RANGE": f"bytes={size - 5 * MIB}-{size - MIB}", **CHUNKS}
    monkeypatch.undo()
    result = app(environ, lambda status, headers, exc_info=None: None)
    assert sum(map(len, result)) == 4 * MIB + 1
    result.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize(
    ("method", "spec"),
    [("HEAD", None), ("GET", None), ("GET", "5-99"), ("GET", f"5-{2 * MIB}"), ("GET", "5-")],
)
@pytest.mark.parametrize("verify_first", [0, 64 * MIB])
def test_nothing_is_left_to_the_garbage_collector(verify_first, method, spec, journal):
    held = []

    def app(environ, start_response):
        held.append(weakref.ref(environ["securefs"]))
        body = Store(STORED[Suite.GCM])
        held.append(weakref.ref(body))
        return body(environ, start_response)

    gc.disable()
    try:
        answer = ask(app, journal, spec, method, Policy(verify_first=verify_first))
        assert answer.status in {200, 206}
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


def test_the_last_piece_is_the_one_that_completes_the_range():
    assert list(_with_end(iter([b"ab", b"c"]), 3)) == [(b"ab", False), (b"c", True)]
    assert list(_with_end(iter([b""]), 0)) == [(b"", True)]


# --- what the core tells


@pytest.mark.parametrize("suite", SUITES)
def test_a_decryptor_knows_the_size_at_the_end(suite):
    for size in (0, 100, suite.segment_size, 2 * suite.segment_size + 5):
        decryptor = Decryptor(RING)
        decryptor.skip_to(5)
        decryptor.update(seal(TEXT[:size], suite))
        assert decryptor.size == 0
        decryptor.finalize()
        assert decryptor.size == size


@pytest.mark.parametrize("suite", SUITES)
def test_the_least_length_that_a_file_claims(suite):
    for size in (0, 1, 100, suite.segment_size, suite.segment_size + 1):
        stored = seal(TEXT[:size], suite)
        least = claimed_least(stored[:FIXED_SIZE], len(stored))
        assert size - 15 <= least <= size
    assert claimed_least(STORED[suite][:FIXED_SIZE], 10) == 0
    for junk in (b"", STORED[suite][:20], bytes(56), STORED[suite][:9] + b"\x09" + STORED[suite][10:56]):
        assert claimed_least(junk, 1000) == 0
