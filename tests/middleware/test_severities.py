"""What the journal is told of each file on its way in, and ciphertext that is no file."""

from __future__ import annotations

import io

import pytest
from support.hostile_corpus import Expected
from support.uploads import BROWSER_TYPE, MIB, Lab, browser_body
from support.wsgi_client import Input

from securefs.header import MAGIC
from securefs.middleware import FileRefusedError, Policy

FILE = Expected("upload", b"plaintext", "a.txt", "text/plain")
LARGE = Expected("upload", bytes(3 * MIB), "a.bin", "a/b")


def stopping(environ, start_response):
    environ["wsgi.input"].read(1000)
    start_response("200 OK", [])
    return [b"enough"]


def refuse(part, chunks):
    raise FileRefusedError("no")


def fail(part, chunks):
    raise ZeroDivisionError


CASES = {
    "stored": (
        {},
        [FILE],
        None,
        [("file.encrypt", "started", 1, None), ("file.encrypt", "success", 1, None)],
    ),
    "not read to its end": (
        {"app": stopping},
        [LARGE],
        None,
        [("file.encrypt", "started", 1, None), ("file.encrypt", "failure", 2, "io_error")],
    ),
    "cut by the client": (
        {},
        [LARGE],
        -1000,
        [
            ("file.encrypt", "started", 1, None),
            ("file.encrypt", "failure", 2, "client_gone"),
            ("file.rejected", "failure", 2, "client_gone"),
        ],
    ),
    "refused by the inspector": (
        {"inspect": refuse},
        [FILE],
        None,
        [
            ("file.encrypt", "started", 1, None),
            ("file.encrypt", "failure", 2, "inspection"),
            ("file.rejected", "failure", 2, "inspection"),
        ],
    ),
    "not inspected": (
        {"inspect": fail},
        [FILE],
        None,
        [
            ("file.encrypt", "started", 1, None),
            ("file.encrypt", "failure", 2, "inspection"),
            ("file.rejected", "failure", 2, "inspection"),
        ],
    ),
    "over a limit": (
        {"policy": Policy(max_part_header=3)},
        [FILE],
        None,
        [("file.rejected", "failure", 2, "limit")],
    ),
    "malformed": ({}, [FILE], 20, [("file.rejected", "failure", 2, "client_gone")]),
    "no principal": (
        {"authorize": lambda environ: None},
        [FILE],
        None,
        [("auth.denied", "failure", 3, None)],
    ),
    "ciphertext in a field": (
        {},
        [Expected("a", MAGIC + b"stolen", None, None)],
        None,
        [("file.rejected", "failure", 4, "ciphertext_injection")],
    ),
}


@pytest.mark.parametrize(("options", "parts", "cut", "events"), CASES.values(), ids=CASES)
def test_each_event_has_its_severity(options, parts, cut, events, tmp_path):
    """Who watches a journal watches severities: an attack must not look like a mistake."""
    lab = Lab(tmp_path, **options)
    body = browser_body(parts)
    lab.post(BROWSER_TYPE, Input(body[:cut]), length=len(body))
    assert [
        (record["event"], record["outcome"], record["sev"], record.get("reason"))
        for record in lab.records()
        if not record["event"].startswith(("server.", "request."))
    ] == events
    lab.close()


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "text/plain", "application/x-www-form-urlencoded"]
)
def test_ciphertext_in_any_other_body_is_as_severe(kind, tmp_path):
    lab = Lab(tmp_path)
    assert lab.post(kind, MAGIC + b"stolen").status == 400
    (record,) = lab.records("file.rejected")
    assert (record["sev"], record["reason"]) == (4, "ciphertext_injection")
    lab.close()


class InPieces(io.RawIOBase):
    """A request body that comes in these pieces, as a client sends them."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self.data = b"".join(pieces)
        self._pieces = [piece for piece in pieces if piece]

    def read(self, size=-1):
        piece = self._pieces.pop(0) if self._pieces else b""
        if 0 <= size < len(piece):
            self._pieces.insert(0, piece[size:])
            piece = piece[:size]
        return piece


@pytest.mark.parametrize("large", [False, True], ids=["exact", "streamed"])
@pytest.mark.parametrize("second", range(1, 9))
@pytest.mark.parametrize("first", range(1, 9))
def test_ciphertext_in_a_field_does_not_pass_in_whichever_pieces_it_comes(first, second, large, tmp_path):
    """The client chooses where reads end: within the eight bytes that tell, and around them."""
    parts = [Expected("a", MAGIC + b"stolen" * 30, None, None)]
    if large:
        parts.insert(0, LARGE)
    body = browser_body(parts)
    at = body.index(MAGIC)
    edges = (at, at + first, at + first + second)
    lab = Lab(tmp_path)
    stream = InPieces(
        body[: edges[0]], body[edges[0] : edges[1]], body[edges[1] : edges[2]], body[edges[2] :]
    )
    assert lab.post(BROWSER_TYPE, stream).status == 400
    assert MAGIC + b"stolen" not in lab.app.got
    (record,) = lab.records("file.rejected")
    assert (record["sev"], record["reason"]) == (4, "ciphertext_injection")
    lab.close()


@pytest.mark.parametrize("step", [1, 3, 8, 10**6])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(MAGIC[:7], id="less than the magic"),
        pytest.param(MAGIC[:7] + b"x", id="another last byte"),
        pytest.param(b"x" + MAGIC, id="not at the beginning"),
    ],
)
def test_a_field_that_only_looks_like_ciphertext_passes(content, step, tmp_path):
    """Nor do two fields make one ciphertext."""
    lab = Lab(tmp_path)
    parts = [Expected("a", content, None, None), Expected("b", MAGIC[7:], None, None)]
    body = browser_body(parts)
    at = body.index(content)
    pieces = [body[at:][start : start + step] for start in range(0, len(body) - at, step)]
    assert lab.post(BROWSER_TYPE, InPieces(body[:at], *pieces)).status == 200
    assert content in lab.app.got
    lab.close()
