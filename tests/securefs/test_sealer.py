"""What seals new files, in either format."""

from __future__ import annotations

import io

import pytest

from securefs import ConfigurationError, Keyring, Suite, open_encrypted
from securefs.sealer import NewFiles

KEYRING = Keyring(bytes(range(32)))
SHORT = Keyring(bytes(range(16)))
SIZES = [0, 1, 15, 16, 17, 65_535, 65_536, 65_537, 200_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("new", [NewFiles(KEYRING, 1), *(NewFiles(KEYRING, 2, suite) for suite in Suite)])
def test_a_file_has_the_length_and_the_key_that_were_told(new, size):
    sealer = new.sealer()
    stored = sealer.update(bytes(size)) + sealer.finalize()
    assert len(stored) == sealer.stored_length(size)
    with open_encrypted(io.BytesIO(stored), KEYRING, format_1=new.format == 1) as file:
        assert (file.read(), file.key_id, file.object_id) == (bytes(size), sealer.key_id, sealer.object_id)


def test_format_2_binds_a_context_and_holds_metadata():
    new = NewFiles(KEYRING)
    sealer = new.sealer(b"tenant", {"name": "n"})
    stored = sealer.update(b"x") + sealer.finalize()
    assert new.binds
    assert new.suite_label == "aes-256-cbc-hmac-sha256"
    assert open_encrypted(io.BytesIO(stored), KEYRING, b"tenant").metadata == {"name": "n"}


@pytest.mark.parametrize("given", [{"context": b"tenant"}, {"metadata": {"name": "n"}}])
def test_format_1_refuses_what_it_would_lose(given):
    new = NewFiles(KEYRING, 1)
    assert not new.binds
    assert new.suite_label is None
    with pytest.raises(ConfigurationError, match="Format 1 has no place for a context or metadata"):
        new.sealer(**given)


def test_a_key_that_cannot_seal_is_found_before_the_first_file():
    NewFiles(SHORT, 1).check()
    with pytest.raises(ConfigurationError, match="16 bytes and can serve Format 1 only"):
        NewFiles(SHORT).check()
    with pytest.raises(ConfigurationError, match="holds no file key"):
        NewFiles(Keyring.of(None), 1).check()
