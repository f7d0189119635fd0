"""Format 1 files, opened for reading: verified as a whole, and compared with that afterwards."""

from __future__ import annotations

import hmac
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import KEY, LIBRARIES, OTHER_KEY, RING, CountingFile, ExchangedFile, pattern, seal_1

from securefs import IntegrityError, Keyring, open_encrypted, verify
from securefs.format1_reader import FORMAT_1_BLOCK

MIB = FORMAT_1_BLOCK
PLAIN = pattern(2 * MIB + 37)

SEALED = seal_1(PLAIN)


def open_1(data, ring=RING, **options):
    return open_encrypted(io.BytesIO(data), ring, format_1=True, **options)


def test_a_key_that_is_not_held_looks_like_a_changed_file():
    """Format 1 does not name its key, so the two can't be told apart."""
    with pytest.raises(IntegrityError, match="under no key of the keyring"):
        open_1(seal_1(b"hello"), Keyring(OTHER_KEY))


@pytest.mark.parametrize("block", [pytest.param(bytes(16), id="0"), pytest.param(b"\x11" * 16, id="17")])
def test_bad_padding_under_a_good_tag_is_refused(block):
    stored = bytes(16) + LIBRARIES[0].cbc_encryptor(KEY, bytes(16))(block)
    with pytest.raises(IntegrityError, match="PKCS#7"):
        open_1(stored + hmac.digest(KEY, stored, "sha256"))


def test_nothing_is_decrypted_before_the_tag_was_compared():
    """A library that decrypts would be called; this one has no decryptor at all."""

    class NoDecryption:
        name = "none"

    with pytest.raises(IntegrityError):
        open_1(seal_1(b"hello")[:-1] + b"\0", primitives=NoDecryption())


@examples(30)
@given(st.lists(st.tuples(st.integers(0, 2 * MIB + 100), st.integers(0, MIB + 10)), max_size=6))
def test_reads_at_any_place_equal_those_of_the_plaintext(moves):
    with open_1(SEALED) as file:
        for offset, size in moves:
            file.seek(offset)
            assert file.read(size) == PLAIN[offset : offset + size]


def test_a_file_exchanged_while_open_is_not_decrypted():
    """The other file is good and under the same key; yet it is not the one whose tag was checked."""
    source = ExchangedFile(SEALED)
    with open_encrypted(source, RING, format_1=True) as file:
        source.exchange(seal_1(pattern(2 * MIB + 37, "other")))
        with pytest.raises(IntegrityError, match="block 0 changed while the file was open") as caught:
            file.read(1)
        assert caught.value.segment == 0
        assert len(caught.value.digest or "") == 64


def test_a_file_cut_while_open_is_refused():
    source = ExchangedFile(SEALED)
    with open_encrypted(source, RING, format_1=True) as file:
        source.exchange(SEALED[: MIB + 100])
        assert file.read(10) == PLAIN[:10]
        file.seek(MIB)
        with pytest.raises(IntegrityError):
            file.read(1)


def test_check_reads_nothing_again_since_opening_verified_it_all():
    source = CountingFile(SEALED)
    with open_encrypted(source, RING, format_1=True) as file:
        source.reads.clear()
        file.check()
        assert source.reads == []


def test_verify_tells_what_the_file_is():
    info = verify(io.BytesIO(seal_1(b"hello")), RING, format_1=True)
    assert (info.format, info.suite, info.size, info.object_id) == (1, "format-1", 5, "")
    assert info.key_id == RING.primary_id.hex()
