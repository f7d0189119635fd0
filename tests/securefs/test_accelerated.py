"""OpenSSL and PyCryptodome write and read the same bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.sealing import LIBRARIES, cbc_decrypt

KEY = bytes(range(32))


@given(st.binary(min_size=16, max_size=16), st.integers(0, 40), st.integers(0, 40))
def test_both_libraries_encrypt_and_decrypt_cbc_alike_in_any_pieces(iv, first, second):
    plaintext = bytes(range(256)) * 5
    one, two = plaintext[: first * 16], plaintext[first * 16 : (first + second) * 16]
    outputs = []
    for library in LIBRARIES:
        encrypt = library.cbc_encryptor(KEY, iv)
        outputs.append(encrypt(one) + encrypt(memoryview(two)))
        assert cbc_decrypt(library, KEY, iv, outputs[-1]) == one + two
    assert outputs[0] == outputs[1]


@given(st.binary(min_size=12, max_size=12), st.binary(max_size=100))
def test_both_libraries_seal_and_open_gcm_alike(nonce, plaintext):
    sealed = [library.gcm(KEY).seal(nonce, plaintext) for library in LIBRARIES]
    assert sealed[0] == sealed[1]
    for library in LIBRARIES:
        assert library.gcm(KEY).open(nonce, sealed[0]) == plaintext
        out = memoryview(bytearray(len(sealed[0])))
        assert library.gcm(KEY).open_into(nonce, memoryview(sealed[0]), out) == len(plaintext)
        assert out[: len(plaintext)] == plaintext
