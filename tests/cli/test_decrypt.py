"""``securefs decrypt``."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from support.commands import names, program, sealed
from support.journals import file_size_limit
from support.servers import wait_until
from support.special import unnamed_of


def test_a_named_pipe_is_read_like_a_pipe(run):
    data = sealed().read_bytes()
    os.mkfifo("fifo")
    writer = threading.Thread(target=lambda: Path("fifo").write_bytes(data))
    writer.start()
    assert run("decrypt", "fifo", "-o", "-").out == b"the content"
    writer.join()


def test_a_tampered_file_releases_not_one_byte_to_a_stream(run):
    path = sealed(bytes(3_000_000))
    raw = bytearray(path.read_bytes())
    raw[-70_000] ^= 1
    path.write_bytes(raw)
    result = run("decrypt", path, "-o", "-")
    assert (result.code, result.out) == (1, b"")
    assert "does not" in result.line or "tag" in result.line
    assert run("decrypt", path).code == 1
    assert names() == ["a.txt.enc"]


def test_a_pipe_that_fails_in_the_middle_says_what_to_discard(run, pipe):
    raw = sealed(bytes(5_000_000)).read_bytes()
    result = run("decrypt", "-", stdin=pipe(raw[:-1]))
    assert result.code == 1
    first, second = result.err.splitlines()
    assert (
        first
        == f"securefs: discard the {len(result.out)} bytes that were written: the rest of the file does not verify"
    )
    assert second.startswith("securefs: ")
    assert result.out
    result = run("decrypt", "-", "-o", "target", stdin=pipe(raw[:-1]))
    assert result.code == 1
    assert result.line
    assert names() == ["a.txt.enc"]
    assert run("decrypt", "-", stdin=pipe(b"no such file")).line.startswith("not a securefs file")


def test_nothing_is_overwritten_without_force(run):
    path = sealed()
    Path("a.txt").write_bytes(b"mine")
    result = run("decrypt", path)
    assert (result.code, result.line) == (
        2,
        "a.txt exists already: name another target with -o, or replace it with --force",
    )
    assert Path("a.txt").read_bytes() == b"mine"
    assert run("decrypt", path, "--force").code == 0
    assert Path("a.txt").read_bytes() == b"the content"


def test_the_sealed_name_is_used_only_on_demand(run):
    Path("sub").mkdir()
    sealed(name="sub/x.enc", metadata={"name": "bericht ü.pdf"})
    assert run("decrypt", "sub/x.enc", "--sealed-name").code == 0
    assert Path("sub/bericht ü.pdf").read_bytes() == b"the content"
    assert run("decrypt", "-", "--sealed-name", stdin=Path("sub/x.enc").read_bytes()).code == 0
    assert Path("bericht ü.pdf").exists()


@pytest.mark.parametrize(
    "name", ["../up", "/etc/x", "a/b", "a\\b", ".bashrc", "..", "a\nb", "\x1b[2J", "", 7, None]
)
def test_a_sealed_name_that_is_no_plain_name_is_refused(run, name):
    sealed(metadata={"name": name} if name is not None else None)
    result = run("decrypt", "a.txt.enc", "--sealed-name")
    assert result.code == 2
    assert "name the target with -o" in result.line
    assert result.line.isprintable()
    assert names() == ["a.txt.enc"]


def test_a_sealed_name_cannot_be_had_from_a_pipe(run, pipe):
    result = run("decrypt", "-", "--sealed-name", stdin=pipe(sealed().read_bytes()))
    assert (result.code, result.line) == (
        2,
        "--sealed-name needs a file as its source: name the target with -o",
    )


@pytest.mark.parametrize("name", ["a.bin", ".enc"])
def test_without_the_suffix_a_target_must_be_named(run, name):
    path = sealed(name=name)
    result = run("decrypt", path)
    assert (result.code, result.line) == (2, f"{name} does not end in .enc: name the target with -o")


def test_a_killed_run_leaves_no_plaintext():
    """Where the file system has files without a name, as all usual ones do."""
    data = sealed(bytes(8_000_000)).read_bytes()
    with program("decrypt", "-", "-o", "target", stdin=subprocess.PIPE) as process:
        # All but the end: it waits for that, with most of the plaintext written.
        process.stdin.write(data[:-1000])
        process.stdin.flush()
        wait_until(
            lambda: any(size > 2_000_000 for size in unnamed_of(process, Path.cwd())), "two million bytes"
        )
        process.kill()
        process.wait(60)
        with suppress(BrokenPipeError):
            process.stdin.close()
    assert process.returncode == -signal.SIGKILL
    assert names() == ["a.txt.enc"]


def test_what_a_killed_run_left_elsewhere_is_removed_and_told(run, monkeypatch):
    sealed()
    left = Path(".a.txt.0123456789abcdef.tmp")
    left.write_bytes(b"plaintext of an earlier run")
    result = run("decrypt", "a.txt.enc")
    assert (result.code, result.line) == (0, f"removed {left}, which a run that was killed had left")
    assert names() == ["a.txt", "a.txt.enc"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_full_disk_leaves_no_plaintext(run, force):
    sealed(bytes(1_000_000))
    if force:
        Path("a.txt").write_bytes(b"kept")
    with file_size_limit(300_000):
        result = run("decrypt", "a.txt.enc", *force)
    assert (result.code, result.line) == (2, "a.txt: File too large")
    assert names() == (["a.txt", "a.txt.enc"] if force else ["a.txt.enc"])


def test_a_folder_that_is_not_flushed_is_told_with_what_was_done(run, monkeypatch):
    def fsync(descriptor, real=os.fsync):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        real(descriptor)

    sealed()
    monkeypatch.setattr("os.fsync", fsync)
    result = run("decrypt", "a.txt.enc")
    assert (result.code, result.line) == (
        2,
        "a.txt: it was written, but a power cut may undo that: Input/output error",
    )
    assert Path("a.txt").read_bytes() == b"the content"
