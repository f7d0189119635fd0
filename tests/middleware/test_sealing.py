"""One file of a request on its way to the app: sealed, inspected, and recorded before it goes on."""

from __future__ import annotations

import io
import itertools

import pytest
from support.sealing import pattern

from securefs import open_encrypted
from securefs.errors import JournalError, LimitExceededError, Reason
from securefs.middleware import FileRefusedError
from securefs.middleware.exchange import Exchange
from securefs.middleware.multipart import MalformedBodyError
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import STEP, Piece, Sealing
from securefs.sealer import NewFiles

TEXT = pattern(300_000)
HEADER = Piece(b"the part's header", atomic=True)
STARTED = ("file.encrypt", "started", None)
DONE = ("file.encrypt", "success", None)


def failed(reason):
    return ("file.encrypt", "failure", reason)


@pytest.fixture
def exchange(journal):
    return Exchange({"REQUEST_METHOD": "POST", "PATH_INFO": "/upload"}, journal)


@pytest.fixture
def sealed_file(keyring, exchange):
    """Make a SealedFile, with an inspector if one is given."""

    def make(inspect=None):
        sealing = Sealing(NewFiles(keyring), exchange, inspect=inspect)
        return sealing.begin("text/plain", {}, field="field", name="a.txt")

    return make


def content(*items):
    """Return plaintext as the parser gives it; None where more must be read, an error where one is raised."""
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield None if item is None else memoryview(item)


def all_of(pieces, keyring):
    """Return the plaintext of stored pieces."""
    stored = b"".join(bytes(piece.data) for piece in pieces if piece is not None)
    with open_encrypted(io.BytesIO(stored), keyring) as file:
        return file.read()


def accept(upload, chunks):
    for _ in chunks:
        pass


@pytest.mark.parametrize("inspect", [None, accept], ids=["as it comes", "inspected"])
def test_a_file_is_sealed_and_known_to_the_app_when_its_last_piece_comes(
    inspect, sealed_file, exchange, journal, keyring
):
    file = sealed_file(inspect)
    assert journal.events() == []
    header, *pieces = file.pieces(content(TEXT[:1000], None, TEXT[1000:]), HEADER)
    assert header is HEADER
    assert all_of(pieces, keyring) == TEXT
    assert file.taken == len(TEXT)
    assert file.given + len(pieces[-1].data) == sum(len(piece.data) for piece in pieces if piece)
    (upload,) = exchange.uploads
    assert (upload.filename, upload.size) == ("a.txt", len(TEXT))
    assert journal.events() == [STARTED, DONE]


def test_success_is_recorded_before_the_last_piece_goes_on(sealed_file, journal):
    seen = [journal.events() for piece in sealed_file().pieces(content(TEXT))]
    assert seen[-1] == [STARTED, DONE]
    assert all(events == [STARTED] for events in seen[:-1])


def test_more_is_read_only_where_the_content_says_so(sealed_file):
    pieces = list(sealed_file().pieces(content(None, b"abc", None)))
    assert [piece is None for piece in pieces].count(
        True
    ) == 3  # the header that was not given, and two waits


def test_large_content_is_sealed_in_steps(sealed_file):
    file = sealed_file()
    pieces = file.pieces(content(bytes(3 * STEP)))
    taken = [file.taken for _ in pieces]
    assert {after - before for before, after in itertools.pairwise(taken)} <= {0, STEP}
    assert taken[-1] == 3 * STEP


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(MalformedBodyError("cut"), "malformed_multipart", id="malformed"),
        pytest.param(LimitExceededError("too long"), "limit", id="limit"),
        pytest.param(Refusal(408, Reason.TIMEOUT, "slow"), "timeout", id="slow"),
        pytest.param(OSError("the client went away"), "io_error", id="gone"),
    ],
)
@pytest.mark.parametrize("inspect", [None, accept], ids=["as it comes", "inspected"])
def test_a_file_that_does_not_end_is_a_failure_with_the_reason(
    error, reason, inspect, sealed_file, exchange, journal
):
    file = sealed_file(inspect)
    with pytest.raises(type(error)) as caught:
        list(file.pieces(content(TEXT, error)))
    assert caught.value is error
    assert journal.events() == [STARTED, failed(reason)]
    assert exchange.uploads == []


def test_an_app_that_stops_reading_leaves_a_failure(sealed_file, exchange, journal):
    pieces = sealed_file().pieces(content(TEXT, TEXT), HEADER)
    assert [next(pieces), next(pieces).atomic] == [HEADER, False]
    pieces.close()
    assert journal.events() == [STARTED, failed("io_error")]
    assert exchange.uploads == []


def refuse(upload, chunks):
    next(iter(chunks))
    raise FileRefusedError("a virus")


def break_down(upload, chunks):
    raise KeyError("scanner")


def look_away(upload, chunks):
    next(chunks)
    chunks.close()


@pytest.mark.parametrize(
    ("inspect", "status"),
    [
        pytest.param(refuse, 400, id="refuses"),
        pytest.param(break_down, 503, id="fails"),
        pytest.param(look_away, 503, id="closes its input"),
    ],
)
def test_no_piece_goes_on_of_a_file_that_an_inspector_did_not_accept(
    inspect, status, sealed_file, exchange, journal
):
    pieces = sealed_file(inspect).pieces(content(TEXT, TEXT), HEADER)
    with pytest.raises(Refusal) as caught:
        next(pieces)
    assert (caught.value.status, caught.value.reason) == (status, Reason.INSPECTION)
    assert journal.events() == [STARTED, failed("inspection")]
    assert exchange.uploads == []


def test_an_inspector_that_looks_at_the_beginning_only_lets_the_whole_file_pass(
    sealed_file, journal, keyring
):
    seen = []
    file = sealed_file(lambda upload, chunks: seen.append(next(iter(chunks))))
    assert all_of(list(file.pieces(content(TEXT, TEXT)))[1:], keyring) == TEXT + TEXT
    assert seen == [TEXT[:STEP]]
    assert journal.events() == [STARTED, DONE]


def test_what_an_inspector_makes_of_a_cut_input_is_no_verdict(sealed_file, journal):
    """It takes the error for the end and accepts: the file is refused all the same."""

    def lenient(upload, chunks):
        with pytest.raises(MalformedBodyError):
            accept(upload, chunks)

    with pytest.raises(MalformedBodyError):
        list(sealed_file(lenient).pieces(content(TEXT, MalformedBodyError("cut"))))
    assert journal.events() == [STARTED, failed("malformed_multipart")]


def test_the_last_piece_is_held_back_where_the_journal_cannot_record_it(sealed_file, exchange, journal):
    pieces = sealed_file().pieces(content(TEXT))
    assert next(pieces) is None
    journal.close()
    got = []
    with pytest.raises(JournalError):
        got.extend(pieces)
    assert exchange.uploads == []


def test_a_plain_file_is_stored_as_long_as_it_is(keyring, exchange):
    file = Sealing(NewFiles(keyring), exchange).begin("text/plain", {}, plain=True)
    _, *pieces = file.pieces(content(TEXT), HEADER)
    assert b"".join(bytes(piece.data) for piece in pieces) == TEXT
    assert file.stored_length(len(TEXT)) == file.given == len(TEXT)
