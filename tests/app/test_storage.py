"""Files and their rows: nothing half-stored, whatever fails in between."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import time

import pytest
from support.special import bind

from securefs import Encryptor, Keyring
from securefs.app.database import StorageError, open_database, transaction
from securefs.app.storage import Storage, StoredFile

KEYRING = Keyring(bytes(range(32)))
TEMPORARY = ".upload-" + "0" * 32 + ".tmp"


@pytest.fixture
def database(tmp_path):
    return open_database(tmp_path)


@pytest.fixture
def storage(tmp_path, database):
    return Storage(tmp_path, database)


@pytest.fixture
def small_files():
    """Let this process write files of 256 KiB at most: the nearest thing to a full disk that any user can have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sealed(content=b"content"):
    encryptor = Encryptor(KEYRING)
    return encryptor.object_id, encryptor.update(content) + encryptor.finalize()


def receive(storage, data):
    incoming = storage.receive()
    assert incoming.write(data) == len(data)
    return incoming


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "files").iterdir())


def test_what_was_received_and_not_stored_is_gone(storage, tmp_path):
    incoming = receive(storage, b"abc")
    assert incoming.size == 3
    incoming.seek(1)
    assert incoming.read(10) == b"bc"
    (name,) = names(tmp_path)
    assert (tmp_path / "files" / name).stat().st_mode & 0o777 == 0o600
    incoming.discard()
    incoming.discard()
    assert names(tmp_path) == []


def test_stored_files_keep_their_bytes_and_their_owner(storage, tmp_path):
    object_id, data = sealed()
    incoming = receive(storage, data)
    (stored,) = storage.store("alice", [incoming], {object_id: 7})
    incoming.discard()
    assert names(tmp_path) == [object_id + ".enc"]
    assert storage.find("alice", object_id) == stored
    assert storage.find("bob", object_id) is None
    with storage.open(stored) as file:
        assert file.read() == data


@pytest.mark.parametrize(
    "data", [pytest.param(b"plaintext" * 100, id="plaintext"), pytest.param(sealed()[1], id="not announced")]
)
def test_one_part_that_the_middleware_did_not_encrypt_stores_none(storage, tmp_path, data):
    object_id, good = sealed()
    received = [receive(storage, good), receive(storage, data)]
    with pytest.raises(StorageError, match="not encrypted"):
        storage.store("alice", received, {object_id: 7})
    for incoming in received:
        incoming.discard()
    assert names(tmp_path) == []
    assert storage.page("alice", 1) == ([], False)


def test_a_database_that_refuses_the_rows_leaves_no_file(storage, database, tmp_path):
    object_id, data = sealed()
    with transaction(database) as connection:
        connection.execute("DROP TABLE files")
    incoming = receive(storage, data)
    with pytest.raises(StorageError, match="no such table") as caught:
        storage.store("alice", [incoming], {object_id: 7})
    incoming.discard()
    assert not caught.value.full
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_moved_is_not_stored(storage, tmp_path):
    object_id, data = sealed()
    incoming = receive(storage, data)
    (tmp_path / "files" / f"{object_id}.enc").mkdir()  # what stands in the way
    with pytest.raises(StorageError, match="Is a directory"):
        storage.store("alice", [incoming], {object_id: 7})
    incoming.discard()
    assert names(tmp_path) == [f"{object_id}.enc"]


def test_a_full_disk_is_told_apart_from_other_failures(storage, small_files):
    incoming = storage.receive()
    with pytest.raises(StorageError, match="File too large") as caught:
        incoming.write(bytes(1024 * 1024))
    incoming.discard()
    assert caught.value.full


@pytest.mark.parametrize("object_id", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_what_is_no_object_id_never_becomes_a_path(storage, object_id):
    with pytest.raises(ValueError, match="not an object id"):
        storage.path(object_id)


def test_a_missing_file_is_an_error_that_names_no_folder(storage, tmp_path):
    with pytest.raises(StorageError, match="cannot read") as caught:
        storage.open(StoredFile("0" * 64, 1, 1))
    assert str(tmp_path) not in str(caught.value)


def test_leftovers_of_a_dead_process_are_swept_at_the_next_start(storage, tmp_path, database):
    folder = tmp_path / "files"
    old = time.time() - 3600
    object_id, _ = sealed()
    kept = [
        f"{object_id}.enc",
        ".upload-foreign.tmp",
        ".upload-" + "2" * 32 + ".tmp",
        ".upload-" + "3" * 32 + ".tmp",
    ]
    for name in [TEMPORARY, *kept]:
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (old, old))
    os.utime(folder / kept[2])  # so new that its writer may not have locked it yet
    with (folder / kept[3]).open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        Storage(tmp_path, database)
    assert names(tmp_path) == sorted(kept)


def test_the_lock_of_a_living_upload_is_held(storage, tmp_path, database):
    incoming = receive(storage, b"x")
    (name,) = names(tmp_path)
    os.utime(tmp_path / "files" / name, (0, 0))
    Storage(tmp_path, database)
    assert names(tmp_path) == [name]
    incoming.discard()


def test_a_link_named_like_a_leftover_leads_the_sweep_nowhere(storage, tmp_path, database):
    victim = tmp_path / "victim"
    victim.write_bytes(b"x")
    os.utime(victim, (0, 0))
    (tmp_path / "files" / TEMPORARY).symlink_to(victim)
    Storage(tmp_path, database)
    assert victim.exists()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make", [os.mkfifo, bind, os.mkdir])
def test_what_is_no_file_and_named_like_a_leftover_is_left_where_it_is(storage, tmp_path, database, make):
    path = tmp_path / "files" / TEMPORARY
    make(path)
    os.utime(path, (0, 0))
    Storage(tmp_path, database)
    assert names(tmp_path) == [TEMPORARY]


def test_deleting_removes_the_file_and_the_row(storage, tmp_path):
    object_id, data = sealed()
    incoming = receive(storage, data)
    (stored,) = storage.store("alice", [incoming], {object_id: 7})
    incoming.discard()
    storage.delete(stored)
    storage.delete(stored)
    assert names(tmp_path) == []
    assert storage.page("alice", 1) == ([], False)


def test_a_file_that_cannot_be_deleted_keeps_its_row(storage, tmp_path):
    object_id, data = sealed()
    incoming = receive(storage, data)
    (stored,) = storage.store("alice", [incoming], {object_id: 7})
    incoming.discard()
    path = tmp_path / "files" / f"{object_id}.enc"
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError):
        storage.delete(stored)
    assert storage.find("alice", object_id) == stored


def test_the_check_leaves_nothing_and_fails_where_storing_would(storage, tmp_path):
    storage.check()
    assert names(tmp_path) == []
    (tmp_path / "files").rmdir()
    with pytest.raises(StorageError, match=os.strerror(errno.ENOENT)):
        storage.check()
    with pytest.raises(StorageError):
        storage._sync()
