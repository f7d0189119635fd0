"""``securefs import``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.commands import KEY, OTHER_KEY, names, sealed
from support.journals import only_chain, records
from support.sealing import pattern

from securefs import Keyring, open_encrypted

RING = Keyring(KEY)


def content(name, context=b""):
    with open_encrypted(name, RING, context) as file:
        return file.read()


@pytest.fixture
def folder():
    """A folder with some of everything."""
    Path("d/e").mkdir(parents=True)
    Path("d/1.pdf").write_bytes(b"plaintext")
    Path("d/2.empty").touch()
    sealed(b"of format 1", name="d/3.format1", format_1=True)
    sealed(b"of format 2", name="d/4.enc")
    Path("d/e/5.bin").write_bytes(pattern(300_000))
    Path("d/6.link").symlink_to("e/5.bin")
    os.mkfifo("d/7.pipe")
    return Path("d")


def test_files_that_are_there_become_encrypted_ones(run, folder):
    before = Path("d/4.enc").read_bytes()
    result = run("import", "d")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "imported   d/1.pdf",
        "imported   d/2.empty",
        "imported   d/3.format1: Format 1",
        "unchanged  d/4.enc",
        f"link       d/6.link: a symbolic link to {Path('d/e/5.bin').absolute()}",
        "special    d/7.pipe: d/7.pipe is a pipe, not a regular file",
        "imported   d/e/5.bin",
        "4 imported, 1 unchanged, 0 failed, 1 symbolic links, 1 special files",
    ]
    assert content("d/1.pdf") == b"plaintext"
    assert content("d/2.empty") == b""
    assert content("d/3.format1") == b"of format 1"
    assert Path("d/4.enc").read_bytes() == before
    assert content("d/6.link") == pattern(300_000)
    assert Path("d/6.link").is_symlink()
    Path("d/7.pipe").unlink()
    assert run("verify", "d", "--all").code == 0
    # A second run finds nothing to do.
    assert run("import", "d").out.endswith(b"0 imported, 5 unchanged, 0 failed, 1 symbolic links\n")
    assert content("d/1.pdf") == b"plaintext"


def test_a_dry_run_changes_nothing(run, folder):
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    os.link("d/1.pdf", "d/1-too.pdf")
    result = run("import", "d", "--dry-run")
    assert result.code == 1
    lines = result.out.decode().splitlines()
    assert lines[0] == (
        "FAILED     d/1-too.pdf: d/1-too.pdf has 2 names (hard links), and the others would keep what is in it"
    )
    assert "would be   d/3.format1: Format 1" in lines
    assert lines[-1] == (
        "3 to be imported, 1 unchanged, 2 failed, 1 symbolic links, 1 special files; --dry-run: nothing was changed"
    )
    Path("d/1-too.pdf").unlink()
    assert run("import", "d", "--dry-run").code == 0
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} | {folder: 0} == before | {
        folder: 0
    }
    assert Path("d/1.pdf").read_bytes() == b"plaintext"


def test_json_says_what_became_of_each_file(run, folder):
    document = json.loads(run("import", "d", "--json", "--suite", "aes-256-gcm").out)
    assert (document["imported"], document["unchanged"], document["failed"]) == (4, 1, 0)
    first = document["files"][0]
    info = json.loads(run("inspect", "d/1.pdf", "--json").out)
    assert first == {
        "path": "d/1.pdf",
        "kind": "imported",
        "object_id": info["object_id"],
        "key_id": RING.primary_id.hex(),
        "size": 9,
    }
    assert info["suite"] == "aes-256-gcm"
    assert json.loads(run("import", "d", "--dry-run", "--json").out)["planned"] == 0


def test_what_must_not_be_encrypted_as_it_is_fails_and_the_rest_goes_on(run):
    Path("d").mkdir()
    damaged = bytearray(sealed(name="d/1").read_bytes())
    damaged[0] ^= 1
    Path("d/1").write_bytes(damaged)
    Path("d/2").write_bytes(b"two names")
    os.link("d/2", "d/3")
    Path("elsewhere").write_bytes(b"plaintext")
    Path("d/4").symlink_to("../elsewhere")
    Path("d/5").write_bytes(b"plaintext")
    result = run("import", "d")
    assert result.code == 1
    assert [line[:14] for line in result.out.decode().splitlines()[:5]] == [
        *(f"FAILED     d/{number}" for number in (1, 2, 3, 4)),
        "imported   d/5",
    ]
    assert Path("d/1").read_bytes() == bytes(damaged)
    assert Path("elsewhere").read_bytes() == b"plaintext"
    assert run("import", "d/2", "d/3", "--break-links").code == 0
    assert (content("d/2"), content("d/3")) == (b"two names", b"two names")
    assert run("import", "d/4").code == 0
    assert content("elsewhere") == b"plaintext"


def test_each_file_is_bound_to_its_context(run):
    Path("a").write_bytes(b"plaintext")
    assert run("import", "a", "--context", "owner:ann").code == 0
    assert content("a", b"owner:ann") == b"plaintext"


@pytest.mark.parametrize("place", ["d/file.key", "d/e/file.key", "d"])
@pytest.mark.parametrize("variable", ["FILE_KEY_BASE64_FILE", "SECUREFS_AUDIT_DIR"])
def test_the_key_and_the_journal_are_not_encrypted(run, monkeypatch, folder, variable, place):
    """Most likely the path is one too high."""
    if variable == "FILE_KEY_BASE64_FILE":
        monkeypatch.delenv("FILE_KEY_BASE64")
        place = "d/file.key" if place == "d" else place
        assert run("keygen", "--output", place).code == 0
    monkeypatch.setenv(variable, place)
    result = run("import", "d")
    assert result.code == 2
    assert result.line == (
        f"{place}, which {variable} names, is under the paths: name the folder of the app's files alone"
    )
    assert Path("d/1.pdf").read_bytes() == b"plaintext"
    if place == "d/file.key":
        assert run("import", "d/e").code == 0


def test_a_run_that_was_interrupted_is_continued(run, folder):
    shutil.copytree("d", "copy", symlinks=True, ignore=lambda *_: ["7.pipe"])
    assert run("import", "copy/1.pdf").code == 0
    assert run("import", "copy").out.endswith(b"3 imported, 2 unchanged, 0 failed, 1 symbolic links\n")


def test_an_empty_folder_is_no_success(run):
    Path("d").mkdir()
    assert run("import", "d").code == 2
    assert names() == ["d"]


def test_a_file_of_a_key_that_is_not_given_is_left_alone(run):
    """Format 2 names its key, so it is known for what it is."""
    sealed(name="a", key=OTHER_KEY)
    before = Path("a").read_bytes()
    assert run("import", "a").code == 0
    assert Path("a").read_bytes() == before


def test_it_is_journalled(run, monkeypatch):
    Path("1.pdf").write_bytes(b"plaintext")
    Path("2.pdf").write_bytes(b"two names")
    os.link("2.pdf", "3.pdf")
    sealed(name="4.enc")
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    assert run("import", "1.pdf", "--dry-run").code == 0
    assert list(Path("journal").iterdir()) == []
    files = json.loads(run("import", "1.pdf", "2.pdf", "4.enc", "--json").out)["files"]
    _, done, failed, _ = records(only_chain(Path("journal")))
    assert (done["event"], done["outcome"]) == ("file.import", "success")
    assert done["obj"] == {
        "id": files[0]["object_id"],
        "key_id": RING.primary_id.hex(),
        "suite": "aes-256-cbc-hmac-sha256",
        "format": 2,
        "size": 9,
        "name": "1.pdf",
    }
    assert (failed["event"], failed["outcome"], failed["reason"]) == ("file.import", "failure", "io_error")
    assert failed["obj"] == {"name": "2.pdf"}


def test_nothing_is_changed_that_the_journal_cannot_record(run, monkeypatch, full_journal):
    Path("1.pdf").write_bytes(b"plaintext")
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    full_journal()
    result = run("import", "1.pdf")
    assert (result.code, "journal cannot be written" in result.line) == (2, True)
    assert Path("1.pdf").read_bytes() == b"plaintext"
