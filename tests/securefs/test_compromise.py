"""What docs/keys.md says of keys in the wrong hands: each sentence as a program, the unpleasant ones too."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.sealing import BODY_START, KEY, LIBRARIES, OTHER_KEY, RING, SUITES, chosen, pattern, seal

from securefs import Keyring, UnknownKeyError, encrypt_file, open_encrypted, rewrap, verify
from securefs.header import parse_header, slot_table
from securefs.keys.slots import claimed_slots
from securefs.reencryption import reencrypt
from securefs.stream import Randomness, seal_with, split_start
from securefs.suites import body_context, derive

NEW = Keyring(OTHER_KEY)
BOTH = Keyring(OTHER_KEY, [KEY])
KEYS_PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text("utf-8")


def opened(data: bytes, ring: Keyring = NEW, context: bytes = b""):
    return open_encrypted(io.BytesIO(data), ring, context)


@pytest.mark.parametrize("suite", SUITES)
def test_a_key_that_is_accepted_writes_any_file_under_any_object_id(tmp_path, suite):
    """Also in the place of one that the new key sealed, and ``rewrap`` makes it last."""
    genuine = seal(b"genuine", suite, "genuine", ring=NEW)
    file_id = bytes.fromhex(opened(genuine).object_id)
    forged = seal_with(replace(Randomness.draw(), file_id=file_id), b"forged", RING, suite, LIBRARIES[0])
    file = opened(forged, BOTH)
    assert (file.read(), file.object_id) == (b"forged", file_id.hex())
    path = tmp_path / "file"
    path.write_bytes(forged)
    assert rewrap(path, BOTH).changed
    with open_encrypted(path, NEW) as file:
        assert (file.read(), file.object_id) == (b"forged", file_id.hex())


def test_a_key_that_is_no_longer_accepted_writes_nothing():
    forged = seal(b"forged", ring=RING)
    with pytest.raises(UnknownKeyError):
        opened(forged, NEW)


@pytest.mark.parametrize("suite", SUITES)
def test_whoever_held_a_data_key_writes_that_file_after_a_rewrap_too(tmp_path, suite):
    context, path = b"tenant 7", tmp_path / "file"
    before = seal(b"pay 10", suite, context=context)
    header, _ = split_start(before)
    ((_, dek),) = claimed_slots(header, RING)  # what the leaked key and an old copy give
    path.write_bytes(before)
    rewrap(path, BOTH, context)
    now = path.read_bytes()
    cipher, commitment = derive(
        suite, dek, bytes(24), body_context(header.preamble, context), LIBRARIES[0], lambda: bytes(16)
    )
    forged = now[: header.length] + bytes(24) + commitment + cipher.seal(0, True, b"pay 1000000") + b"\x5a"
    file = opened(forged, NEW, context)
    assert (file.read(), file.object_id) == (b"pay 1000000", header.object_id)


def test_an_old_slot_put_back_opens_while_its_key_is_accepted(tmp_path):
    path = tmp_path / "file"
    before = seal(b"content")
    path.write_bytes(before)
    rewrap(path, BOTH)
    file = opened(before, BOTH)
    assert (file.object_id, file.key_id) == (opened(path.read_bytes()).object_id, RING.primary_id.hex())
    with pytest.raises(UnknownKeyError):
        opened(before, NEW)


def foreign_slot(generation: int = 2**32 - 1) -> bytes:
    return bytes([2, 0]) + (40).to_bytes(2, "big") + generation.to_bytes(4, "big") + pattern(16 + 40)


USED = seal(b"content")[56:160]
LAYOUTS = {
    "larger slots": slot_table([USED], 2, 4096),
    "more slots": slot_table([USED], 8, 160),
    "the smallest": slot_table([USED], 1, 104),
    "a slot of nobody's in front": slot_table([foreign_slot(), USED], 2, 160),
    "a slot of nobody's behind": slot_table([USED, foreign_slot()], 3, 160),
    "another place": slot_table([b"", USED], 2, 160),
    "the same slot twice": slot_table([USED, USED], 2, 160),
}


@pytest.mark.parametrize("table", LAYOUTS.values(), ids=LAYOUTS)
def test_the_slot_table_is_malleable_and_the_file_is_not(table):
    """Length and layout may change without a key; the object id and the contents do not."""
    data = seal(b"content")
    changed = data[:48] + table + data[376:]
    info = verify(io.BytesIO(changed), RING)
    assert (info.object_id, info.size) == (opened(data, RING).object_id, 7)
    assert opened(changed, RING).read() == b"content"
    assert parse_header(changed).length == 48 + len(table)


def test_without_the_slot_the_file_does_not_open():
    data = seal(b"content")
    with pytest.raises(UnknownKeyError):
        opened(data[:48] + slot_table([foreign_slot()], 2, 160) + data[376:], RING)


def test_two_files_with_one_dek_are_no_way_in():
    """A slot is bound to its file's preamble: no holder of nothing moves it."""
    one, other = seal(b"one", label="one"), seal(b"other", random=chosen("other", dek=chosen("one").dek))
    with pytest.raises(Exception, match="no key slot unwraps"):
        opened(other[:48] + one[48:BODY_START] + other[BODY_START:], RING)


@pytest.fixture
def leak(tmp_path, monkeypatch):
    """A backup from before the leak, the live file that the attacker exchanged, and both keys in files."""
    for name in list(os.environ):
        if name.startswith(("SECUREFS_", "FILE_KEY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name, key in (("leaked.key", KEY), ("new.key", OTHER_KEY)):
        Path(name).write_bytes(base64.b64encode(key))
        Path(name).chmod(0o600)
    Path("plain").write_bytes(b"genuine")
    Path("backup").mkdir()
    encrypt_file("plain", "backup/report.enc", RING)
    Path("plain").write_bytes(b"forged")
    Path("uploads").mkdir()
    encrypt_file("plain", "uploads/report.enc", RING)
    Path("plain").unlink()
    programs = Path("bin")
    programs.mkdir()
    (programs / "securefs").write_text(f'#!/bin/sh\nexec {sys.executable} -m securefs "$@"\n')
    (programs / "securefs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs.resolve()}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def test_the_runbook_for_a_leaked_key_runs_as_it_stands(leak):
    section = KEYS_PAGE.split("## When a key leaks", 1)[1].split("\n## ", 1)[0]
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert shutil.which("sh")
    subprocess.run(["sh", "-e", "-c", commands], check=True, capture_output=True)
    with open_encrypted("uploads/report.enc", NEW) as file:
        assert file.read() == b"genuine"
        assert file.object_id != opened(Path("backup/report.enc").read_bytes(), RING).object_id
    assert sorted(path.name for path in Path().iterdir()) == [
        "backup",
        "bin",
        "leaked.key",
        "new.key",
        "uploads",
    ]


@pytest.mark.parametrize("keep_id", [False, True])
def test_what_keeping_the_ids_costs(tmp_path, keep_id):
    """An old copy that was rewrapped before opens with the current key alone, under the id that it had."""
    path = tmp_path / "file"
    path.write_bytes(seal(b"content"))
    rewrap(path, BOTH)
    old = path.read_bytes()
    expected = reencrypt(path, BOTH, keep_id=keep_id).info.object_id
    put_back = opened(old, NEW)
    assert (put_back.read(), put_back.object_id == expected) == (b"content", keep_id)


def test_reencrypt_makes_a_forgery_permanent_as_rewrap_does(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(seal(b"forged"))
    reencrypt(path, BOTH)
    assert opened(path.read_bytes(), NEW).read() == b"forged"


def test_after_its_first_step_the_forgery_is_refused(leak):
    with pytest.raises(UnknownKeyError):
        open_encrypted("uploads/report.enc", NEW)
