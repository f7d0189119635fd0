"""``securefs inspect``."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import KEY, sealed

from securefs import Keyring, Suite


@pytest.mark.parametrize(
    ("suite", "size", "plaintext"),
    [
        (Suite.GCM, 0, 0),
        (Suite.GCM, 16_384, 16_384),
        (Suite.GCM, 20_000, 20_000),
        (Suite.CBC_HMAC, 0, "0 to 15"),
        (Suite.CBC_HMAC, 65_536, "65536 to 65551"),
        (Suite.CBC_HMAC, 65_567, "65552 to 65567"),
    ],
)
def test_inspect_tells_the_header_without_a_key(run, monkeypatch, suite, size, plaintext):
    path = sealed(bytes(size), suite=suite, metadata={"name": "x"})
    monkeypatch.delenv("FILE_KEY_BASE64")
    document = json.loads(run("inspect", path, "--json").out)
    key_id = Keyring(KEY).primary_id.hex()
    assert document["slots"] == [{"kind": "file key", "generation": 1, "key_id": key_id}]
    assert document["suite"] == suite.label
    assert document["object_id"] == path.read_bytes()[16:48].hex()
    assert (document["file_size"], document["plaintext_size"]) == (path.stat().st_size, plaintext)
    assert (document["format"], document["free_slots"]) == (2, 1)
    text = run("inspect", path).out.decode()
    assert f"slots: kind file key, generation 1, key id {key_id}\n" in text
    assert "not verified" in text
    assert run("inspect", "-", stdin=path.read_bytes()).code == 0


def test_inspect_sees_a_cut(run):
    path = sealed()
    path.write_bytes(path.read_bytes()[:-60])
    assert "the file was cut" in run("inspect", path).out.decode()


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 200, bytes.fromhex("89534653320D0A1A") + bytes(100)])
def test_inspect_of_something_else_is_a_finding(run, data):
    Path("x").write_bytes(data)
    result = run("inspect", "x")
    assert result.code == 1
    assert result.line


@pytest.mark.parametrize("change", [-1, -5, 1, 15, 17])
def test_a_length_that_no_writer_makes_is_told(run, change):
    """A body of suite 1 is a whole number of blocks."""
    path = sealed(bytes(1000), name="f.enc", suite=Suite.CBC_HMAC)
    data = path.read_bytes()
    path.write_bytes(data + bytes(change) if change > 0 else data[:change])
    assert b"plaintext size: unknown: the file was cut or extended" in run("inspect", "f.enc").out


def test_a_pipe_has_no_size(run):
    path = sealed(name="f.enc")
    os.mkfifo("pipe")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(Path("pipe").write_bytes, path.read_bytes())
        result = run("inspect", "pipe")
        done.result()
    assert (result.code, b"file size" in result.out) == (0, False)
