"""The rules of reading that are the same for each format."""

from __future__ import annotations

import io

import pytest
from support.sealing import BODY_START, PRIMITIVES, RING, SUITES, pattern, seal

from securefs import IntegrityError, open_encrypted
from securefs.header import claimed_object_id
from securefs.plaintext import MAX_NESTED, forget_nested, nested_ids

SIZE = 3 * 65_536 + 1234
PLAIN = pattern(SIZE)


def opened(stored):
    return open_encrypted(io.BytesIO(stored), RING)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [100, 65_536, 3 * 65_536], ids=lambda size: f"{size} bytes")
def test_what_fails_writes_nothing_into_the_callers_buffer(suite, primitives, size):
    """AES-GCM decrypts before it has verified; a buffer of the caller's is not where it does."""
    data = bytearray(seal(PLAIN, suite))
    data[BODY_START + 20 : BODY_START + suite.sealed_size : 200] = bytes(
        len(range(20, suite.sealed_size, 200))
    )
    with open_encrypted(io.BytesIO(data), RING, primitives=primitives) as file:
        for reader in (file.readinto, file.readinto1, file.raw.readinto):
            buffer = bytearray(size)
            with pytest.raises(IntegrityError):
                reader(buffer)
            assert buffer == bytes(size)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("raw", [False, True], ids=["buffered", "raw"])
def test_a_block_that_was_read_before_one_that_fails_is_read_again(suite, primitives, raw):
    """Blocks share a buffer: what a failure left in it is not taken for the block before."""
    data, full = bytearray(seal(PLAIN, suite)), suite.segment_size
    data[BODY_START + suite.sealed_size + 50] ^= 1
    with open_encrypted(io.BytesIO(data), RING, primitives=primitives) as opened_file:
        file = opened_file.raw if raw else opened_file
        assert file.read(10) == PLAIN[:10]
        file.seek(full + 20)
        with pytest.raises(IntegrityError):
            file.read(10)
        for start in (15, 2 * full + 3, 0):
            file.seek(start)
            assert file.read(10) == PLAIN[start : start + 10]


def test_what_is_noted_of_nested_files_is_bounded():
    forget_nested()
    for number in range(MAX_NESTED + 3):
        opened(seal(seal(b"x", label=f"inner {number}"))).read()
    assert nested_ids()[-1] == claimed_object_id(seal(b"x", label=f"inner {MAX_NESTED + 2}"))
    assert len(nested_ids()) == MAX_NESTED
    forget_nested()
    assert nested_ids() == ()
    for plain in (b"", b"\x89SFS2", b"\x89SFS2\r\n\x1a", PLAIN):
        opened(seal(plain)).read()
    assert nested_ids() == ()
