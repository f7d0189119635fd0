"""What ``seal()`` returns is a stream of ciphertext that can be read once, and whole or not at all."""

from __future__ import annotations

import io
import shutil

import pytest
from support.sealing import pattern
from support.uploads import KEYRING

from securefs import ConfigurationError, verify
from securefs.middleware import Policy, Vault

TEXT = pattern(300_000)


@pytest.fixture
def vault(journal):
    return Vault(keyring=KEYRING, journal=journal, policy=Policy(protected_paths=("/",)))


@pytest.fixture
def sealed(vault):
    with vault.seal(io.BytesIO(TEXT)) as sealed:
        yield sealed


def test_it_is_a_readable_binary_file(sealed, tmp_path):
    assert (sealed.readable(), sealed.seekable(), sealed.writable()) == (True, False, False)
    with (tmp_path / "made").open("wb") as file:
        shutil.copyfileobj(sealed, file, 1000)
    assert verify(tmp_path / "made", KEYRING).object_id == sealed.object_id
    assert sealed.tell() == (tmp_path / "made").stat().st_size == sealed.stored_length(len(TEXT))
    assert sealed.read(1) == b""
    assert list(sealed) == []


def test_the_size_of_the_plaintext_is_known_at_the_end(sealed):
    assert sealed.size == 0
    sealed.read()
    assert sealed.size == len(TEXT)


def test_pieces_go_on_where_a_read_ended(sealed):
    start = sealed.read(100)
    stored = start + b"".join(sealed)
    assert verify(io.BytesIO(stored), KEYRING).size == len(TEXT)


def test_it_goes_back_to_no_other_place_than_it_is_at(sealed):
    assert sealed.seek(0) == sealed.seek(0, io.SEEK_CUR) == sealed.tell() == 0
    sealed.read(100)
    assert sealed.seek(100) == 100
    for offset, whence in ((0, io.SEEK_SET), (1, io.SEEK_CUR), (0, io.SEEK_END)):
        with pytest.raises(io.UnsupportedOperation, match=r"can be read once"):
            sealed.seek(offset, whence)


def test_nothing_is_read_of_what_is_not_asked_for(vault, journal):
    source = io.BytesIO(TEXT)
    vault.seal(source).close()
    assert source.tell() == 0
    assert not source.closed
    assert journal.events() == []


@pytest.mark.parametrize("read", [100, 200_000])
def test_a_file_that_is_not_read_to_its_end_is_recorded_as_a_failure(read, sealed, journal):
    sealed.read(read)
    sealed.close()
    sealed.close()
    assert journal.events() == [("file.encrypt", "started", None), ("file.encrypt", "failure", "io_error")]


def test_a_closed_one_says_so(sealed):
    sealed.close()
    for use in (sealed.read, sealed.tell, lambda: sealed.seek(0), lambda: next(sealed)):
        with pytest.raises(ValueError, match=r"closed file"):
            use()


@pytest.mark.parametrize("kind", ["path", "str", "file"])
def test_it_is_saved_to_a_path_or_a_file(kind, sealed, tmp_path):
    path = tmp_path / "made"
    if kind == "file":
        with path.open("wb") as file:
            assert sealed.save(file) == len(TEXT)
    else:
        assert sealed.save(path if kind == "path" else str(path)) == len(TEXT)
        assert path.stat().st_mode & 0o777 == 0o600
    assert verify(path, KEYRING).size == len(TEXT)


def test_a_path_that_is_taken_stays_as_it_is_unless_it_may_be_replaced(vault, tmp_path):
    (tmp_path / "made").write_bytes(b"another")
    with pytest.raises(ConfigurationError, match=r"exists"):
        vault.seal(io.BytesIO(TEXT)).save(tmp_path / "made")
    assert (tmp_path / "made").read_bytes() == b"another"
    vault.seal(io.BytesIO(TEXT)).save(tmp_path / "made", overwrite=True)
    assert verify(tmp_path / "made", KEYRING).size == len(TEXT)
