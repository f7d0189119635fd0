"""Signatures are verified or refused, and without the library a sentence says what to install."""

import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.notes import EXAMPLE_NOTE, EXAMPLE_VKEY

from securefs.audit.note import (
    COSIGNATURE,
    Note,
    Signature,
    VerificationKey,
    cosigned_message,
    parse_note,
    parse_vkey,
)
from securefs.audit.signing import (
    SignatureError,
    signature_of,
    verify_cosignature,
    verify_note,
    verify_signature,
)
from securefs.errors import ConfigurationError

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"1" * 32)
PUBLIC = PRIVATE.public_key().public_bytes_raw()
LOG = VerificationKey("log.example/1", PUBLIC)
WITNESS = VerificationKey("witness.example/w", PUBLIC, COSIGNATURE)
TEXT = "log.example/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def signed(text=TEXT, *more):
    return Note(text, (Signature(LOG.name, LOG.key_id, PRIVATE.sign(text.encode())), *more))


def cosigned(time=1_700_000_000, text=TEXT):
    value = time.to_bytes(8, "big") + PRIVATE.sign(cosigned_message(time, text))
    return Note(text, (Signature(WITNESS.name, WITNESS.key_id, value),))


def test_the_published_note_verifies():
    verify_note(parse_note(EXAMPLE_NOTE), parse_vkey(EXAMPLE_VKEY))


def test_a_changed_published_note_does_not():
    with pytest.raises(SignatureError, match="does not verify"):
        verify_note(
            parse_note(EXAMPLE_NOTE.replace(b"example message", b"exemple message")), parse_vkey(EXAMPLE_VKEY)
        )


@given(text=st.text(max_size=50))
def test_what_was_signed_verifies_and_nothing_else_does(text):
    note = signed(f"{text}\n")
    verify_note(note, LOG)
    with pytest.raises(SignatureError, match="does not verify"):
        verify_note(Note(f"{text} \n", note.signatures), LOG)


def test_other_signatures_are_ignored():
    verify_note(signed(TEXT, Signature("other", b"1234", b"x")), LOG)


def test_a_note_without_a_signature_of_the_key_is_refused():
    with pytest.raises(SignatureError, match="0 signatures"):
        verify_note(signed(), VerificationKey(LOG.name, b"2" * 32))


def test_a_note_with_two_signatures_of_the_key_is_refused():
    note = signed()
    with pytest.raises(SignatureError, match="2 signatures"):
        signature_of(Note(TEXT, note.signatures * 2), LOG)


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), b"x" * 65])
def test_any_bytes_in_place_of_a_signature_are_refused(signature):
    with pytest.raises(SignatureError, match="does not verify"):
        verify_signature(PUBLIC, signature, b"message")


@pytest.mark.parametrize("public", [b"", b"x", b"\xff" * 32])
def test_any_bytes_in_place_of_a_key_are_refused(public):
    with pytest.raises(SignatureError, match="does not verify"):
        verify_signature(public, PRIVATE.sign(b"message"), b"message")


def test_a_cosignature_tells_its_time():
    assert verify_cosignature(cosigned(), WITNESS) == 1_700_000_000


def test_a_cosignature_with_another_time_is_refused():
    (line,) = cosigned().signatures
    note = Note(TEXT, (Signature(line.name, line.key_id, (5).to_bytes(8, "big") + line.value[8:]),))
    with pytest.raises(SignatureError, match="does not verify"):
        verify_cosignature(note, WITNESS)


def test_a_short_cosignature_is_refused():
    with pytest.raises(SignatureError, match="72 bytes"):
        verify_cosignature(Note(TEXT, (Signature(WITNESS.name, WITNESS.key_id, b"x"),)), WITNESS)


def test_a_logs_key_is_no_witness_and_a_witness_no_log():
    with pytest.raises(SignatureError, match="type 1"):
        verify_note(cosigned(), WITNESS)
    with pytest.raises(SignatureError, match="type 4"):
        verify_cosignature(signed(), LOG)


def test_without_the_library_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'securefs\[fast\]'"):
        verify_note(signed(), LOG)
