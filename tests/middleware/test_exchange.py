"""``environ["securefs"]``: who asks, what was uploaded, and what the journal is told of it."""

from __future__ import annotations

from support.uploads import (
    BROWSER_TYPE,
    browser_body,
    field,
    file,
    line,
    opened,
)

from securefs.audit import Journal


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


def test_an_exchange_without_an_address_leaves_it_out(tmp_path):
    journal = Journal(tmp_path / "journal")
    flow = line(browser_body([file()]), BROWSER_TYPE.partition("=")[2].encode(), journal)
    assert b"".join(bytes(piece.data) for piece in flow.pipeline.pieces() if piece)
    assert opened(field()) == field()
    journal.close()
