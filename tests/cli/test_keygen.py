"""``securefs keygen``."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

from support.commands import names

from securefs import Keyring


def test_keygen_prints_a_fresh_key_of_32_bytes(run):
    first, second = run("keygen"), run("keygen")
    assert (first.code, first.err) == (0, "")
    assert len(base64.b64decode(first.out)) == 32
    assert first.out != second.out


def test_keygen_writes_a_private_file_and_never_over_one(run):
    assert run("keygen", "--output", "key").code == 0
    path = Path("key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.from_env({"FILE_KEY_BASE64_FILE": "key"})
    before = path.read_bytes()
    result = run("keygen", "--output", "key")
    assert (result.code, result.line) == (2, "key exists already: a key is never overwritten")
    assert path.read_bytes() == before


def test_keygen_leaves_no_part_of_a_key(run, monkeypatch):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    result = run("keygen", "--output", "key")
    assert (result.code, result.line) == (2, "key: No space left on device")
    assert names() == []
