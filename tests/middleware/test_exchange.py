"""``environ["securefs"]``: who asks, what was uploaded, and what the journal is told of it."""

from __future__ import annotations

from support.uploads import (
    BROWSER_TYPE,
    browser_body,
    file,
    line,
)

from securefs.middleware.exchange import Exchange


def test_an_exchange_tells_who_where_and_how(lab_of):
    lab = lab_of(authorize=lambda environ: "alice")
    body = browser_body([file()])
    lab.post(BROWSER_TYPE, body, SCRIPT_NAME="/app", HTTP_X_REQUEST_ID="request-17")
    exchange = lab.app.environ["securefs"]
    assert (exchange.principal, exchange.request_id, exchange.path) == ("alice", "request-17", "/app/upload")
    assert exchange.expected is None
    exchange.expect("ab" * 32)
    assert exchange.expected == "ab" * 32
    record = lab.records("file.encrypt")[0]
    assert record["http"] == {"method": "POST", "path": "/app/upload"}
    assert record["src"]["addr"] == "127.0.0.1"
    assert record["req"] == "request-17"


def test_the_id_of_a_request_stays_the_same(journal):
    named, unnamed = Exchange({"HTTP_X_REQUEST_ID": "request-17"}, journal), Exchange({}, journal)
    assert named.request_id == "request-17"
    assert unnamed.request_id == unnamed.request_id != Exchange({}, journal).request_id


def test_a_hook_hears_of_each_record_and_cannot_undo_it(lab_of, caplog):
    heard = []

    def on_event(entry):
        heard.append((entry.event, entry.outcome))
        raise RuntimeError("the hook's own fault")

    lab = lab_of(on_event=on_event)
    assert lab.post(BROWSER_TYPE, browser_body([file()])).status == 200
    assert lab.post("multipart/form-data", b"x").status == 400
    assert heard == [("file.encrypt", "started"), ("file.encrypt", "success"), ("file.rejected", "failure")]
    assert heard == [(record["event"], record["outcome"]) for record in lab.records()[1:]]
    assert caplog.text.count("on_event failed") == 3


def test_a_hook_hears_of_nothing_that_was_not_recorded(lab_of):
    heard = []
    lab = lab_of(on_event=heard.append)
    lab.journal.close()
    assert lab.post(BROWSER_TYPE, browser_body([file()])).status == 503
    assert heard == []


def test_an_exchange_without_an_address_leaves_it_out(journal):
    flow = line(browser_body([file()]), BROWSER_TYPE.partition("=")[2].encode(), journal)
    assert b"".join(bytes(piece.data) for piece in flow.pipeline.pieces() if piece)
    records = [record for record in journal.records() if record["event"] == "file.encrypt"]
    assert [record["outcome"] for record in records] == ["started", "success"]
    assert all("addr" not in record["src"] for record in records)


def test_what_is_not_known_of_an_object_is_left_out(journal):
    Exchange({}, journal).record(
        "file.encrypt", about={"name": "a", "size": 0, "id": "", "field": None}, status=400
    )
    assert journal.records()[-1]["obj"] == {"name": "a", "size": 0}
    assert journal.records()[-1]["http"] == {"method": "", "path": "", "status": 400}
