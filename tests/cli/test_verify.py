"""``securefs verify``."""

from __future__ import annotations

import json
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
    assert (result.code, result.out.splitlines()[-1]) == (0, b"2 verified, 0 failed")
