"""Which files a command means, and what is refused of all of them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from support.commands import KEY, OTHER_KEY, sealed


def test_verify_walks_folders_and_finds_what_is_encrypted(run):
    Path("d/e").mkdir(parents=True)
    sealed(name="d/b.enc")
    sealed(name="d/e/by-magic")
    Path("d/plain.txt").write_bytes(b"not encrypted, not looked at")
    Path("d/link.enc").symlink_to("nowhere")
    os.mkfifo("d/fifo.enc")
    result = run("verify", "d")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "ok      d/b.enc",
        "ok      d/e/by-magic",
        "2 verified, 0 failed",
    ]


def test_verify_of_nothing_is_no_success(run):
    Path("d").mkdir()
    Path("d/x").write_bytes(b"x")
    result = run("verify", "d")
    assert (result.code, result.line) == (2, "no encrypted file found in d")


def test_verify_of_a_folder_that_cannot_be_listed_fails(run, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied", "d")

    Path("d").mkdir()
    monkeypatch.setattr("os.scandir", refuse)
    result = run("verify", "d")
    assert (result.code, result.line) == (2, "d: Permission denied")


def test_a_file_that_cannot_be_opened_is_verified_to_say_why(run, monkeypatch):
    from securefs.cli import paths

    Path("d").mkdir()
    path = sealed(name="d/by-magic")
    real = os.open

    def refuse(name, *arguments):
        if Path(name) == path:
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    assert paths._looks_encrypted(path, format_1=False)
    result = run("verify", "d")
    assert (result.code, result.out.splitlines()[0]) == (
        1,
        b"FAILED  d/by-magic: cannot be read: Permission denied",
    )


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("put", "kind"),
    [
        pytest.param(os.mkfifo, "a pipe", id="pipe"),
        pytest.param(lambda path: path.symlink_to("../elsewhere.enc"), "a symbolic link", id="link"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "rewrap"])
def test_a_file_of_a_folder_that_is_exchanged_meanwhile_is_neither_followed_nor_waited_for(
    run, monkeypatch, command, put, kind
):
    """Between the look at the folder and the opening of the file."""
    from securefs.cli import paths

    Path("d").mkdir()
    elsewhere = sealed(name="elsewhere.enc")
    before = elsewhere.read_bytes()
    sealed(name="d/1.enc")
    sealed(name="d/2.enc")
    real = paths._looks_encrypted

    def exchange(path, *, format_1):
        found = real(path, format_1=format_1)
        if path.name == "1.enc":
            path.unlink()
            put(path)
        return found

    monkeypatch.setattr(paths, "_looks_encrypted", exchange)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(OTHER_KEY).decode())
    monkeypatch.setenv("FILE_KEY_BASE64_PREVIOUS", base64.b64encode(KEY).decode())
    result = run(command, "d")
    first, second, _ = result.out.decode().splitlines()
    assert result.code == 1
    assert first.split(maxsplit=1)[1] == f"d/1.enc: d/1.enc is {kind}, not a regular file"
    assert second.startswith(("ok  ", "rewrapped  "))
    assert elsewhere.read_bytes() == before
    assert json.loads(run(command, "d/1.enc", "--json").out)["files"][0].get("reason") == (
        "io_error" if kind == "a pipe" else None
    )


@pytest.mark.parametrize("command", [["verify", "a.enc"], ["decrypt", "a.enc", "-o", "-"], ["decrypt", "-"]])
def test_a_context_beside_format_1_is_refused_and_not_ignored(run, command):
    sealed(name="a.enc", format_1=True)
    data = Path("a.enc").read_bytes()
    for option in (["--context", "owner:ann"], ["--context-hex", "00"]):
        result = run(*command, "--format-1", *option, stdin=data)
        assert (result.code, result.out) == (2, b"")
        assert "--format-1 has no place for --context" in result.line
    assert run(*command, "--format-1", stdin=data).code == 0


def test_a_name_that_is_not_text_is_no_obstacle(run):
    name = os.fsdecode(b"\xff\xfe.enc")
    sealed(name=name)
    assert run("verify", name).code == 0
    assert run("verify", ".").code == 0
    assert run("decrypt", name).code == 0
    assert run("decrypt", name).code == 2


@pytest.mark.timeout(30)
def test_a_pipe_is_not_opened_for_its_first_bytes():
    """It took the place of a file after that was looked at; its verification reports it."""
    from securefs.cli import paths

    os.mkfifo("pipe")
    assert paths._looks_encrypted(Path("pipe"), format_1=False)
