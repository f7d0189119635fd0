"""``securefs reencrypt``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.commands import KEY, OTHER_KEY, program, sealed
from support.journals import only_chain, records
from support.sealing import pattern, slot_of

from securefs import Keyring, open_encrypted
from securefs.header import parse_header

OLD, NEW = Keyring(KEY), Keyring(OTHER_KEY)
THIRD_KEY = bytes(range(2, 34))


def content(name, ring=NEW, context=b""):
    with open_encrypted(name, ring, context) as file:
        return file.read()


@pytest.fixture
def folder(rotating):
    """A folder with some of everything; its files are under the previous key."""
    Path("d/e").mkdir(parents=True)
    sealed(b"first", name="d/1.enc")
    sealed(b"second", name="d/2.new", key=OTHER_KEY)
    Path("d/3.plain").write_bytes(b"plaintext")
    Path("d/4.link").symlink_to("e/5")
    sealed(pattern(300_000), name="d/e/5", metadata={"name": "a.pdf", "type": "application/pdf"})
    os.mkfifo("d/7.pipe")
    return Path("d")


def ids(*names):
    return [bytes(Path(name).read_bytes()[16:48]).hex() for name in names]


def test_files_get_new_data_keys(run, folder, monkeypatch):
    assert run("rewrap", "d/e").code == 0  # which keeps the data key
    before, second = ids("d/1.enc", "d/e/5"), Path("d/2.new").read_bytes()
    result = run("reencrypt", "d")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "reencrypted d/1.enc",
        "unchanged   d/2.new",
        "plain       d/3.plain",
        f"link        d/4.link: a symbolic link to {Path('d/e/5').absolute()}",
        "special     d/7.pipe: d/7.pipe is a pipe, not a regular file",
        "reencrypted d/e/5",
        (
            "2 re-encrypted, 1 unchanged, 0 failed, 1 not encrypted, 1 symbolic links, 1 special files; "
            "object ids changed: tell an app that recorded them (--json has the old and the new ones)"
        ),
    ]
    assert content("d/1.enc") == b"first"
    with open_encrypted("d/e/5", NEW) as file:
        assert (file.read(), file.metadata) == (
            pattern(300_000),
            {"name": "a.pdf", "type": "application/pdf"},
        )
    assert not set(before) & set(ids("d/1.enc", "d/e/5"))
    assert Path("d/2.new").read_bytes() == second
    monkeypatch.delenv("FILE_KEY_BASE64_PREVIOUS")
    assert run("verify", "d").code == 0
    # A second run finds nothing to do, and --again does it all the same.
    assert run("reencrypt", "d").out.startswith(b"unchanged ")
    assert run("reencrypt", "d", "--again").out.count(b"\nreencrypted") == 2


def test_json_has_the_old_and_the_new_ids(run, folder):
    old = ids("d/1.enc")[0]
    document = json.loads(run("reencrypt", "d/1.enc", "d/2.new", "--json").out)
    assert (document["reencrypted"], document["unchanged"], document["failed"]) == (1, 1, 0)
    assert document["files"][0] == {
        "path": "d/1.enc",
        "kind": "reencrypted",
        "object_id": ids("d/1.enc")[0],
        "key_id": NEW.primary_id.hex(),
        "size": 5,
        "old_object_id": old,
        "old_key_id": OLD.primary_id.hex(),
    }
    assert document["files"][1] == {
        "path": "d/2.new",
        "kind": "unchanged",
        "object_id": ids("d/2.new")[0],
        "key_id": NEW.primary_id.hex(),
    }


def test_ids_can_be_kept(run, folder):
    before = ids("d/1.enc")
    result = run("reencrypt", "d/1.enc", "--keep-ids", "--suite", "aes-256-gcm")
    assert result.out.endswith(b"1 re-encrypted, 0 unchanged, 0 failed\n")
    assert ids("d/1.enc") == before
    assert json.loads(run("inspect", "d/1.enc", "--json").out)["suite"] == "aes-256-gcm"


def test_a_dry_run_changes_nothing(run, folder):
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    result = run("reencrypt", "d", "--dry-run")
    assert result.code == 0
    lines = result.out.decode().splitlines()
    assert lines[0] == f"would be    d/1.enc: key {OLD.primary_id.hex()}"
    assert lines[-1].startswith("2 to be re-encrypted, 1 unchanged, 0 failed")
    assert lines[-1].endswith("; --dry-run: nothing was changed")
    os.link("d/1.enc", "other")
    assert run("reencrypt", "d", "--dry-run").code == 1
    assert run("reencrypt", "d", "--dry-run", "--break-links").code == 0
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    assert json.loads(run("reencrypt", "d", "--dry-run", "--json", "--break-links").out)["due"] == 2


def test_what_may_still_need_a_key_is_a_failure_and_the_rest_goes_on(run, rotating):
    Path("d").mkdir()
    sealed(name="d/1", key=THIRD_KEY)
    path = sealed(name="d/2")
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))
    sealed(name="d/3", format_1=True)
    sealed(name="d/4")
    os.link("d/4", "other")
    Path("d/5").symlink_to("nowhere")
    sealed(name="d/6", context=b"owner:ann")
    sealed(name="d/7")
    before = Path("d/2").read_bytes()
    result = run("reencrypt", "d")
    assert result.code == 1
    assert [line[:15] for line in result.out.decode().splitlines()[:-1]] == [
        *(f"FAILED      d/{number}" for number in range(1, 7)),
        "reencrypted d/7",
    ]
    assert Path("d/2").read_bytes() == before
    assert run("reencrypt", "d/6", "--context", "owner:ann").code == 0
    assert content("d/6", NEW, b"owner:ann") == b"the content"
    assert run("reencrypt", "d/4", "--break-links").code == 0
    Path("plain").write_bytes(b"plaintext")
    assert run("reencrypt", "d/7", "plain").code == 1
    Path("e").mkdir()
    Path("plain").rename("e/plain")
    assert run("reencrypt", "d/7", "e").code == 0
    assert run("reencrypt", "d/7", "e", "--all").code == 1


def test_slots_that_are_gone_are_told(run, rotating):
    """The file was written for three keys, of which two are in the keyring now."""
    path = sealed(name="1")
    data = bytearray(path.read_bytes())
    dek = OLD.unwrap(*slot_and_bound(bytes(data)))
    slot = slot_of(THIRD_KEY, bytes(data[:48]), dek, 2)
    data[216 : 216 + len(slot)] = slot
    path.write_bytes(data)
    (file,) = json.loads(run("reencrypt", "1", "--json").out)["files"]
    assert file["other_keys"] == [Keyring(THIRD_KEY).primary_id.hex()]


def slot_and_bound(data):
    header = parse_header(data[:376])
    return header.slots[0], header.preamble + header.slots[0].head


def test_it_is_journalled(run, rotating, monkeypatch):
    sealed(name="1.enc")
    sealed(name="2.enc", key=THIRD_KEY)
    sealed(name="3.enc", key=OTHER_KEY)
    old = ids("1.enc")[0]
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    assert run("reencrypt", "1.enc", "--dry-run").code == 0
    assert list(Path("journal").iterdir()) == []
    assert run("reencrypt", "1.enc", "2.enc", "3.enc").code == 1
    _, done, unknown, _ = records(only_chain(Path("journal")))
    assert (done["event"], done["outcome"]) == ("key.reencrypt", "success")
    assert done["obj"] == {
        "id": ids("1.enc")[0],
        "key_id": NEW.primary_id.hex(),
        "old_id": old,
        "old_key_id": OLD.primary_id.hex(),
        "name": "1.enc",
    }
    assert (unknown["event"], unknown["reason"], unknown["sev"]) == ("key.reencrypt", "unknown_key", 3)
    assert unknown["obj"] == {"name": "2.enc"}


def test_nothing_is_changed_that_the_journal_cannot_record(run, rotating, monkeypatch, full_journal):
    before = sealed(name="1").read_bytes()
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    full_journal()
    result = run("reencrypt", "1")
    assert (result.code, "journal cannot be written" in result.line) == (2, True)
    assert Path("1").read_bytes() == before


def test_what_cannot_be_done_is_told_once(run, rotating, monkeypatch):
    sealed(name="1")
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", ".")
    assert "name the folder of the app's files alone" in run("reencrypt", ".").line
    monkeypatch.delenv("SECUREFS_AUDIT_DIR")
    assert run("reencrypt").code == 2


def test_a_run_that_is_killed_is_continued(run, rotating):
    Path("d").mkdir()
    for number in range(30):
        sealed(pattern(100_000, str(number)), name=f"d/{number:02}")
    environ = {"FILE_KEY_BASE64_PREVIOUS": os.environ["FILE_KEY_BASE64_PREVIOUS"]}
    before = ids(*sorted(map(str, Path("d").iterdir())))
    command = program("reencrypt", "d", key=OTHER_KEY, more=environ, stdout=subprocess.PIPE)
    with command as process:
        process.stdout.readline()
        process.kill()
    again = json.loads(run("reencrypt", "d", "--json").out)
    assert again["failed"] == 0
    assert again["reencrypted"] + again["unchanged"] == 30
    assert not set(before) & set(ids(*(f"d/{number:02}" for number in range(30))))
    for number in range(30):
        assert content(f"d/{number:02}") == pattern(100_000, str(number))
