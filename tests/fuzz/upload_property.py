"""What must hold of any upload, whatever its bytes and however it is read: the property that upload_target.py fuzzes.

An input is a head of four bytes that says how the body is sent and read (:func:`decode`), then
perhaps a line with a Content-Type, then the body. Limits are small, so that they are met; so is,
where the head says so, the read after which a body streams under an upper bound: a mebibyte for
each input would leave a few dozen of them a second.
"""

from __future__ import annotations

import io
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import shake_128
from itertools import count

from support.hostile_corpus import load
from support.strict_reader import assert_read_alike, read_by_oracle
from support.uploads import KEYRING, canonical_parts, opened, problem_of
from support.wsgi_client import Input, call
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

import securefs.middleware.body
import securefs.middleware.exchange
import securefs.middleware.upload
import securefs.stream
from securefs import Suite
from securefs.audit import Journal
from securefs.errors import LimitExceededError, Reason
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS
from securefs.middleware.filename import normalise, shortened
from securefs.middleware.media_type import MalformedTypeError, parse_boundary
from securefs.middleware.multipart import Data as Content
from securefs.middleware.multipart import MalformedBodyError, MultipartParser, Part
from securefs.middleware.refusal import BodyRefusedError
from securefs.stream import TRAILER

HEAD = 4  # bytes
GCM, SPOOL, CHUNKED, STREAMED, TYPED, CUT = [1 << bit for bit in range(6)]
STEPS = [None, 1, 2, 3, 7, 16, 64, 256]  # bytes that the server gives at a read, None: all
SIZES = [65536, 1, 2, 3, 7, 16, 61, 255, 1000, 4096]  # bytes that the app asks for
PATIENCE = 48  # reads, then the app takes much at once: a streamed body ends in thousands of empty lines
WHOLE_HEADERS = 4096  # bytes of a read in which any part's header has room
FIXED_TYPE = "multipart/form-data; boundary=XX"
BOUNDARY = shake_128(b"no input holds it").hexdigest(35).encode()
LONG_ENOUGH = 16  # bytes of plaintext that can't be in ciphertext by chance
VARIED_ENOUGH = 8  # different bytes among them
LIMITS = {
    "max_files": 4,
    "max_fields": 8,
    "max_field_bytes": 512,
    "max_part_header": 1024,
    "max_filename": 64,
}
# Where an upload draws random values: its boundary, its files' keys and IVs, its request id.
DRAWN = (
    (securefs.middleware.upload, "token_hex"),
    (securefs.stream, "token_bytes"),
    (securefs.middleware.exchange, "token_hex"),
)
ANY_PACE = {"body_timeout": math.inf, "min_rate": 0}  # however slow the machine
REASONS = {
    400: {
        Reason.MALFORMED_MULTIPART,
        Reason.CHUNKED_UPLOAD,
        Reason.CIPHERTEXT_INJECTION,
        Reason.CLIENT_GONE,
    },
    413: {Reason.LIMIT},
}


@dataclass(frozen=True)
class Plan:
    """One request: what is sent, how the server gives it and how the app reads it."""

    content_type: str
    body: bytes
    flags: int = 0
    step: int | None = None
    way: str = "read"
    size: int = SIZES[0]

    @property
    def is_form(self) -> bool:
        """Whether we look into the body: anything that a framework may take for a multipart type is refused, or rewritten."""
        kind = self.content_type.strip().lower()
        return "multipart/" in kind or kind.startswith("multipart")

    @property
    def plain(self) -> Plan:
        """The same body, sent and read in the simplest way."""
        return Plan(self.content_type, self.body, self.flags & (GCM | (0 if self.flags & CHUNKED else CUT)))


@dataclass
class Reading:
    """The app: reads its whole body in one of the ways of :data:`WAYS`, keeps each read, and answers 200 in any case."""

    plan: Plan
    reads: list[bytes] = field(default_factory=list)
    environ: dict | None = None

    @property
    def got(self) -> bytes:
        return b"".join(self.reads)

    @property
    def boundary(self) -> bytes:
        """What separates the parts of the body that it is given."""
        return self.environ["CONTENT_TYPE"].partition("boundary=")[2].encode()

    def __call__(self, environ, start_response):
        self.environ = environ
        stream = environ["wsgi.input"]
        try:
            while data := self.take(stream):
                self.reads.append(data)
        except BodyRefusedError:
            pass  # bad manners, on purpose: the refusal must win
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"stored"]

    def take(self, stream):
        return WAYS[self.plan.way](self, stream) if len(self.reads) < PATIENCE else stream.read(SIZES[0])

    def read(self, stream):
        wanted = self.plan.size
        data = stream.read(wanted)
        assert len(data) <= wanted, "more than was asked for"
        return data

    def read1(self, stream):
        return stream.read1(self.plan.size)

    def readinto(self, stream):
        room = bytearray(self.plan.size)
        return bytes(room[: stream.readinto(room)])

    def readline(self, stream):
        return self.one_line(stream.readline())

    def readline_to(self, stream):
        return self.one_line(stream.readline(self.plan.size), self.plan.size)

    def one_line(self, line, most=None):
        assert line.find(b"\n") in {-1, len(line) - 1}, "more than a line"
        assert most is None or len(line) <= most
        return line

    def iterate(self, stream):
        return self.one_line(next(iter(stream), b""))

    def everything(self, stream):
        return stream.read()

    def mixed(self, stream):
        return (self.readline if len(self.reads) % 2 else self.read)(stream)

    def as_webob(self, stream):
        """WebOb takes a read that is shorter than it asked for as the end of a connection."""
        self.environ["webob._body_file"] = None
        data = self.read(stream)
        # Where a body goes through untouched, its reads are the server's.
        assert len(data) == self.plan.size or not self.plan.is_form or not stream.read(1), (
            "a short read amid the body"
        )
        return data


WAYS = {
    "read": Reading.read,
    "everything": Reading.everything,
    "read1": Reading.read1,
    "readinto": Reading.readinto,
    "readline": Reading.readline,
    "readline to": Reading.readline_to,
    "iterate": Reading.iterate,
    "mixed": Reading.mixed,
    "as WebOb": Reading.as_webob,
}
_NAMES = list(WAYS)


class Ledger(Journal):
    """A journal that keeps what it is told, and writes nothing: a disk would be what is measured."""

    stalls_the_log = False

    def __init__(self) -> None:  # opens nothing
        self.records = []

    def describe(self, **_) -> None:
        pass

    def record(self, entry) -> None:
        self.records.append(entry)


def decode(data: bytes) -> Plan:
    """Return the request that an input stands for; any bytes are one."""
    flags, step, way, size = data[:HEAD].ljust(HEAD, b"\0")
    content_type, body = FIXED_TYPE, data[HEAD:]
    if flags & TYPED:
        line, _, body = body.partition(b"\n")
        content_type = line.decode("latin-1")
    return Plan(
        content_type,
        body,
        flags,
        STEPS[step % len(STEPS)],
        _NAMES[way % len(_NAMES)],
        SIZES[size % len(SIZES)],
    )


def encode(content_type: str, body: bytes, head: tuple[int, int, int, int]) -> bytes:
    """Return the input that stands for this body, sent and read as ``head`` says."""
    flags, *rest = head
    if content_type == FIXED_TYPE:
        return bytes([flags & ~TYPED, *rest]) + body
    return bytes([flags | TYPED, *rest]) + content_type.encode("latin-1") + b"\n" + body


def seeds(longest: int) -> dict[str, bytes]:
    """Return the cases in tests/hostile as inputs, each sent and read in another way."""
    found = {}
    for number, case in enumerate(load()):
        flags = (number * 7) % (STREAMED * 2) | (CUT if number % 40 == 0 else 0)
        data = encode(
            case.content_type,
            case.body,
            (flags, number % len(STEPS), number % len(WAYS), number % len(SIZES)),
        )
        if len(data) <= longest:
            found[case.name] = data
    return found


def check(data: bytes) -> str:
    """Fail where the property does not hold of this upload; return what became of it."""
    plan = decode(data)
    if not plan.body and not plan.flags & (CHUNKED | CUT):
        return "without a body"
    with drawn_from(data):
        return check_form(plan) if plan.is_form else check_untouched(plan)


@contextmanager
def drawn_from(data: bytes):
    """Expand boundaries, keys and IVs from the input: chance can neither hide nor feign a failure."""
    draws = count()

    def token_bytes(size: int) -> bytes:
        return shake_128(b"%d of %b" % (next(draws), data)).digest(size)

    def token_hex(size: int) -> str:
        return token_bytes(size).hex()

    drawing = {"token_bytes": token_bytes, "token_hex": token_hex}
    before = [(module, name, getattr(module, name)) for module, name in DRAWN]
    try:
        for module, name in DRAWN:
            setattr(module, name, drawing[name])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def send(plan: Plan):
    """Send a request through the middleware; return (answer, app, journal). No error but a refusal may escape."""
    app, ledger = Reading(plan), Ledger()
    policy = Policy(
        spool=bool(plan.flags & SPOOL),
        suite=Suite.GCM if plan.flags & GCM else Suite.CBC_HMAC,
        **LIMITS,
        **ANY_PACE,
    )
    headers = [("Host", "localhost"), ("Content-Type", plan.content_type)]
    length = None
    if plan.flags & CHUNKED:
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        length = len(plan.body) + bool(plan.flags & CUT)
    with reading_little(plan.flags & STREAMED):
        wrapped = SecureFS(app, keyring=KEYRING, journal=ledger, policy=policy)
        # The server has decoded the chunks.
        own = {"wsgi.input_terminated": True} if plan.flags & CHUNKED else {}
        answer = call(wrapped, "POST", "/upload", Input(plan.body, plan.step), headers, length, **own)
    # That of a chunked body ends the connection: what is left of it must not be read as a request.
    assert answer.error is None or (plan.flags & CHUNKED and isinstance(answer.error, ConnectionResetError))
    return answer, app, ledger


@contextmanager
def reading_little(wanted):
    """Let bodies stream that are longer than 64 bytes, as those beyond a mebibyte do."""
    before = securefs.middleware.body.UPLOAD_READ
    securefs.middleware.body.UPLOAD_READ = 64 if wanted else before
    try:
        yield
    finally:
        securefs.middleware.body.UPLOAD_READ = before


def accepted(answer, ledger):
    """Return whether the app's answer came; fail where it is neither that nor a refusal that the journal has."""
    if answer.status == 200:
        assert answer.body == b"stored"
        return True
    problem_of(answer)
    record = ledger.records[-1]
    assert record.event == "file.rejected"
    assert record.outcome == "failure"
    assert record.http["status"] == answer.status
    assert record.reason in REASONS[answer.status]
    return False


def check_form(plan):
    answer, app, ledger = send(plan)
    parts, whole = strict_parts(plan)
    check_nothing_leaks(app, parts)
    if accepted(answer, ledger):
        assert whole, "accepted what the parser alone refuses"
        assert not (plan.flags & CUT and not plan.flags & CHUNKED), "a body that is too short"
        check_accepted(plan, app, ledger, parts)
        return "accepted"
    if plan.body and plan != plan.plain:
        # Where two things are wrong with a body, which of them is found first may depend on where
        # it is cut.
        plainly, _, its_ledger = send(plan.plain)
        assert not accepted(plainly, its_ledger), "how it is sent and read decides"
    return "refused"


def strict_parts(plan):
    """Return ([(part, content)], whether that is all of it) as our parser reads a body at once."""
    parts = []
    try:
        parser = MultipartParser(parse_boundary(plan.content_type), LIMITS["max_part_header"])
        for event in parser.feed(plan.body):
            if isinstance(event, Part):
                parts.append((event, bytearray()))
            elif isinstance(event, Content):
                parts[-1][1].extend(event.data)
        parser.close()
    except (MalformedTypeError, MalformedBodyError, LimitExceededError):
        return parts, False
    return parts, True


def is_file(filename, content):
    """Return whether a part is a file. A browser's empty file input is none."""
    return bool(filename) or (filename is not None and bool(content))


def handed_on(filename, content):
    """Return the name with which the app sees a part."""
    if not is_file(filename, content):
        return filename
    return shortened(normalise(filename), LIMITS["max_filename"])


def check_nothing_leaks(app, parts):
    """Fail where the app reads a file's content that is not there by right.

    Boundaries are left out: a content that goes on as one begins would be there by chance.
    """
    got = app.got.replace(app.boundary, b"") if app.got else b""
    plain = b"--"
    for part, content in parts:
        filename = handed_on(part.filename, content)
        plain += f'\r\nContent-Disposition: form-data; name="{part.name}"'.encode()
        if filename is not None:
            plain += f'; filename="{filename}"'.encode()
        if part.content_type:
            plain += f"\r\nContent-Type: {part.content_type}".encode()
        plain += b"\r\n\r\n" + (TRAILER if is_file(part.filename, content) else content) + b"\r\n--"
    plain += b"--\r\n\n"
    for part, content in parts:
        if is_file(part.filename, content) and is_telling(content) and content not in plain:
            assert content not in got, "a file's plaintext"


def is_telling(content):
    """Return whether these bytes can't be in a body by chance: nor zeros of a container's header, nor a header and a field."""
    return (
        len(content) >= LONG_ENOUGH
        and len(set(content)) >= VARIED_ENOUGH
        and b"\r\n\r\n" not in content
        and MAGIC[:5] not in content
    )


def check_accepted(plan, app, ledger, parts):
    got, environ = app.got, app.environ
    assert len(got) == int(environ["CONTENT_LENGTH"]), "CONTENT_LENGTH is not met to the byte"
    assert "HTTP_TRANSFER_ENCODING" not in environ
    sealed = canonical_parts(environ["CONTENT_TYPE"], got)
    boundary = app.boundary
    written = [(part.name, part.filename, part.content) for part in sealed]
    theirs = read_by_oracle(got.rstrip(b"\r\n"), boundary)
    assert comparable(written) == comparable(theirs), "read otherwise by multipart"
    in_pieces = plan.size >= WHOLE_HEADERS and plan.way in {"read", "readinto", "read1"}
    theirs = by_werkzeug(*with_known_boundary(app.reads if in_pieces else [got], boundary))
    # It drops every single backslash, also those of a current browser's body.
    assert comparable(written, dropped="\\") == comparable(theirs, dropped="\\"), "read otherwise by Werkzeug"
    files = [part for part in sealed if is_file(part.filename, part.content)]
    assert len(files) == len(environ["securefs"].uploads) <= LIMITS["max_files"]
    assert len(sealed) - len(files) <= LIMITS["max_fields"]
    fields = [part for part in sealed if part not in files]
    assert not any(part.content.startswith(MAGIC) for part in fields), "a ciphertext of somebody's"
    records = [(record.event, record.outcome) for record in ledger.records]
    each = [("file.encrypt", "started"), ("file.encrypt", "success")]
    assert records == each * len(files) + [("request.answered", "success")] * bool(files)
    plain = [opened(part) for part in sealed]
    ours = [(part.name, part.filename, content) for part, content in parts]
    check_same(plan, [(part.name, part.filename, part.content) for part in plain], ours)


def check_same(plan, plain, ours):
    """What the app can decrypt is what a strict reading of the client's body gives: ours, and another's."""
    expected = [(name, handed_on(filename, content), content) for name, filename, content in ours]
    assert comparable(plain) == comparable(expected), "not what was sent"
    assert_read_alike(ours, plan.body, parse_boundary(plan.content_type))


def with_known_boundary(reads, boundary):
    """Return (reads, boundary) with a boundary that Werkzeug's patterns were compiled for before: that takes a millisecond."""
    known = BOUNDARY[: len(boundary)]
    body = io.BytesIO(b"".join(reads).replace(boundary, known))
    return [body.read(len(data)) for data in reads], known


def by_werkzeug(reads, boundary):
    """Return what Werkzeug's decoder makes of a body that it reads in these pieces."""
    decoder, parts = MultipartDecoder(boundary), []
    for data in [*reads, None]:
        decoder.receive_data(data)
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, Field | File):
                parts.append((event.name, getattr(event, "filename", None), bytearray()))
            elif isinstance(event, Data):
                parts[-1][2].extend(event.data)
    return parts


def comparable(parts, dropped=""):
    """Return parts without the differences in notation, and file names as we hand them on."""
    found = []
    for name, filename, content in parts:
        data = bytes(content)
        as_handed_on = normalise(notation(filename, dropped)) if is_file(filename, data) else filename
        found.append((notation(name, dropped), as_handed_on, data))
    return found


def notation(name, dropped):
    """Return a name without ``dropped``, its percent escapes decoded and its backslashes single."""
    name = name.replace(dropped, "")
    for escape, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        name = name.replace(escape, character)
    return re.sub(r"\\+(?=\\)", "", name)


def check_untouched(plan):
    """A body of another type arrives as it was sent, and is of no type that a framework reads files from."""
    kind = parse_options_header(plan.content_type)[0].strip().lower()
    assert kind != "multipart/form-data", "a form that went through"
    answer, app, ledger = send(plan)
    if not accepted(answer, ledger):
        return "refused"
    assert not plan.body.startswith(MAGIC), "a ciphertext of somebody's"
    assert plan.flags & CUT or app.got == plan.body
    return "passed through"
