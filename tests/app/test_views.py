"""The reference app in process: real middleware, real files, real database; Werkzeug's client in the place of a server."""

from __future__ import annotations

import gc
import os
import re
import resource
import sqlite3
import sys

import pytest
from prometheus_client import REGISTRY
from support.journals import only_chain, records
from support.reference_app import HTML, SAME_SITE, Site, post_files
from support.servers import app_environ
from support.special import bind
from werkzeug.test import Client

import securefs.app
from securefs import ConfigurationError, Keyring, encrypt_file
from securefs.app import create_app, owner_context
from securefs.app.storage import PAGE_SIZE
from securefs.audit import verify_journal


def test_an_upload_is_stored_encrypted_and_comes_back_as_it_was(site):
    content = b"the plaintext " * 20_000
    response = site.upload(("grüße.txt", content))
    assert response.status_code == 201
    (file,) = response.json["files"]
    assert (file["name"], file["size"], file["type"]) == ("grüße.txt", len(content), "text/plain")
    (name,) = site.stored()
    assert name == file["id"] + ".enc"
    raw = (site.files / name).read_bytes()
    assert b"the plaintext" not in raw
    assert "grüße".encode() not in raw
    assert b"gr\xc3\xbc" not in (site.data / "securefs.sqlite3").read_bytes()
    assert site.get(file["url"]).data == content


def test_several_files_are_listed_newest_first(site):
    site.upload(("a", b"1"), ("b", b"22"))
    site.upload(("c", b""))
    listing = site.get("/files").json
    assert [(file["name"], file["size"]) for file in listing["files"]] == [("c", 0), ("b", 2), ("a", 1)]
    assert listing["next"] is None


def test_lists_come_in_pages(site):
    for _ in range(2):
        site.upload(*[(f"f{n}", b"x") for n in range(PAGE_SIZE // 2)])
    assert site.get("/files").json["next"] is None
    site.upload(("last", b"x"))
    first = site.get("/files").json
    assert (len(first["files"]), first["next"]) == (PAGE_SIZE, "/files?page=2")
    assert [file["name"] for file in site.get("/files?page=2").json["files"]] == ["f0"]
    html = site.get("/?page=2", headers={**site.alice, **HTML}).text
    assert "Newer" in html
    assert "Older" not in html
    assert "Older" in site.get("/", headers={**site.alice, **HTML}).text


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 30, "9" * 5000])
def test_a_page_number_that_makes_no_sense_shows_a_page(site, page):
    assert site.get(f"/files?page={page}").status_code == 200


def test_a_file_belongs_to_who_uploaded_it(site):
    url = site.upload(("mine", b"secret")).json["files"][0]["url"]
    bob = site.bearer("bob")
    assert site.get("/files", headers=bob).json["files"] == []
    assert site.get(url, headers=bob).status_code == 404
    with site.client.delete(url, headers=bob) as response:
        assert response.status_code == 404
    assert site.get(url).data == b"secret"


def test_a_row_that_is_given_to_someone_else_opens_nothing(site):
    """Whoever can write the database still can't read: the owner is bound into the file."""
    url = site.upload(("mine", b"secret")).json["files"][0]["url"]
    bob = site.bearer("bob")
    with sqlite3.connect(site.data / "securefs.sqlite3") as database:
        database.execute("UPDATE files SET owner = 'bob'")
    database.close()
    assert site.get("/files", headers=bob).json["files"][0]["broken"] is True
    response = site.get(url, headers=bob)
    assert response.status_code == 500
    assert b"secret" not in response.data


def test_files_that_were_swapped_on_disk_are_refused(site):
    one, two = (file["id"] for file in site.upload(("one", b"1"), ("two", b"2")).json["files"])
    (site.files / f"{one}.enc").replace(site.files / "x")
    (site.files / f"{two}.enc").replace(site.files / f"{one}.enc")
    (site.files / "x").replace(site.files / f"{two}.enc")
    assert [file["broken"] for file in site.get("/files").json["files"]] == [True, True]
    assert site.get(f"/files/{one}").status_code == 500


def test_a_tampered_file_is_refused_without_a_reason(site):
    (file,) = site.upload(("a", b"content of the file")).json["files"]
    path = site.files / f"{file['id']}.enc"
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 1
    path.write_bytes(raw)
    response = site.get(file["url"])
    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert set(response.json) == {"type", "title", "status", "request_id"}
    assert b"content" not in response.data


def test_plaintext_in_the_place_of_a_file_is_not_served(site):
    (file,) = site.upload(("a", b"x")).json["files"]
    (site.files / f"{file['id']}.enc").write_bytes(b"plaintext that somebody put here")
    response = site.get(file["url"])
    assert response.status_code == 500
    assert b"somebody" not in response.data


def test_a_multipart_body_that_is_no_form_is_refused_before_the_app(site):
    (file,) = site.upload(("a", b"x")).json["files"]
    with site.client.post(
        file["url"] + "/delete", data=b"--b--", content_type="multipart/mixed; boundary=b", headers=site.alice
    ) as response:
        assert response.status_code == 400
    assert site.get(file["url"]).data == b"x"


def test_a_broken_or_missing_file_is_shown_as_such_and_can_be_deleted(site):
    files = site.upload(("whole", b"1"), ("cut", b"2"), ("gone", b"3")).json["files"]
    ids = {file["name"]: file["id"] for file in files}
    cut = site.files / f"{ids['cut']}.enc"
    cut.write_bytes(cut.read_bytes()[:-7])
    (site.files / f"{ids['gone']}.enc").unlink()
    listed = {file["id"]: file for file in site.get("/files").json["files"]}
    assert not listed[ids["whole"]]["broken"]
    assert listed[ids["cut"]]["broken"]
    assert listed[ids["gone"]]["broken"]
    html = site.get("/", headers={**site.alice, **HTML}).text
    assert html.count("cannot be opened") == 2
    assert html.count(">Download<") == 1
    assert site.get(f"/files/{ids['gone']}").status_code == 503
    for name in ("cut", "gone"):
        with site.client.delete(f"/files/{ids[name]}", headers=site.alice) as response:
            assert (response.status_code, response.data) == (204, b"")
    assert [file["name"] for file in site.get("/files").json["files"]] == ["whole"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("put", "kind"),
    [
        pytest.param(os.mkfifo, "a pipe", id="pipe"),
        pytest.param(bind, "a socket", id="socket"),
        pytest.param(os.mkdir, "a folder", id="folder"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "a symbolic link", id="device"),
        pytest.param(lambda path: path.symlink_to(path.with_name("aside")), "a symbolic link", id="link"),
    ],
)
def test_what_is_no_file_is_neither_followed_nor_waited_for(site, capsys, put, kind):
    """Not even a link to the very file that was moved aside."""
    (file,) = site.upload(("a", b"content of the file")).json["files"]
    path = site.files / f"{file['id']}.enc"
    path.rename(path.with_name("aside"))
    put(path)
    assert [row["broken"] for row in site.get("/files").json["files"]] == [True]
    assert "cannot be opened" in site.get("/", headers={**site.alice, **HTML}).text
    for method in ("get", "head"):
        with getattr(site.client, method)(file["url"], headers=site.alice) as response:
            assert (response.status_code, b"content" in response.get_data()) == (503, False)
    line = f"securefs: cannot read {path.name}: {path} is {kind}, not a regular file"
    assert capsys.readouterr().err.splitlines() == [line, line]
    failed = [
        (record["event"], record["outcome"], record["reason"], record["http"]["status"], record["obj"])
        for record in records(only_chain(site.folder / "journal"))
        if record["event"] in {"file.decrypt", "file.integrity_failure"}
    ]
    assert failed == [("file.decrypt", "failure", "io_error", 503, {"id": file["id"]})] * 2


def test_part_of_a_file_can_be_asked_for(site):
    (file,) = site.upload(("x", bytes(range(256)) * 1000)).json["files"]
    response = site.get(file["url"], headers={**site.alice, "Range": "bytes=70000-70003"})
    assert (response.status_code, response.data) == (206, bytes([112, 113, 114, 115]))


def test_head_tells_the_plaintext_size(site):
    (file,) = site.upload(("x", b"12345")).json["files"]
    with site.client.head(file["url"], headers=site.alice) as response:
        assert (response.status_code, response.headers["Content-Length"], response.data) == (200, "5", b"")


def test_an_upload_without_a_file_is_refused(site):
    assert site.upload().status_code == 400
    assert site.upload(("", b"")).status_code == 400
    response = site.upload(headers={**site.alice, **HTML})
    assert response.status_code == 400
    assert "Choose at least one" in response.text
    assert site.stored() == []


def test_other_fields_beside_a_file_are_ignored(site):
    with post_files(site.client, [("a", b"1"), ("", b"")], site.alice, [("note", "hello")]) as response:
        assert [file["name"] for file in response.json["files"]] == ["a"]


def test_a_refused_upload_leaves_nothing(site):
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + b"x" * 3_000_000
    with site.client.post(
        "/files", data=body, content_type="multipart/form-data; boundary=b", headers=site.alice
    ) as response:
        assert response.status_code == 400
    assert site.stored() == []
    assert site.get("/files").json["files"] == []


@pytest.mark.parametrize("headers", [{}, HTML], ids=["program", "browser"])
def test_a_disk_that_is_full_is_told_and_leaves_nothing(site, headers):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, before[1]))
    try:
        response = site.upload(("small", b"1"), ("big", bytes(3_000_000)), headers={**site.alice, **headers})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert response.status_code == 507
    assert "There is no space left. Nothing was stored." in response.text
    assert site.stored() == []
    assert site.get("/files").json["files"] == []


def test_ciphertext_that_comes_as_a_raw_body_is_refused(site, tmp_path):
    (file,) = site.upload(("x", b"1")).json["files"]
    raw = (site.files / f"{file['id']}.enc").read_bytes()
    with site.client.post("/files", data=raw, content_type="text/plain", headers=site.alice) as response:
        assert response.status_code == 400


def test_an_unencrypted_part_is_never_stored(site):
    """The app behind no middleware: it must refuse, not store plaintext."""
    app = site.app._app
    environ_of = {"securefs": type("Exchange", (), {"uploads": [], "request_id": "r"})()}
    client = Client(
        lambda environ, start: app({**environ, **environ_of, "securefs.app.caller": token}, start)
    )
    token = site.tokens.authenticate(site.alice["Authorization"].split()[1])
    with post_files(client, [("f", b"plain")], site.alice) as response:
        assert response.status_code == 503
    assert site.stored() == []


def test_nobody_gets_past_a_view_even_if_the_gate_were_open(site):
    app = site.app._app
    environ_of = {"securefs": type("Exchange", (), {"request_id": "r"})(), "securefs.app.caller": None}
    client = Client(lambda environ, start: app({**environ, **environ_of}, start))
    with client.get("/files") as response:
        assert response.status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="no token"),
        pytest.param("Bearer sfs_0000000000000000_" + "0" * 64, id="unknown token"),
        pytest.param("Bearer ", id="empty token"),
        pytest.param("Bearer ü", id="not ASCII"),
        pytest.param("Basic YTpi", id="other scheme"),
    ],
)
def test_without_a_good_token_there_is_nothing(site, header):
    headers = {"Authorization": header.encode().decode("latin-1")} if header else {}
    assert site.get("/files", headers=headers).status_code == 401
    assert site.upload(("a", b"1"), headers=headers).status_code == 401
    assert site.get("/nothing", headers=headers).status_code == 401
    assert site.stored() == []


def test_a_wrong_bearer_token_is_not_helped_by_a_cookie(site):
    browser = site.browser()
    with browser.get("/files", headers={"Authorization": "Bearer x"}) as response:
        assert response.status_code == 401


def test_a_token_is_no_session_and_a_session_no_token(site):
    browser = site.browser()
    session = browser.get_cookie("securefs").value
    assert site.get("/files", headers={"Authorization": f"Bearer {session}"}).status_code == 401
    secret = site.alice["Authorization"].removeprefix("Bearer ")
    assert site.get("/files", headers={"Cookie": f"securefs={secret}"}).status_code == 401


def test_people_sign_in_upload_download_delete_and_sign_out(site):
    browser = site.browser("zoë")
    with browser.get("/", headers=HTML) as response:
        assert "Signed in as <bdi>zoë</bdi>" in response.text
        assert "Nothing here yet" in response.text
    files = [("<b>.txt", b"1"), ("inv\u202efdp.exe", b"2")]
    with post_files(browser, files, {**HTML, **SAME_SITE}) as response:
        assert (response.status_code, response.headers["Location"]) == (303, "/?stored=2")
    with browser.get("/?stored=2", headers=HTML) as response:
        assert "Encrypted and stored: 2 files." in response.text
        assert "&lt;b&gt;.txt" in response.text
        assert "\u202e" not in response.text
        urls = re.findall(r'href="(/files/[0-9a-f]{64})"', response.text)
    with browser.get(urls[1], headers=HTML) as response:
        assert response.data == b"1"
    with browser.post(urls[0] + "/delete", headers={**HTML, **SAME_SITE}) as response:
        assert (response.status_code, response.headers["Location"]) == (303, "/?deleted=1")
    with browser.get("/?deleted=1", headers=HTML) as response:
        assert "The file was deleted." in response.text
    with browser.get("/?stored=1", headers=HTML) as response:
        assert "1 file." in response.text
    session = browser.get_cookie("securefs").value
    with browser.post("/logout", headers={**HTML, **SAME_SITE}) as response:
        assert (response.status_code, response.headers["Location"]) == (303, "/")
    assert browser.get_cookie("securefs") is None
    assert site.get("/files", headers={"Cookie": f"securefs={session}"}).status_code == 401
    with browser.post("/logout", headers={**HTML, **SAME_SITE}) as response:
        assert response.status_code == 303


def test_the_start_page_asks_for_a_token(site):
    response = site.get("/", headers=HTML)
    assert response.status_code == 200
    assert '<label for="token">' in response.text
    assert "script" not in response.text
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert response.headers["Referrer-Policy"] == "same-origin"


def test_a_wrong_token_at_sign_in_is_told_and_journalled(site):
    with site.client.post("/login", data={"token": "wrong"}, headers={**HTML, **SAME_SITE}) as response:
        assert response.status_code == 401
        assert "not known here" in response.text
        assert "Set-Cookie" not in response.headers
    last = records(only_chain(site.folder / "journal"))[-1]
    assert (last["event"], last["outcome"], last["http"]["path"]) == ("auth.denied", "failure", "/login")


def test_a_sign_in_form_of_megabytes_is_refused(site):
    with site.client.post("/login", data={"token": "x" * 10_000}, headers=SAME_SITE) as response:
        assert response.status_code == 413


def test_a_revoked_token_ends_its_sessions_too(site):
    secret = site.tokens.issue("dave").secret
    with site.client.post("/login", data={"token": f" {secret}\n"}, headers=SAME_SITE):
        pass
    with site.client.get("/files") as response:
        assert response.status_code == 200
    assert site.tokens.revoke("dave") == 1
    with site.client.get("/files") as response:
        assert response.status_code == 401


@pytest.mark.parametrize(("path", "status"), [("//files", 200), ("", 308)])
def test_odd_slashes_need_a_token_like_all_others(site, path, status):
    with site.client.get("/", headers=site.alice, environ_overrides={"PATH_INFO": path}) as response:
        assert response.status_code == status


def test_health_needs_nothing_and_readiness_all(site):
    assert site.get("/healthz", headers={}).json == {"status": "ok"}
    assert site.get("/readyz", headers={}).json == {"status": "ok", "failed": []}
    assert site.stored() == []


def test_readiness_says_which_check_fails_and_no_more(site, capsys):
    site.files.rename(site.data / "elsewhere")
    response = site.get("/readyz", headers={})
    assert (response.status_code, response.json) == (503, {"status": "unavailable", "failed": ["storage"]})
    assert "not ready, storage: cannot store" in capsys.readouterr().err


def test_without_a_database_nothing_is_done_and_nobody_is_let_in(site, capsys):
    database = site.data / "securefs.sqlite3"
    database.rename(site.data / "away")
    assert site.get("/healthz", headers={}).status_code == 200
    assert site.get("/readyz", headers=site.alice).json["failed"] == ["storage"]
    assert site.get("/files").status_code == 503
    assert site.get("/", headers={**site.alice, **HTML}).status_code == 503
    assert site.upload(("a", b"1")).status_code == 503
    assert "cannot be used" in capsys.readouterr().err
    (site.data / "away").rename(database)
    assert site.stored() == []
    assert site.get("/files").json["files"] == []


def test_without_a_journal_nothing_is_uploaded_served_or_signed_in(site, capsys):
    (file,) = site.upload(("a", b"secret")).json["files"]
    journal = site.folder / "journal"
    journal.rename(site.folder / "gone")
    assert site.get("/readyz", headers={}).json["failed"] == ["journal"]
    response = site.get(file["url"])
    assert response.status_code == 503
    assert b"secret" not in response.data
    assert site.upload(("b", b"2")).status_code == 503
    assert len(site.stored()) == 1
    with site.client.post("/login", data={"token": "wrong"}, headers=SAME_SITE) as response:
        assert response.status_code == 503
    (site.folder / "gone").rename(journal)


def test_a_file_name_that_is_not_sealed_still_has_a_name(site):
    """A file that came by another way than an upload: no metadata."""
    (site.folder / "plain").write_bytes(b"12")
    object_id = encrypt_file(
        site.folder / "plain",
        site.folder / "new.enc",
        Keyring.from_env(site.environ),
        context=owner_context("alice"),
    )
    (site.folder / "new.enc").rename(site.files / f"{object_id}.enc")
    with sqlite3.connect(site.data / "securefs.sqlite3") as database:
        database.execute(
            "INSERT INTO files (object_id, owner, size, created) VALUES (?, 'alice', 2, 0)", [object_id]
        )
    database.close()
    assert site.get("/files").json["files"][0]["name"] == "unnamed"
    assert site.get(f"/files/{object_id}").data == b"12"


def test_a_worker_that_ends_in_order_ends_its_chain(tmp_path):
    site = Site(tmp_path)
    site.upload(("a", b"1"))
    del site
    gc.collect()
    (chain,) = verify_journal(tmp_path / "journal").chains
    assert chain.ended


def test_a_chain_that_cannot_be_ended_stops_nobody(tmp_path):
    site = Site(tmp_path)
    site.upload(("a", b"1"))
    (tmp_path / "journal").rename(tmp_path / "gone")
    del site
    gc.collect()
    (chain,) = verify_journal(tmp_path / "gone").chains
    assert not chain.ended


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({"FILE_KEY_BASE64_FILE": "/nonexistent"}, "FILE_KEY_BASE64_FILE: cannot read", id="key"),
        pytest.param({"SECUREFS_DATA_DIR": ""}, "SECUREFS_DATA_DIR is not set", id="no folder"),
        pytest.param(
            {"SECUREFS_DATA_DIR": "/nonexistent/x"}, "SECUREFS_DATA_DIR: cannot use", id="missing parent"
        ),
        pytest.param({"SECUREFS_DATA_DIR": "/dev/null"}, "SECUREFS_DATA_DIR: cannot use", id="not a folder"),
        pytest.param(
            {"SECUREFS_DATA_DIR": "a\0b"}, "SECUREFS_DATA_DIR: is not a usable path", id="zero byte"
        ),
        pytest.param({"SECUREFS_FORMAT": "1"}, "Format 2 only", id="format 1"),
        pytest.param({"SECUREFS_SUITE": "rot13"}, "SECUREFS_SUITE", id="suite"),
        pytest.param({"SECUREFS_AUDIT_DIR": "/nonexistent/x"}, "SECUREFS_AUDIT_DIR", id="journal"),
    ],
)
def test_a_bad_configuration_is_one_line_that_names_the_variable(tmp_path, variables, message):
    with pytest.raises(ConfigurationError) as caught:
        create_app(app_environ(tmp_path, **variables))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_files_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "files").write_text("x")
    with pytest.raises(ConfigurationError, match="cannot use"):
        create_app(app_environ(tmp_path))


def test_the_package_has_no_other_name():
    with pytest.raises(AttributeError, match=r"'securefs\.app' has no attribute 'nothing'"):
        securefs.app.nothing  # noqa: B018


def test_metrics_without_their_package_are_refused(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "prometheus_client"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "securefs.metrics", raising=False)
    with pytest.raises(
        ConfigurationError, match=r"prometheus_client is not installed: run pip install 'securefs\[metrics\]'"
    ):
        create_app(app_environ(tmp_path, SECUREFS_METRICS="127.0.0.1:0"))


def test_metrics_count_what_the_app_does(tmp_path):
    site = Site(tmp_path, SECUREFS_METRICS="127.0.0.1:0")
    labels = {"event": "auth.denied", "outcome": "failure"}
    before = REGISTRY.get_sample_value("securefs_operations_total", labels)
    assert site.get("/files", headers={}).status_code == 401
    assert REGISTRY.get_sample_value("securefs_operations_total", labels) == before + 1
