"""``securefs encrypt``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support.commands import KEY, names
from support.journals import NOBODY

from securefs import Keyring, Suite, verify
from securefs.header import MAGIC


@pytest.mark.parametrize("options", [[], ["--suite", "aes-256-gcm"], ["--format-1"]], ids=" ".join)
@pytest.mark.parametrize("size", [0, 1, 65_536, 300_000])
def test_a_file_goes_to_enc_and_back(run, options, size):
    content = os.urandom(size)
    Path("a.txt").write_bytes(content)
    assert run("encrypt", "a.txt", *options).code == 0
    assert size < 16 or content not in Path("a.txt.enc").read_bytes()
    Path("a.txt").unlink()
    result = run("decrypt", "a.txt.enc", *[o for o in options if o == "--format-1"])
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert Path("a.txt").read_bytes() == content
    assert stat.S_IMODE(Path("a.txt").stat().st_mode) == 0o600


def test_what_the_options_say_is_sealed(run):
    Path("a").write_bytes(b"x")
    options = ["--context", "tenant", "--name", "ü.txt", "--type", "text/plain", "--suite", "aes-256-gcm"]
    assert run("encrypt", "a", "-o", "b", *options).code == 0
    info = verify("b", Keyring(KEY), b"tenant")
    assert (info.metadata, info.suite) == ({"name": "ü.txt", "type": "text/plain"}, Suite.GCM.label)
    assert run("decrypt", "b", "-o", "c", "--context-hex", b"tenant".hex()).code == 0
    assert run("decrypt", "b", "-o", "d").code == 1
    assert names() == ["a", "b", "c"]


def test_standard_streams(run, pipe):
    encrypted = run("encrypt", "-", stdin=b"hello")
    assert encrypted.code == 0
    assert run("decrypt", "-", stdin=encrypted.out).out == b"hello"
    assert run("decrypt", "-", stdin=pipe(encrypted.out)).out == b"hello"
    assert run("decrypt", "-", "-o", "f", stdin=pipe(encrypted.out)).code == 0
    assert Path("f").read_bytes() == b"hello"
    old = run("encrypt", "-", "--format-1", stdin=b"hello").out
    assert run("decrypt", "-", "--format-1", stdin=old).out == b"hello"
    assert run("decrypt", "-", "--format-1", stdin=pipe(old)).out == b"hello"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_that_is_replaced_keeps_its_owner_and_its_mode(run):
    Path("a").write_bytes(b"content")
    os.chown("a", NOBODY, NOBODY)
    Path("a").chmod(0o664)
    assert run("encrypt", "a", "-o", "a", "--force").code == 0
    status = Path("a").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, NOBODY, 0o664)
    assert run("decrypt", "a", "-o", "-").out == b"content"
    # What is decrypted is for the one who decrypts it.
    assert run("decrypt", "a", "-o", "a", "--force").code == 0
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [["encrypt", "file"], ["decrypt", "file.enc"]])
def test_a_link_is_not_replaced_instead_of_what_it_leads_to(run, command):
    Path("file").write_bytes(b"plaintext")
    assert run("encrypt", "file").code == 0
    Path("real").write_bytes(b"kept")
    Path("link").symlink_to("real")
    result = run(*command, "-o", "link", "--force")
    assert (result.code, result.line) == (2, "link is a symbolic link: name the file that it leads to")
    assert Path("link").is_symlink()
    assert Path("real").read_bytes() == b"kept"


def test_what_is_encrypted_is_not_encrypted_once_more_unless_that_is_said(run, pipe):
    Path("a").write_bytes(b"content")
    assert run("encrypt", "a").code == 0
    data = Path("a.enc").read_bytes()
    for arguments, stdin, name in (
        (["a.enc", "-o", "a.enc", "--force"], None, "a.enc"),
        (["-"], data, "standard input"),
        (["-"], pipe(data), "standard input"),
    ):
        result = run("encrypt", *arguments, stdin=stdin)
        assert (result.code, result.out) == (2, b"")
        assert result.line == f"{name} is encrypted already: to encrypt it once more, give --nested"
    assert Path("a.enc").read_bytes() == data
    assert names() == ["a", "a.enc"]
    assert run("encrypt", "a.enc", "--nested").code == 0
    assert run("decrypt", "a.enc.enc", "-o", "-").out == data


@pytest.mark.parametrize("size", range(10))
def test_what_only_begins_like_it_is_encrypted(run, size):
    Path("a").write_bytes(MAGIC[:7] + b"x" * (size - 7) if size > 7 else MAGIC[:size])
    assert run("encrypt", "a").code == 0
    assert run("decrypt", "a.enc", "-o", "-").out == Path("a").read_bytes()
