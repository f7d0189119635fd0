from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples
from support.sealing import LIBRARIES, PRIMITIVES, SUITES, pattern

from securefs import ConfigurationError, IntegrityError, LimitExceededError, Reason, Suite
from securefs.suites import MAX_SEGMENTS, SegmentCipher, body_context, check_index, derive

DEK, SALT, CTX = pattern(32, "dek"), pattern(24, "salt"), b"ctx"


def cipher_of(suite: Suite, primitives=LIBRARIES[0], dek=DEK, salt=SALT, ctx=CTX) -> SegmentCipher:
    return derive(suite, dek, salt, ctx, primitives, lambda: bytes(16))[0]


@pytest.mark.parametrize(
    ("suite", "number", "label", "plain", "sealed", "least"),
    [
        pytest.param(Suite.CBC_HMAC, 1, "aes-256-cbc-hmac-sha256", 65_536, 65_600, 64, id="suite 1"),
        pytest.param(Suite.GCM, 2, "aes-256-gcm", 16_384, 16_400, 16, id="suite 2"),
    ],
)
def test_the_numbers_of_the_suites_are_the_format_s(suite, number, label, plain, sealed, least):
    assert (suite.value, suite.label, suite.segment_size, suite.sealed_size, suite.min_sealed) == (
        number,
        label,
        plain,
        sealed,
        least,
    )
    assert Suite.parse(label) is suite


def test_an_unknown_suite_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigurationError, match="use aes-256-cbc-hmac-sha256 or aes-256-gcm"):
        Suite.parse("rot13")


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_a_segment_opens_at_its_own_place_only(suite, size, primitives):
    cipher, plaintext = cipher_of(suite, primitives), pattern(size)
    sealed = cipher.seal(5, True, plaintext)
    assert len(sealed) == suite.sealed_length(size)
    assert cipher.open(5, True, sealed) == plaintext
    cipher.check(5, True, sealed)
    for index, final in ((4, True), (6, True), (5, False), (5 + 2**32, True)):
        for action in (cipher.open, cipher.check):
            with pytest.raises(IntegrityError) as caught:
                action(index, final, sealed)
            assert caught.value.segment == index
            assert caught.value.digest == hashlib.sha256(sealed).hexdigest()


@pytest.mark.parametrize("suite", SUITES)
def test_a_full_segment_is_never_final_and_a_short_one_always(suite):
    cipher, full = cipher_of(suite), suite.segment_size
    sealed = cipher.seal(0, False, bytes(full))
    assert cipher.open(0, False, sealed) == bytes(full)
    for size, final in ((full, True), (full - 1, False), (0, False)):
        claimed = cipher.seal(0, final, bytes(size))
        for action in (cipher.open, cipher.check):
            with pytest.raises(IntegrityError, match="a length that no writer gives it") as caught:
                action(0, final, claimed)
            assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("final", [True, False])
def test_stored_segments_of_impossible_lengths_are_refused(suite, final):
    cipher, full = cipher_of(suite), suite.sealed_size
    for size in (0, 1, suite.min_sealed - 1, full + 16, 2 * full):
        with pytest.raises(IntegrityError, match="a length that no writer gives it"):
            cipher.open(0, final, bytes(size))


@pytest.mark.parametrize("size", [65, 79, 81])
def test_suite_1_refuses_part_blocks(size):
    with pytest.raises(IntegrityError, match="a length that no writer gives it"):
        cipher_of(Suite.CBC_HMAC).open(0, True, bytes(size))


@pytest.mark.parametrize("size", [65_537, 65_550, 65_551])
def test_suite_1_refuses_a_full_segment_with_too_much_in_it_though_its_tag_is_good(size):
    """Padding of less than a block leaves room for more than a segment's plaintext in the same stored length."""
    cipher = cipher_of(Suite.CBC_HMAC)
    sealed = cipher.seal(0, False, bytes(size))
    assert len(sealed) == Suite.CBC_HMAC.sealed_size
    for action in (cipher.open, cipher.check):
        with pytest.raises(IntegrityError, match="holds more than the format allows"):
            action(0, False, sealed)


@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_suite_1_refuses_bad_padding_under_a_good_tag(primitives):
    cipher = cipher_of(Suite.CBC_HMAC, primitives)
    iv, block = bytes(16), primitives.cbc_encryptor(cipher._enc_key, bytes(16))(bytes(16))
    sealed = iv + block + cipher._tag(0, True, (iv, block))
    for action in (cipher.open, cipher.check):
        with pytest.raises(IntegrityError, match="PKCS#7") as caught:
            action(0, True, sealed)
        assert (caught.value.segment, caught.value.reason) == (0, Reason.TAG_MISMATCH)
        assert caught.value.digest == hashlib.sha256(sealed).hexdigest()


@examples(300)
@given(
    padded=st.binary(max_size=80).map(lambda data: data + bytes(-len(data) % 16) or bytes(16)),
    ending=st.integers(0, 20).flatmap(
        lambda count: st.sampled_from([bytes([count]) * count, bytes([count])])
    ),
    final=st.booleans(),
)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_checking_and_opening_agree_on_every_padding(primitives, padded, ending, final):
    """Whatever a holder of the keys puts under a good tag."""
    cipher = cipher_of(Suite.CBC_HMAC, primitives)
    size = len(padded) if final else 65_552
    padded = (padded.rjust(size, b"x") + ending)[-size:]
    iv = bytes(range(16))
    block = primitives.cbc_encryptor(cipher._enc_key, iv)(padded)
    sealed = iv + block + cipher._tag(0, final, (iv, block))
    outcomes = []
    for action in (cipher.open, cipher.check):
        try:
            action(0, final, sealed)
        except IntegrityError as error:
            outcomes.append((str(error), error.reason, error.segment, error.digest))
        else:
            outcomes.append("good")
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("suite", SUITES)
def test_every_bit_of_a_segment_is_under_its_tag(suite):
    cipher = cipher_of(suite, LIBRARIES[1])
    sealed = cipher.seal(0, True, b"attack at dawn, or a bit later")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        for action in (cipher.open, cipher.check):
            with pytest.raises(IntegrityError):
                action(0, True, changed)


@pytest.mark.parametrize("suite", SUITES)
def test_keys_and_commitment_depend_on_dek_salt_and_context(suite):
    seen = set()
    for dek, salt, ctx in (
        (DEK, SALT, CTX),
        (bytes(32), SALT, CTX),
        (DEK, bytes(24), CTX),
        (DEK, SALT, b"other"),
    ):
        cipher, commitment = derive(suite, dek, salt, ctx, LIBRARIES[0], lambda: bytes(16))
        seen.add((commitment, cipher.seal(0, True, b"x")))
    assert len(seen) == 4
    assert len({commitment for commitment, _ in seen}) == 4
    assert len({sealed for _, sealed in seen}) == 4


def test_the_suites_share_no_key():
    commitments = {derive(suite, DEK, SALT, CTX, LIBRARIES[0], bytes)[1] for suite in Suite}
    assert len(commitments) == 2


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_dek_of_another_size_is_refused(suite, size):
    with pytest.raises(ValueError, match="has 32 bytes"):
        derive(suite, bytes(size), SALT, CTX, LIBRARIES[0], bytes)


def test_the_nonces_of_suite_2_count_big_endian_and_never_repeat():
    cipher = cipher_of(Suite.GCM)
    nonces = [cipher._nonce(index) for index in (*range(300), 2**16, 2**32 - 1)]
    assert len(set(nonces)) == len(nonces)
    base = int.from_bytes(nonces[0], "big")
    assert all(int.from_bytes(nonce, "big") ^ base == index for index, nonce in enumerate(nonces[:300]))


def test_suite_1_draws_an_iv_for_every_segment():
    drawn = iter([b"a" * 16, b"b" * 16])
    cipher, _ = derive(Suite.CBC_HMAC, DEK, SALT, CTX, LIBRARIES[0], lambda: next(drawn))
    assert cipher.seal(0, True, b"")[:16] == b"a" * 16
    assert cipher.seal(0, True, b"")[:16] == b"b" * 16


def test_the_context_is_bound_with_its_length():
    assert body_context(b"p", b"abc") == b"securefs/2 body\0p\0\0\0\x03abc"
    assert len(body_context(bytes(48), bytes(65_535))) == 16 + 48 + 4 + 65_535


def test_a_context_that_is_too_long_is_refused():
    with pytest.raises(ConfigurationError, match="at most 65535"):
        body_context(bytes(48), bytes(65_536))


def test_a_file_has_at_most_two_to_the_32_segments():
    check_index(MAX_SEGMENTS - 1)
    with pytest.raises(LimitExceededError, match=str(2**32)) as caught:
        check_index(MAX_SEGMENTS)
    assert caught.value.reason is Reason.LIMIT


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 1_000_000])
def test_a_body_s_length_tells_the_plaintext_s_in_suite_2_and_all_but_its_last_bytes_in_suite_1(size):
    assert Suite.GCM.plaintext_bounds(Suite.GCM.body_length(size)) == (size, size)
    least, most = Suite.CBC_HMAC.plaintext_bounds(Suite.CBC_HMAC.body_length(size))
    assert least <= size <= most == least + 15
    for other in (least, most):
        assert Suite.CBC_HMAC.body_length(other) == Suite.CBC_HMAC.body_length(size)
    assert Suite.CBC_HMAC.body_length(most + 1) > Suite.CBC_HMAC.body_length(size)


@pytest.mark.parametrize("length", [-1, 0, 55, 56, 71])
def test_a_body_too_short_for_a_segment_claims_no_plaintext(length):
    assert Suite.GCM.plaintext_bounds(length) == (0, 0)
    assert Suite.CBC_HMAC.plaintext_bounds(length) == (0, 15)


@pytest.mark.parametrize("size", range(65_537, 65_552))
def test_a_full_segment_of_suite_1_holds_a_segment_and_no_byte_more(size):
    """Its stored size is a full one's and its tag is good: the padding alone tells."""
    cipher = cipher_of(Suite.CBC_HMAC)
    sealed = cipher.seal(0, False, bytes(size))
    assert len(sealed) == Suite.CBC_HMAC.sealed_size
    for action in (cipher.open, cipher.check):
        with pytest.raises(IntegrityError, match="more than the format allows") as caught:
            action(0, False, sealed)
        assert (caught.value.reason, caught.value.segment) == (Reason.TAG_MISMATCH, 0)
        assert caught.value.digest == hashlib.sha256(sealed).hexdigest()
