"""Every vector of ours, through every reader: seekable, streaming, both libraries, and the second decryptor."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
from functools import cache
from pathlib import Path

import pytest
from second_decryptor import Rejected, open_format_1, open_format_2

from securefs import (
    Decryptor,
    FormatError,
    IntegrityError,
    Keyring,
    Reason,
    UnknownKeyError,
    open_encrypted,
    verify,
)
from securefs.accelerated import OpenSSL
from securefs.primitives import PyCryptodome

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("securefs_vectors_generate", HERE / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)

POSITIVE = json.loads((HERE / "positive.json").read_text("utf-8"))["vectors"]
NEGATIVE = json.loads((HERE / "negative.json").read_text("utf-8"))["vectors"]
EDGES = json.loads((HERE / "edges.json").read_text("utf-8"))["vectors"]
OPENING = [vector for vector in EDGES if vector["outcome"] == "opens"]
REFUSED = [vector for vector in EDGES if vector["outcome"] != "opens"]
BY_NAME = {vector["name"]: vector for vector in POSITIVE}
PRIMITIVES = [pytest.param(PyCryptodome(), id="pycryptodome"), pytest.param(OpenSSL(), id="openssl")]
OUTCOMES = {
    Reason.NOT_ENCRYPTED,
    Reason.BAD_HEADER,
    Reason.TRUNCATED,
    Reason.UNKNOWN_KEY,
    Reason.TAG_MISMATCH,
    Reason.COMMITMENT_MISMATCH,
}


@cache
def file_named(name: str) -> bytes:
    """The vector's file: as stored where it is, else made again and held against the stored digest."""
    vector = BY_NAME[name]
    data = base64.b64decode(vector["file"]) if "file" in vector else generate.file_of(vector)
    assert len(data) == vector["file_size"]
    assert hashlib.sha256(data).hexdigest() == vector["file_sha256"]
    return data


class Files(dict):
    def __missing__(self, name):
        return file_named(name)


def ring_of(vector) -> Keyring:
    primary, *previous = (bytes.fromhex(key) for key in vector["keyring"])
    return Keyring(primary, previous)


def stream_open(data, vector, primitives, step=10_007):
    """Read a Format 2 file through the streaming decryptor in pieces of ``step`` bytes."""
    decryptor = Decryptor(ring_of(vector), bytes.fromhex(vector["context"]), primitives=primitives)
    pieces = [decryptor.update(data[at : at + step]) for at in range(0, len(data), step)]
    return b"".join(pieces) + decryptor.finalize()


def test_the_stored_vectors_are_what_the_generator_makes():
    for name, text in generate.build().items():
        assert text == (HERE / name).read_text("utf-8"), (
            f"{name}: run tests/vectors/generate.py and look at the change"
        )


def test_there_are_vectors_and_their_names_are_unique():
    names = [vector["name"] for vector in [*POSITIVE, *NEGATIVE, *EDGES]]
    assert len(names) == len(set(names))
    assert len(OPENING) >= 40
    assert len(REFUSED) >= 45
    assert len(POSITIVE) >= 40
    assert len(NEGATIVE) >= 150


def test_the_negative_vectors_use_the_whole_closed_set_of_outcomes_and_nothing_else():
    assert {Reason(vector["outcome"]) for vector in NEGATIVE} == OUTCOMES


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in POSITIVE])
def test_a_positive_vector_opens_in_every_reader(vector, primitives):
    data, plaintext, context = (
        file_named(vector["name"]),
        generate.plaintext_of(vector),
        bytes.fromhex(vector["context"]),
    )
    assert hashlib.sha256(plaintext).hexdigest() == vector["plaintext_sha256"]
    format_1 = vector["format"] == 1
    with open_encrypted(
        io.BytesIO(data), ring_of(vector), context, format_1=format_1, primitives=primitives
    ) as file:
        assert file.size == len(plaintext) == vector["size"]
        assert file.read() == plaintext
        assert file.format == vector["format"]
        file.check()
        if not format_1:
            assert file.object_id == vector["file_id"]
            assert file.metadata == json.loads(vector["metadata"] or "{}")
            assert stream_open(data, vector, primitives) == plaintext


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in POSITIVE])
def test_a_positive_vector_opens_in_the_second_decryptor(vector):
    data, keys = file_named(vector["name"]), [bytes.fromhex(key) for key in vector["keyring"]]
    if vector["format"] == 1:
        assert open_format_1(data, keys) == generate.plaintext_of(vector)
    else:
        plaintext, metadata = open_format_2(data, keys, bytes.fromhex(vector["context"]))
        assert plaintext == generate.plaintext_of(vector)
        assert metadata == json.loads(vector["metadata"] or "{}")


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in POSITIVE])
def test_both_libraries_write_the_stored_bytes(vector):
    assert (
        generate.file_of(vector, PyCryptodome())
        == generate.file_of(vector, OpenSSL())
        == file_named(vector["name"])
    )


def outcome_of(action) -> Reason:
    with pytest.raises((FormatError, IntegrityError, UnknownKeyError)) as caught:
        action()
    return caught.value.reason


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize(
    "vector", [pytest.param(vector, id=vector["name"]) for vector in [*NEGATIVE, *REFUSED]]
)
def test_a_negative_vector_meets_its_outcome_in_every_reader(vector, primitives):
    data = generate.assemble(vector["pieces"], Files())
    context, format_1 = bytes.fromhex(vector["context"]), vector["format"] == 1
    expected = Reason(vector["outcome"])

    def seekable():
        verify(io.BytesIO(data), ring_of(vector), context, format_1=format_1, primitives=primitives)

    assert outcome_of(seekable) is expected
    if not format_1:
        assert outcome_of(lambda: stream_open(data, vector, primitives)) is expected
        assert (
            outcome_of(lambda: stream_open(data, vector, primitives, step=1 if len(data) < 1000 else 4096))
            is expected
        )


@pytest.mark.parametrize(
    "vector", [pytest.param(vector, id=vector["name"]) for vector in [*NEGATIVE, *REFUSED]]
)
def test_a_negative_vector_is_rejected_by_the_second_decryptor(vector):
    data, keys = (
        generate.assemble(vector["pieces"], Files()),
        [bytes.fromhex(key) for key in vector["keyring"]],
    )
    context = () if vector["format"] == 1 else (bytes.fromhex(vector["context"]),)
    decrypt = open_format_1 if vector["format"] == 1 else open_format_2
    with pytest.raises(Rejected):
        decrypt(data, keys, *context)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in OPENING])
def test_an_edge_that_opens_does_so_in_every_reader(vector, primitives):
    data, keys = (
        generate.assemble(vector["pieces"], Files()),
        [bytes.fromhex(key) for key in vector["keyring"]],
    )
    metadata = json.loads(vector["metadata"] or "{}")
    format_1 = vector["format"] == 1
    with open_encrypted(io.BytesIO(data), ring_of(vector), format_1=format_1, primitives=primitives) as file:
        plaintext = file.read()
        assert hashlib.sha256(plaintext).hexdigest() == vector["plaintext_sha256"]
        assert file.metadata == metadata
        assert [slot for slot, _ in file.passed_over] == vector["passed_over"]
    assert verify(io.BytesIO(data), ring_of(vector), format_1=format_1, primitives=primitives).size == len(
        plaintext
    )
    assert stream_open(data, vector, primitives) == plaintext
    assert open_format_2(data, keys) == (plaintext, metadata)
