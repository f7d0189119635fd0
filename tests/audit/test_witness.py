"""The client of a witness, against one that was written from the specification alone (support/witness.py)."""

from __future__ import annotations

import socket
import threading

import pytest
from support.logs import cosignature_line, new_key, sealed, vkey
from support.look import look
from support.witness import Witness, serving

from securefs.audit.note import parse_note, parse_vkey
from securefs.audit.prove import latest_checkpoint
from securefs.audit.witness import ContradictionError, WitnessError, cosign, keep
from securefs.errors import ConfigurationError


@pytest.fixture
def log(tmp_path):
    return sealed(tmp_path / "j", stable=new_key())


@pytest.fixture
def witness(log):
    witness = Witness()
    witness.trusted[log.origin] = [vkey(log.origin, log.stable)]
    return witness


@pytest.fixture
def url(witness):
    with serving(witness) as url:
        yield url


def ask(log, witness, url, *, pins=None):
    pins = [parse_vkey(pin) for pin in (pins or [witness.vkey])]
    return cosign(log.folder, log.log, latest_checkpoint(log.log), url, pins)


def test_each_checkpoint_is_cosigned_as_the_log_grows(log, witness, url):
    for rounds in range(6):
        ((line, time),) = ask(log, witness, url)
        assert (line.name, time) == (witness.name, witness.time)
        note, checkpoint = latest_checkpoint(log.log)
        assert witness.seen[log.origin] == (checkpoint.size, checkpoint.root)
        keep(log.log, note, [line])
        log.records(next(iter(log.lines)), rounds)
        log.seal()
        log.save()
    # The first attempt says 0, the second what the witness has seen.
    assert [body.split(b"\n")[0] for body in witness.requests[:3]] == [
        b"old 0",
        b"old 0",
        b"old %d" % log.sizes[2],
    ]
    report = look(log, log.vkey(), witness.vkey)
    assert report.exit_code == 0
    assert report.log.witnessed[0].size == log.sizes[-2]


def test_a_checkpoint_may_be_cosigned_again(log, witness, url):
    ask(log, witness, url)
    ask(log, witness, url)


def test_a_prefix_may_end_in_a_slash(log, witness, url):
    ask(log, witness, f"{url}/")


def test_a_log_that_was_cut_since(log, witness, url):
    ask(log, witness, url)
    del log.notes[2:]
    log.save()
    with pytest.raises(
        ContradictionError, match=f"has cosigned {log.sizes[2]} records .* has {log.sizes[1]}: it was cut"
    ):
        ask(log, witness, url)


def test_a_longer_forgery_is_refused(log, witness, url, tmp_path):
    """Which comparing heads could not do."""
    ask(log, witness, url)
    other = sealed(tmp_path / "other", stable=log.stable, rounds=6)
    with pytest.raises(ContradictionError, match="another log under this origin"):
        ask(other, witness, url)


def test_a_forgery_of_the_same_length_is_refused(log, witness, url, tmp_path):
    ask(log, witness, url)
    with pytest.raises(ContradictionError, match="another log under this origin"):
        ask(sealed(tmp_path / "other", stable=log.stable), witness, url)


def test_an_unknown_log(log, witness, url):
    witness.trusted.clear()
    with pytest.raises(WitnessError, match="status 404: it does not know this log"):
        ask(log, witness, url)


def test_a_log_without_the_stable_key(log, witness, url):
    witness.trusted[log.origin] = [vkey(log.origin, new_key())]
    with pytest.raises(WitnessError, match="status 403: it does not trust a key"):
        ask(log, witness, url)


def test_a_cosignature_under_a_key_that_is_not_pinned(log, witness, url):
    with pytest.raises(WitnessError, match="not pinned"):
        ask(log, witness, url, pins=[vkey(witness.name, new_key(), 4)])
    with pytest.raises(WitnessError, match="not pinned"):
        ask(log, witness, url, pins=[vkey(witness.name, witness.key)])


def test_a_cosignature_that_does_not_hold(log, witness, url):
    another = cosignature_line(witness.name, witness.key, log.text(log.sizes[0]), 5)
    witness.answer = (200, another.encode())
    with pytest.raises(WitnessError, match="does not hold"):
        ask(log, witness, url)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param((200, b""), "is no signature", id="empty"),
        pytest.param((200, b"\xff\n"), "is no signature", id="not-utf-8"),
        pytest.param((200, b"<html>\n"), "is no signature", id="html"),
        pytest.param((200, b"x" * 70_000), "more than 65536 bytes", id="endless"),
        pytest.param((409, b"x\n"), "cannot be read", id="no-size"),
        pytest.param((409, b"1"), "cannot be read", id="no-line-end"),
        pytest.param((409, b"-1\n"), "cannot be read", id="negative"),
        pytest.param((409, b"99999999999999999999999\n"), "cannot be read", id="large"),
        pytest.param((409, b"3\n"), "changes all the time", id="for-ever"),
        pytest.param((400, b""), "status 400: it does not understand", id="400"),
        pytest.param((500, b""), "status 500: it refused", id="500"),
        pytest.param((302, b""), "status 302: it refused", id="redirection"),
        pytest.param((299, b""), "status 299: it refused", id="unknown-status"),
    ],
)
def test_other_answers(log, witness, url, answer, message):
    witness.answer = answer
    with pytest.raises(WitnessError, match=message):
        ask(log, witness, url)


def test_nobody_answers(log, witness):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(WitnessError, match="no answer: Connection refused"):
            ask(log, witness, f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_what_answers_is_no_http(log, witness):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100_000)
                connection.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WitnessError, match="no answer: "):
            ask(log, witness, f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "witness",
        "ftp://w/",
        "http://",
        "http://w:x/",
        "http://w:99999/",
        "http://w/?q",
        "http://w/ a",
        "http://[w",
    ],
)
def test_what_is_no_url(log, witness, url):
    with pytest.raises(ConfigurationError, match="is not the URL of a witness"):
        ask(log, witness, url)


def test_what_a_crash_left_is_cut_off(log, witness, url):
    ((line, _),) = ask(log, witness, url)
    note, _ = latest_checkpoint(log.log)
    keep(log.log, note, [line])
    path = log.log / "cosignatures"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    keep(log.log, note, [line])
    assert path.read_bytes() == whole * 2
    assert parse_note(whole[:-1]).signatures[-1] == line
