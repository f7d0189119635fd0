"""Helpers for tests of uploads: a lab with the middleware, an app that records what it reads, and a strict reader of what it read."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
from dataclasses import dataclass

from securefs import Keyring, open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS
from securefs.middleware.exchange import Exchange
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import Sealing
from securefs.middleware.source import BodySource
from securefs.middleware.upload import UploadPipeline
from securefs.sealer import NewFiles
from support.hostile_corpus import Expected
from support.journals import Evidence
from support.wsgi_client import Input, call

KEYRING = Keyring(bytes(range(32)))
MIB = 1024 * 1024
CANARY = b"canary-9f2c61d07be4"  # contents to look for where no plaintext may be


def field(name="a", content=b"x"):
    return Expected(name, content, None, None)


def file(name="f", content=CANARY, filename="a.txt", kind="text/plain"):
    return Expected(name, content, filename, kind)


@dataclass
class Recorder:
    """An app that reads its whole body, ``step`` bytes at a time, and answers 200 whatever happens.

    :ivar got: what it read. :ivar error: what reading raised.
    """

    step: int = 65536
    got: bytearray = dataclasses.field(default_factory=bytearray)
    error: BaseException | None = None
    environ: dict | None = None
    calls: int = 0

    def __call__(self, environ, start_response):
        self.calls += 1
        self.environ = environ
        try:
            while data := environ["wsgi.input"].read(self.step):
                self.got += data
        except Exception as error:  # noqa: BLE001  # bad manners, on purpose: our answer must win
            self.error = error
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"stored"]

    @property
    def content_type(self) -> str:
        return self.environ["CONTENT_TYPE"]

    @property
    def length(self) -> int:
        return int(self.environ["CONTENT_LENGTH"])


class Lab:
    """The middleware in front of an app, with a journal in a folder of its own."""

    def __init__(self, folder, app=None, **options) -> None:
        self.folder = folder / "journal"
        self.journal = Evidence(self.folder, names="pseudonym")
        self.app = Recorder() if app is None else app
        options.setdefault("policy", Policy())
        self.wrapped = SecureFS(self.app, keyring=KEYRING, journal=self.journal, **options)

    def post(self, content_type, body, headers=(), path="/upload", *, length=None, step=None, **extra):
        """Send a body. ``length`` None counts it, "absent" sends none but says that there are chunks."""
        given = any(name == "Content-Length" for name, _ in headers)
        if length == "absent" and not any(name == "Transfer-Encoding" for name, _ in headers):
            headers = [*headers, ("Transfer-Encoding", "chunked")]
        stream = body if isinstance(body, io.RawIOBase) else Input(body, step)
        if length is None and not given:
            length = len(stream.data)
        return call(
            self.wrapped,
            "POST",
            path,
            stream,
            [("Host", "localhost"), ("Content-Type", content_type), *headers],
            length=None if length == "absent" or given else length,
            **extra,
        )

    def send(self, case, body=None):
        """Send a case of the corpus."""
        headers = [(name, value) for name, value in case.headers if name != "Content-Type"]
        length = "absent" if case.chunked else None
        return self.post(
            case.content_type, case.body if body is None else body, headers, case.path, length=length
        )

    def records(self, event=None):
        """Return what the journal says of files."""
        return self.journal.records(event)

    def close(self):
        self.journal.close()


_HEADER = re.compile(
    rb'Content-Disposition: form-data; name="([^"]+)"(?:; filename="([^"]*)")?(?:\r\nContent-Type: ([^\r\n]+))?'
)
_OWN_TYPE = re.compile(r"multipart/form-data; boundary=([0-9a-f]{32,70})")


def canonical_parts(content_type: str, body: bytes) -> list[Expected]:
    """Return the parts of a body of ours, as stored; fail wherever it is not in our one form."""
    boundary = _OWN_TYPE.fullmatch(content_type)[1].encode()
    head, *blocks = (b"\r\n" + body).split(b"\r\n--" + boundary)
    assert head == b"", "something precedes the first boundary"
    end = blocks.pop()
    assert re.fullmatch(rb"--\r\n\n?(\r\n)*", end), end[:80]
    parts = []
    for block in blocks:
        assert block.startswith(b"\r\n")
        header, _, content = block[2:].partition(b"\r\n\r\n")
        name, filename, kind = _HEADER.fullmatch(header).groups()
        assert filename is None or kind is not None, "a file without a type"
        assert not name.endswith(b"\\"), "a backslash before the closing quote"
        assert not (filename or b"").endswith(b"\\"), "a backslash before the closing quote"
        parts.append(
            Expected(
                name.decode(),
                content,
                None if filename is None else filename.decode(),
                None if kind is None else kind.decode(),
            )
        )
    return parts


def opened(part: Expected, keyring=KEYRING) -> Expected:
    """Return a part with its file decrypted; a file that is not one of our containers fails."""
    if part.filename is None or (part.filename == "" and part.content == b""):
        return part
    assert part.content.startswith(MAGIC), "a file in plaintext"
    with open_encrypted(io.BytesIO(part.content), keyring) as file:
        return Expected(part.name, file.read(), part.filename, part.content_type)


def seen_by(app: Recorder) -> list[Expected]:
    """Return what the recorder's app was given, decrypted."""
    assert len(app.got) == app.length, "CONTENT_LENGTH is met to the byte"
    return [opened(part) for part in canonical_parts(app.content_type, bytes(app.got))]


def browser_body(parts, boundary: bytes = b"----geckoformboundary00112233445566778899aabbccddeeff") -> bytes:
    """Return the body that a current browser sends for these parts, in plaintext."""
    body = bytearray()
    for part in parts:
        body += b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + part.name.encode() + b'"'
        if part.filename is not None:
            body += b'; filename="' + part.filename.encode() + b'"'
        if part.content_type is not None:
            body += b"\r\nContent-Type: " + part.content_type.encode()
        body += b"\r\n\r\n" + part.content + b"\r\n"
    return bytes(body) + b"--" + boundary + b"--\r\n"


BROWSER_TYPE = "multipart/form-data; boundary=----geckoformboundary00112233445566778899aabbccddeeff"


@dataclass
class Line:
    """A pipeline with what goes in at one end."""

    pipeline: UploadPipeline
    source: BodySource
    exchange: Exchange


def line(
    body: bytes, boundary: bytes, journal, policy=None, *, length=None, step=None, context=bytes
) -> Line:
    """Return the pipeline for a body, without the middleware around it. ``length`` None counts it, "absent" has none."""
    policy = policy or Policy()
    announced = {None: len(body), "absent": None}.get(length, length)
    source = BodySource(Input(body, step), announced, policy)
    exchange = Exchange({"REQUEST_METHOD": "POST", "PATH_INFO": "/upload"}, journal)
    sealing = Sealing(NewFiles(KEYRING, policy.format, policy.suite), exchange, context)
    return Line(UploadPipeline(source, boundary, policy, sealing), source, exchange)


def problem_of(answer) -> dict:
    """Return the problem document of an answer; fail where it says more than it may."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))
    document = json.loads(answer.body)
    told = {"detail"} if answer.status < 500 and answer.status != 401 else set()
    assert document.keys() == {"type", "title", "status", "request_id"} | told
    assert document["status"] == answer.status
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def refusal_of(call_it) -> Refusal:
    """Return the refusal that ``call_it`` raises."""
    try:
        call_it()
    except Refusal as refusal:
        return refusal
    raise AssertionError("nothing was refused")


def cut(data: bytes, positions) -> list[bytes]:
    """Return the pieces of ``data`` between these positions."""
    edges = [0, *sorted(set(positions)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]
