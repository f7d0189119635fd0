"""The one spool: four ways lead to it, and a temporary folder that is full is one answer and one reason on each of them."""

from __future__ import annotations

import errno
import io
import resource
import signal

import pytest
from support.sealing import pattern, seal
from support.wsgi_client import call, multipart

from securefs.errors import Reason
from securefs.middleware import Policy, SecureFS
from securefs.middleware.refusal import Refusal
from securefs.middleware.spool import HELD_IN_MEMORY, Spool

MIB = 1024 * 1024
CONTENT = pattern(6 * MIB)


@pytest.mark.parametrize("size", [0, 1, HELD_IN_MEMORY, HELD_IN_MEMORY + 1, 3 * MIB])
@pytest.mark.parametrize("step", [100_000, 7 * MIB])
def test_what_goes_in_comes_out(size, step):
    spool = Spool()
    for at in range(0, size, step):
        spool.write(CONTENT[:size][at : at + step])
    assert b"".join(spool.pieces()) == CONTENT[:size]
    assert b"".join(spool.pieces()) == CONTENT[:size], "and again"
    file = spool.finish()
    assert (file.tell(), file.read()) == (0, CONTENT[:size])
    spool.close()
    assert file.closed


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EFBIG, 507), (errno.EIO, 500), (errno.EACCES, 500)],
)
@pytest.mark.parametrize("action", ["write", "finish", "pieces"])
def test_a_disk_that_fails_is_a_refusal(number, status, action):
    class Broken(io.BytesIO):
        def fail(self, *_):
            raise OSError(number, "what the system says")

        write = seek = read = fail

    spool = Spool()
    spool.close()
    spool._file = Broken()
    with pytest.raises(Refusal, match="what the system says") as caught:
        list(spool.pieces()) if action == "pieces" else getattr(spool, action)(*[b"x"] * (action == "write"))
    assert (caught.value.status, caught.value.reason) == (status, Reason.IO_ERROR)


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A temporary folder that takes files of up to 2 MiB: to a writer a limit is as a full disk."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def reading(environ, start_response):
    while environ["wsgi.input"].read(65_536):
        pass
    start_response("200 OK", [])
    return [b"stored"]


def generating(stored):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(stored)))])
        return (stored[at : at + 65_536] for at in range(0, len(stored), 65_536))

    return app


def writing(stored, *, polite):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        try:
            for at in range(0, len(stored), 65_536):
                write(stored[at : at + 65_536])
        except OSError:
            if not polite:
                return [b"never mind"]
            raise
        return []

    return app


def look(part, chunks):
    for _ in chunks:
        pass


def ways(keyring):
    stored = seal(CONTENT, ring=keyring)
    kind, body = multipart(("file", "a.bin", CONTENT))
    upload = {"body": body, "headers": [("Content-Type", kind)]}
    return {
        "an upload that is held": (reading, "POST", upload, {"policy": Policy(spool=True)}, "file.rejected"),
        "an inspected upload": (reading, "POST", upload, {"inspect": look}, "file.rejected"),
        "a download that can't seek": (generating(stored), "GET", {}, {}, "file.decrypt"),
        "a download by write()": (writing(stored, polite=True), "GET", {}, {}, "file.rejected"),
        "write() of an app that goes on": (writing(stored, polite=False), "GET", {}, {}, "file.rejected"),
    }


@pytest.mark.parametrize("number", range(5))
def test_a_full_temporary_folder_is_one_answer_and_one_reason(number, keyring, journal, small_disk):
    name, (app, method, request, options, event) = list(ways(keyring).items())[number]
    wrapped = SecureFS(app, keyring=keyring, journal=journal, **options)
    answer = call(wrapped, method, **request)
    assert answer.status == 507, name
    assert CONTENT[:100] not in answer.body
    records = [line for line in journal.records() if "status" in line.get("http", {})]
    assert [record["event"] for record in records] == [event]
    assert [(record["outcome"], record["reason"], record["http"]["status"]) for record in records] == [
        ("failure", "io_error", 507)
    ]


def test_there_are_five_ways(keyring):
    assert len(ways(keyring)) == 5
