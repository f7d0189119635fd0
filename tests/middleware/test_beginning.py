"""What the first bytes of an answer say it is, whatever pieces they come in."""

from __future__ import annotations

import gzip
import zlib

import pytest
from support.answers import SOURCES, TEXT, app_of, seal, wrap
from support.wsgi_client import call


@pytest.mark.parametrize("source", SOURCES)
def test_bytes_that_are_less_than_half_of_the_magic_pass(source, keyring, journal):
    for data in (
        b"\x89",
        b"\x89SF",
        b"\x89SFxxxxx" + TEXT,
        b"xxxxx\r\n\x1a",
        b"\x89PNG\r\n\x1a\n" + TEXT,
    ):
        answer = call(wrap(app_of(SOURCES[source](data)), keyring, journal))
        assert (answer.status, answer.body) == (200, data)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("byte", range(8))
def test_a_file_whose_magic_was_changed_is_refused(source, byte, bit, keyring, journal):
    stored = bytearray(seal(keyring))
    stored[byte] ^= 1 << bit
    answer = call(wrap(app_of(SOURCES[source](bytes(stored))), keyring, journal))
    assert (answer.status, TEXT[:8] in answer.body) == (500, False)
    assert journal.events() == [("file.integrity_failure", "failure", "not_encrypted")]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [4, 5, 7, 8, 47, 56])
def test_a_file_that_was_cut_in_its_header_is_refused(source, size, keyring, journal):
    answer = call(wrap(app_of(SOURCES[source](seal(keyring)[:size])), keyring, journal))
    assert answer.status == 500
    assert [event for event, *_ in journal.events()] == ["file.integrity_failure"]


@pytest.mark.parametrize("source", SOURCES)
def test_half_of_a_magic_was_overwritten(source, keyring, journal):
    stored = seal(keyring)
    # Of a small first chunk, half must be right: plaintext that comes bit by bit is not held back.
    first = [] if source in {"generator of 7", "write()", "write() and list"} else [bytes(4) + stored[4:]]
    for damaged in (*first, stored[:4] + bytes(4) + stored[8:], stored[:4] + bytes(len(stored))):
        assert call(wrap(app_of(SOURCES[source](damaged)), keyring, journal)).status == 500


def test_no_more_of_a_generator_is_drawn_than_it_takes(keyring, journal):
    """Server-sent events must arrive one by one."""
    drawn = []

    def app(environ, start_response):
        start_response("200 OK", [])
        for number in range(3):
            drawn.append(number)
            yield b"%d" % number

    result = wrap(app, keyring, journal)({"REQUEST_METHOD": "GET"}, lambda *args: None)
    assert drawn == [0]
    iterator = iter(result)
    assert next(iterator) == b"0"
    assert drawn == [0]
    result.close()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_compressed_ciphertext_is_refused_and_a_compressed_page_passes(source, pack, keyring, journal):
    """Compression inside of the middleware: the browser would unpack it and show ciphertext."""
    for data, status in ((seal(keyring, TEXT[:5000]), 500), (b"<p>page</p>" * 1000, 200), (b"", 200)):
        packed = pack(data)
        name = "gzip" if pack is gzip.compress else "deflate"
        app = app_of(SOURCES[source](packed), headers=[("Content-Encoding", name)])
        answer = call(wrap(app, keyring, journal))
        assert answer.status == status
        assert status == 500 or answer.body == packed
    assert journal.events() == [("file.decrypt", "failure", "compressed")]


def test_what_only_claims_to_be_compressed_passes(keyring, journal):
    app = app_of(lambda *_: iter([b"not gzip", b" at all"]), headers=[("Content-Encoding", "gzip")])
    assert call(wrap(app, keyring, journal)).body == b"not gzip at all"
