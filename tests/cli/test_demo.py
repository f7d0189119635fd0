"""``securefs demo``: one command, a private folder, lines that can be pasted, and a clean end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import DEADLINE, ROOT, answers, await_start, launch, python_environ

from securefs import ConfigurationError
from securefs.app.tokens import Tokens
from securefs.cli import demo, main


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_first_start_makes_a_private_folder_and_the_second_keeps_it(tmp_path):
    folder = tmp_path / "new" / "demo"
    first = demo.prepare(folder)
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    key, token = first.key_file.read_bytes(), first.token
    second = demo.prepare(folder)
    assert (second.key_file.read_bytes(), second.token) == (key, token)
    log = [f"journal/log/{name}" for name in ("first.key", "origin", "vkey")]
    others = ["authorization", "data/securefs.sqlite3", "file.key", "journal.vkey"]
    assert files_of(folder) == sorted([*others, *log])
    assert first.vkey_file.read_bytes() == (first.journal / "log" / "vkey").read_bytes()


@pytest.mark.parametrize("loss", ["revoked", "database", "header"])
def test_a_token_that_is_good_for_nothing_is_replaced(tmp_path, loss):
    folder = tmp_path / "demo"
    first = demo.prepare(folder)
    before = first.token
    database = first.data / "securefs.sqlite3"
    if loss == "revoked":
        Tokens(database).revoke("demo")
    else:
        {"database": database, "header": first.header_file}[loss].unlink()
    second = demo.prepare(folder)
    assert second.token != before
    assert [token.id for token in Tokens(database).list()] == [second.token.split("_")[1]]


def test_a_folder_that_others_can_enter_is_refused(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    folder.chmod(0o750)
    with pytest.raises(ConfigurationError, match="other users can access"):
        demo.prepare(folder)


def test_without_the_server_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NEEDED", ("gunicorn", "no_such_package"))
    with pytest.raises(ConfigurationError) as caught:
        demo.prepare(tmp_path / "demo")
    assert str(caught.value) == "no_such_package not installed: run pip install 'securefs[server]'"
    assert not (tmp_path / "demo").exists()


def test_the_folder_follows_the_base_directory_specification(monkeypatch):
    assert demo.default_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/securefs-demo")
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = Path("/home/somebody/.local/state/securefs-demo")
    assert demo.default_folder({}) == expected
    assert demo.default_folder({"XDG_STATE_HOME": "relative"}) == expected

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match="--dir"):
        demo.default_folder({})


def test_an_occupied_port_is_one_line_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            demo.listen(port)
    assert str(caught.value) == f"port {port} of 127.0.0.1 is in use: choose another one with --port"


def test_a_port_that_cannot_be_used_says_why(monkeypatch):
    monkeypatch.setattr(demo, "ADDRESS", "192.0.2.1")  # a documentation address, which no machine has
    with pytest.raises(ConfigurationError, match="cannot be used: Cannot assign requested address"):
        demo.listen(0)


def test_what_it_needs_is_what_the_extra_installs():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (extra,) = re.findall(r"^server = \[(.*)\]$", project, re.MULTILINE)
    assert set(demo.NEEDED) == set(re.findall(r'"([a-z]+)', extra))


def test_the_server_gets_its_own_settings_and_no_secret_on_its_command_line(tmp_path):
    made = demo.prepare(tmp_path / "demo")
    before = {
        "PATH": "/bin",
        "FILE_KEY_BASE64": "x",
        "FILE_KEY_BASE64_PREVIOUS_FILE": "x",
        "SECUREFS_FORMAT": "1",
        "GUNICORN_CMD_ARGS": "--bind=0.0.0.0:80",
        "WEB_CONCURRENCY": "50",
    }
    command, environ = demo.server_command(made, 7, before)
    assert command[command.index("--bind") + 1] == "fd://7"
    assert command[command.index("--graceful-timeout") + 1] == "3"
    assert (Path(command[command.index("--config") + 1])).samefile(ROOT / "gunicorn.conf.py")
    assert environ == {
        "PATH": "/bin",
        "FILE_KEY_BASE64_FILE": str(made.key_file),
        "SECUREFS_DATA_DIR": str(made.data),
        "SECUREFS_AUDIT_DIR": str(made.journal),
    }
    assert made.token not in " ".join(command)
    assert made.key_file.read_text().strip() not in " ".join([*command, *environ.values()])


class BecameError(Exception):
    """Raised in the place of becoming the server."""


@pytest.mark.parametrize("named", [True, False])
def test_it_tells_where_it_is_and_becomes_the_server(tmp_path, monkeypatch, capsys, named):
    def become(program, command, environ):
        descriptor = int(command[command.index("--bind") + 1].removeprefix("fd://"))
        assert os.get_inheritable(descriptor)
        assert program == sys.executable
        assert environ["SECUREFS_DATA_DIR"] == str(tmp_path / "securefs-demo" / "data")
        raise BecameError

    monkeypatch.setattr("os.execve", become)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    arguments = ["--dir", str(tmp_path / "securefs-demo")] if named else []
    with pytest.raises(BecameError):
        main(["demo", "--port", "0", *arguments])
    assert "open http://127.0.0.1:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        pytest.param("file.key", "FILE_KEY_BASE64_FILE: cannot read", id="key"),
        pytest.param("authorization", "{folder}/authorization: Is a directory", id="token"),
        pytest.param(
            "data/securefs.sqlite3",
            "SECUREFS_DATA_DIR: {folder}/data/securefs.sqlite3 is a folder",
            id="database",
        ),
        pytest.param("data/key-check.enc", "{folder}/data/key-check.enc can't be used", id="key check"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_no_address(tmp_path, monkeypatch, capsys, entry, line):
    """A folder lies where a file should be."""
    folder = tmp_path / "demo"
    demo.prepare(folder)
    (folder / entry).unlink(missing_ok=True)
    (folder / entry).mkdir(0o700, parents=True)
    monkeypatch.setattr("os.execve", lambda *arguments: None)
    code = main(["demo", "--port", "0", "--dir", str(folder)])
    told = capsys.readouterr()
    assert told.err.startswith(f"securefs: {line.format(folder=folder)}")
    assert (code, told.err.count("\n"), told.out) == (2, 1, "")


@pytest.mark.parametrize("where", ["/proc/x", "/dev/null", "/proc/self/x/y"])
def test_a_folder_that_cannot_be_made_is_one_line(capsys, where):
    assert main(["demo", "--port", "0", "--dir", where]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("securefs: /")
    assert (told.err.count("\n"), told.out) == (1, "")


def test_another_key_than_the_files_is_one_line_and_no_address(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    monkeypatch.setattr("os.execve", lambda *arguments: None)
    assert main(["demo", "--port", "0", "--dir", str(folder)]) == 0
    (folder / "file.key").unlink()
    capsys.readouterr()
    assert main(["demo", "--port", "0", "--dir", str(folder)]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("securefs: FILE_KEY_BASE64: no key of the keyring opens key-check.enc")
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_header_file_that_is_no_text_is_replaced(tmp_path):
    made = demo.prepare(tmp_path / "demo")
    made.header_file.write_bytes(b"\xff\n")
    assert demo.prepare(made.folder).token.startswith("sfs_")


def start(folder, log_file, port=0):
    """Start the demo as a user does, and return it when it answers, with what it printed."""
    command = [sys.executable, "-m", "securefs", "demo", "--dir", str(folder), "--port", str(port)]
    server = launch(command, log_file, python_environ(GUNICORN_CMD_ARGS="--bind=203.0.113.1:1"))
    pattern = r"open http://127\.0\.0\.1:(\d+)"
    server.port = int(await_start(server, lambda: re.search(pattern, server.log), "the address")[1])
    await_start(server, lambda: answers(server.port), "an answer")
    return server


def pasted(log, name):
    """Return the line of the banner that begins with ``name``, to be run in a shell."""
    return next(line.split(None, 1)[1] for line in log.splitlines() if line.split()[:1] == [name])


def shell(line, folder):
    return subprocess.run(
        ["/bin/bash", "-c", line], cwd=folder, capture_output=True, check=True, timeout=DEADLINE
    ).stdout


def test_the_lines_can_be_pasted_and_ctrl_c_ends_it_cleanly(tmp_path):
    folder = tmp_path / "the demo"  # a space, so that quoting is needed
    server = start(folder, tmp_path / "log")
    try:
        (tmp_path / "hello").write_text("hello")
        upload = pasted(server.log, "upload").replace("/etc/hostname", "hello")
        assert b'"name": "hello"' in shell(upload, tmp_path)
        assert b'"size": 5' in shell(pasted(server.log, "list"), tmp_path)
        (tmp_path / "downloads").mkdir()
        shell(pasted(server.log, "download"), tmp_path / "downloads")
        assert (tmp_path / "downloads" / "hello").read_text() == "hello"
        program, *evidence = shlex.split(pasted(server.log, "evidence"))
        assert os.access(program, os.X_OK)
        token = pasted(server.log, "token")
        assert token == demo.Demo(folder).token
    finally:
        code = server.stop(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in server.log
    assert main(evidence) == 0
    assert [name for name in files_of(folder) if name.endswith(".tmp")] == []
    assert len([name for name in files_of(folder / "data" / "files") if name.endswith(".enc")]) == 1

    again = start(folder, tmp_path / "log2")
    try:
        assert pasted(again.log, "token") == token
        assert b'"name": "hello"' in shell(pasted(again.log, "list"), tmp_path)
    finally:
        assert again.stop(signal.SIGINT) == 0


def test_an_occupied_port_ends_the_demo_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "securefs", "demo", "--dir", str(tmp_path / "d"), "--port", str(port)],
            env=python_environ(),
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
    assert done.returncode == 2
    assert done.stdout == b""
    line = f"securefs: port {port} of 127.0.0.1 is in use: choose another one with --port\n"
    assert done.stderr.decode() == line
