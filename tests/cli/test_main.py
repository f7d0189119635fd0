"""The command line: what it does, and that every error is one line and the promised exit code."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.commands import OTHER_KEY, names, program, sealed
from support.servers import ROOT, app_environ, python_environ, wait_until
from support.special import unnamed_of

from securefs import Keyring, __version__, encrypt_file
from securefs.cli import main


def test_help_and_version(run):
    assert b"demo" in run("--help").out
    result = run("--version")
    assert (result.code, result.out) == (0, f"securefs {__version__}\n".encode())


@pytest.mark.parametrize("command", ["reencrypt", "recover"])
def test_each_option_of_these_commands_is_in_the_pages(run, command):
    pages = "".join((ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("cli", "chunked-uploads"))
    options = set(re.findall(r"(?<![-\w])--?[a-z][-a-z0-9]*", run(command, "--help").out.decode()))
    assert options >= {"--json", "--quiet", "--help"}
    assert f"securefs {command}" in pages
    assert [option for option in sorted(options - {"-h", "--help"}) if f"{option}" not in pages] == []


def test_help_needs_neither_the_server_extra_nor_time():
    """Importing the command line loads no server, no database, no journal."""
    code = (
        "import sys; before = set(sys.modules); import securefs.cli; "
        "names = ('werkzeug', 'gunicorn', 'sqlite3', 'securefs.audit', 'securefs.app.database'); "
        "print([n for n in set(sys.modules) - before if n.startswith(names)])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=python_environ(), capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "securefs", "keygen"], env=python_environ(), capture_output=True, check=True
    )
    assert len(base64.b64decode(done.stdout)) == 32


BAD = [
    pytest.param([], 2, "COMMAND", id="no command"),
    pytest.param(["frobnicate"], 2, "invalid choice", id="unknown command"),
    pytest.param(["encrypt"], 2, "SRC", id="no source"),
    pytest.param(["encrypt", "a", "--suite", "rot13"], 2, "invalid choice", id="unknown suite"),
    pytest.param(["encrypt", "missing"], 2, "missing: No such file", id="missing source"),
    pytest.param(["encrypt", "folder"], 2, "folder: Is a directory", id="folder as source"),
    pytest.param(
        ["encrypt", "a", "-o", "no/such/b"], 2, "no/such/b: No such file", id="missing folder of target"
    ),
    pytest.param(["encrypt", "a", "-o", "a/b"], 2, "a/b: Not a directory", id="file as folder of target"),
    pytest.param(["encrypt", "a", "-o", "folder"], 2, "folder exists already", id="folder as target"),
    pytest.param(["encrypt", "a", "-o", "x" * 300], 2, "File name too long", id="long target"),
    pytest.param(["encrypt", "a", "--format-1", "--name", "n"], 2, "no place for", id="metadata in format 1"),
    pytest.param(
        ["encrypt", "a", "--format-1", "--context", "n"], 2, "no place for", id="context in format 1"
    ),
    pytest.param(
        ["encrypt", "a", "--format-1", "--suite", "aes-256-gcm"], 2, "no place for", id="suite in format 1"
    ),
    pytest.param(["encrypt", "a", "--context-hex", "xyz"], 2, "not hexadecimal", id="bad hex"),
    pytest.param(
        ["encrypt", "a", "--context", "x", "--context-hex", "00"], 2, "not allowed with", id="two contexts"
    ),
    pytest.param(["encrypt", "a", "--context", "x" * 70_000], 2, "65,535|65535", id="long context"),
    pytest.param(["encrypt", "a", "--name", "x" * 70_000], 2, "metadata", id="long name"),
    pytest.param(["decrypt", "missing.enc"], 2, "missing.enc: No such file", id="missing file"),
    pytest.param(["decrypt", "folder", "-o", "x"], 2, "folder: Is a directory", id="folder to decrypt"),
    pytest.param(["decrypt", "a", "-o", "x"], 1, "not a securefs file", id="not encrypted"),
    pytest.param(["decrypt", "other.enc"], 1, "no key of the keyring", id="wrong key"),
    pytest.param(["decrypt", "good.enc", "--context", "no"], 1, "another context", id="wrong context"),
    pytest.param(["decrypt", "cut.enc"], 1, "cut", id="cut"),
    pytest.param(["decrypt", "a", "--format-1", "-o", "x"], 1, "can't be Format 1", id="no format 1"),
    pytest.param(
        ["decrypt", "good.enc", "-o", "x", "--sealed-name"], 2, "not allowed with", id="two targets"
    ),
    pytest.param(["inspect", "missing"], 2, "missing: No such file", id="inspect missing"),
    pytest.param(["verify"], 2, "PATH", id="verify nothing"),
    pytest.param(["verify", "good.enc", "missing"], 2, "missing: No such file", id="verify missing"),
    pytest.param(["verify", ""], 2, "No such file", id="verify empty name"),
    pytest.param(["rewrap"], 2, "PATH", id="rewrap nothing"),
    pytest.param(["rewrap", "missing"], 2, "missing: No such file", id="rewrap missing"),
    pytest.param(["reencrypt"], 2, "PATH", id="reencrypt nothing"),
    pytest.param(["reencrypt", "missing"], 2, "missing: No such file", id="reencrypt missing"),
    pytest.param(["recover", "good.enc"], 2, "is required", id="recover to nowhere"),
    pytest.param(["recover", "good.enc", "-o", "x"], 2, "nothing to recover", id="recover one"),
    pytest.param(["recover", "folder", "-o", "x"], 2, "folder", id="recover folder"),
    pytest.param(["recover", "a", "--apart", "no/such"], 2, "no/such", id="apart in missing folder"),
    pytest.param(["keygen", "--output", "no/such"], 2, "no/such: No such file", id="key in missing folder"),
    pytest.param(["keygen", "--output", "folder"], 2, "exists already", id="key over folder"),
    pytest.param(["token"], 2, "ACTION", id="token without action"),
    pytest.param(["token", "list"], 2, "SECUREFS_DATA_DIR is not set", id="token without folder"),
    pytest.param(["token", "list", "--data-dir", "a"], 2, "cannot use a", id="token folder is a file"),
    pytest.param(
        ["token", "add", "anonymous", "--data-dir", "data"], 2, "cannot be somebody's", id="bad name"
    ),
    pytest.param(["token", "revoke", "nobody", "--data-dir", "data"], 2, "no token has", id="revoke nobody"),
    pytest.param(["audit"], 2, "ACTION", id="audit without action"),
    pytest.param(["audit", "verify", "missing"], 2, "missing", id="audit missing"),
    pytest.param(["audit", "verify", "a"], 2, "Not a directory", id="audit of a file"),
    pytest.param(["audit", "hash", "x"], 2, "--dir", id="hash without folder"),
    pytest.param(["audit", "hash", "x", "--dir", "folder"], 2, "pseudonym key", id="hash without key"),
    pytest.param(["demo", "--port", "x"], 2, "not a port number", id="port of letters"),
    pytest.param(["demo", "--port", "65536"], 2, "not a port number", id="port too high"),
    pytest.param(["demo", "--port", "-1"], 2, "not a port number|expected one", id="port too low"),
    pytest.param(["demo", "--dir", "a"], 2, "a: File exists", id="demo folder is a file"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD)
def test_bad_input_is_one_line_and_the_promised_code(run, arguments, code, message):
    Path("a").write_bytes(b"plaintext that is longer than a header of a file, so that it is read as one" * 9)
    Path("folder").mkdir()
    sealed(name="good.enc")
    sealed(name="other.enc", key=OTHER_KEY)
    cut = sealed(bytes(100_000), name="cut.enc")
    cut.write_bytes(cut.read_bytes()[:-100])
    before = set(names())
    result = run(*arguments)
    assert result.code == code
    assert any(part in result.line for part in message.split("|")), result.line
    assert result.out in {b"", b"ok      good.enc\n"}
    assert set(names()) - before <= {"data"}


@pytest.mark.parametrize(
    "command", [["encrypt", "a"], ["decrypt", "a.enc"], ["verify", "a.enc"], ["rewrap", "a.enc"]]
)
def test_without_a_key_nothing_is_touched(run, monkeypatch, command):
    Path("a").write_bytes(b"x")
    sealed(name="a.enc")
    Path("a").write_bytes(b"x")
    monkeypatch.delenv("FILE_KEY_BASE64")
    result = run(*command)
    assert (result.code, result.line) == (
        2,
        "FILE_KEY_BASE64 is not set: make a good one with: securefs keygen",
    )


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, b"securefs: interrupted: nothing unfinished was left behind\n"),
        (signal.SIGTERM, 143, b"securefs: ended by SIGTERM: nothing unfinished was left behind\n"),
        (signal.SIGHUP, 129, b"securefs: ended by SIGHUP: nothing unfinished was left behind\n"),
    ],
)
def test_a_signal_leaves_no_temporary_file(number, code, line):
    # A signal that is ignored here, as under nohup, would be ignored by the program too; one with a
    # handler is not.
    before = signal.signal(number, lambda *_: None)
    try:
        process = program("encrypt", "-", "-o", "target", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(number, before)
    with process:
        process.stdin.write(b"the beginning")
        process.stdin.flush()
        wait_until(lambda: unnamed_of(process, Path.cwd()), "the temporary file")
        process.send_signal(number)
        # Not closed before it ended: an end of input would let it finish.
        err = process.stderr.read()
        process.wait(60)
    assert (process.returncode, err) == (code, line)
    assert names() == []


def test_what_nohup_ignores_stays_ignored(run):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        class Killer(io.BytesIO):
            def read(self, size=-1):
                os.kill(os.getpid(), signal.SIGHUP)
                return super().read(size)

        stdin = type("Stdin", (), {"buffer": Killer(b"data")})()
        assert run("encrypt", "-", "-o", "out", stdin=stdin).code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back(run):
    before = signal.getsignal(signal.SIGTERM)
    run("keygen")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_may_run_a_command():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["keygen", "--output", "key"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_the_app_and_the_command_line_understand_each_other(run, tmp_path, monkeypatch):
    """Files of the app open on the command line under --context owner:NAME."""
    from securefs.app import owner_context

    environ = app_environ(tmp_path)
    monkeypatch.delenv("FILE_KEY_BASE64")
    monkeypatch.setenv("FILE_KEY_BASE64_FILE", environ["FILE_KEY_BASE64_FILE"])
    Path("plain").write_bytes(b"1")
    encrypt_file("plain", "x.enc", Keyring.from_env(environ), context=owner_context("zoë"))
    assert run("verify", "x.enc", "--context", "owner:zoë").code == 0
