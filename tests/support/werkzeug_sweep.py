"""Moves every byte that follows a file, boundaries, headers and short parts, over the edge of Werkzeug's reads; counts the parts that suffer.

``PYTHONPATH=tests python -m support.werkzeug_sweep`` prints one line of JSON for the Werkzeug that
it imports. Each body is parsed twice: as the middleware gives it out, and, as the control, the same
bytes in reads of full length, on which most versions lose or add bytes.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from importlib import metadata
from pathlib import Path

from werkzeug.wrappers import Request

from securefs import SecureFSError, Suite, open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy
from support.hostile_corpus import Expected
from support.uploads import BROWSER_TYPE, KEYRING, MIB, Lab, browser_body

EDGE = 64 * 1024  # bytes that Werkzeug reads at a time
MARGIN = 4  # positions before the first and behind the last of interest
DATA = random.Random(1).randbytes(2 * MIB)
FILE = [Expected("second", b"tail", "b.txt", "text/plain")]
FIELDS = [Expected("a", b"y"), Expected("b", b""), Expected("c", b"y" * 60)]
EMPTY_INPUT = [Expected("none", b"", "", "application/octet-stream"), Expected("a", b"y")]


class Recorded:
    """A stream, and what its reads returned."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self.reads: list[bytes] = []

    def read(self, size: int = -1) -> bytes:
        self.reads.append(self.stream.read(size))
        return self.reads[-1]


class Store:
    """An app that keeps the parts it is given, and the body that they came in."""

    def __init__(self, *, terminated: bool) -> None:
        # gunicorn says so; Werkzeug then reads the stream itself, and not a limited one.
        self.terminated = terminated

    def __call__(self, environ, start_response):
        stream = environ["wsgi.input"] = Recorded(environ["wsgi.input"])
        environ["wsgi.input_terminated"] = self.terminated
        self.parts = parts_of(environ)
        self.body, self.content_type = b"".join(stream.reads), environ["CONTENT_TYPE"]
        start_response("200 OK", [])
        return []

    def control(self) -> list[bytes]:
        """Return the parts that Werkzeug finds in the same body where reads end as they fall."""
        environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": self.content_type}
        environ |= {"CONTENT_LENGTH": str(len(self.body)), "wsgi.input_terminated": self.terminated}
        return parts_of(environ | {"wsgi.input": io.BytesIO(self.body)})


def parts_of(environ) -> list[bytes]:
    """Return the contents of the files, then of the fields, of a form."""
    request = Request(environ)
    return [file.read() for file in request.files.values()] + [
        text.encode() for text in request.form.values()
    ]


def upload(lab: Lab, size: int, others: list[Expected]) -> tuple[int, int]:
    """Send a file of ``size`` bytes and other parts; return where what follows the file begins in the new body, and where it ends.

    Within a second file, where it is well under way, nothing is of interest.
    """
    parts = [Expected("first", DATA[:size], "a.bin", "text/plain"), *others]
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == 200
    boundary = lab.app.content_type.partition("boundary=")[2].encode()
    start = lab.app.body.index(b"\r\n--" + boundary)
    end = lab.app.body.rindex(boundary) + len(boundary) + len(b"--\r\n")
    second = lab.app.body.find(MAGIC, start)
    return start, end if second < 0 else second + 100


def opened(stored: bytes) -> bytes | None:
    """Return a file decrypted, a field and an empty file input as they are, None for a file that a byte was lost of."""
    if len(stored) < 100:
        return stored
    try:
        with open_encrypted(io.BytesIO(stored), KEYRING) as file:
            return file.read()
    except SecureFSError:
        return None


def sweep(lab: Lab, size: int, others: list[Expected]) -> dict[str, int]:
    """Move what follows the first file over the first edge beyond ``size`` bytes, byte by byte; return what was counted."""
    start, end = upload(lab, size, others)
    length = end - start
    # Each 16 KiB of a file cost 16 bytes: the first step is a little long, another goes back.
    while step := (EDGE // 2 - MARGIN - end) % EDGE - EDGE // 2:
        size += step
        _, end = upload(lab, size, others)
    positions, bad, bad_in_control = set(), 0, 0
    fields = [other.content for other in others if other.filename is None]
    files = [other.content for other in others if other.filename is not None]
    for count in range(size, size + length + 2 * MARGIN):
        start, _ = upload(lab, count, others)
        positions.add(-start % EDGE)
        sent = [DATA[:count], *files, *fields]
        bad += [opened(part) for part in lab.app.parts] != sent
        bad_in_control += [opened(part) for part in lab.app.control()] != sent
    missed = len(set(range(length)) - positions)
    return {
        "trials": len(range(length + 2 * MARGIN)),
        "missed": missed,
        "bad": bad,
        "control": bad_in_control,
    }


def main() -> None:
    """Sweep over each kind of what may follow a file, and over the end of a body that streams."""
    found = {"version": metadata.version("werkzeug")}
    followed_by = {"nothing": [], "a file": FILE, "fields": FIELDS, "an empty file input": EMPTY_INPUT}
    with tempfile.TemporaryDirectory() as folder:
        for terminated in (False, True):
            lab = Lab(Path(folder), Store(terminated=terminated), policy=Policy(suite=Suite.GCM))
            how = "read to the end" if terminated else "read to the length"
            for what, others in followed_by.items():
                found[f"{what}, {how}"] = sweep(lab, EDGE // 2, others)
            found[f"nothing, streamed, {how}"] = sweep(lab, MIB + EDGE // 2, [])
            lab.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
