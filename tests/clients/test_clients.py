"""Upload clients as they come from pip, npm and Debian: docs/clients.md, cell by cell, against the clients."""

from __future__ import annotations

import dataclasses
import os

import pytest
from support import client_matrix, client_table
from support.client_matrix import CANARY, CLIENTS, REQUIRED, Client, Seen
from support.sealing import seal

from securefs.metadata import encode_metadata


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    with client_matrix.sites(tmp_path_factory.mktemp("clients")) as sites:
        yield sites


def need(client: Client) -> None:
    """Skip where a client is missing; fail if it is one of those that continuous integration must have."""
    if missing := client.missing():
        reason = f"{missing} is missing: {client.install}"
        if client.always and os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_uploads_is_what_the_page_says(name, sent):
    need(CLIENTS[name])
    version, seen = client_matrix.run(name, sent)
    print(f"\n{name} {version}")
    assert client_matrix.plaintext(sent.wrapped) == []
    lines = {case: (ours.line, alone.line) for case, (ours, alone) in seen.items()}
    assert client_table.cells(seen, sent) == client_table.written()[name][1], lines


def test_the_page_is_made_of_its_cells():
    assert client_table.is_current(), "run python tests/support/client_table.py"


def test_no_cell_is_a_failure():
    cells = {cell for _, row in client_table.written().values() for cell in row.values()}
    assert {cell for cell in cells if cell.startswith("failed") or "?" in {cell, cell[:1]}} == set()


def test_ten_clients_are_always_there():
    assert [client.always for client in CLIENTS.values()] == [True] * 10 + [False] * (len(CLIENTS) - 10)


@pytest.mark.parametrize(
    ("always", "required", "outcome"),
    [
        (True, "1", pytest.fail.Exception),
        (True, "", pytest.skip.Exception),
        (False, "1", pytest.skip.Exception),
    ],
)
def test_a_client_that_is_missing_is_told(always, required, outcome, monkeypatch):
    monkeypatch.setenv(REQUIRED, required)
    client = Client(("nothing",), ("/nowhere/at/all",), "apt-get install nothing", always=always)
    with pytest.raises(outcome, match="/nowhere/at/all is missing: apt-get install nothing"):
        need(client)
    need(Client(("sh",), ("sh", "/", "python:json"), ""))


def taken(sent, case="ASCII", content=None, name="report.txt", kind="text/plain"):
    """Return what is seen of an upload that was stored as ``content``, or as it should be without it."""
    path = sent.wrapped.folder / "files" / "made-by-hand"
    path.write_bytes(
        content
        or seal(sent.content(case, 0).read_bytes(), metadata_text=encode_metadata({"name": "report.txt"}))
    )
    app = {"fields": [], "files": [["file", name, kind]], "chunked": False, "expect": False}
    return Seen("200 200", app, [path], sent.content(case, 0).read_bytes())


def but(seen, **members):
    return dataclasses.replace(seen, app=seen.app | members)


def test_a_cell_tells_what_went_wrong(sent):
    """The cells are what the other tests stand on."""

    def cell(ours, alone=None, case="ASCII"):
        return client_table.cell(case, ours, alone or good, sent)

    good = taken(sent)
    refused, failed = Seen("400 404", {}, [], b""), Seen("Error: no such name", {}, [], b"")
    assert cell(good) == "ok"
    assert cell(refused) == "400 (alone: ok)"
    assert cell(refused, refused) == "400"
    assert cell(good, refused) == "ok (alone: 400)"
    assert cell(failed) == "not sent"
    assert cell(Seen("-", {}, [], b"")) == "-"
    assert cell(dataclasses.replace(but(good, files=[]), stored=[])) == "no file (alone: ok)"
    assert cell(dataclasses.replace(good, downloaded=CANARY)) == "failed: another download"
    assert cell(but(good, fields=[["a", "b"]])) == "failed: fields [['a', 'b']]"
    assert cell(good, case="fields") == "failed: fields []"
    assert cell(but(good, files=[["file", "report.txt", "text/html"]])) == "failed: another type"
    assert cell(taken(sent, "Expect"), case="Expect") == "failed: sent otherwise"
    named = taken(sent, name="b.txt")
    assert cell(named, named) == "`b.txt` (sealed: `report.txt`)"
    assert cell(named) == "`b.txt` (alone: ok, sealed: `report.txt`)"
    content = seal(b"x", metadata_text=encode_metadata({"name": "report.txt"}))
    assert cell(taken(sent, content=content)) == "failed: another content"
    assert cell(taken(sent, content=b"in clear")) == "failed: plaintext"


def test_plaintext_is_found_wherever_it_is(sent):
    hidden = sent.wrapped.folder / "journal" / "hidden"
    hidden.write_bytes(b"x" * 5000 + CANARY)
    assert client_matrix.plaintext(sent.wrapped) == [hidden]
    hidden.unlink()
    assert client_matrix.plaintext(sent.wrapped) == []
