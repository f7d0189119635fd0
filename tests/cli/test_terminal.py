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


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Make standard error a terminal; in the test, because pytest sets it anew behind each fixture."""

    def make():
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        return terminal

    return make


def on_screen(terminal):
    """Return what a terminal shows in the last line that was written to."""
    shown = [""] * 200
    column = 0
    for character in terminal.getvalue():
        if character == "\r":
            column = 0
        else:
            shown[column] = character
            column += 1
    return "".join(shown).rstrip()


def test_a_bar_is_shown_on_a_terminal_and_wiped(run, on_a_terminal):
    terminal = on_a_terminal()
    Path("a").write_bytes(bytes(3_000_000))
    assert run("encrypt", "a").code == 0
    assert "100 %" in terminal.getvalue()
    assert on_screen(terminal) == ""
    shown_before = len(terminal.getvalue())
    assert run("decrypt", "a.enc", "-o", "b").code == 0
    assert len(terminal.getvalue()) > shown_before
    before = terminal.getvalue()
    assert run("encrypt", "a", "-o", "c", "--quiet").code == 0
    assert run("decrypt", "c", "-o", "d", "--quiet").code == 0
    assert terminal.getvalue() == before


@pytest.mark.parametrize("command", ["verify", "rewrap", "keys in-use", "import"])
def test_a_bar_gives_way_to_each_line(run, rotating, on_a_terminal, command):
    terminal = on_a_terminal()
    Path("d").mkdir()
    for number in range(3):
        sealed(name=f"d/{number}.enc")
    size = Path("d/0.enc").stat().st_size
    assert run(*command.split(), "d").code == (1 if command == "keys in-use" else 0)
    unit, each = ("files", 1) if command in {"rewrap", "keys in-use"} else ("bytes", size)
    for number, percent in ((1, " 33 %"), (2, " 66 %")):
        assert f"] {percent}, {number * each} {unit}" in terminal.getvalue()
    whole = "3 files" if unit == "files" else f"{3 * size / 1024:.1f} KiB"
    assert f"] 100 %, {whole}" in terminal.getvalue()
    assert on_screen(terminal) == ""
    before = terminal.getvalue()
    run(*command.split(), "d", "--quiet")
    assert terminal.getvalue() == before


def test_a_bar_has_the_rate_and_the_time_that_is_left(on_a_terminal, clock):
    terminal = on_a_terminal()
    with Progress(4 * 1024 * 1024, clock=clock) as progress:
        progress.add(1024 * 1024)
        assert on_screen(terminal) == f"[{'#' * 7}{' ' * (BAR_WIDTH - 7)}]  25 %, 1.0 MiB"
        clock.now += 2
        progress.add(1024 * 1024)
        assert on_screen(terminal).endswith("]  50 %, 2.0 MiB, 1.0 MiB/s, 0:02 left")
        before = terminal.getvalue()
        clock.now += 0.5
        progress.add(0)
        assert terminal.getvalue() == before, "nothing moved"
        clock.now += 7.5
        progress.add(0)
        assert on_screen(terminal).endswith("]  50 %, 2.0 MiB, 204.8 KiB/s, 0:10 left")
        progress.wipe()
        assert on_screen(terminal) == ""
        progress.add(2 * 1024 * 1024)
        assert on_screen(terminal).endswith("] 100 %, 4.0 MiB, 409.6 KiB/s")
        progress.add(1)
    assert on_screen(terminal) == ""


def test_a_shorter_bar_leaves_nothing_of_a_longer_one(on_a_terminal, clock):
    terminal = on_a_terminal()
    with Progress(1000, unit="files", clock=clock) as progress:
        clock.now += 10_000
        progress.add(1)
        assert on_screen(terminal).endswith("0 %, 1 files, 0 files/s, 2775:00:00 left")
        clock.now += 0.01
        progress.add(999)
        assert on_screen(terminal).endswith("100 %, 1000 files, 0 files/s")


def test_a_total_that_is_not_known_is_told_after_two_seconds(on_a_terminal, clock):
    terminal = on_a_terminal()
    with Progress(0, clock=clock) as progress:
        clock.now += 1.9
        progress.add(50)
        assert terminal.getvalue() == ""
        clock.now += 0.1
        progress.add(50)
        assert on_screen(terminal) == "100 bytes, 50 bytes/s"
        clock.now += 0.9
        progress.add(50)
        assert on_screen(terminal) == "100 bytes, 50 bytes/s"
        clock.now += 0.1
        progress.add(50)
        assert on_screen(terminal) == "200 bytes, 67 bytes/s"


def test_lines_are_printed_now_and_then_where_there_is_no_terminal(capsys, clock):
    with Progress(100, unit="files", clock=clock) as progress:
        for _ in range(25):
            clock.now += 1
            progress.add(1)
    assert capsys.readouterr().err.splitlines() == [
        "securefs:   2 %, 2 files, 1 files/s, 1:38 left",
        "securefs:  12 %, 12 files, 1 files/s, 1:28 left",
        "securefs:  22 %, 22 files, 1 files/s, 1:18 left",
    ]
    with Progress(100, quiet=True, clock=clock) as progress:
        clock.now += 100
        progress.add(100)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (5 * 1024**4, "5.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_amounts_are_short(on_a_terminal, clock, count, text):
    terminal = on_a_terminal()
    with Progress(0, clock=clock) as progress:
        clock.now += 2
        progress.add(count)
        assert on_screen(terminal).split(", ")[0] == text


def test_no_progress_without_standard_error(monkeypatch):
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
