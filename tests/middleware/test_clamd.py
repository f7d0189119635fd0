"""ClamAV against a clamd of its own, with one signature: a marker that does no harm. Nothing is fetched from a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.hostile_corpus import Expected
from support.servers import DEADLINE, await_start, launch, stopped
from support.uploads import BROWSER_TYPE, MIB, Lab, browser_body, seen_by

from securefs.middleware import ClamAV
from securefs.middleware.inspection import ScannerError

MARKER = b"securefs: a marker that does no harm"
LIMIT = 8 * MIB  # of clamd's stream
# The same each time: clamd looks for archives anywhere in it, and chance may put one there.
NOISE = hashlib.shake_128(b"noise").digest(LIMIT)

_CONFIGURATION = """\
Foreground yes
DatabaseDirectory {folder}/signatures
TemporaryDirectory {folder}
LocalSocket {folder}/clamd.ctl
FixStaleSocket yes
StreamMaxLength {limit}
{settings}
"""


def program():
    """Return clamd's path, None without it. It lies where only root looks for programs."""
    return shutil.which("clamd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def pongs(address: Path) -> bool:
    """Return whether a clamd answers there."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(address))
            client.sendall(b"zPING\0")
            return client.recv(5) == b"PONG\0"
    except OSError:
        return False


@contextmanager
def clamd(folder: Path, settings: str = ""):
    """Yield a clamd that answers, its socket at ``folder``/clamd.ctl; end it afterwards by its own process id."""
    command = program()
    if command is None:
        pytest.skip("clamd is not installed: apt-get install clamav-daemon")
    (folder / "signatures").mkdir()
    # Name, any type of file, any offset, the bytes in hexadecimal.
    (folder / "signatures" / "test.ndb").write_text(f"Test.Marker:0:*:{MARKER.hex()}\n")
    configuration = folder / "clamd.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, limit=LIMIT, settings=settings))
    server = launch([command, f"--config-file={configuration}"], folder / "clamd.log")
    with stopped(server):
        await_start(server, lambda: pongs(folder / "clamd.ctl"), "PONG of clamd")
        yield server


@pytest.fixture(scope="module")
def scanner(tmp_path_factory):
    """Return the inspector that asks a running clamd."""
    folder = tmp_path_factory.mktemp("clamd")
    with clamd(folder):
        yield ClamAV(str(folder / "clamd.ctl"), timeout=DEADLINE)


@pytest.fixture
def lab(tmp_path, scanner):
    lab = Lab(tmp_path, inspect=scanner)
    yield lab
    lab.close()


def send(lab, content):
    """Send one file; return the answer and what the app should have got."""
    parts = [Expected("f", content, "a.bin", "application/octet-stream")]
    return lab.post(BROWSER_TYPE, browser_body(parts)), parts


def assert_refused(lab, answer, status):
    assert answer.status == status
    assert lab.app.got == b"", "the app saw some of it"
    (record,) = lab.records("file.rejected")
    assert record["reason"] == "inspection"
    assert record["http"]["status"] == status


SIZES = [pytest.param(0, id="empty"), pytest.param(1000, id="short"), pytest.param(5 * MIB, id="5 MiB")]


@pytest.mark.parametrize("size", [*SIZES, pytest.param(LIMIT, id="all that clamd takes")])
def test_a_clean_file_passes(lab, size):
    answer, parts = send(lab, NOISE[:size])
    assert answer.status == 200
    assert seen_by(lab.app) == parts
    assert lab.records("file.rejected") == []


@pytest.mark.parametrize("size", [*SIZES, pytest.param(LIMIT - len(MARKER), id="all that clamd takes")])
def test_a_marker_in_the_last_bytes_is_found_and_the_file_never_reaches_the_app(lab, size):
    answer, _ = send(lab, NOISE[:size] + MARKER)
    assert_refused(lab, answer, 400)
    assert b"Marker" not in answer.body, "what was found is not the client's to know"


@pytest.mark.parametrize("more", [pytest.param(1, id="by a byte"), pytest.param(LIMIT, id="by far")])
def test_what_is_longer_than_clamd_takes_is_not_accepted_unlooked_at(lab, more):
    answer, _ = send(lab, NOISE + NOISE[:more])
    assert_refused(lab, answer, 503)


def test_what_clamd_says_of_its_limit_is_heard(scanner):
    with pytest.raises(ScannerError, match="size limit exceeded"):
        scanner(None, iter([NOISE] * 4))


def test_a_clamd_that_was_stopped_accepts_nothing(tmp_path):
    with clamd(tmp_path) as process:
        lab = Lab(tmp_path, inspect=ClamAV(str(tmp_path / "clamd.ctl"), timeout=DEADLINE))
        try:
            assert send(lab, NOISE[:1000])[0].status == 200
            lab.app.got.clear()
            process.stop()
            assert_refused(lab, send(lab, NOISE[:1000])[0], 503)
        finally:
            lab.close()


def test_a_clamd_that_dies_amid_a_file_accepts_nothing(tmp_path):
    with clamd(tmp_path) as process:
        ask = ClamAV(str(tmp_path / "clamd.ctl"), timeout=DEADLINE)

        def until_it_dies(chunks):
            for number, chunk in enumerate(chunks):
                yield chunk
                if number == 8:
                    process.stop(signal.SIGKILL)

        lab = Lab(tmp_path, inspect=lambda part, chunks: ask(part, until_it_dies(chunks)))
        try:
            assert_refused(lab, send(lab, NOISE[: 5 * MIB])[0], 503)
        finally:
            lab.close()


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        pytest.param("MaxFileSize 2M", 200, id="clean without a look"),
        pytest.param("MaxFileSize 2M\nAlertExceedsMax yes", 400, id="found"),
    ],
)
def test_what_clamd_says_of_files_beyond_its_max_file_size(settings, status, tmp_path):
    """Why docs/deployment.md asks for AlertExceedsMax: clamd calls clean what it did not look into."""
    with clamd(tmp_path, settings):
        lab = Lab(tmp_path, inspect=ClamAV(str(tmp_path / "clamd.ctl"), timeout=DEADLINE))
        try:
            assert send(lab, MARKER + NOISE[: 3 * MIB])[0].status == status
        finally:
            lab.close()
