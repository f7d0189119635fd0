"""The context of each file: one for all, what a function says, or the owner in the app's records."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from support.commands import KEY, sealed
from support.sealing import pattern

from securefs import Encryptor, Keyring
from securefs.app import owner_context
from securefs.app.database import data_directory, open_database, transaction
from securefs.app.storage import Storage

RING = Keyring(KEY)


@pytest.mark.parametrize("command", [["verify", "a.enc"], ["decrypt", "a.enc", "-o", "-"], ["decrypt", "-"]])
def test_a_context_beside_format_1_is_refused_and_not_ignored(run, command):
    sealed(name="a.enc", format_1=True)
    data = Path("a.enc").read_bytes()
    for option in (["--context", "owner:ann"], ["--context-hex", "00"]):
        result = run(*command, "--format-1", *option, stdin=data)
        assert (result.code, result.out) == (2, b"")
        assert "--format-1 has no place for --context" in result.line
    assert run(*command, "--format-1", stdin=data).code == 0


@pytest.mark.parametrize("option", [["--context-from", "a:b"], ["--data-dir", "."]])
def test_nor_is_any_other_context(run, option):
    sealed(name="a.enc", format_1=True)
    assert "--format-1 has no place" in run("verify", "a.enc", "--format-1", *option).line


def test_only_one_context_can_be_given(run):
    sealed(name="a.enc")
    for command in ("verify", "rewrap"):
        result = run(command, "a.enc", "--context", "x", "--data-dir", "y")
        assert (result.code, "not allowed with" in result.line) == (2, True)


@pytest.fixture
def storage():
    """A reference app's storage, in ``data``."""
    folder = data_directory({"SECUREFS_DATA_DIR": "data"})
    return Storage(folder, open_database(folder))


def uploaded(storage, owner, content=b"content"):
    """Store a file as the app does; return its path."""
    encryptor = Encryptor(RING, context=owner_context(owner))
    incoming = storage.receive()
    incoming.write(encryptor.update(content) + encryptor.finalize())
    (stored,) = storage.store(owner, [incoming], {encryptor.object_id: len(content)})
    incoming.discard()
    return storage.path(stored.object_id)


def test_files_of_several_owners_verify_by_the_app_s_records(run, storage):
    paths = [uploaded(storage, owner, pattern(size)) for owner, size in (("ann", 9), ("zoë", 99), ("ann", 0))]
    assert run("verify", "data/files").code == 1
    assert run("verify", "data/files", "--context", "owner:ann").code == 1
    result = run("verify", "--data-dir", "data")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        *(f"ok      {path}" for path in sorted(paths)),
        "3 verified, 0 failed",
    ]
    assert run("verify", "--data-dir", "data", str(paths[1])).out.endswith(b"1 verified, 0 failed\n")


def test_the_records_are_read_while_the_app_writes(run, storage):
    uploaded(storage, "ann")
    with transaction(Path("data/securefs.sqlite3")):
        assert run("verify", "--data-dir", "data").code == 0


def test_a_store_that_is_not_what_was_recorded_is_a_finding(run, storage):
    kept, missing, exchanged, other = (uploaded(storage, "ann") for _ in range(4))
    missing.unlink()
    shutil.copy(other, exchanged)
    stranger = storage.path("0" * 64)
    shutil.copy(kept, stranger)
    result = run("verify", "--data-dir", "data", "--json")
    assert result.code == 1
    document = json.loads(result.out)
    assert (document["verified"], document["failed"]) == (2, 3)
    reasons = {file["path"]: file["reason"] for file in document["files"] if file["kind"] == "failed"}
    assert reasons == {
        str(stranger): "wrong_context",
        str(exchanged): "wrong_object",
        str(missing): "io_error",
    }
    out = run("verify", "--data-dir", "data").out.decode()
    assert f"FAILED  {missing}: the app has a record of it, and it is missing" in out
    assert "the app has no record of it: an upload that is under way, or that a crash ended" in out
    # What is named is all that is looked at.
    assert run("verify", "--data-dir", "data", str(kept)).code == 0


def test_the_app_s_files_are_rewrapped_with_their_contexts(run, storage, rotating):
    for owner in ("ann", "bob"):
        uploaded(storage, owner)
    assert run("keys", "in-use", "--data-dir", "data").code == 1
    assert run("rewrap", "--data-dir", "data").out.endswith(b"2 rewrapped, 0 unchanged, 0 failed\n")
    assert run("keys", "in-use", "--data-dir", "data").code == 0
    assert run("verify", "--data-dir", "data").code == 0


def test_a_folder_without_records_is_refused_and_nothing_is_made(run):
    Path("data").mkdir()
    for name in ("data", "missing"):
        result = run("verify", "--data-dir", name)
        assert (result.code, result.line) == (2, f"--data-dir: there is no securefs.sqlite3 in {name}")
    assert list(Path("data").iterdir()) == []
    assert not Path("missing").exists()
    Path("data/files").mkdir()
    sealed(name="data/files/1.enc")
    Path("data/securefs.sqlite3").write_bytes(b"no database" * 100)
    result = run("verify", "--data-dir", "data")
    assert (result.code, "cannot be used" in result.line) == (2, True)


FUNCTION = """
def owner(path):
    if "ann" in path:
        return b"owner:ann"
    if "text" in path:
        return "text"
    if "broken" in path:
        raise RuntimeError("secret")
    raise KeyError(path)
"""


@pytest.fixture
def module():
    Path("contexts_of_a_test.py").write_text(FUNCTION)
    yield "contexts_of_a_test:owner"
    sys.modules.pop("contexts_of_a_test", None)


def test_a_function_gives_the_context_of_each_file(run, module, rotating):
    before = list(sys.path)
    for name in ("ann.enc", "none.enc", "text.enc", "broken.enc"):
        sealed(name=name, context=b"owner:ann")
    assert run("verify", "ann.enc", "--context-from", module).code == 0
    assert run("rewrap", "ann.enc", "--context-from", module).code == 0
    result = run("verify", "none.enc", "ann.enc", "--context-from", module)
    assert result.code == 1
    assert result.out.decode().splitlines()[:2] == [
        f"FAILED  none.enc: {module} knows no context of it",
        "ok      ann.enc",
    ]
    result = run("verify", "text.enc", "--context-from", module)
    assert (result.code, result.line) == (
        2,
        f"--context-from: {module} returned str for text.enc, not bytes",
    )
    result = run("verify", "broken.enc", "--context-from", module)
    assert result.code == 2
    assert result.line == (
        f"--context-from: {module} raised RuntimeError for broken.enc: it must return bytes, or raise LookupError"
    )
    assert sys.path == before


@pytest.mark.parametrize("name", ["no_such_module:f", "json:no_such_function", "json", "", ":", "json:"])
def test_a_function_that_is_not_there_is_told(run, name):
    sealed(name="a.enc")
    before = list(sys.path)
    result = run("verify", "a.enc", "--context-from", name)
    assert result.code == 2
    assert result.line.startswith(f"--context-from {name}: ")
    assert "give MODULE:FUNCTION" in result.line
    assert sys.path == before


@pytest.mark.parametrize("command", ["verify", "rewrap", "keys in-use"])
def test_no_path_is_told(run, command):
    result = run(*command.split())
    assert (result.code, result.line) == (
        2,
        "no PATH is named: name files or folders, or the app's folder with --data-dir",
    )


def test_files_of_the_app_are_encrypted_anew_under_their_ids_alone(run, storage, rotating):
    """The app finds them by their ids."""
    paths = [uploaded(storage, owner) for owner in ("ann", "zoë")]
    before = [path.read_bytes() for path in paths]
    assert run("reencrypt", "--data-dir", "data", "--dry-run").code == 0
    result = run("reencrypt", "--data-dir", "data")
    assert (result.code, result.line) == (
        2,
        "the reference app finds its files by their object ids, which change: give --keep-ids",
    )
    assert [path.read_bytes() for path in paths] == before
    result = run("reencrypt", "--data-dir", "data", "--keep-ids")
    assert (result.code, result.out.splitlines()[-1]) == (0, b"2 re-encrypted, 0 unchanged, 0 failed")
    assert run("verify", "--data-dir", "data").code == 0
    assert run("keys", "in-use", "--data-dir", "data").code == 0
