"""``securefs audit reconcile``: the store and the journal are anchors of each other."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from support.commands import KEY
from support.journals import only_chain, unprivileged

from securefs import Keyring
from securefs.audit import Entry, Journal
from securefs.files import encrypt_file


def stored(name):
    """Seal a file; return its object id."""
    Path("store").mkdir(exist_ok=True)
    Path("plain").write_bytes(b"x")
    return encrypt_file("plain", Path("store") / name, Keyring(KEY))


@pytest.fixture
def ids():
    """Three files with their records, and one that was deleted."""
    found = [stored(f"{number}.enc") for number in range(3)]
    journal = Journal("journal")
    for object_id in (*found, "cd" * 32):
        journal.record(Entry("file.encrypt", "started", obj={"id": object_id}))
        journal.record(Entry("file.encrypt", obj={"id": object_id}))
    journal.record(Entry("file.delete", obj={"id": "cd" * 32}))
    journal.record(Entry("file.encrypt", "failure"))
    journal.close()
    return found


def findings(run, *options):
    result = run("audit", "reconcile", "journal", "store", "--json", *options)
    found = json.loads(result.out[result.out.index(b"{") :])
    assert result.code == found["exit_code"] == (1 if found["findings"] else 0)
    return [(finding["code"], finding["object"]) for finding in found["findings"]]


def test_a_store_and_its_journal_agree(run, ids):
    Path("store/note.txt").write_text("no container")
    assert findings(run) == []
    result = run("audit", "reconcile", "journal", "store")
    assert (result.code, result.out) == (0, b"files: 3, made by records: 4, deleted: 1, findings: 0\n")


def test_a_journal_that_was_cut_lacks_records(run, ids):
    path = only_chain(Path("journal"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    assert findings(run) == [("unrecorded", ids[2])]


def test_a_file_that_is_missing(run, ids):
    Path("store/1.enc").unlink()
    assert findings(run) == [("missing", ids[1])]
    assert f"missing: {ids[1]}: record ".encode() in run("audit", "reconcile", "journal", "store").out


def test_a_file_that_was_put_back_after_it_was_deleted(run, ids):
    journal = Journal("journal")
    journal.record(Entry("file.delete", obj={"id": ids[0]}))
    journal.close()
    assert findings(run) == [("deleted", ids[0])]


def test_a_file_that_was_encrypted_anew(run, ids):
    journal = Journal("journal")
    journal.record(Entry("key.reencrypt", obj={"id": stored("0.enc2"), "old_id": ids[0]}))
    journal.close()
    assert findings(run) == [("deleted", ids[0])]
    Path("store/0.enc").unlink()
    assert findings(run) == []


def test_a_copy_of_a_file(run, ids):
    shutil.copy("store/0.enc", "store/9.enc")
    assert findings(run) == [("twice", ids[0])]


def test_what_cannot_be_read_is_told(run, ids):
    Path("store/3.enc").write_bytes(Path("store/0.enc").read_bytes()[:20])
    Path("store/link").symlink_to("0.enc")
    Path("store/away").symlink_to("/etc/passwd")
    assert [code for code, _ in findings(run)] == ["damaged", "unread"]


def test_a_file_that_this_user_cannot_read(run, ids, monkeypatch):
    open_folder = Path(tempfile.mkdtemp())
    shutil.copytree("store", open_folder / "store")
    shutil.copytree("journal", open_folder / "journal")
    open_folder.chmod(0o777)
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    (open_folder / "store" / "0.enc").chmod(0)
    monkeypatch.chdir(open_folder)
    with unprivileged(open_folder):
        assert findings(run) == [("unread", ""), ("missing", ids[0])]
    monkeypatch.undo()
    shutil.rmtree(open_folder)


def test_lines_that_are_no_records_are_told(run, ids):
    path = only_chain(Path("journal"))
    path.write_bytes(path.read_bytes().replace(b'"seq":2', b'"seq":x'))
    assert ("journal", "") in findings(run)


def test_there_is_no_journal(run, ids):
    assert run("audit", "reconcile", "store", "store").code == 2
