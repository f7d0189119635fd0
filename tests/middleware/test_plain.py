"""Ranges of plain files behind what is put around them: of what comes out, and no chunk behind the range."""

from __future__ import annotations

import errno
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import RING, pattern
from support.wsgi_client import call

from securefs.middleware import Policy, SecureFS

PAGE = pattern(100_000, "a plain file")
BLOCK = 1000  # bytes of a chunk


class Reporter:
    """What an error reporter puts around a body: it counts chunks, may change them, and notes its end."""

    def __init__(self, chunks, change):
        self.chunks, self.change, self.drawn, self.closed = chunks, change, 0, 0

    def __iter__(self):
        for chunk in self.chunks:
            self.drawn += 1
            yield self.change(chunk)

    def close(self):
        self.closed += 1
        self.chunks.close()


def site(page=PAGE, *, headers=(), length=None, status="200 OK", change=bytes):
    seen = []

    def app(environ, start_response):
        assert "HTTP_RANGE" not in environ
        size = len(page) if length is None else length
        start_response(status, [("Content-Type", "a/b"), ("Content-Length", str(size)), *headers])
        seen.append(Reporter(environ["wsgi.file_wrapper"](io.BytesIO(page), BLOCK), change))
        return seen[-1]

    return app, seen


def ask(app, journal, spec, method="GET", headers=()):
    wrapped = SecureFS(app, keyring=RING, journal=journal)
    return call(wrapped, method, headers=[("Range", f"bytes={spec}"), *headers])


@given(st.integers(0, len(PAGE) + 10), st.integers(0, 5000), st.sampled_from(["closed", "open", "suffix"]))
@examples(80)
def test_any_range_is_that_of_the_file(journal, first, more, kind):
    app, seen = site()
    spec = {"closed": f"{first}-{first + more}", "open": f"{first}-", "suffix": f"-{more}"}[kind]
    span = {
        "closed": range(first, min(first + more + 1, len(PAGE))),
        "open": range(first, len(PAGE)),
        "suffix": range(max(0, len(PAGE) - more), len(PAGE)),
    }[kind]
    answer = ask(app, journal, spec)
    if not span:
        assert (answer.status, answer.body) == (416, b"")
        assert answer.headers["content-range"] == f"bytes */{len(PAGE)}"
    else:
        assert (answer.status, answer.body) == (206, PAGE[span.start : span.stop])
        assert answer.headers["content-range"] == f"bytes {span.start}-{span.stop - 1}/{len(PAGE)}"
        assert answer.headers["content-length"] == str(len(span))
        assert seen[-1].drawn == -(-span.stop // BLOCK), "a chunk behind the range was drawn"
    assert seen[-1].closed == 1


def test_several_ranges_come_in_the_order_of_the_file(journal):
    """The body is read once, so no other order is possible."""
    app, seen = site()
    answer = ask(app, journal, "-10,5000-5004,0-1")
    boundary = answer.headers["content-type"].partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n")[2][:-2] for part in answer.body.split(b"--" + boundary)[1:-1]]
    assert parts == [PAGE[:2], PAGE[5000:5005], PAGE[-10:]]
    assert answer.headers["content-length"] == str(len(answer.body))
    assert seen[-1].closed == 1


def test_the_range_is_of_what_comes_out_of_what_is_around(journal):
    changed = PAGE[:BLOCK] + PAGE[BLOCK:].swapcase()
    app, _ = site(change=lambda chunk: chunk if chunk == PAGE[:BLOCK] else chunk.swapcase())
    assert ask(app, journal, "900-5000").body == changed[900:5001]


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        pytest.param({"length": len(PAGE) - 1}, (), id="another length"),
        pytest.param({"headers": [("Accept-Ranges", "none")]}, (), id="Accept-Ranges: none"),
        pytest.param({"headers": [("ETag", '"a"')]}, [("If-Range", '"b"')], id="If-Range"),
        pytest.param({"status": "404 Not Found"}, (), id="404"),
        pytest.param({"change": bytes.swapcase}, (), id="other chunks"),
    ],
)
def test_what_is_not_known_to_be_the_file_is_sent_whole(options, headers, journal):
    app, _ = site(**options)
    wrapped = SecureFS(app, keyring=RING, journal=journal)
    answer = call(wrapped, headers=[("Range", "bytes=0-9"), *headers], watched=False)
    assert answer.status != 206
    assert len(answer.body) == len(PAGE)


def test_a_body_that_ends_before_its_length_aborts_the_connection(journal):
    app, seen = site(change=lambda chunk: chunk if seen[-1].drawn < 3 else b"")
    answer = ask(app, journal, "0-5000")
    assert (answer.status, answer.body) == (206, PAGE[: 2 * BLOCK])
    assert isinstance(answer.error, OSError)
    assert answer.error.errno == errno.EIO
    assert seen[-1].closed == 1


def test_head_draws_one_chunk_and_names_the_length(journal):
    app, seen = site()
    answer = ask(app, journal, "0-9", method="HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(PAGE)))
    assert (seen[-1].drawn, seen[-1].closed) == (1, 1)


def test_no_part_of_it_is_served_on_a_protected_path(journal):
    app, _ = site()
    policy = Policy(protected_paths=("*",))
    answer = call(
        SecureFS(app, keyring=RING, journal=journal, policy=policy), headers=[("Range", "bytes=0-9")]
    )
    assert answer.status == 500
    assert PAGE[:10] not in answer.body
