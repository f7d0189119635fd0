"""Standard streams, targets, one line for every error, and a bar on a terminal."""

from __future__ import annotations

import base64
import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import KEY, names, program, sealed
from support.servers import python_environ
from support.special import bind

from securefs.cli.terminal import BAR_WIDTH, Progress, complain, shown


def test_force_replaces_files_only(run):
    path = sealed()
    os.mkfifo("fifo")
    Path("folder").mkdir()
    for target, kind in (("fifo", "a pipe"), ("folder", "a folder")):
        result = run("decrypt", path, "-o", target, "--force")
        assert result.code == 2
        assert result.line == f"{target} is {kind}, not a regular file, and will not be replaced"
    assert stat.S_ISFIFO(Path("fifo").stat().st_mode)


STREAMS = """
securefs() { "$PYTHON" -m securefs "$@"; }
set -e -o pipefail
securefs encrypt <(printf 'the content') -o a.enc
securefs decrypt <(cat a.enc) -o - | tee a
securefs inspect <(cat a.enc) > shown
grep -q '^format: 2$' shown
printf 'the content' | securefs encrypt /dev/stdin -o b.enc --format-1
cat b.enc | securefs decrypt /dev/stdin -o b --format-1
cat a.enc | securefs inspect /dev/stdin > shown-too
cmp shown shown-too
cmp a b
"""


def test_a_pipe_that_is_named_is_a_stream():
    environ = python_environ(FILE_KEY_BASE64=base64.b64encode(KEY).decode(), PYTHON=sys.executable)
    done = subprocess.run(["bash", "-c", STREAMS], env=environ, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"the content", b"", 0)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("command", ["encrypt", "decrypt", "inspect", "verify", "rewrap"])
def test_a_socket_is_told(run, command):
    bind(Path("x.enc").absolute())
    result = run(command, "x.enc")
    text = result.out.decode() if command in {"verify", "rewrap"} else result.line
    assert result.code == (1 if command in {"verify", "rewrap"} else 2)
    assert "x.enc is a socket" in text


@pytest.mark.timeout(30)
@pytest.mark.parametrize("command", ["verify", "rewrap"])
def test_a_pipe_is_not_waited_for_where_a_file_must_be(run, command):
    os.mkfifo("x.enc")
    result = run(command, "x.enc")
    assert result.code == 1
    assert "x.enc: x.enc is a pipe, not a regular file" in result.out.decode()


@pytest.mark.parametrize(
    "command",
    [["encrypt", "-"], ["encrypt", "-", "--format-1"], ["decrypt", "-", "--format-1"], ["decrypt", "-"]],
)
def test_standard_input_that_does_not_block_is_told_and_not_taken_for_its_end(run, command):
    """A pipe whose writer is slower than we are: what has come so far is not the file."""

    pieces = [sealed().read_bytes()[:100], None, b"more"]

    class Slow(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            piece = pieces.pop(0) if pieces else b""
            if piece is None:
                return None
            buffer[: len(piece)] = piece
            return len(piece)

    class Stdin:
        buffer = Slow()

    result = run(*command, stdin=Stdin())
    assert result.code in {1, 2}
    assert result.line == "standard input is not blocking and has nothing to read yet"


def test_what_a_file_is_called_reaches_no_terminal_as_a_command(run):
    name = "a\x1b[2J\n\u202eb.enc"
    Path(name).write_bytes(b"x")
    result = run("verify", name)
    assert result.out.count(b"\n") == 2
    assert b"\x1b" not in result.out
    assert b"a\\x1b[2J\\n\\u202eb.enc" in result.out
    assert b"\\x1b[2J" in run("inspect", name + "missing").line.encode()
    assert shown("ü 日本") == "ü 日本"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_shown_on_a_terminal_and_wiped(run, monkeypatch):
    Path("a").write_bytes(bytes(3_000_000))
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert run("encrypt", "a").code == 0
    assert "100 %" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r" + " " * (BAR_WIDTH + 8) + "\r")
    shown_before = len(terminal.getvalue())
    assert run("decrypt", "a.enc", "-o", "b").code == 0
    assert len(terminal.getvalue()) > shown_before


def test_no_bar_without_a_size_or_without_a_terminal(monkeypatch, capsys):
    with Progress(100) as progress:
        progress.add(50)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(0) as progress:
        progress.add(50)
    with Progress(100):
        pass
    assert terminal.getvalue() == ""
    with Progress(1_000_000) as progress:
        progress.add(1)
        seen = terminal.getvalue()
        progress.add(1)
        assert terminal.getvalue() == seen
    monkeypatch.setattr("sys.stderr", None)
    with Progress(100) as progress:
        progress.add(100)


def test_an_error_is_told_to_nobody_where_nobody_listens(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    complain("nobody hears this")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    complain("nor this")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", [["keygen"], ["decrypt", "a.txt.enc", "-o", "-"], ["encrypt", "-"]])
def test_closed_streams_are_told(run, monkeypatch, command):
    sealed()
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setattr("sys.stdout", None)
    result = run(*command)
    assert result.code == 2
    assert "is closed" in result.line


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["keygen"], ["decrypt", "a.txt.enc", "-o", "-"], ["verify", "."]])
def test_a_full_disk_behind_standard_output_is_told(monkeypatch, command, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    sealed(bytes(1_000_000))
    with (
        Path("/dev/full").open("wb") as full,
        program(*command, stdout=full, stderr=subprocess.PIPE) as process,
    ):
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, b"securefs: standard output: No space left on device\n")


def test_a_reader_that_goes_away_is_told():
    sealed(bytes(10_000_000))
    with program(
        "decrypt", "a.txt.enc", "-o", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 2
    assert err == b"securefs: the reader of standard output went away: the output is not complete\n"


def test_an_error_of_a_read_names_the_source(run):
    """Reading a process's memory at 0 fails with EIO: a disk that fails, without one."""
    result = run("encrypt", "/proc/self/mem", "-o", "x")
    assert (result.code, result.line) == (2, "/proc/self/mem: Input/output error")
    assert names() == []


def test_an_error_of_a_source_is_not_told_of_the_target(run, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error", "source.tmp")

    result = run("encrypt", "-", "-o", "x", stdin=type("Stdin", (), {"buffer": Failing()})())
    assert (result.code, result.line) == (2, "source.tmp: Input/output error")
    assert names() == []
