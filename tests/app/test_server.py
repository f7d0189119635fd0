"""The reference app as it is run: gunicorn with the shipped configuration, curl as the client."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from support.journals import all_records
from support.servers import app_environ, curl, gunicorn, multipart, wait_until

from securefs.app.database import open_database
from securefs.app.tokens import Tokens
from securefs.audit import verify_journal

NAMES = ["größe ü.txt", "日本語.bin"]


class Site:
    """A running app, its folder, and header files for curl: no token is on a command line."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.url = server.url
        self.files = folder / "data" / "files"
        self.tokens = Tokens(open_database(folder / "data"))

    def user(self, name):
        header = self.folder / f"authorization-{name}"
        header.write_text(f"Authorization: Bearer {self.tokens.issue(name).secret}\n")
        return ["-H", f"@{header}"]


@pytest.fixture
def site(tmp_path):
    with gunicorn(tmp_path / "log", app_environ(tmp_path)) as server:
        yield Site(server, tmp_path)


def test_a_program_uploads_lists_downloads_and_deletes(site, tmp_path):
    contents = [b"hello", os.urandom(5_000_000)]
    for name, content in zip(NAMES, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    alice, bob = site.user("alice"), site.user("bob")
    uploaded = curl(
        *alice, *[f for n in NAMES for f in ("-F", f"files=@{tmp_path / n}")], f"{site.url}/files"
    )
    assert uploaded.status == 201
    files = uploaded.json()["files"]
    assert [(file["name"], file["size"]) for file in files] == [(NAMES[0], 5), (NAMES[1], 5_000_000)]
    listed = curl(*alice, f"{site.url}/files").json()["files"]
    assert {file["id"] for file in listed} == {file["id"] for file in files}
    for file, content in zip(files, contents, strict=True):
        reply = curl(*alice, site.url + file["url"])
        assert (reply.status, reply.body) == (200, content)
        assert int(reply.header("content-length")) == len(content)
        assert curl(*bob, site.url + file["url"]).status == 404
    assert curl(*bob, f"{site.url}/files").json()["files"] == []
    assert curl(*alice, "-r", "100-199", site.url + files[1]["url"]).body == contents[1][100:200]
    assert curl(*alice, "-X", "DELETE", site.url + files[0]["url"]).status == 204
    assert curl(*alice, site.url + files[0]["url"]).status == 404
    assert [path.name for path in site.files.iterdir()] == [files[1]["id"] + ".enc"]


def test_a_person_signs_in_with_a_cookie_that_other_sites_cannot_use(site, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(site.tokens.issue("alice").secret)
    jar, origin = ["-b", str(tmp_path / "jar"), "-c", str(tmp_path / "jar")], ["-H", f"Origin: {site.url}"]
    html = ["-H", "Accept: text/html"]
    refused = curl(
        *html, "-H", "Origin: http://evil.example", "--data-urlencode", f"token@{secret}", f"{site.url}/login"
    )
    assert refused.status == 403
    reply = curl(*jar, *origin, *html, "--data-urlencode", f"token@{secret}", f"{site.url}/login")
    assert (reply.status, reply.header("location")) == (303, "/")
    cookie = reply.header("set-cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    secure = curl(
        *html,
        "-H", "X-Forwarded-Proto: https",
        "-H", "Sec-Fetch-Site: same-origin",
        "--data-urlencode", f"token@{secret}",
        f"{site.url}/login",
    )  # fmt: skip
    assert secure.header("set-cookie").startswith("__Host-securefs=")
    assert "Secure" in secure.header("set-cookie")

    (tmp_path / NAMES[0]).write_bytes(b"1")
    upload = ["-F", f"files=@{tmp_path / NAMES[0]}", f"{site.url}/files"]
    assert curl(*jar, "-H", "Sec-Fetch-Site: cross-site", *upload).status == 403
    assert curl(*jar, *upload).status == 403
    assert curl(*jar, *origin, *html, *upload).header("location") == "/?stored=1"
    page = curl(*jar, *html, f"{site.url}/").body.decode()
    assert f"<bdi>{NAMES[0]}</bdi>" in page
    assert curl(*jar, *origin, *html, "-X", "POST", f"{site.url}/logout").status == 303
    assert "Access token" in curl(*jar, *html, f"{site.url}/").body.decode()


def test_a_tampered_file_is_a_problem_without_a_reason(site, tmp_path):
    alice = site.user("alice")
    (tmp_path / "f").write_bytes(b"the content" * 10_000)
    (file,) = curl(*alice, "-F", f"files=@{tmp_path / 'f'}", f"{site.url}/files").json()["files"]
    path = site.files / f"{file['id']}.enc"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    reply = curl(*alice, site.url + file["url"])
    assert (reply.status, reply.header("content-type")) == (500, "application/problem+json")
    assert set(reply.json()) == {"type", "title", "status", "request_id"}
    assert b"content" not in reply.body
    assert "tag_mismatch" in {record.get("reason") for record in all_records(tmp_path / "journal")}


def test_a_revoked_token_is_refused_at_once(site):
    alice = site.user("alice")
    assert curl(*alice, f"{site.url}/files").status == 200
    assert site.tokens.revoke("alice") == 1
    reply = curl(*alice, f"{site.url}/files")
    assert (reply.status, reply.header("www-authenticate")) == (401, "Bearer")


def test_readiness_follows_the_storage(site):
    assert curl(f"{site.url}/readyz").status == 200
    away = site.folder / "away"
    site.files.rename(away)
    reply = curl(f"{site.url}/readyz")
    assert (reply.status, reply.json()) == (503, {"status": "unavailable", "failed": ["storage"]})
    assert curl(f"{site.url}/healthz").status == 200
    away.rename(site.files)
    assert curl(f"{site.url}/readyz").status == 200
    assert "Traceback" not in site.server.log


def begin_upload(site, secret):
    """Send the start of an upload and return its open connection, once the app has begun to store it."""
    body, content_type = multipart([("f", bytes(8_000_000))])
    client = socket.create_connection(("127.0.0.1", site.server.port))
    head = (
        f"POST /files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body[:4_000_000])
    wait_until(
        lambda: any(path.stat().st_size for path in site.files.glob(".upload-*")), "the temporary file"
    )
    return client


def test_a_client_that_goes_away_leaves_nothing(site):
    secret = site.tokens.issue("alice").secret
    begin_upload(site, secret).close()
    wait_until(lambda: not list(site.files.iterdir()), "the temporary file to be removed")
    assert curl(*site.user("alice"), f"{site.url}/files").json()["files"] == []


def test_what_a_killed_server_left_is_swept_at_the_next_start(tmp_path):
    environ = app_environ(tmp_path)
    with gunicorn(tmp_path / "log", environ, "--workers", "1") as server:
        site = Site(server, tmp_path)
        client = begin_upload(site, site.tokens.issue("alice").secret)
        (worker,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(server.process.pid, signal.SIGKILL)
        os.kill(int(worker), signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not Path(f"/proc/{worker}/exe").exists(), "the worker's end")
        client.close()
    (left,) = site.files.iterdir()
    past = time.time() - 3600
    os.utime(left, (past, past))
    with gunicorn(tmp_path / "log2", environ):
        assert list(site.files.iterdir()) == []


def test_workers_end_their_chains_in_order(tmp_path):
    with gunicorn(tmp_path / "log", app_environ(tmp_path)) as server:
        site = Site(server, tmp_path)
        (tmp_path / "f").write_bytes(b"1")
        assert curl(*site.user("alice"), "-F", f"files=@{tmp_path / 'f'}", f"{site.url}/files").status == 201
        assert server.stop() == 0
    report = verify_journal(tmp_path / "journal")
    assert report.intact
    assert report.chains
    assert all(chain.ended for chain in report.chains)
