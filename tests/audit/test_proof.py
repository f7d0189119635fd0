"""C2SP tlog-proof: what is one, and what it shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import trees
from support.logs import cosignature_line, new_key, sealed, signature_line, vkey

from securefs.audit.note import Note, NoteError, Signature, parse_note, parse_vkey
from securefs.audit.proof import MAX_PROOF_FILE, Proof, check_proof, parse_proof
from securefs.audit.signing import SignatureError
from securefs.audit.tree import ProofError

NOTE = Note("log\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", (Signature("log", b"1234", b"s"),))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return sealed(tmp_path_factory.mktemp("j") / "j", stable=new_key())


def proof_of(log, index, *, note=None):
    """Made by the second implementation."""
    size = log.sizes[-1]
    lines = []
    for chain in log.order():
        lines += chain
    hashes = tuple(trees.path(index, log.leaves[:size]))
    return Proof(lines[index], index, hashes, parse_note((note or log.notes[-1]).encode()))


def test_every_record_is_proven_under_any_trusted_key(log):
    witness, time = new_key(), 1_790_000_000
    pins = [
        parse_vkey(log.vkey(2)),
        parse_vkey(vkey(log.origin, log.stable)),
        parse_vkey(vkey("w", witness, 4)),
    ]
    note = log.notes[-1] + cosignature_line("w", witness, log.text(log.sizes[-1]), time)
    for index in range(log.sizes[-1]):
        proof = parse_proof(proof_of(log, index, note=note).encode())
        checked = check_proof(proof, pins)
        assert (checked.checkpoint.size, checked.signed) == (log.sizes[-1], tuple(pins[:2]))
        assert checked.witnessed == ((pins[2], time),)
        assert check_proof(proof, []).signed == ()
        assert check_proof(proof, [parse_vkey(vkey(log.origin, new_key()))]).signed == ()


def test_another_record_or_place_is_refused(log):
    proof = proof_of(log, 5)
    for changed in (
        Proof(proof.record + b" ", 5, proof.hashes, proof.note),
        Proof(proof.record, 4, proof.hashes, proof.note),
        Proof(proof.record, 5, proof.hashes[1:], proof.note),
        Proof(proof.record, 5, (*proof.hashes, bytes(32)), proof.note),
    ):
        with pytest.raises(ProofError):
            check_proof(changed, [])


def test_a_wrong_signature_of_a_trusted_key_is_refused(log):
    pin = parse_vkey(vkey(log.origin, log.stable))
    note = log.notes[-1].replace(
        signature_line(log.origin, log.stable, log.text(log.sizes[-1])),
        signature_line(log.origin, log.stable, log.text(log.sizes[0])),
    )
    with pytest.raises(SignatureError, match="does not verify"):
        check_proof(proof_of(log, 3, note=note), [pin])


def test_a_trusted_key_of_another_log_is_refused(log):
    other = new_key()
    note = log.notes[-1] + signature_line("other", other, log.text(log.sizes[-1]))
    with pytest.raises(SignatureError, match="another log"):
        check_proof(proof_of(log, 3, note=note), [parse_vkey(vkey("other", other))])


@given(
    record=st.binary(min_size=1, max_size=300),
    index=st.integers(0, 2**63 - 1),
    hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=63),
)
def test_every_proof_is_read_as_it_was_written(record, index, hashes):
    proof = Proof(record, index, tuple(hashes), NOTE)
    assert parse_proof(proof.encode()) == proof


def test_the_longest_record_fits():
    proof = Proof(b"x" * 100_000, 0, (bytes(32),) * 63, NOTE)
    assert parse_proof(proof.encode()) == proof


HASH = b"A" * 43 + b"=\n"
GOOD = Proof(b"record", 7, (bytes(32),), NOTE).encode()


@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_changed_byte_is_another_proof_or_none(position, value):
    changed = GOOD[:position] + bytes([value]) + GOOD[position + 1 :]
    try:
        proof = parse_proof(changed)
    except NoteError:
        return
    assert proof.encode() == changed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "an empty line", id="empty"),
        pytest.param(GOOD.replace(b"\n\n", b"\n", 1), "base64", id="no-gap"),
        pytest.param(GOOD.replace(b"@v1", b"@v2"), "begins with", id="version"),
        pytest.param(b"\xff" + GOOD, "ASCII", id="not-ascii"),
        pytest.param(GOOD.replace(b"extra cmVjb3Jk\n", b""), "line 'extra'", id="no-record"),
        pytest.param(GOOD.replace(b"index 7\n", b""), "line 'index'", id="no-index"),
        pytest.param(GOOD.replace(b"index 7", b"index 07"), "leading zeros", id="leading-zero"),
        pytest.param(GOOD.replace(b"extra ", b"extra  "), "base64", id="two-spaces"),
        pytest.param(GOOD.replace(b"index 7\n", b"index 7\n" + HASH * 63), "at most 63 hashes", id="many"),
        pytest.param(b"x" * (MAX_PROOF_FILE + 1), "at most", id="long"),
    ],
)
def test_what_is_no_proof(data, message):
    with pytest.raises(NoteError, match=message):
        parse_proof(data)
