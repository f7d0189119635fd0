"""``environ["securefs"]``: who asks, what was uploaded, and what the journal is told of it."""

from __future__ import annotations

import io
import itertools
import re
from contextlib import nullcontext, suppress

import pytest
from support.sealing import RING, pattern, seal, seal_1
from support.uploads import (
    BROWSER_TYPE,
    browser_body,
    file,
    line,
)
from support.wsgi_client import call, make_environ

from securefs import IntegrityError, Suite
from securefs.errors import JournalError
from securefs.header import claimed_object_id
from securefs.middleware import FileRefusedError, Policy, SecureFS
from securefs.middleware.exchange import Exchange

TEXT = pattern(300_000)
STORED = seal(TEXT)
ID = claimed_object_id(STORED)
OTHER = seal(TEXT, label="another file")
PAGE = b"<p>plaintext in a file's place" * 10_000
CHUNKS = {"SERVER_SOFTWARE": "gunicorn/27"}  # a server whose chunks show a break


def test_an_exchange_tells_who_where_and_how(lab_of):
    lab = lab_of(authorize=lambda environ: "alice")
    body = browser_body([file()])
    lab.post(BROWSER_TYPE, body, SCRIPT_NAME="/app", HTTP_X_REQUEST_ID="request-17")
    exchange = lab.app.environ["securefs"]
    assert (exchange.principal, exchange.path) == ("alice", "/app/upload")
    record = lab.records("file.encrypt")[0]
    assert record["http"] == {"method": "POST", "path": "/app/upload"}
    assert record["client"] == {"addr": "127.0.0.1"}
    assert (record["req"], record["client_req"]) == (exchange.request_id, "request-17")
    assert re.fullmatch("[0-9a-f]{32}", exchange.request_id)


def test_the_id_of_a_request_stays_the_same(journal):
    named, unnamed = Exchange({"HTTP_X_REQUEST_ID": "request-17"}, journal), Exchange({}, journal)
    assert named.request_id == named.request_id != unnamed.request_id == unnamed.request_id


@pytest.mark.parametrize("odd", [5, b"request-17", "", None])
def test_a_client_s_id_that_is_no_text_is_left_out(odd, journal):
    Exchange({"HTTP_X_REQUEST_ID": odd}, journal).record("file.delete")
    assert "client_req" not in journal.records()[-1]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param(b"/\xc3\xbcbung", "/\xfcbung", id="utf-8"),
        pytest.param(b"/\xff/\xc3", r"/\xff/\xc3", id="other bytes stay visible"),
        pytest.param("/\U0001f600".encode(), "/\U0001f600", id="beyond the first plane"),
        pytest.param(b"/\xed\xa0\x80", r"/\xed\xa0\x80", id="half of a pair"),
    ],
)
def test_a_path_is_decoded_as_utf_8(raw, shown, journal):
    exchange = Exchange({"SCRIPT_NAME": "/app", "PATH_INFO": raw.decode("latin-1")}, journal)
    exchange.record("file.delete")
    assert exchange.path == journal.records()[-1]["http"]["path"] == f"/app{shown}"


def test_a_path_of_a_server_that_decodes_it_itself_stands_as_it_came(journal):
    assert Exchange({"PATH_INFO": "/\u0142"}, journal).path == "/\u0142"


def test_a_hook_hears_of_each_record_and_cannot_undo_it(lab_of, caplog):
    heard = []

    def on_event(entry):
        heard.append((entry.event, entry.outcome))
        raise RuntimeError("the hook's own fault\nGET '/': all is well")

    lab = lab_of(on_event=on_event)
    assert lab.post(BROWSER_TYPE, browser_body([file()])).status == 200
    assert lab.post("multipart/form-data", b"x").status == 400
    assert heard == [
        ("file.encrypt", "started"),
        ("file.encrypt", "success"),
        ("request.answered", "success"),
        ("file.rejected", "failure"),
    ]
    assert heard == [(record["event"], record["outcome"]) for record in lab.records()[1:]]
    assert caplog.text.count("on_event failed") == 4
    assert caplog.text.count("\n") == len(caplog.messages)
    assert all(message.isprintable() for message in caplog.messages)


def test_a_hook_hears_names_as_they_came(lab_of):
    heard = []
    lab = lab_of(on_event=heard.append)
    lab.post(BROWSER_TYPE, browser_body([file(filename="a.txt")]))
    assert {entry.obj["name"] for entry in heard if entry.event == "file.encrypt"} == {"a.txt"}
    assert all(record["obj"]["name"].startswith("hmac-sha256:") for record in lab.records("file.encrypt"))


def test_a_hook_hears_of_nothing_that_was_not_recorded(lab_of):
    heard = []
    lab = lab_of(on_event=heard.append)
    lab.journal.close()
    assert lab.post(BROWSER_TYPE, browser_body([file()])).status == 503
    assert heard == []


def test_what_is_expected_can_be_read(journal):
    exchange = Exchange({}, journal)
    assert (exchange.expected, exchange.expects) == (None, False)
    exchange.expect(ID)
    assert (exchange.expected, exchange.expects) == (ID, True)


def test_an_exchange_without_an_address_leaves_it_out(journal):
    flow = line(browser_body([file()]), BROWSER_TYPE.partition("=")[2].encode(), journal)
    assert b"".join(bytes(piece.data) for piece in flow.pipeline.pieces() if piece)
    records = [record for record in journal.records() if record["event"] == "file.encrypt"]
    assert [record["outcome"] for record in records] == ["started", "success"]
    assert all("client" not in record for record in records)


def test_what_is_not_known_of_an_object_is_left_out(journal):
    Exchange({}, journal).record(
        "file.encrypt", about={"name": "a", "size": 0, "id": "", "field": None}, status=400
    )
    assert journal.records()[-1]["obj"] == {"name": "a", "size": 0}
    assert journal.records()[-1]["http"] == {"method": "", "path": "", "status": 400}


# --- expect(), in every order of calls and for every kind of response


class Calling(io.BytesIO):
    """A file that calls the app at one of its reads, and where it is closed."""

    def __init__(self, data, *, at=None, call_at=None, on_close=None, seekable=True):
        super().__init__(data)
        self.reads, self.at, self.call_at, self.on_close = 0, at, call_at, on_close
        self._seekable = seekable

    def seekable(self):
        return self._seekable

    def read(self, size=-1):
        if self.reads == self.at:
            self.call_at()
        self.reads += 1
        return super().read(size)

    def close(self):
        on_close, self.on_close = self.on_close, None
        super().close()
        if on_close is not None:
            on_close()


def generator(body, promise, when):
    if when == "generator, before":
        promise()
    yield body[:1000]
    if when == "generator, between":
        promise()
    for at in range(1000, len(body), 50_000):
        yield body[at : at + 50_000]
    if when == "generator, at its end":
        promise()


def answer_of(environ, write, body, promise, when):
    """Return the body in the way that belongs to ``when``."""
    if when == "write(), before":
        promise()
    if when.startswith("write()"):
        write(body[:1000])
        if when == "write(), between":
            promise()
        write(body[1000:])
        if when == "write(), at the end":
            promise()
        return []
    if when.startswith("generator"):
        return generator(body, promise, when)
    if when.startswith("file"):
        number = {"file, first read": 0, "file, later read": 100}.get(when)
        on_close = promise if when == "file, close" else None
        source = Calling(
            body, at=number, call_at=promise, on_close=on_close, seekable=when != "file, later read"
        )
        return environ["wsgi.file_wrapper"](source, 1000)
    return [body]


def calling(when, body, object_ids=(ID,), status="200 OK", headers=(), *, ignores=False):
    """An app that calls ``expect()`` at one moment, and may ignore that it raises."""

    def app(environ, start_response):
        def promise():
            app.calls += 1
            for object_id in object_ids:
                with suppress(IntegrityError) if ignores else nullcontext():
                    environ["securefs"].expect(object_id)

        if when == "before start_response":
            promise()
        write = start_response(status, [("Content-Type", "a/b"), *headers])
        if when == "after start_response":
            promise()
        return answer_of(environ, write, body, promise, when)

    app.calls = 0
    return app


EARLY = [
    "before start_response",
    "after start_response",
    "write(), before",
    "generator, before",
    "file, first read",
]
LATE = [
    "write(), between",
    "write(), at the end",
    "generator, between",
    "generator, at its end",
    "file, later read",
    "file, close",
]


def ask(app, journal, method="GET", policy=None, **options):
    """Return (answer, what the server heard of when it closed the response)."""
    app = SecureFS(app, keyring=RING, journal=journal, policy=policy or Policy())
    options = CHUNKS | options
    try:
        return call(app, method, watched=False, **options), None
    except Exception as error:  # noqa: BLE001  # of any kind: the server logs it
        return None, error


def failures(journal):
    return [event for event in journal.events() if event[0] == "file.integrity_failure"]


@pytest.mark.parametrize("verify_first", [0, None])
@pytest.mark.parametrize("ignores", [False, True], ids=["raises", "ignored"])
@pytest.mark.parametrize("when", EARLY + LATE)
def test_the_file_that_is_expected_is_served_whenever_that_is_said(when, ignores, verify_first, journal):
    app = calling(when, STORED, ignores=ignores)
    answer, error = ask(app, journal, policy=Policy(verify_first=verify_first))
    assert (app.calls, error, answer.status, answer.error) == (1, None, 200, None)
    assert answer.body == TEXT
    assert failures(journal) == []


@pytest.mark.parametrize("verify_first", [0, None])
@pytest.mark.parametrize("ignores", [False, True], ids=["raises", "ignored"])
@pytest.mark.parametrize("body", [PAGE, OTHER, seal_1(TEXT)], ids=["page", "other file", "format 1"])
@pytest.mark.parametrize("when", EARLY)
def test_nothing_else_is_sent_if_it_is_said_in_time(when, body, ignores, verify_first, journal):
    app = calling(when, body, ignores=ignores)
    answer, error = ask(app, journal, policy=Policy(verify_first=verify_first))
    assert (error, answer.status, answer.error) == (None, 500, None)
    assert answer.headers["content-type"] == "application/problem+json"
    reason = "wrong_object" if body is OTHER else "not_encrypted"
    assert failures(journal) == [("file.integrity_failure", "failure", reason)]


@pytest.mark.parametrize("ignores", [False, True], ids=["raises", "ignored"])
@pytest.mark.parametrize("body", [PAGE, OTHER], ids=["page", "other file"])
@pytest.mark.parametrize("when", LATE)
def test_what_has_begun_is_aborted_and_recorded(when, body, ignores, journal, caplog):
    app = calling(when, body, ignores=ignores)
    answer, error = ask(app, journal, policy=Policy(verify_first=0))
    assert app.calls == 1
    failed = failures(journal)
    assert [reason for *_, reason in failed] == ["wrong_object" if body is OTHER else "not_encrypted"]
    told = [message for message in caplog.messages if "expect()" in message or "asked for" in message]
    assert len(told) == 1, "the operator reads it once"
    if when == "file, close" and ignores:
        return  # The last byte is with the client, and the app wants to hear nothing of it.
    if error is None and answer.error is None:
        assert answer.status == 500, "nothing was sent yet"
    elif answer is not None:
        assert len(answer.body) < len(body) or when.endswith(("end", "close")), "it goes no further"
    else:
        assert isinstance(error, IntegrityError)


@pytest.mark.parametrize("ignores", [False, True], ids=["raises", "ignored"])
@pytest.mark.parametrize("when", ["generator, at its end", "file, later read"])
def test_the_last_bytes_of_another_file_are_held_back(when, ignores, journal):
    answer, _ = ask(calling(when, OTHER, ignores=ignores), journal, policy=Policy(verify_first=0))
    assert len(answer.body) < len(TEXT)
    assert answer.error is not None


@pytest.mark.parametrize("verify_first", [0, None])
def test_another_file_is_not_sent_to_its_end_whichever_read_says_so(verify_first, journal):
    other = seal(pattern(2 * 1024 * 1024), Suite.GCM, label="another file")
    refused = 0
    for number in itertools.count():

        def app(environ, start_response, number=number):
            def promise():
                app.calls += 1
                with suppress(IntegrityError):
                    environ["securefs"].expect(ID)

            app.calls = 0
            start_response("200 OK", [("Content-Type", "a/b")])
            return environ["wsgi.file_wrapper"](Calling(other, at=number, call_at=promise))

        answer, error = ask(app, journal, policy=Policy(verify_first=verify_first))
        if not app.calls:
            break
        assert error is None
        assert answer.status == 500 or (answer.error is not None and len(answer.body) < 2 * 1024 * 1024)
        assert len(failures(journal)) == number + 1
        refused += answer.status == 500
    assert number > 10
    if verify_first is None:
        assert refused > number // 2, "all of it is read before the status line, and then again"


def test_nothing_more_is_written_after_a_call_that_came_too_late(journal):
    written = []

    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "a/b")])
        write(PAGE)
        with pytest.raises(IntegrityError):
            environ["securefs"].expect(ID)
        for _ in range(2):
            with pytest.raises(IntegrityError):
                write(b"more")
        return [b"more"]

    def start(status, headers, exc_info=None):
        return written.append

    with pytest.raises(IntegrityError):
        SecureFS(app, keyring=RING, journal=journal)(make_environ(), start)
    assert written == [PAGE]


def test_what_was_expected_in_time_may_be_expected_again_later(journal):
    """A 404 page passes, and so it does if the app repeats itself."""

    def chunks(environ):
        yield PAGE
        environ["securefs"].expect(ID)
        yield PAGE

    def app(environ, start_response):
        environ["securefs"].expect(ID)
        start_response("404 Not Found", [("Content-Type", "a/b")])
        return chunks(environ)

    answer, _ = ask(app, journal)
    assert (answer.body, answer.error) == (2 * PAGE, None)


def test_a_plain_file_that_catches_the_error_itself_is_sent_and_recorded(journal):
    """The server reads it, and not the middleware."""

    def app(environ, start_response):
        def promise():
            with suppress(IntegrityError):
                environ["securefs"].expect(ID)

        start_response("200 OK", [("Content-Type", "a/b")])
        return environ["wsgi.file_wrapper"](Calling(PAGE, at=100, call_at=promise), 1000)

    assert ask(app, journal)[0].body == PAGE
    assert failures(journal) == [("file.integrity_failure", "failure", "not_encrypted")]


@pytest.mark.parametrize("when", ["before start_response", "generator, before"])
@pytest.mark.parametrize("body", [STORED, PAGE], ids=["file", "page"])
@pytest.mark.parametrize(
    ("object_ids", "message"),
    [
        pytest.param((ID, "ab" * 32), "two object ids", id="two"),
        pytest.param(("",), "64 hex digits", id="empty: that of Format 1"),
        pytest.param((None,), "64 hex digits", id="None"),
        pytest.param((ID.upper(),), "64 hex digits", id="upper case"),
        pytest.param((ID[:-1],), "64 hex digits", id="63 digits"),
        pytest.param((ID + "\n",), "64 hex digits", id="a line end"),
        pytest.param((bytes.fromhex(ID),), "64 hex digits", id="bytes"),
    ],
)
def test_what_no_file_can_be_is_an_error_and_a_refusal(object_ids, message, body, when, journal, caplog):
    answer, error = ask(calling(when, body, object_ids), journal)
    assert answer is None
    assert isinstance(error, IntegrityError)
    assert message in str(error)
    caplog.clear()
    answer, error = ask(calling(when, body, object_ids, ignores=True), journal)
    assert (error, answer.status) == (None, 500)
    assert failures(journal) == [("file.integrity_failure", "failure", "wrong_object")]
    assert [message in line for line in caplog.messages if "expect()" in line] == [True]


def test_the_same_file_may_be_expected_again(journal):
    assert ask(calling("before start_response", STORED, (ID, ID)), journal)[0].body == TEXT


@pytest.mark.parametrize("when", EARLY)
def test_a_range_and_headers_alone_are_of_the_expected_file_too(when, journal):
    answer, _ = ask(calling(when, STORED), journal, headers=[("Range", "bytes=10-19")])
    assert (answer.status, answer.body) == (206, TEXT[10:20])
    answer, _ = ask(calling(when, STORED), journal, "HEAD")
    # Of a generator, HEAD reads the header alone.
    length = None if when.startswith("generator") else str(len(TEXT))
    assert (answer.status, answer.headers.get("content-length")) == (200, length)
    for body in (PAGE, OTHER):
        for method, headers in (("GET", [("Range", "bytes=10-19")]), ("HEAD", [])):
            answer, _ = ask(calling(when, body), journal, method, headers=headers)
            assert (answer.status, PAGE[10:20] in answer.body) == (500, False)


def test_headers_alone_of_a_page_are_no_answer_where_a_file_is_expected_at_their_end(journal):
    answer, error = ask(calling("file, close", PAGE), journal, "HEAD")
    assert answer is None
    assert isinstance(error, IntegrityError)
    assert failures(journal) == [("file.integrity_failure", "failure", "not_encrypted")]


@pytest.mark.parametrize(
    ("status", "body", "headers", "answered"),
    [
        pytest.param("304 Not Modified", b"", [], 304, id="not modified"),
        pytest.param("302 Found", b"", [("Location", "/login")], 302, id="redirect"),
        pytest.param("404 Not Found", PAGE, [], 404, id="error page"),
        pytest.param("500 Oops", PAGE, [], 500, id="the app's own 500"),
        pytest.param("404 Not Found", OTHER, [], 500, id="another file as an error page"),
        pytest.param("204 No Content", b"", [], 204, id="no content"),
        pytest.param("204 No Content", PAGE, [], 500, id="content beside 204"),
        pytest.param("206 Partial Content", PAGE, [], 500, id="a part of a page"),
        pytest.param("206 Partial Content", STORED, [], 500, id="a part of the file"),
        pytest.param("201 Created", PAGE, [], 500, id="another success"),
        pytest.param("404 Not Found", b"", [("X-Accel-Redirect", "/f")], 500, id="left to the proxy"),
        pytest.param("200 OK", STORED, [("X-Sendfile", "/f")], 500, id="left to another proxy"),
    ],
)
@pytest.mark.parametrize("when", EARLY)
def test_a_status_that_is_no_success_needs_no_file(when, status, body, headers, answered, journal):
    answer, error = ask(calling(when, body, status=status, headers=headers), journal)
    assert (error, answer.status, answer.error) == (None, answered, None)
    if answered == 500 and status[:3] != "500":
        assert PAGE[:10] not in answer.body
        assert len(failures(journal)) == 1
    else:
        assert (answer.body, failures(journal)) == (body, [])


def test_an_error_page_that_says_why_nothing_can_be_expected_is_the_app_s(journal):
    def app(environ, start_response):
        try:
            environ["securefs"].expect("no object id")
        except IntegrityError:
            start_response("500 Oops", [("Content-Type", "text/plain")])
            return [b"a bug of the app"]

    assert ask(app, journal)[0].body == b"a bug of the app"


def test_a_failure_of_the_journal_reaches_the_app_and_aborts_the_response_all_the_same(journal):
    seen = []

    def chunks(environ):
        yield b"a page that has begun"
        journal.check()
        journal.lose()
        try:
            environ["securefs"].expect(ID)
        except JournalError as error:
            seen.append(error)
        yield b"its end"

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "a/b")])
        return chunks(environ)

    answer, _ = ask(app, journal)
    assert len(seen) == 1
    assert answer.body == b"a page that has begun"
    assert isinstance(answer.error, IntegrityError)


# --- what became of an upload


def answering(status, read=True, how="return"):
    """An app that reads an upload, or does not, and answers with a status, or fails."""

    def app(environ, start_response):
        if read:
            environ["wsgi.input"].read()
        if how == "raise":
            raise ZeroDivisionError
        write = start_response(status, [("Content-Type", "text/plain")])
        if how == "write":
            write(b"a page that is longer than the magic")
            return []
        if how == "late":
            return late(environ)
        return [b"a page"]

    def late(environ):
        yield b"a page that is longer than the magic"
        environ["wsgi.input"].read()
        yield b"its end"

    return app


def answers(journal):
    return [
        (record["outcome"], record["http"].get("status"), record["obj"]["parts"])
        for record in journal.records("request.answered")
    ]


@pytest.mark.parametrize("how", ["return", "write"])
@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("201 Created", ("success", 201, 2)),
        ("303 See Other", ("success", 303, 2)),
        ("400 Bad Request", ("failure", 400, 2)),
        ("507 Insufficient Storage", ("failure", 507, 2)),
    ],
)
def test_the_answer_to_an_upload_is_recorded_with_its_status(status, told, how, lab_of):
    """That a file was encrypted does not say that it was stored."""
    lab = lab_of(app=answering(status, how=how))
    assert lab.post(BROWSER_TYPE, browser_body([file(), file()])).status == told[1]
    assert answers(lab.journal) == [told]
    assert lab.records()[-1]["event"] == "request.answered"
    assert lab.records()[-1]["req"] == lab.records("file.encrypt")[0]["req"]


def test_an_app_that_fails_gives_no_status(lab_of):
    lab = lab_of(app=answering("", how="raise"))
    with pytest.raises(ZeroDivisionError):
        lab.post(BROWSER_TYPE, browser_body([file()]))
    assert answers(lab.journal) == [("failure", None, 1)]


@pytest.mark.parametrize("status", ["OK", "", "2000"])
def test_a_status_that_is_none_is_not_guessed(status, journal):
    exchange = Exchange({}, journal)
    exchange.receives = True
    exchange.answered(status)
    assert answers(journal) == [("success", 200, 0) if status == "2000" else ("failure", None, 0)]


def test_what_is_read_while_the_app_answers_is_told_at_its_end(lab_of):
    lab = lab_of(app=answering("202 Accepted", read=False, how="late"), policy=Policy(raw_uploads=("*",)))
    assert lab.post("a/b", bytes(3 << 20)).status == 202
    assert answers(lab.journal) == [("success", 202, 1)]
    assert [record["event"] for record in lab.records()][1:] == [
        "file.encrypt",
        "file.encrypt",
        "request.answered",
    ]


def test_of_files_that_are_not_whole_yet_it_counts_none(lab_of):
    """The status is sent before the app has read them: it is recorded before that."""
    lab = lab_of(app=answering("202 Accepted", read=False, how="late"))
    assert lab.post(BROWSER_TYPE, browser_body([file(content=bytes(3 << 20))])).status == 202
    assert answers(lab.journal) == [("success", 202, 0)]


def test_a_request_without_a_file_leaves_no_such_record(lab_of):
    lab = lab_of()
    assert lab.post("application/json", b"{}").status == 200
    assert lab.post(BROWSER_TYPE, browser_body([file(content=b"", filename="")])).status == 200
    assert lab.post("multipart/form-data", b"x").status == 400
    assert [record["event"] for record in lab.records()][1:] == ["file.rejected"]


def test_a_refused_body_has_its_status_in_its_own_record(lab_of):
    def refuse(part, chunks):
        raise FileRefusedError("no")

    lab = lab_of(inspect=refuse)
    assert lab.post(BROWSER_TYPE, browser_body([file()])).status == 400
    assert answers(lab.journal) == []
    assert lab.records("file.rejected")[0]["http"]["status"] == 400


@pytest.mark.parametrize("how", ["return", "write"])
def test_an_answer_that_cannot_be_recorded_is_not_given(how, lab_of):
    def app(environ, start_response):
        environ["wsgi.input"].read()
        lab.journal.lose()
        return answering("201 Created", read=False, how=how)(environ, start_response)

    lab = lab_of(app=app)
    answer = lab.post(BROWSER_TYPE, browser_body([file()]))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert b"a page" not in answer.body


def test_an_app_that_fails_where_nothing_can_be_recorded_fails_as_it_did(lab_of):
    def app(environ, start_response):
        environ["wsgi.input"].read()
        lab.journal.lose()
        raise ZeroDivisionError

    lab = lab_of(app=app)
    with pytest.raises(ZeroDivisionError):
        lab.post(BROWSER_TYPE, browser_body([file()]))
