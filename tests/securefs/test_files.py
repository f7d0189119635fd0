from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.sealing import KEY, OTHER_KEY, PRIMITIVES, RING, SUITES, pattern
from support.servers import wait_until
from support.special import bind, unnamed_of

from securefs import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    Keyring,
    SourceError,
    Suite,
    UnknownKeyError,
    decrypt_file,
    encrypt_file,
    open_encrypted,
    rewrap,
    verify,
)

WAYS = [
    pytest.param({"suite": Suite.CBC_HMAC}, id="suite-1"),
    pytest.param({"suite": Suite.GCM}, id="suite-2"),
    pytest.param({"format_1": True}, id="format-1"),
]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain"
    path.write_bytes(pattern(200_000))
    return path


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("options", WAYS)
def test_round_trip(tmp_path, plain, options, primitives):
    sealed, out = tmp_path / "sealed", tmp_path / "out"
    object_id = encrypt_file(plain, sealed, RING, primitives=primitives, **options)
    format_1 = options.get("format_1", False)
    info = decrypt_file(sealed, str(out), RING, format_1=format_1, primitives=primitives)
    assert out.read_bytes() == plain.read_bytes()
    assert (info.object_id, info.size, info.format) == (object_id, 200_000, 1 if format_1 else 2)
    assert len(object_id) == (0 if format_1 else 64)
    assert (mode(sealed), mode(out)) == (0o600, 0o600)
    assert verify(sealed, RING, format_1=format_1) == info
    assert names(tmp_path) == {"plain", "sealed", "out"}


@pytest.mark.parametrize("suite", SUITES)
def test_context_and_metadata_go_along(tmp_path, plain, suite):
    sealed = tmp_path / "sealed"
    encrypt_file(plain, sealed, RING, suite=suite, context=b"tenant", metadata={"name": "plain"})
    assert verify(sealed, RING, b"tenant").metadata == {"name": "plain"}
    with pytest.raises(IntegrityError):
        decrypt_file(sealed, tmp_path / "out", RING, context=b"other")
    assert names(tmp_path) == {"plain", "sealed"}


@pytest.mark.parametrize("options", [{"context": b"x"}, {"metadata": {"name": "x"}}])
def test_format_1_takes_neither_context_nor_metadata(tmp_path, plain, options):
    with pytest.raises(ConfigurationError, match="Format 1 has no place"):
        encrypt_file(plain, tmp_path / "sealed", RING, format_1=True, **options)
    assert names(tmp_path) == {"plain"}


def test_the_mode_is_private_whatever_the_umask(tmp_path, plain):
    old = os.umask(0)
    try:
        encrypt_file(plain, tmp_path / "sealed", RING)
    finally:
        os.umask(old)
    assert mode(tmp_path / "sealed") == 0o600


@pytest.mark.parametrize("options", WAYS)
def test_a_file_that_does_not_verify_leaves_no_target(tmp_path, plain, options):
    sealed = tmp_path / "sealed"
    encrypt_file(plain, sealed, RING, **options)
    data = bytearray(sealed.read_bytes())
    data[100_000] ^= 1
    sealed.write_bytes(data)
    (tmp_path / "kept").write_bytes(b"kept")
    format_1 = options.get("format_1", False)
    with pytest.raises(IntegrityError):
        decrypt_file(sealed, tmp_path / "out", RING, format_1=format_1)
    with pytest.raises(IntegrityError):
        decrypt_file(sealed, tmp_path / "kept", RING, format_1=format_1, overwrite=True)
    assert (tmp_path / "kept").read_bytes() == b"kept"
    assert names(tmp_path) == {"plain", "sealed", "kept"}


def test_other_refusals_leave_no_target_either(tmp_path, plain):
    sealed = tmp_path / "sealed"
    encrypt_file(plain, sealed, RING)
    with pytest.raises(UnknownKeyError):
        decrypt_file(sealed, tmp_path / "out", Keyring(OTHER_KEY))
    with pytest.raises(FormatError):
        decrypt_file(plain, tmp_path / "out", RING)
    with pytest.raises(FileNotFoundError):
        encrypt_file(tmp_path / "none", tmp_path / "out", RING)
    with pytest.raises(FileNotFoundError):
        encrypt_file(plain, tmp_path / "no folder" / "out", RING)
    assert names(tmp_path) == {"plain", "sealed"}


def test_an_existing_target_is_kept_unless_told_otherwise(tmp_path, plain):
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    target.chmod(0o644)
    with pytest.raises(ConfigurationError, match="exists already"):
        encrypt_file(plain, target, RING)
    assert target.read_bytes() == b"kept"
    encrypt_file(plain, target, RING, overwrite=True)
    assert verify(target, RING).size == 200_000
    assert mode(target) == 0o600
    assert names(tmp_path) == {"plain", "target"}


def test_a_file_may_replace_its_own_source(tmp_path, plain):
    encrypt_file(plain, plain, RING, overwrite=True)
    decrypt_file(plain, plain, RING, overwrite=True)
    assert plain.read_bytes() == pattern(200_000)


def test_a_link_at_the_target_is_not_followed(tmp_path, plain):
    elsewhere, dangling = tmp_path / "elsewhere", tmp_path / "dangling"
    elsewhere.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(elsewhere)
    dangling.symlink_to(tmp_path / "nowhere")
    encrypt_file(plain, tmp_path / "link", RING, overwrite=True)
    assert elsewhere.read_bytes() == b"kept"
    with pytest.raises(ConfigurationError, match="exists already"):
        encrypt_file(plain, dangling, RING)
    assert names(tmp_path) == {"plain", "elsewhere", "link", "dangling"}


def run(program: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


FULL = """
import errno, resource, sys
from securefs import Keyring, decrypt_file, encrypt_file
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
try:
    (encrypt_file if sys.argv[1] == "encrypt" else decrypt_file)(sys.argv[2], sys.argv[3], Keyring(bytes(range(32))))
except OSError as error:
    print(errno.errorcode[error.errno])
resource.setrlimit(resource.RLIMIT_FSIZE, before)  # a measurement of coverage may want to write more
"""


@pytest.mark.parametrize("action", ["encrypt", "decrypt"])
def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path, plain, action):
    """The system refuses to let the file grow, as it does on a full disk."""
    source = plain
    if action == "decrypt":
        source = tmp_path / "sealed"
        encrypt_file(plain, source, RING)
    before = names(tmp_path)
    result = run(FULL, action, source, tmp_path / "target")
    assert (result.stdout, result.stderr) == ("EFBIG\n", "")
    assert names(tmp_path) == before


INTERRUPTED = """
import sys
from securefs import Keyring, encrypt_file
try:
    encrypt_file(sys.argv[1], sys.argv[2], Keyring(bytes(range(32))))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path):
    """A real SIGINT, while the program reads a source that takes it much longer than this test."""
    pipe = subprocess.PIPE
    with (tmp_path / "source").open("wb") as source:
        source.truncate(2**40)
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "source"), str(tmp_path / "target")]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        try:
            wait_until(
                lambda: (
                    process.poll() is not None or any(size > 2**20 for size in unnamed_of(process, tmp_path))
                ),
                "a MiB of the target",
            )
            assert process.poll() is None, "the program ended early"
            process.send_signal(signal.SIGINT)
            process.wait(30)
        finally:
            process.kill()  # a program that did not end by itself must not be waited for
        output, errors = process.communicate()
    assert (output, errors, process.returncode) == (b"interrupted\n", b"", 0)
    assert names(tmp_path) == {"source"}


SPECIAL = [
    pytest.param(os.mkfifo, "a pipe", id="pipe"),
    pytest.param(bind, "a socket", id="socket"),
    pytest.param(os.mkdir, "a folder", id="folder"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), "a device", id="device"),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("make", "kind"), SPECIAL)
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda path, _: open_encrypted(path, RING), id="open_encrypted"),
        pytest.param(lambda path, _: open_encrypted(str(path), RING, format_1=True), id="Format 1"),
        pytest.param(lambda path, _: verify(path, RING), id="verify"),
        pytest.param(lambda path, target: decrypt_file(path, target, RING), id="decrypt_file"),
        pytest.param(lambda path, target: encrypt_file(path, target, RING), id="encrypt_file"),
        pytest.param(lambda path, _: rewrap(path, RING), id="rewrap"),
    ],
)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, make, kind, use):
    """A pipe has no writer here: opened as a file is, it would hold this thread for ever."""
    path = tmp_path / "special"
    make(path)
    with pytest.raises(SourceError) as caught:
        use(path, tmp_path / "target")
    assert (str(caught.value), caught.value.reason) == (f"{path} is {kind}, not a regular file", "io_error")
    assert names(tmp_path) == {"special"}


def test_a_link_that_the_caller_names_is_followed(tmp_path, plain):
    encrypt_file(plain, tmp_path / "sealed", RING)
    link = tmp_path / "link"
    link.symlink_to("sealed")
    assert verify(link, RING).size == 200_000
    assert decrypt_file(link, tmp_path / "again", RING).size == 200_000
    with open_encrypted(link, RING) as file:
        assert file.size == 200_000
    assert not rewrap(link, RING).changed
    with pytest.raises(SourceError, match="link is a symbolic link, not a regular file"):
        rewrap(link, RING, follow_links=False)


@pytest.mark.parametrize(("make", "kind"), SPECIAL)
def test_what_is_no_regular_file_is_not_replaced(tmp_path, plain, make, kind):
    make(tmp_path / "special")
    before = (tmp_path / "special").lstat()
    with pytest.raises(ConfigurationError, match=f"special is {kind}, not a regular file, and will not be"):
        encrypt_file(plain, tmp_path / "special", RING, overwrite=True)
    assert os.path.samestat((tmp_path / "special").lstat(), before)
    assert names(tmp_path) == {"plain", "special"}


def test_the_key_is_not_in_what_is_written(tmp_path, plain):
    for options in ({}, {"suite": Suite.GCM}, {"format_1": True}):
        encrypt_file(plain, tmp_path / "sealed", RING, overwrite=True, **options)
        data = (tmp_path / "sealed").read_bytes()
        assert KEY not in data
        assert pattern(200_000)[:16] not in data
