from __future__ import annotations

import pickle

import pytest
from support.sealing import KEY, OTHER_KEY, RING, read_all, seal

from securefs import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    JournalError,
    Keyring,
    LimitExceededError,
    Reason,
    SecureFSError,
    SourceError,
    UnknownKeyError,
)


@pytest.mark.parametrize(
    "kind",
    [
        ConfigurationError,
        FormatError,
        IntegrityError,
        JournalError,
        LimitExceededError,
        SourceError,
        UnknownKeyError,
    ],
)
def test_one_except_clause_catches_all(kind):
    assert issubclass(kind, SecureFSError)
    assert str(kind("what is wrong")) == "what is wrong"


def test_the_reasons_are_the_closed_list_of_the_journal():
    assert [reason.value for reason in Reason] == [
        "tag_mismatch",
        "commitment_mismatch",
        "truncated",
        "bad_header",
        "unknown_key",
        "wrong_object",
        "wrong_context",
        "not_encrypted",
        "undeclared",
        "compressed",
        "ciphertext_injection",
        "malformed_multipart",
        "chunked_upload",
        "limit",
        "inspection",
        "timeout",
        "client_gone",
        "io_error",
        "journal_error",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(FormatError("x"), Reason.BAD_HEADER, id="format"),
        pytest.param(FormatError("x", Reason.TRUNCATED), Reason.TRUNCATED, id="format, cut"),
        pytest.param(IntegrityError("x"), Reason.TAG_MISMATCH, id="integrity"),
        pytest.param(UnknownKeyError("x"), Reason.UNKNOWN_KEY, id="key"),
        pytest.param(LimitExceededError("x"), Reason.LIMIT, id="limit"),
        pytest.param(JournalError("x"), Reason.JOURNAL_ERROR, id="journal"),
        pytest.param(SourceError("x"), Reason.IO_ERROR, id="source"),
    ],
)
def test_every_refusal_has_a_reason(error, reason):
    assert error.reason is reason


def test_an_integrity_error_tells_where_it_was():
    error = IntegrityError("x", segment=3, digest="ab")
    assert (error.segment, error.digest) == (3, "ab")
    assert (IntegrityError("x").segment, IntegrityError("x").digest) == (None, None)


def test_a_file_of_another_key_and_a_changed_file_are_different_errors():
    data = seal(b"hello")
    with pytest.raises(UnknownKeyError) as unknown:
        read_all(data, Keyring(OTHER_KEY))
    assert not isinstance(unknown.value, IntegrityError)
    assert unknown.value.key_ids == (RING.primary_id.hex(),)
    assert UnknownKeyError("x").key_ids == ()
    with pytest.raises(IntegrityError) as changed:
        read_all(data[:-10] + bytes(9) + data[-1:])
    assert not isinstance(changed.value, UnknownKeyError)


def test_no_error_shows_key_or_plaintext():
    plaintext = b"the plan is to attack at dawn"
    data = bytearray(seal(plaintext))
    errors = []
    for at in range(0, len(data), 7):
        data[at] ^= 0x40
        with pytest.raises(SecureFSError) as caught:
            read_all(bytes(data))
        data[at] ^= 0x40
        errors.append(caught.value)
    for error in errors:
        for text in (str(error), repr(error), repr(vars(error)), repr(error.__context__)):
            assert KEY.hex() not in text
            assert repr(KEY)[2:-1] not in text
            assert plaintext.decode() not in text


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(IntegrityError("x", Reason.TRUNCATED, segment=1)))
    assert (str(error), error.reason, error.segment) == ("x", Reason.TRUNCATED, 1)
