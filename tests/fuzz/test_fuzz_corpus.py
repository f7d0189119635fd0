"""The fuzz target's property without atheris: it holds of all stored inputs, and fails where the code is broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import upload_property
from fuzz.upload_property import (
    CHUNKED,
    CUT,
    FIXED_TYPE,
    GCM,
    SPOOL,
    STEPS,
    STREAMED,
    WAYS,
    check,
    decode,
    encode,
)

from securefs.header import MAGIC
from securefs.middleware import body, disposition, multipart, sealing, upload
from securefs.middleware.sealing import Piece
from securefs.middleware.upload import UploadPipeline

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
SEEDS = upload_property.seeds(100_000)
MAX_CORPUS = 200 * 1024  # bytes of all stored inputs


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in CORPUS])
def test_what_the_fuzzer_found_holds(path):
    check(path.read_bytes())


@pytest.mark.parametrize("flags", [0, GCM | STREAMED, SPOOL, CHUNKED, CUT])
@pytest.mark.parametrize("name", SEEDS)
def test_the_hostile_corpus_holds(name, flags):
    check(bytes([SEEDS[name][0] & upload_property.TYPED | flags]) + SEEDS[name][1:])


def test_the_corpus_is_small():
    assert 0 < sum(path.stat().st_size for path in CORPUS) <= MAX_CORPUS


def test_any_bytes_are_an_input():
    for data in (b"", b"\0", b"\xff" * 9, bytes([upload_property.TYPED, 0, 0, 0]) + b"no line end"):
        check(data)


def test_an_input_says_how_a_body_is_sent_and_read():
    head = (STREAMED | GCM, 1, list(WAYS).index("iterate"), 2)
    plan = decode(encode(FIXED_TYPE, b"body", head))
    assert (plan.content_type, plan.body, plan.flags) == (FIXED_TYPE, b"body", STREAMED | GCM)
    assert (plan.step, plan.way, plan.size) == (STEPS[1], "iterate", 2)
    typed = decode(encode("multipart/form-data; boundary=Y", b"a\nb", head))
    assert (typed.content_type, typed.body) == ("multipart/form-data; boundary=Y", b"a\nb")


SECRET = b"a plaintext of some length"
BODY = (
    b'--XX\r\nContent-Disposition: form-data; name="n"\r\n\r\nvalue\r\n'
    b'--XX\r\nContent-Disposition: form-data; name="f"; filename="a\\"b.txt"\r\n\r\n%b\r\n--XX--\r\n' % SECRET
)


def pass_files_as_fields(patch):
    """What an app would store in plaintext."""
    patch.setattr(UploadPipeline, "_file", UploadPipeline._field)


def leave_quotes_alone(patch):
    """A file name that ends its own quotes."""
    patch.setattr(disposition, "_as_browsers", lambda value: value.replace("\\", ""))


def lose_a_byte(patch):
    real = body.RewrittenBody.read
    patch.setattr(body.RewrittenBody, "read", lambda self, size=-1: real(self, size)[:-1] or b"")


def skip_the_padding(patch):
    patch.setattr(body, "_padded", lambda pipeline, pieces, length: pieces)


def hand_on_the_plaintext_too(patch):
    real = UploadPipeline._file

    def with_plaintext(self, part, content):
        kept = [None if data is None else bytes(data) for data in content]
        yield Piece(b"".join(filter(None, kept)))
        yield from real(self, part, (None if data is None else memoryview(data) for data in kept))

    patch.setattr(UploadPipeline, "_file", with_plaintext)


def let_an_error_escape(patch):
    patch.setattr(upload, "MalformedBodyError", KeyError)


def seal_something_else(patch):
    real = sealing.SealedFile._seal
    patch.setattr(sealing.SealedFile, "_seal", lambda self, data: real(self, memoryview(bytes(data)[::-1])))


def take_what_others_refuse(patch):
    drop = multipart.MultipartParser._drop
    patch.setattr(multipart.MultipartParser, "_epilogue", drop)


def count_cut_bodies_as_whole(patch):
    patch.setattr(multipart.MultipartParser, "close", lambda self: None)


def take_ciphertext(patch):
    patch.setattr(sealing, "MAGIC", b"another")


@pytest.mark.parametrize(
    ("sabotage", "flags", "sent", "error", "message"),
    [
        (pass_files_as_fields, 0, BODY, AssertionError, "a file's plaintext"),
        (leave_quotes_alone, 0, BODY, AttributeError, "groups"),
        (lose_a_byte, 0, BODY, AssertionError, "CONTENT_LENGTH is not met"),
        (skip_the_padding, STREAMED, BODY, AssertionError, "CONTENT_LENGTH is not met"),
        (hand_on_the_plaintext_too, 0, BODY, AssertionError, "a file's plaintext"),
        (seal_something_else, SPOOL, BODY, AssertionError, "not what was sent"),
        (let_an_error_escape, 0, BODY[:-4], multipart.MalformedBodyError, "closing boundary"),
        (take_what_others_refuse, CHUNKED, BODY + b"--XX", AssertionError, "refused by multipart"),
        (take_ciphertext, 0, BODY.replace(b"value", MAGIC), AssertionError, "ciphertext"),
        (count_cut_bodies_as_whole, 0, BODY[:-6], AssertionError, "a longer boundary"),
    ],
)
def test_the_property_fails_where_uploads_are_broken(sabotage, flags, sent, error, message, monkeypatch):
    data = encode(FIXED_TYPE, sent, (flags, 0, 0, 0))
    check(data)
    with monkeypatch.context() as patch:
        sabotage(patch)
        with pytest.raises(error, match=message):
            check(data)
    check(data)
