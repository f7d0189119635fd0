"""Containers that an app joined become one file, or one each; nothing is lost before that is sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc

import pytest
from support.journals import ROOT, file_size_limit
from support.sealing import OTHER_KEY, RING, SUITES, pattern, seal

from securefs import ConfigurationError, IntegrityError, Keyring, Reason, SourceError, Suite, open_encrypted
from securefs.recovery import join, write_apart

PLAIN = [pattern(200_000, "1"), pattern(65_536, "2"), b"", pattern(70_000, "3")]


def chunks(plain=PLAIN, suite=Suite.CBC_HMAC, **options):
    return [seal(data, suite, str(number), **options) for number, data in enumerate(plain)]


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "video.mp4"
    found.write_bytes(b"".join(chunks()))
    return found


def content(path, ring=RING, context=b""):
    with open_encrypted(path, ring, context) as file:
        return file.read()


def names(path):
    return sorted(found.name for found in path.parent.iterdir())


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("in_place", [False, True])
def test_one_container_holds_what_all_of_them_held(path, suite, in_place):
    path.write_bytes(b"".join(chunks(suite=suite, context=b"owner:ann")))
    told, seen = [], []
    target = None if in_place else path.with_name("new")
    ring = Keyring(OTHER_KEY, [bytes(range(32))])
    info = join(path, target, ring, b"owner:ann", on_bytes=told.append, on_container=seen.append)
    size = sum(map(len, PLAIN))
    assert (info.size, info.suite, info.key_id) == (size, suite.label, ring.primary_id.hex())
    assert sum(told) == 2 * size
    assert [one.info.size for one in seen] == [len(data) for data in PLAIN]
    assert content(path if in_place else target, Keyring(OTHER_KEY), b"owner:ann") == b"".join(PLAIN)
    assert names(path) == (["video.mp4"] if in_place else ["new", "video.mp4"])


def test_the_order_is_that_in_which_they_are_stored(path):
    path.write_bytes(b"".join(reversed(chunks())))
    join(path, None, RING)
    assert content(path) == b"".join(reversed(PLAIN))


def test_the_metadata_is_what_all_of_them_have_in_common(path):
    texts = [b'{"name":"v.mp4","part":1,"type":"video/mp4"}', b'{"name":"v.mp4","part":2,"type":"video/mp4"}']
    path.write_bytes(b"".join(seal(b"x", label=str(text), metadata_text=text) for text in texts))
    assert join(path, None, RING).metadata == {"name": "v.mp4", "type": "video/mp4"}
    path.write_bytes(chunks()[0] + seal(b"x", label="x", metadata_text=texts[0]))
    assert join(path, None, RING).metadata == {}


def test_in_place_what_is_known_of_the_file_stays(path):
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"note")
    os.utime(path, ns=(1, 2))
    join(path, None, RING)
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o640, 2)
    assert os.getxattr(path, "user.note") == b"note"


def test_a_new_file_is_private(path):
    target = path.with_name("new")
    join(path, target, RING)
    assert target.stat().st_mode & 0o777 == 0o600


def refused(path, error, match, target=None, **options):
    """Check that a call fails, and that nothing was written."""
    before, folder = path.read_bytes(), names(path)
    with pytest.raises(error, match=match) as caught:
        join(path, target, RING, **options)
    assert path.read_bytes() == before
    assert names(path) == folder
    return caught.value


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_a_damaged_container_is_named_and_nothing_is_written(path, bad, in_place):
    made = chunks()
    made[bad] = made[bad][:-30] + b"?" + made[bad][-29:]
    path.write_bytes(b"".join(made))
    seen = []
    at = sum(map(len, made[:bad]))
    target = None if in_place else path.with_name("new")
    error = refused(
        path,
        IntegrityError,
        f"^container {bad + 1}, at byte {at}: .*tag does not match; nothing was written$",
        target,
        on_container=seen.append,
    )
    assert error.reason is Reason.TAG_MISMATCH
    assert [one.fault is not None for one in seen] == [number == bad for number in range(4)]


def test_a_cut_last_one_is_named(path):
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(path, IntegrityError, "^container 4, at byte ").reason is Reason.TRUNCATED


def test_a_chunk_that_is_there_twice_is_named(path):
    made = chunks()
    path.write_bytes(made[0] + made[1] + made[0])
    error = refused(path, IntegrityError, "^container 3, at byte .* object id of container 1: .* twice")
    assert error.reason is Reason.WRONG_OBJECT


def test_one_container_needs_no_recovery(path):
    path.write_bytes(chunks()[0])
    refused(path, ConfigurationError, "it is one container, and it verifies")


def test_what_is_no_container_is_told(path):
    path.write_bytes(b"plaintext")
    assert refused(path, IntegrityError, "not a securefs file").reason is Reason.NOT_ENCRYPTED


def test_the_file_itself_is_no_target(path):
    link = path.with_name("link")
    link.symlink_to("video.mp4")
    for target in (path, link):
        refused(path, ConfigurationError, "is the file itself: to replace it, use --in-place", target)
        refused(path, ConfigurationError, "is the file itself", target, overwrite=True)


def test_an_existing_target_is_replaced_only_on_demand(path):
    target = path.with_name("new")
    target.write_bytes(b"old")
    refused(path, ConfigurationError, "exists already", target)
    join(path, target, RING, overwrite=True)
    assert content(target) == b"".join(PLAIN)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_is_appended_to_meanwhile_is_told(path, in_place):
    def append(container):
        if container.part.number == 4:
            with path.open("ab") as file:
                file.write(seal(b"late", label="late"))

    target = None if in_place else path.with_name("new")
    with pytest.raises(SourceError, match="changed meanwhile"):
        join(path, target, RING, on_container=append)
    assert names(path) == ["video.mp4"]


def test_other_names_would_keep_the_old_file(path):
    os.link(path, path.with_name("other"))
    refused(path, SourceError, "hard links")
    join(path, None, RING, break_links=True)
    assert content(path) == b"".join(PLAIN)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_full_disk_leaves_the_old_file(path, in_place):
    with file_size_limit(100_000):
        refused(path, OSError, "File too large", None if in_place else path.with_name("new"))


def test_memory_does_not_grow_with_the_number_of_containers(path):
    one = pattern(1_000_000)
    peaks = []
    for count in (2, 30):
        path.write_bytes(b"".join(seal(one, Suite.GCM, str(number)) for number in range(count)))
        join(path, path.with_name("new"), RING, overwrite=True)  # what is imported and cached stays
        tracemalloc.start()
        join(path, path.with_name("new"), RING, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000, peaks


KILLED = """
import os, signal, sys
from support.sealing import RING
from securefs.recovery import join

path, call, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = []

def dying(*arguments, **options):
    calls.append(call)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

real = int if call == "on_bytes" else getattr(os, call)
if call == "on_bytes":
    join(path, None, RING, on_bytes=dying)
else:
    setattr(os, call, dying)
    join(path, None, RING)
"""


@pytest.mark.parametrize(
    ("call", "number"), [("on_bytes", 2), ("on_bytes", 6), ("fsync", 1), ("link", 1), ("replace", 1)]
)
def test_whenever_it_is_killed_there_is_the_old_file(path, call, number):
    before = path.read_bytes()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), call, str(number)],
        env=environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert path.read_bytes() == before
    join(path, None, RING)
    assert content(path) == b"".join(PLAIN)


def test_containers_are_written_apart_as_they_are_stored(path, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    made = chunks()
    result = list(write_apart(path, folder, RING))
    assert [target.name for _, target in result] == [f"video.mp4.{number}.enc" for number in (1, 2, 3, 4)]
    assert [target.read_bytes() for _, target in result] == made
    assert [one.info.size for one, _ in result] == [len(data) for data in PLAIN]
    with pytest.raises(ConfigurationError, match="exists already"):
        list(write_apart(path, folder, RING))
    assert len(list(write_apart(path, folder, RING, overwrite=True))) == 4


def test_of_several_the_good_ones_are_written_apart(path, tmp_path):
    made = chunks()
    made[1] = made[1][:100]
    path.write_bytes(b"".join(made))
    path = path.rename(path.with_name("video.enc"))
    result = list(write_apart(path, tmp_path, RING))
    assert [one.fault is None for one, _ in result] == [True, False, True, True]
    assert names(path) == ["video.1.enc", "video.3.enc", "video.4.enc", "video.enc"]
