"""Records of files, where there is no request."""

from __future__ import annotations

from securefs.errors import Reason
from securefs.middleware.evidence import Evidence, Upload, described


def test_a_record_of_no_request_has_none(journal):
    evidence = Evidence(journal)
    evidence.record("file.open", about={"id": "", "name": "r.pdf", "size": 0, "suite": None})
    evidence.record("file.open", outcome="failure", reason=Reason.UNDECLARED)
    first, second = journal.records("file.open")
    assert first["obj"] == {"name": "r.pdf", "size": 0}
    assert (second["outcome"], second["reason"]) == ("failure", "undeclared")
    for record in (first, second):
        assert record.keys().isdisjoint({"req", "actor", "http"})


def test_the_hook_hears_of_it_and_cannot_undo_it(journal, caplog):
    heard = []

    def hook(entry):
        heard.append(entry.event)
        raise RuntimeError("the hook's own fault")

    Evidence(journal, hook).record("file.open")
    assert heard == ["file.open"]
    assert len(journal.records("file.open")) == 1
    assert "on_event failed for file.open: " in caplog.text


def test_without_a_request_nothing_is_noted(journal):
    evidence = Evidence(journal)
    evidence.sealed(Upload("a" * 64, "", "r.pdf", "", 1, "b" * 32), b"")
    evidence.spoil(Reason.TAG_MISMATCH, "a segment failed")
    assert evidence.own is None
    assert journal.events() == []


def test_what_says_nothing_is_left_out():
    assert described({"id": "a", "name": "", "size": 0, "suite": None}) == {"id": "a", "size": 0}
