"""What the reference app records of what its users do, and that it does nothing that it can't record."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from support.journals import all_records
from support.reference_app import HTML, SAME_SITE, Site

NOT_THERE = "0" * 64


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path, SECUREFS_AUDIT_NAMES="clear")


def told(site, *events):
    return [record for record in all_records(site.folder / "journal") if record["event"] in events]


def summary(site, *events):
    return [
        (record["event"], record["outcome"], record.get("obj", {}), record["http"].get("status"))
        for record in told(site, *events)
    ]


def lose(site):
    """Take the journal's folder away: nothing can be recorded."""
    (site.folder / "journal").rename(site.folder / "gone")


def open_sessions(site):
    with closing(sqlite3.connect(site.data / "securefs.sqlite3")) as database:
        return database.execute("SELECT count(*) FROM tokens WHERE parent IS NOT NULL").fetchone()[0]


def sign_in(site, name="alice"):
    secret = site.tokens.issue(name).secret
    with site.client.post("/login", data={"token": secret}, headers={**HTML, **SAME_SITE}) as response:
        return secret.split("_")[1], response


def test_a_deleted_file_is_recorded_before_and_after(site):
    (file,) = site.upload(("a", b"12")).json["files"]
    assert site.client.delete(file["url"], headers=site.alice).status_code == 204
    about = {"id": file["id"], "size": 2}
    assert summary(site, "file.delete") == [
        ("file.delete", "started", about, None),
        ("file.delete", "success", about, 204),
    ]
    assert {record["actor"]["id"] for record in told(site, "file.delete")} == {"alice"}


def test_nothing_is_deleted_that_cannot_be_recorded(site):
    (file,) = site.upload(("a", b"12")).json["files"]
    lose(site)
    response = site.client.delete(file["url"], headers=site.alice)
    assert (response.status_code, response.json["detail"]) == (
        503,
        "This cannot be recorded, so it was not done.",
    )
    assert site.stored() == [f"{file['id']}.enc"]
    (site.folder / "gone").rename(site.folder / "journal")
    assert site.get(file["url"]).data == b"12"


def test_a_file_that_is_deleted_when_the_journal_fails_is_not_called_there(site, monkeypatch):
    (file,) = site.upload(("a", b"12")).json["files"]
    unlink = type(site.files).unlink

    def unlink_and_lose(path, *, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        lose(site)

    monkeypatch.setattr("pathlib.Path.unlink", unlink_and_lose)
    response = site.client.delete(file["url"], headers=site.alice)
    assert response.status_code == 503
    assert response.json["detail"] == "The file was deleted, but that cannot be recorded."
    assert site.stored() == []


def test_a_file_that_cannot_be_deleted_is_recorded_as_such(site):
    (file,) = site.upload(("a", b"12")).json["files"]
    path = site.files / f"{file['id']}.enc"
    path.unlink()
    path.mkdir()
    assert site.client.delete(file["url"], headers=site.alice).status_code == 503
    about = {"id": file["id"], "size": 2}
    assert summary(site, "file.delete") == [
        ("file.delete", "started", about, None),
        ("file.delete", "failure", about, 503),
    ]


@pytest.mark.parametrize("method", ["get", "delete"])
def test_who_asks_for_somebody_else_s_file_is_recorded(site, method):
    (file,) = site.upload(("a", b"12")).json["files"]
    mallory = site.bearer("mallory")
    others, none = (
        getattr(site.client, method)(url, headers=mallory) for url in (file["url"], f"/files/{NOT_THERE}")
    )
    assert others.status_code == none.status_code == 404
    assert others.json["detail"] == none.json["detail"], "as if it did not exist"
    (record,) = told(site, "auth.denied")
    assert (record["actor"]["id"], record["obj"]) == ("mallory", {"id": file["id"]})
    assert (record["http"]["status"], record["sev"]) == (404, 3)
    assert site.get(file["url"]).data == b"12"


def test_a_session_is_recorded_from_its_sign_in_to_its_end(site):
    token, response = sign_in(site)
    assert response.status_code == 303
    with site.client.post("/logout", headers={**HTML, **SAME_SITE}) as response:
        assert response.status_code == 303
    granted, logout = told(site, "auth.granted", "auth.logout")
    assert granted["obj"]["token"] == token
    assert granted["obj"]["session"] == logout["obj"]["session"] != token
    assert granted["actor"] == logout["actor"] == {"id": "alice"}
    with site.client.post("/logout", headers={**HTML, **SAME_SITE}) as response:
        assert response.status_code == 303
    assert len(told(site, "auth.logout")) == 1, "nobody was signed in"


def test_no_session_is_opened_that_cannot_be_recorded(site):
    site.get("/")
    lose(site)
    _, response = sign_in(site)
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    assert open_sessions(site) == 0
    (site.folder / "gone").rename(site.folder / "journal")
    assert told(site, "auth.granted") == []


def test_no_session_ends_that_cannot_be_recorded(site):
    browser = site.browser()
    lose(site)
    with browser.post("/logout", headers={**HTML, **SAME_SITE}) as response:
        assert response.status_code == 503
    (site.folder / "gone").rename(site.folder / "journal")
    with browser.get("/files") as response:
        assert response.status_code == 200


def test_what_became_of_an_upload_is_recorded(site):
    site.upload(("a", b"1"), ("b", b"2"))
    assert summary(site, "request.answered") == [("request.answered", "success", {"parts": 2}, 201)]


def test_a_flood_of_strangers_is_ten_records(site):
    for _ in range(50):
        assert site.get("/files", headers={}).status_code == 401
    assert len(told(site, "auth.denied")) == 10
