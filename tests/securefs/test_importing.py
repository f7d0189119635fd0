"""A file becomes an encrypted one in its place: the old one is there until the new one was verified."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.journals import NOBODY, ROOT, file_size_limit, open_descriptors
from support.sealing import KEY, OTHER_KEY, RING, SUITES, pattern, seal, seal_1
from support.special import without_unnamed_files

from securefs import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    Keyring,
    SourceError,
    open_encrypted,
)
from securefs.files import COPY_SIZE
from securefs.importing import encrypt_in_place

CONTENT = pattern(COPY_SIZE + 70_000)  # two pieces
YEAR_2020 = 1_577_836_800 * 10**9 + 123_456_789  # nanoseconds since the epoch


@pytest.fixture(params=["unnamed", "named"])
def naming(request, monkeypatch):
    """A file has no name while it is written, or, where that can't be, a hidden one."""
    if request.param == "named":
        without_unnamed_files(monkeypatch)
    return request.param


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "file"
    found.write_bytes(CONTENT)
    return found


def content(path, ring=RING, context=b""):
    with open_encrypted(path, ring, context) as file:
        return file.read()


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
def test_a_file_becomes_an_encrypted_one(path, suite, size):
    plain = pattern(size)
    path.write_bytes(plain)
    told = []
    info = encrypt_in_place(path, RING, b"owner:ann", suite=suite, on_bytes=told.append)
    assert (info.format, info.suite, info.size, sum(told)) == (2, suite.label, size, size)
    assert content(path, RING, b"owner:ann") == plain
    assert names(path.parent) == {"file"}


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_what_is_known_of_it_stays(path, monkeypatch, links):
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    os.setxattr(path, "user.note", b"from 2020")
    os.utime(path, ns=(YEAR_2020 + 1, YEAR_2020))
    before = path.stat()
    if not links:
        monkeypatch.setattr("os.link", failing(errno.EPERM))
    encrypt_in_place(path, RING)
    after = path.stat()
    for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_nlink"):
        assert getattr(after, field) == getattr(before, field), field
    assert os.getxattr(path, "user.note") == b"from 2020"
    assert content(path) == CONTENT
    assert names(path.parent) == {"file"}


def failing(code):
    def fail(*_, **__):
        raise OSError(code, "broken")

    return fail


def test_format_1_is_decrypted_first(path):
    for ring in (RING, Keyring(OTHER_KEY, [KEY])):
        path.write_bytes(seal_1(CONTENT))
        assert encrypt_in_place(path, ring, format_1=True).key_id == ring.primary_id.hex()
        assert content(path, ring) == CONTENT
    damaged = seal_1(CONTENT)[:-1] + b"?"
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError):
        encrypt_in_place(path, RING, format_1=True)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("format_1", [False, True])
def test_nothing_is_encrypted_twice(path, format_1):
    data = seal(CONTENT)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="encrypted already"):
        encrypt_in_place(path, RING, format_1=format_1)
    assert path.read_bytes() == data


def test_a_file_with_other_names_is_refused_unless_they_may_keep_it(path):
    other = path.with_name("other")
    os.link(path, other)
    with pytest.raises(SourceError, match=r"file has 2 names \(hard links\), and the others would keep"):
        encrypt_in_place(path, RING)
    assert path.read_bytes() == CONTENT
    encrypt_in_place(path, RING, break_links=True)
    assert (content(path), other.read_bytes()) == (CONTENT, CONTENT)
    encrypt_in_place(other, RING)
    assert content(other) == CONTENT


def test_a_link_stays_one(path):
    link = path.with_name("link")
    link.symlink_to("file")
    with pytest.raises(SourceError, match="link is a symbolic link"):
        encrypt_in_place(link, RING, follow_links=False)
    assert path.read_bytes() == CONTENT
    encrypt_in_place(link, RING)
    assert link.is_symlink()
    assert content(path) == CONTENT


def unchanged(path, error, match, **options):
    """Check that a call fails, and that the file and its folder are as they were."""
    before, status = path.read_bytes(), path.stat()
    descriptors = open_descriptors()
    with pytest.raises(error, match=match):
        encrypt_in_place(path, RING, **options)
    assert path.read_bytes() == before
    assert (path.stat().st_ino, path.stat().st_mode) == (status.st_ino, status.st_mode)
    assert names(path.parent) == {"file"}
    assert open_descriptors() == descriptors


@pytest.mark.usefixtures("naming")
def test_a_file_that_is_written_to_meanwhile_is_kept(path):
    def write(_count):
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(SourceError, match="file was changed meanwhile: do it again"):
        encrypt_in_place(path, RING, on_bytes=write)
    assert path.read_bytes().startswith(CONTENT + b"more")
    assert names(path.parent) == {"file"}


def test_a_change_that_leaves_the_size_is_seen_by_its_time(path):
    def write(_count):
        with path.open("r+b") as file:
            file.write(b"?")

    with pytest.raises(SourceError, match="changed meanwhile"):
        encrypt_in_place(path, RING, on_bytes=write)
    assert path.read_bytes() == b"?" + CONTENT[1:]


@pytest.mark.usefixtures("naming")
def test_a_file_that_takes_its_place_meanwhile_is_kept(path):
    def exchange(_count):
        path.with_name("new").write_bytes(b"another")
        path.with_name("new").replace(path)

    with pytest.raises(OSError, match="replaced meanwhile"):
        encrypt_in_place(path, RING, on_bytes=exchange)
    assert path.read_bytes() == b"another"
    assert names(path.parent) == {"file"}


def test_of_two_at_a_time_one_waits_and_finds_that_it_was_done(path):
    errors, threads = [], []

    def second():
        try:
            encrypt_in_place(path, RING)
        except OSError as error:
            errors.append(error.errno)

    def start(_count):
        if not threads:
            threads.append(threading.Thread(target=second))
            threads[0].start()

    encrypt_in_place(path, RING, on_bytes=start)
    threads[0].join(60)
    # The second one may come to the file only after it was replaced: then it finds what it is.
    assert errors in ([errno.ESTALE], [])
    assert content(path) == CONTENT


def test_what_the_disk_made_of_the_new_file_is_found(path, monkeypatch):
    """A byte changes on the disk between its writing and its verification."""
    without_unnamed_files(monkeypatch)

    def damage(_count):
        (temporary,) = path.parent.glob(".file.*.tmp")
        if temporary.stat().st_size > 70_000:
            with temporary.open("r+b") as file:
                file.seek(1000)
                file.write(b"?")

    unchanged(path, IntegrityError, "segment 0", on_bytes=damage)


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("call", ["fsync", "replace", "setxattr", "fchown", "utime"])
def test_a_disk_that_fails_leaves_the_old_file(path, monkeypatch, call):
    os.setxattr(path, "user.note", b"note")
    monkeypatch.setattr(f"os.{call}", failing(errno.EIO))
    unchanged(path, OSError, "broken")


@pytest.mark.usefixtures("naming")
def test_a_full_disk_leaves_the_old_file(path):
    with file_size_limit(100_000):
        unchanged(path, OSError, "File too large")


def test_a_file_system_without_extended_attributes_will_do(path, monkeypatch):
    monkeypatch.setattr("os.listxattr", failing(errno.EOPNOTSUPP))
    encrypt_in_place(path, RING)
    assert content(path) == CONTENT
    path.write_bytes(CONTENT)
    monkeypatch.setattr("os.listxattr", failing(errno.EIO))
    unchanged(path, OSError, "broken")


def test_an_attribute_that_the_system_sets_itself_is_not_set_again(path, monkeypatch):
    """Such as a security label, which most users may not set."""
    value = {"system": b"label"}
    monkeypatch.setattr("os.listxattr", lambda _: [*value])
    monkeypatch.setattr("os.getxattr", lambda _descriptor, name: value[name])
    monkeypatch.setattr("os.setxattr", failing(errno.EPERM))
    encrypt_in_place(path, RING)
    assert content(path) == CONTENT


def test_an_argument_that_is_not_usable_is_told(path):
    unchanged(path, ConfigurationError, "context", context=bytes(70_000))


KILLED = """
import os, signal, sys
import pytest
from support.sealing import RING
from support.special import without_unnamed_files
from securefs.importing import encrypt_in_place

path, call, number, after, named = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "after", sys.argv[5]
patch, calls = pytest.MonkeyPatch(), []
if named == "named":
    without_unnamed_files(patch)

def die(real):
    def called(*arguments, **options):
        calls.append(call)
        last = len(calls) == number
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return called

if call == "on_bytes":
    encrypt_in_place(path, RING, on_bytes=die(int))
else:
    patch.setattr(os, call, die(getattr(os, call)))
    encrypt_in_place(path, RING)
print("done")
"""


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("call", "number"),
    [("on_bytes", 1), ("on_bytes", 2), ("fsync", 1), ("fsync", 2), ("link", 1), ("replace", 1)],
)
def test_whenever_it_is_killed_there_is_the_old_file_or_the_new_one(path, naming, call, number, when):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), call, str(number), when, naming],
        env=environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if (call, naming) == ("link", "named"):  # a file with a name is renamed
        assert done.stdout == b"done\n"
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    replaced = path.read_bytes() != CONTENT
    assert replaced is (
        done.returncode == 0 or (call, when) == ("replace", "after") or (call, number) == ("fsync", 2)
    )
    # What was left is no plaintext.
    left = names(path.parent) - {"file"}
    assert all(CONTENT[:64] not in (path.parent / name).read_bytes() for name in left)
    assert all(name.startswith(".file.") for name in left)
    if naming == "unnamed":
        assert len(left) == ((call, when) in {("link", "after"), ("replace", "before")})
    if not replaced:
        encrypt_in_place(path, RING)
    assert content(path) == CONTENT
    assert stat.S_ISREG(Path(path).stat().st_mode)
