"""A file gets a new data key: who had the old one reads and writes nothing any more."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
from support.journals import ROOT, file_size_limit
from support.sealing import KEY, OTHER_KEY, RING, SUITES, pattern, seal, slot_of

from securefs import (
    ConfigurationError,
    Encryptor,
    FormatError,
    IntegrityError,
    Keyring,
    Reason,
    SourceError,
    Suite,
    UnknownKeyError,
    open_encrypted,
    rewrap,
)
from securefs.backend import default_primitives
from securefs.header import parse_header
from securefs.keys import key_id
from securefs.reencryption import needs_reencryption, reencrypt
from securefs.stream import open_with, split_start

CONTENT = pattern(300_000)
LEAKED, NEW = Keyring(KEY), Keyring(OTHER_KEY)
BOTH = Keyring(OTHER_KEY, [KEY])
TEXT = b'{"name":"r\xc3\xa9sum\xc3\xa9.pdf","type":"application/pdf","x":{"y":[1,2.5,null]}}'


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "file"
    found.write_bytes(seal(CONTENT))
    return found


def content(path, ring, context=b""):
    with open_encrypted(path, ring, context) as file:
        return file.read()


def dek_of(data, key, context=b""):
    """Return what whoever has a key learns of a file."""
    header, _ = split_start(data)
    return next(
        filter(None, (Keyring(key).unwrap(slot, header.preamble + slot.head) for slot in header.slots))
    )


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 1, 65_536, 300_000])
def test_only_the_new_key_opens_it_and_everything_in_it_stays(path, suite, size):
    old = seal(pattern(size), suite, context=b"owner:ann", metadata_text=TEXT)
    path.write_bytes(old)
    told = []
    done = reencrypt(path, BOTH, b"owner:ann", on_bytes=told.append)
    with open_encrypted(path, NEW, b"owner:ann") as file:
        assert file.read() == pattern(size)
        assert file.metadata == {
            "name": "résumé.pdf",
            "type": "application/pdf",
            "x": {"y": [1, 2.5, None]},
        }
        assert file.suite == suite.label
    with pytest.raises(UnknownKeyError):
        open_encrypted(path, LEAKED, b"owner:ann")
    assert sum(told) == size
    assert done.before.object_id == old[16:48].hex() != done.info.object_id
    assert done.before.key_id == key_id(KEY).hex()
    assert done.info.key_id == key_id(OTHER_KEY).hex()
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_the_old_data_key_opens_nothing_of_it_also_under_the_same_id(path):
    """Unlike a rewrap, after which it still does."""
    dek = dek_of(path.read_bytes(), KEY)
    rewrap(path, BOTH)
    assert dek_of(path.read_bytes(), OTHER_KEY) == dek
    done = reencrypt(path, BOTH, keep_id=True)
    assert done.info.object_id == done.before.object_id
    data = path.read_bytes()
    assert dek_of(data, OTHER_KEY) != dek
    header, body_head = split_start(data)
    with pytest.raises(IntegrityError):
        open_with(dek, header, body_head, b"", default_primitives())


def test_another_suite_can_be_chosen(path):
    assert reencrypt(path, BOTH, suite=Suite.GCM).info.suite == "aes-256-gcm"
    assert content(path, NEW) == CONTENT


def before(data, ring=BOTH):
    return needs_reencryption(io.BytesIO(data), ring)


def test_a_file_needs_it_unless_no_other_key_ever_had_its_data_key(path):
    assert before(path.read_bytes()).needed
    # A rewrap keeps the data key, so whoever had the old file key may have it.
    rewrap(path, BOTH)
    known = before(path.read_bytes())
    assert (known.needed, known.key_id) == (True, key_id(OTHER_KEY).hex())
    reencrypt(path, BOTH)
    assert not before(path.read_bytes()).needed
    assert not before(seal(CONTENT, ring=NEW)).needed


def test_a_slot_of_a_key_that_is_not_in_the_ring_counts_and_is_gone_then(path):
    """It may be the leaked one."""
    data = bytearray(seal(CONTENT, ring=NEW))
    dek = dek_of(bytes(data), OTHER_KEY)
    slot = slot_of(bytes(range(7, 39)), bytes(data[:48]), dek, 2)
    data[216 : 216 + len(slot)] = slot
    path.write_bytes(data)
    known = before(bytes(data))
    assert known.needed
    assert known.other_keys == (key_id(bytes(range(7, 39))).hex(),)
    assert reencrypt(path, BOTH).before == known
    assert len(parse_header(path.read_bytes()[:400]).slots) == 1


def test_a_file_whose_slots_only_claim_to_be_new_is_told(path):
    """Whoever can write to the storage can write another key id and generation into a slot."""
    data = bytearray(path.read_bytes())
    data[64:80] = key_id(OTHER_KEY)
    with pytest.raises(IntegrityError, match="no key slot unwraps"):
        before(bytes(data))


def refused(path, error, match, ring=BOTH, **options):
    stored = path.read_bytes()
    with pytest.raises(error, match=match) as caught:
        reencrypt(path, ring, **options)
    assert path.read_bytes() == stored
    assert sorted(found.name for found in path.parent.iterdir() if found.name != "other") == ["file"]
    return caught.value


def test_a_planted_slot_is_refused(path):
    data = bytearray(path.read_bytes())
    slot = slot_of(OTHER_KEY, bytes(data[:48]), bytes(range(9, 41)), 9)
    data[216 : 216 + len(slot)] = slot
    path.write_bytes(data)
    error = refused(path, IntegrityError, r"^slot 1 \(key .*\) was planted, or the contents were")
    assert error.reason is Reason.COMMITMENT_MISMATCH
    with pytest.raises(IntegrityError, match="was planted"):
        before(bytes(data))


@pytest.mark.parametrize("at", [100, 500, 100_000, -30, -1])
def test_a_changed_file_is_refused(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    refused(path, IntegrityError, None)


def test_what_is_not_usable_is_told(path):
    refused(path, UnknownKeyError, "no key of the keyring", NEW)
    refused(path, IntegrityError, "another context", context=b"owner:bob")
    refused(path, ConfigurationError, "Format 1 only", Keyring(bytes(range(16)), [KEY]))
    os.link(path, path.with_name("other"))
    refused(path, SourceError, "hard links")
    reencrypt(path, BOTH, break_links=True)
    assert content(path, NEW) == CONTENT
    path.write_bytes(b"plaintext")
    refused(path, FormatError, "not a securefs file")


def test_a_file_id_has_32_bytes():
    with pytest.raises(ConfigurationError, match="a file id has 32 bytes, not 31"):
        Encryptor(RING, file_id=bytes(31))
    assert Encryptor(RING, file_id=bytes(32)).object_id == "00" * 32


def test_a_full_disk_leaves_the_old_file(path):
    with file_size_limit(100_000):
        refused(path, OSError, "File too large")


KILLED = """
import os, signal, sys
from test_reencryption import BOTH
from securefs.reencryption import reencrypt

path, call, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = []

def dying(*arguments, **options):
    calls.append(call)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

real = int if call == "on_bytes" else getattr(os, call)
if call == "on_bytes":
    reencrypt(path, BOTH, on_bytes=dying)
else:
    setattr(os, call, dying)
    reencrypt(path, BOTH)
"""


@pytest.mark.parametrize(
    ("call", "number"),
    [("on_bytes", 1), ("on_bytes", 2), ("fsync", 1), ("link", 1), ("replace", 1), ("fsync", 2)],
)
def test_whenever_it_is_killed_there_is_the_old_file_or_the_new_one(path, call, number):
    old = path.read_bytes()
    folders = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/securefs")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), call, str(number)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    replaced = path.read_bytes() != old
    assert replaced is ((call, number) == ("fsync", 2))
    assert content(path, BOTH) == CONTENT
    if not replaced:
        reencrypt(path, BOTH)
    assert content(path, NEW) == CONTENT
