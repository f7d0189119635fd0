"""``securefs verify``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support.commands import OTHER_KEY, sealed


def test_verify_names_every_finding_and_goes_on(run):
    Path("d").mkdir()
    sealed(name="d/1.enc")
    path = sealed(name="d/2.enc")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    sealed(name="d/3.enc", key=OTHER_KEY)
    Path("d/4.enc").write_bytes(b"not encrypted at all")
    result = run("verify", "d")
    assert result.code == 1
    assert [line[:14] for line in result.out.decode().splitlines()[:4]] == [
        "ok      d/1.en",
        "FAILED  d/2.en",
        "FAILED  d/3.en",
        "FAILED  d/4.en",
    ]
    assert result.out.endswith(b"1 verified, 3 failed\n")
    document = json.loads(run("verify", "d", "--json").out)
    assert (document["verified"], document["failed"]) == (1, 3)
    assert [file.get("reason") for file in document["files"]] == [
        None,
        "truncated",
        "unknown_key",
        "not_encrypted",
    ]
    assert document["files"][0]["size"] == 11


def test_verify_counts_what_cannot_be_read_as_a_finding(run):
    """A test may run as root, whom no mode keeps from reading: a loop of links does."""
    Path("a.enc").symlink_to("b.enc")
    Path("b.enc").symlink_to("a.enc")
    Path("d").mkdir()
    sealed(name="d/1.enc")
    result = run("verify", "a.enc", "d")
    assert (result.code, result.line) == (2, "a.enc: Too many levels of symbolic links")
    sealed(name="fifo-like")
    result = run("verify", "/proc/self/mem")
    assert result.code == 1
    assert result.out.startswith(b"FAILED  /proc/self/mem: ")


def test_verify_of_format_1(run):
    Path("d").mkdir()
    sealed(name="d/1.enc", format_1=True)
    sealed(name="d/2.enc")
    sealed(name="d/by-magic")
    Path("d/other").write_bytes(bytes(64))
    assert run("verify", "d").code == 1
    result = run("verify", "d", "--format-1")
    assert (result.code, result.out.splitlines()[-1]) == (0, b"3 verified, 0 failed, 1 not encrypted")


def test_verify_walks_folders_and_says_what_else_is_there(run):
    Path("d/e").mkdir(parents=True)
    sealed(name="d/b.enc")
    sealed(name="d/e/by-magic")
    Path("d/plain.txt").write_bytes(b"not encrypted")
    Path("d/link").symlink_to("nowhere")
    os.mkfifo("d/fifo")
    result = run("verify", "d")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "ok      d/b.enc",
        "special d/fifo: d/fifo is a pipe, not a regular file",
        "link    d/link: a symbolic link that leads to nothing that can be found: No such file or directory",
        "plain   d/plain.txt",
        "ok      d/e/by-magic",
        "2 verified, 0 failed, 1 not encrypted, 1 symbolic links, 1 special files",
    ]
    result = run("verify", "d", "--all")
    assert (result.code, result.out.splitlines()[-1]) == (1, b"2 verified, 3 failed")


def test_a_folder_that_cannot_be_listed_is_a_finding_and_not_the_end(run, monkeypatch):
    real = os.scandir

    def refuse(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    for name in ("d/a", "d/lost+found", "d/z"):
        Path(name).mkdir(parents=True)
        sealed(name=f"{name}/1.enc")
    monkeypatch.setattr("os.scandir", refuse)
    result = run("verify", "d")
    assert result.code == 1
    assert result.out.decode().splitlines() == [
        "ok      d/a/1.enc",
        "FAILED  d/lost+found: cannot be listed: Permission denied",
        "ok      d/z/1.enc",
        "2 verified, 1 failed",
    ]


def test_a_name_that_is_not_text_is_no_obstacle(run):
    name = os.fsdecode(b"\xff\xfe.enc")
    sealed(name=name)
    assert run("verify", name).code == 0
    assert run("verify", ".").code == 0
    assert run("decrypt", name).code == 0
    assert run("decrypt", name).code == 2
