"""``securefs encrypt``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support.commands import KEY, names

from securefs import Keyring, Suite, verify


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
