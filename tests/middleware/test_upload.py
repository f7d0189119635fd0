"""Uploads through the middleware: limits, apps with all kinds of manners, a journal that fails, and where plaintext goes."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.uploads import (
    BROWSER_TYPE,
    CANARY,
    KEYRING,
    MIB,
    Recorder,
    browser_body,
    canonical_parts,
    field,
    file,
    problem_of,
    seen_by,
)
from support.wsgi_client import Input, call

from securefs import Suite, open_encrypted
from securefs.audit import Entry, Journal
from securefs.errors import (
    IntegrityError,
)
from securefs.header import MAGIC
from securefs.middleware import BodyRefusedError, Policy, SecureFS

# --- limits


@pytest.mark.parametrize("make", [pytest.param(field, id="fields"), pytest.param(file, id="files")])
def test_ten_thousand_parts_are_refused_when_the_limit_is_passed(lab_of, make):
    lab = lab_of()
    assert lab.post(BROWSER_TYPE, browser_body([make()] * 10_000)).status == 413
    (record,) = lab.records("file.rejected")
    # The journal tells of as many files as were begun.
    begun = [r for r in lab.records("file.encrypt") if r["outcome"] == "started"]
    assert len(begun) <= 100
    assert record["reason"] == "limit"


# --- what the app and the journal are told


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
@pytest.mark.parametrize("size", [0, 1, 65536, 3 * MIB])
def test_the_app_learns_what_was_uploaded(lab_of, suite, size):
    lab = lab_of(policy=Policy(suite=suite))
    data = os.urandom(size)
    body = browser_body([field(), file('n%22"'.replace('"', ""), data, "q%22.bin", "image/png")])
    assert lab.post(BROWSER_TYPE, body).status == 200
    (upload,) = lab.app.environ["securefs"].uploads
    stored = canonical_parts(lab.app.content_type, bytes(lab.app.got))[1]
    with open_encrypted(io.BytesIO(stored.content), KEYRING) as opened_file:
        assert opened_file.read() == data
        assert upload.object_id == opened_file.object_id
        assert upload.key_id == opened_file.key_id
        assert opened_file.metadata == {"name": 'q".bin', "type": "image/png"}
        assert opened_file.suite == suite.label
    assert (upload.field, upload.filename, upload.content_type, upload.size) == (
        'n"',
        'q".bin',
        "image/png",
        size,
    )
    started, success = lab.records("file.encrypt")
    assert (started["outcome"], success["outcome"]) == ("started", "success")
    assert started["obj"]["id"] == success["obj"]["id"] == upload.object_id
    assert success["obj"]["size"] == size
    assert "size" not in started["obj"]


def test_format_1_is_written_where_the_policy_says_so(lab_of):
    lab = lab_of(policy=Policy(format=1))
    assert lab.post(BROWSER_TYPE, browser_body([file(content=bytes(100_000))])).status == 200
    (part,) = canonical_parts(lab.app.content_type, bytes(lab.app.got))
    with open_encrypted(io.BytesIO(part.content), KEYRING, format_1=True) as opened_file:
        assert opened_file.read() == bytes(100_000)
    (upload,) = lab.app.environ["securefs"].uploads
    assert upload.object_id == ""
    assert all("suite" not in record["obj"] for record in lab.records("file.encrypt"))


def test_the_body_s_own_framing_does_not_reach_the_app(lab_of):
    lab = lab_of()
    body = browser_body([file()])
    lab.post(BROWSER_TYPE + "; charset=utf-8", body, length="absent")
    assert re.fullmatch(r"multipart/form-data; boundary=[0-9a-f]{53}", lab.app.content_type)
    assert "HTTP_TRANSFER_ENCODING" not in lab.app.environ
    assert b"geckoformboundary" not in lab.app.got


def test_a_body_without_any_length_is_encrypted_in_http_2(lab_of):
    """HTTP/2 needs no Content-Length, and has no chunks to announce."""
    lab = lab_of()
    answer = call(
        lab.wrapped,
        "POST",
        "/upload",
        Input(browser_body([file()])),
        [("Content-Type", BROWSER_TYPE)],
        SERVER_PROTOCOL="HTTP/2.0",
    )
    assert answer.status == 200
    assert seen_by(lab.app) == [file()]


def test_two_bodies_never_have_the_same_boundary(lab_of):
    lab = lab_of()
    seen = set()
    for _ in range(20):
        lab.post(BROWSER_TYPE, browser_body([]))
        seen.add(lab.app.content_type)
    assert len(seen) == 20


def test_other_bodies_pass_untouched(lab_of):
    lab = lab_of()
    assert lab.post("application/json", b'{"a": 1}').status == 200
    assert bytes(lab.app.got) == b'{"a": 1}'
    assert lab.app.content_type == "application/json"
    assert call(lab.wrapped, "GET", "/").status == 200
    assert lab.records("file.rejected") == []


# --- apps


def large(content=b"", size=3 * MIB):
    return file(content=content + bytes(size))


def test_an_app_that_stops_reading_leaves_a_failure_in_the_journal(lab_of):
    def app(environ, start_response):
        environ["wsgi.input"].read(100_000)
        start_response("200 OK", [])
        return [b"enough"]

    lab = lab_of(app)
    answer = lab.post(BROWSER_TYPE, browser_body([large()]))
    assert (answer.status, answer.body) == (200, b"enough")
    assert [(r["outcome"], r.get("reason")) for r in lab.records("file.encrypt")] == [
        ("started", None),
        ("failure", "io_error"),
    ]


def test_an_app_that_never_reads_leaves_a_failure_in_the_journal_when_it_is_done(lab_of):
    bodies = []

    def app(environ, start_response):
        bodies.append(environ["wsgi.input"])  # kept, so that nothing is left to the garbage collector
        start_response("200 OK", [])
        return [b"ignored"]

    lab = lab_of(app)
    assert lab.post(BROWSER_TYPE, browser_body([large()])).status == 200
    assert [r["outcome"] for r in lab.records("file.encrypt")] == ["started", "failure"]
    assert bodies[0].closed


def test_an_app_that_raises_leaves_a_failure_in_the_journal(lab_of):
    def app(environ, start_response):
        environ["wsgi.input"].read(100_000)
        raise ZeroDivisionError

    lab = lab_of(app)
    with pytest.raises(ZeroDivisionError):
        lab.post(BROWSER_TYPE, browser_body([large()]))
    assert [r["outcome"] for r in lab.records("file.encrypt")] == ["started", "failure"]


class Lazy:
    """An app that reads the request while it answers."""

    def __init__(self, *, swallow=False):
        self.got = bytearray()
        self.swallow = swallow

    def __call__(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.run(environ["wsgi.input"])

    def run(self, stream):
        yield b"reading "
        try:
            while data := stream.read(65536):
                self.got += data
                yield b"."
        except OSError:
            if not self.swallow:
                raise
        yield b" done"


def test_an_app_may_read_the_request_while_it_answers(lab_of):
    lab = lab_of(Lazy())
    answer = lab.post(BROWSER_TYPE, browser_body([large(CANARY)]))
    assert answer.body.endswith(b" done")
    assert CANARY not in lab.app.got
    assert [r["outcome"] for r in lab.records("file.encrypt")] == ["started", "success"]


def test_an_answer_that_began_is_broken_off_when_the_body_turns_out_bad(lab_of):
    lab = lab_of(Lazy())
    answer = lab.post(BROWSER_TYPE, browser_body([large()])[:-4])
    assert answer.broken_off
    assert not answer.body.endswith(b" done")
    assert [r["reason"] for r in lab.records("file.rejected")] == ["malformed_multipart"]


def test_an_answer_that_began_is_broken_off_even_where_the_app_swallows_the_error(lab_of):
    lab = lab_of(Lazy(swallow=True))
    answer = lab.post(BROWSER_TYPE, browser_body([large()])[:-4])
    assert answer.broken_off
    assert not answer.body.endswith(b" done")
    assert [r["reason"] for r in lab.records("file.rejected")] == ["malformed_multipart"]


@pytest.mark.parametrize("swallow", [False, True])
def test_a_raw_body_of_ciphertext_is_journalled_however_late_it_is_read(lab_of, swallow):
    lab = lab_of(Lazy(swallow=swallow))
    answer = lab.post("application/octet-stream", MAGIC + CANARY)
    assert answer.broken_off
    assert [r["reason"] for r in lab.records("file.rejected")] == ["ciphertext_injection"]


def test_a_client_that_goes_away_from_such_an_app_leaves_a_failure(lab_of):
    lab = lab_of(Lazy())
    lab.post(BROWSER_TYPE, browser_body([large()]), chunks=3)
    assert [r["outcome"] for r in lab.records("file.encrypt")] == ["started", "failure"]


@pytest.mark.parametrize("step", [None, 1000])
def test_a_client_that_goes_away_is_refused_and_its_file_a_failure(lab_of, step):
    lab = lab_of()
    body = browser_body([large()])
    stream = Input(body[: 2 * MIB], step)
    answer = lab.post(BROWSER_TYPE, stream, length=len(body))
    assert answer.status == 400
    assert isinstance(lab.app.error, BodyRefusedError)
    assert [(r["outcome"], r.get("reason")) for r in lab.records("file.encrypt")] == [
        ("started", None),
        ("failure", "client_gone"),
    ]
    (record,) = lab.records("file.rejected")
    assert record["reason"] == "client_gone"
    assert record["obj"]["parts"] == 1


def test_who_swallows_the_error_and_reads_on_gets_it_again(lab_of):
    errors = []

    def app(environ, start_response):
        for _ in range(100):
            try:
                environ["wsgi.input"].read(MIB)
            except BodyRefusedError as error:
                errors.append(error)
        start_response("200 OK", [])
        return [b"all is well"]

    lab = lab_of(app)
    answer = lab.post(BROWSER_TYPE, browser_body([large()])[:-4])
    assert answer.status == 400
    assert len(errors) > 90
    assert b"well" not in answer.body


def test_an_app_that_fails_over_a_refused_body_is_answered_for(lab_of):
    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raise RuntimeError from error

    lab = lab_of(app)
    assert lab.post(BROWSER_TYPE, browser_body([large()])[:-4]).status == 400


class Watched(Input):
    """A body that counts at each read who still holds what the read before it gave."""

    last = None
    held = ()

    def read(self, size=-1):
        if self.last is not None:
            self.held += (sys.getrefcount(self.last),)
        self.last = super().read(size)
        return self.last


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize(
    "upload",
    [
        pytest.param((BROWSER_TYPE, browser_body([large(size=5 * MIB)]), "/upload"), id="form"),
        pytest.param(("image/png", bytes(5 * MIB), "/raw"), id="raw"),
    ],
)
def test_nothing_that_was_read_is_kept_while_the_client_is_waited_for(lab_of, upload, spool):
    """The wait may be long, and there may be many."""
    media_type, body, path = upload
    lab = lab_of(policy=Policy(spool=spool, raw_uploads=("/raw",)))
    stream = Watched(body)
    assert lab.post(media_type, stream, path=path).status == 200
    alone = sys.getrefcount(stream.last)
    assert len(stream.held) >= 4
    assert set(stream.held) == {alone}


# --- a journal that cannot be written


class Pipe:
    """A journal into a pipe, which fails from the moment that nobody reads any more."""

    def __init__(self):
        self.reader, writer = os.pipe()
        self.writer = os.fdopen(writer, "wb", buffering=0)
        self.journal = Journal(stream=self.writer, names="clear")
        self.lines = b""

    def breaks(self):
        if self.reader is not None:
            self.lines += os.read(self.reader, 1 << 20)
            os.close(self.reader)
            self.reader = None

    def close(self):
        self.breaks()
        self.writer.close()


@pytest.fixture
def pipe():
    pipe = Pipe()
    pipe.journal.record(Entry("key.use"))
    yield pipe
    pipe.close()


class Breaking(Recorder):
    """Reads a little, makes the journal fail, reads on."""

    def __call__(self, environ, start_response):
        self.got += environ["wsgi.input"].read(1000)
        self.pipe.breaks()
        return super().__call__(environ, start_response)


def wrapped(app, pipe, **options):
    app.pipe = pipe
    return SecureFS(app, keyring=KEYRING, journal=pipe.journal, policy=Policy(**options))


def post(app, body):
    return call(app, "POST", "/upload", Input(body), [("Content-Type", BROWSER_TYPE)], length=len(body))


@pytest.mark.parametrize("size", [pytest.param(10, id="exact"), pytest.param(3 * MIB, id="streamed")])
def test_no_file_is_begun_that_cannot_be_recorded(pipe, size):
    pipe.breaks()
    app = Recorder()
    answer = post(
        wrapped(app, pipe), browser_body([field(content=CANARY), file(content=CANARY + bytes(size))])
    )
    assert answer.status == 503
    problem_of(answer)
    assert CANARY not in app.got
    assert app.calls == 0, "the first read found the file"


def test_a_file_that_cannot_be_recorded_while_the_app_reads_raises_there(pipe):
    app = Breaking()
    body = browser_body([field(content=bytes(MIB)), field("b", bytes(MIB // 2)), file()])
    answer = post(wrapped(app, pipe), body)
    assert answer.status == 503
    assert isinstance(app.error, BodyRefusedError)
    assert CANARY not in app.got
    assert b"filename" not in app.got


def test_the_last_segment_is_not_released_where_the_outcome_cannot_be_recorded(pipe):
    app = Breaking(step=100)  # small reads: one that raises takes nothing with it
    answer = post(wrapped(app, pipe), browser_body([large(size=MIB)]))
    assert answer.status == 503
    assert isinstance(app.error, BodyRefusedError)
    boundary = re.search(r"boundary=(.*)", app.content_type)[1].encode()
    stored = bytes(app.got).split(b"\r\n\r\n", 1)[1]
    assert boundary not in stored, "no closing boundary"
    with pytest.raises(IntegrityError), open_encrypted(io.BytesIO(stored), KEYRING):
        pass
    assert b'"outcome":"success"' not in pipe.lines.rpartition(b"file.encrypt")[2]


def test_a_small_file_whose_outcome_cannot_be_recorded_never_reaches_the_app(pipe):
    body = browser_body([file()])

    class Ending(Input):
        def read(self, size=-1):
            if self.position:
                pipe.breaks()
            return super().read(size)

    app = Recorder()
    answer = call(
        wrapped(app, pipe),
        "POST",
        "/upload",
        Ending(body, len(body) - 5),
        [("Content-Type", BROWSER_TYPE)],
        length=len(body),
    )
    assert (answer.status, app.calls) == (503, 0)


def test_other_routes_go_on_without_a_journal(pipe):
    pipe.breaks()
    app = wrapped(Recorder(), pipe)
    assert call(app, "GET", "/").status == 200
    assert (
        call(app, "POST", "/", b"a=b", [("Content-Type", "application/x-www-form-urlencoded")]).status == 200
    )


def test_an_unrecorded_refusal_is_a_503(pipe):
    pipe.breaks()
    assert post(wrapped(Recorder(), pipe), browser_body([field()])[:-4]).status == 503


# --- where plaintext goes

DISK = """
import io, os, stat, sys, tempfile
from support.uploads import *
from securefs.middleware import Policy
folder, canary = sys.argv[1], b"canary-9f2c61d07be4"
os.mkdir(folder + "/tmp")
tempfile.tempdir = folder + "/tmp"
checked = set()

def check():
    # Temporary files have no name: their descriptors do.
    for fd in os.listdir("/proc/self/fd"):
        try:
            status = os.stat("/proc/self/fd/" + fd)
            if not stat.S_ISREG(status.st_mode):
                continue
            with open("/proc/self/fd/" + fd, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            continue
        if canary in data:
            sys.exit("plaintext in descriptor " + fd)
        if data and "/tmp" in os.readlink("/proc/self/fd/" + fd):
            checked.add((status.st_ino, len(data)))

class Looking(Recorder):
    def __call__(self, environ, start_response):
        check()
        while data := environ["wsgi.input"].read(MIB // 2):
            self.got += data
            check()
        start_response("200 OK", [])
        return [b""]

class Watched(Input):
    def read(self, size=-1):
        check()
        return super().read(size)

files = []
sys.addaudithook(lambda event, args: files.append(args) if event == "open" else None)
lab = Lab(__import__("pathlib").Path(folder), Looking(), policy=Policy(spool=sys.argv[2] == "spool"))
parts = [
    Expected(canary.decode(), canary * 100, None, None),
    Expected("f", canary * (4 * MIB // len(canary)), canary.decode() + ".txt", "text/plain"),
]
body = browser_body(parts)
assert lab.post(BROWSER_TYPE, Watched(body)).status == 200
assert lab.app.error is None
lab.close()
written = sorted({str(path) for path, mode, flags in files if isinstance(path, str) and flags & (os.O_WRONLY | os.O_RDWR)})
for path in written:
    assert path.startswith((folder + "/tmp", folder + "/journal")), path
for root, _, names in os.walk(folder):
    for name in names:
        assert canary not in open(os.path.join(root, name), "rb").read(), name
print(len(checked))
"""


@pytest.mark.parametrize("mode", ["spool", "stream"])
def test_no_byte_of_plaintext_is_ever_in_a_file(mode, tmp_path):
    """Neither of a file, nor of a field, nor of a name; looked at after every read, in every open descriptor."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", DISK, str(tmp_path), mode],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The spool was seen while it grew; a streamed upload leaves nothing to see.
    assert (int(done.stdout) > 3) is (mode == "spool")
    assert stat.S_ISDIR((tmp_path / "tmp").stat().st_mode)


def test_neither_content_nor_name_nor_type_can_be_read_in_a_stored_file(lab_of):
    lab = lab_of()
    secrets = (CANARY, b"name-canary", b"type-canary")
    lab.post(BROWSER_TYPE, browser_body([file(filename="name-canary.txt", kind="text/type-canary")]))
    (part,) = canonical_parts(lab.app.content_type, bytes(lab.app.got))
    assert not [secret for secret in secrets if secret in part.content]
    with open_encrypted(io.BytesIO(part.content), KEYRING) as opened:
        assert opened.metadata == {"name": "name-canary.txt", "type": "text/type-canary"}


@pytest.mark.parametrize(
    ("boundary", "count"),
    [
        pytest.param(20, 600, id="shorter than ours"),
        pytest.param(31, 1000, id="one less than ours"),
        pytest.param(32, 1000, id="as long as ours"),
        pytest.param(53, 1000, id="a browser's"),
        pytest.param(70, 1000, id="the longest of ours"),
        pytest.param(71, 1000, id="longer than ours"),
        pytest.param(200, 1000, id="the longest"),
    ],
)
def test_as_many_fields_as_are_allowed_stream_behind_any_boundary(boundary, count, lab_of):
    """Our boundary may be longer than the client's: the announced length holds that."""
    lab = lab_of()
    parts = [large(), *[field(name=f"n{number}") for number in range(count)]]
    body = browser_body(parts, b"B" * boundary)
    assert lab.post(f"multipart/form-data; boundary={'B' * boundary}", body).status == 200
    assert seen_by(lab.app) == parts


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("n" * 251 + ".txt", "a/b", id="plain"),
        pytest.param("%22" * 85, "a/b", id="each character escaped"),
        pytest.param("\u00e4" * 127, "a/b", id="two bytes a character"),
        pytest.param("n" * 255, "a/" + "b" * 125, id="the longest type"),
    ],
)
@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.label)
def test_as_many_files_as_are_allowed_stream_under_the_longest_names(suite, name, kind, lab_of):
    """The name is in the sealed metadata once more: the announced length holds that too."""
    lab = lab_of(policy=Policy(suite=suite))
    parts = [large(), *[file(content=b"x", filename=name, kind=kind)] * 99]
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == 200
    assert len(lab.app.got) == lab.app.length
    assert len(canonical_parts(lab.app.content_type, bytes(lab.app.got))) == 100
    assert [record["outcome"] for record in lab.records("file.encrypt")].count("success") == 100


@pytest.mark.parametrize("spare", [0, -1])
def test_a_limit_is_the_number_that_is_still_allowed(spare, lab_of):
    lab = lab_of(policy=Policy(max_files=3 + spare))
    assert lab.post(BROWSER_TYPE, browser_body([file()] * 3)).status == (413 if spare else 200)
    lab = lab_of(policy=Policy(max_fields=3 + spare))
    assert lab.post(BROWSER_TYPE, browser_body([field()] * 3)).status == (413 if spare else 200)
    lab = lab_of(policy=Policy(max_field_bytes=100 + spare))
    assert lab.post(BROWSER_TYPE, browser_body([field(content=bytes(100))])).status == (413 if spare else 200)


@pytest.mark.parametrize("more", [0, 1])
def test_fields_of_32_mebibytes_stream_and_not_one_byte_more(more, lab_of):
    """Behind a file, so that each of them comes after the length was announced."""
    lab = lab_of(policy=Policy(max_field_bytes=32 * MIB))
    parts = [large(), field(content=bytes(31 * MIB)), field("b", bytes(MIB + more))]
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == (413 if more else 200)


def uploaded(lab):
    """Return (the name for the app, the sealed name) of each file that the app was given."""
    found = []
    for part in canonical_parts(lab.app.content_type, bytes(lab.app.got)):
        with open_encrypted(io.BytesIO(part.content), KEYRING) as opened_file:
            found.append((part.filename, opened_file.metadata["name"]))
    return found


@pytest.mark.parametrize(
    ("filename", "handed_on", "sealed"),
    [
        pytest.param("n" * 16 + ".txt", "n" * 16 + ".txt", "n" * 16 + ".txt", id="reached"),
        pytest.param("n" * 17 + ".txt", "n" * 16 + ".txt", "n" * 17 + ".txt", id="passed"),
        pytest.param("d/" + "ä" * 9 + ".x", "ä" * 9 + ".x", "ä" * 9 + ".x", id="of the last component"),
        pytest.param("ä" * 10 + ".xy", "ä" * 8 + ".xy", "ä" * 10 + ".xy", id="at a character"),
        pytest.param("n" * 15 + "%22.txt", "n" * 15 + ".txt", "n" * 15 + '".txt', id="before an escape"),
        pytest.param("n" * 1100 + ".txt", "n" * 16 + ".txt", "n" * 1020 + ".txt", id="more than is sealed"),
    ],
)
def test_a_name_over_max_filename_is_shortened_and_sealed_whole(filename, handed_on, sealed, lab_of):
    lab = lab_of(policy=Policy(max_filename=20))
    assert lab.post(BROWSER_TYPE, browser_body([file(filename=filename)])).status == 200
    assert uploaded(lab) == [(handed_on, sealed)]
    assert [upload.filename for upload in lab.app.environ["securefs"].uploads] == [handed_on]


def test_long_names_in_a_streamed_body_are_sealed_as_far_as_the_announced_length_allows(lab_of):
    """Each of them is sealed, and no upload fails for it."""
    names = ["n" * 1020 + ".txt", "%22" * 400 + ".txt"]
    lab = lab_of()
    lab.post(BROWSER_TYPE, browser_body([large(), *[file(filename=name) for name in names * 49]]))
    assert len(lab.app.got) == lab.app.length
    (_, _), *found = uploaded(lab)
    assert [handed_on for handed_on, _ in found[:2]] == ["n" * 251 + ".txt", "%22" * 83 + ".txt"]
    whole = [name.replace("%22", '"') for name in names]
    assert [sealed for _, sealed in found[:2]] == whole
    assert whole[0] not in [sealed for _, sealed in found[-2:]]
    assert all(sealed.endswith(".txt") or sealed == '"' for _, sealed in found)


@pytest.mark.parametrize(
    ("filename", "handed_on"),
    [
        pytest.param("2024/a.jpg", "2024/a.jpg", id="relative"),
        pytest.param("a/../b.jpg", "b.jpg", id="parent"),
        pytest.param("a/" + "b" * 300 + ".jpg", "b" * 251 + ".jpg", id="a long component"),
        pytest.param("/".join("a" * 200 for _ in range(6)), "a" * 200, id="a long path"),
    ],
)
def test_relative_paths_are_kept_where_the_policy_says_so(filename, handed_on, lab_of):
    lab = lab_of(policy=Policy(keep_paths=True))
    assert lab.post(BROWSER_TYPE, browser_body([file(filename=filename)])).status == 200
    assert uploaded(lab)[0][0] == handed_on


@pytest.mark.parametrize(("count", "status"), [(300, 200), (301, 413)])
def test_three_hundred_files_follow_a_large_one_without_being_held(count, status, lab_of):
    lab = lab_of(policy=Policy(max_files=1000))
    body = browser_body([large(), *[file(content=b"x")] * count])
    assert lab.post(BROWSER_TYPE, body).status == status
    assert lab.app.calls == 1


def test_many_files_from_the_start_are_held_where_more_may_follow_than_stream(lab_of):
    lab = lab_of(policy=Policy(max_files=1000))
    parts = [*[file(content=b"x")] * 400, large(), *[file(content=b"x")] * 500]
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == 200
    assert len(uploaded(lab)) == 901
    assert re.search(rb"--\r\n$", lab.app.got[-4:]), "no filling: the length is exact"


@pytest.mark.parametrize("boundary", [1, 5, 36, 70, 200])
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(Policy(), id="default"),
        pytest.param(Policy(max_files=100_000), id="any number of files"),
        pytest.param(Policy(max_filename=4096), id="long names"),
        pytest.param(Policy(max_part_header=1 << 20), id="long headers"),
    ],
)
def test_no_limit_that_an_upload_does_not_reach_has_it_held(policy, boundary, lab_of):
    if boundary == 200 and policy.max_files > 100:
        pytest.skip("docs/http.md: a boundary of more than 70 characters and hundreds of files are held")
    marker = "B" * boundary
    stream = Input(browser_body([large(size=8 * MIB)], marker.encode()))
    asked = []

    def app(environ, start_response):
        asked.append(stream.position)
        while environ["wsgi.input"].read(65536):
            pass
        start_response("200 OK", [])
        return []

    lab = lab_of(app, policy=policy)
    assert lab.post(f"multipart/form-data; boundary={marker}", stream).status == 200
    assert asked == [MIB]
