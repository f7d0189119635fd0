"""One app on eight servers: uploads, downloads and what goes wrong with them, told by connections that look at every byte.

What each server does is the table of :mod:`support.server_table`, of which docs/servers.md is made.
"""

from __future__ import annotations

import http.client
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from support import server_table
from support.sealing import seal, tampered
from support.server_matrix import SERVERS, chunked, form, request, running
from support.servers import wait_until

from securefs import Suite

MIB = 1024 * 1024
DATA = os.urandom(3 * MIB)
LIMIT = str(30)  # seconds that a client may take
SMUGGLED = b"GET /page/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", params=SERVERS)
def site(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp("site")) as running_site:
        stored = seal(DATA)
        running_site.put("good", stored)
        running_site.put("bad", tampered(stored))
        running_site.put("good-2", seal(DATA, Suite.GCM))
        running_site.put("bad-2", tampered(seal(DATA, Suite.GCM)))
        yield running_site


def holds(site, case, seen):
    """Compare what was seen with the table."""
    assert seen == server_table.expected(site.name, case), f"{site.name}, {case}: {site.server.log[-2000:]}"


def upload(site, name, data, *, headers=(), encode=lambda body: body):
    """Upload one file; say whether it was stored as ciphertext, and what became of the connection."""
    own, body = form(name, data)
    with site.connect() as connection:
        answer = connection.ask("POST", "/upload", [*own, *headers], encode(body))
        connection_is = connection.still_serves()
    return f"{verdict(site, name, data, answer)}, {connection_is}"


def verdict(site, name, data, answer):
    assert answer.whole
    if answer.status != 200:
        assert name not in site.stored()
        return str(answer.status)
    assert answer.body == b"stored 1, fields 0\n"
    stored = (site.folder / "files" / name).read_bytes()
    assert data[:64] not in stored
    with site.connect() as connection:
        assert connection.ask("GET", f"/file/{name}").body == data
    return "stored"


def test_a_small_upload_is_stored_encrypted(site):
    holds(site, "upload", upload(site, "small", b"canary" * 100))


def test_a_long_upload_is_stored_encrypted(site):
    holds(site, "upload of 3 MiB", upload(site, "long", DATA))


def test_a_chunked_upload_is_stored_or_refused(site):
    seen = upload(site, "chunked", DATA, headers=[("Transfer-Encoding", "chunked")], encode=chunked)
    holds(site, "chunked upload", seen)


def test_a_client_that_expects_100_continue_is_served(site):
    headers, body = form("expect", DATA)
    with site.connect() as connection:
        connection.send(
            request(
                "POST", "/upload", [*headers, ("Expect", "100-continue"), ("Content-Length", str(len(body)))]
            )
        )
        # A client must not wait for ever (RFC 9110 section 10.1.1): it sends the body after a while
        # without an answer.
        connection.arrives(1.0)
        connection.send(body)
        answer = connection.receive()
        connection_is = connection.still_serves()
    start = "100" if answer.interim else "no 100"
    holds(site, "Expect", f"{start}, {verdict(site, 'expect', DATA, answer)}, {connection_is}")


def test_an_upload_that_breaks_off_leaves_nothing_that_looks_complete(site):
    headers, body = form("aborted", DATA)
    before = len(site.events())
    with site.connect() as connection:
        connection.send(
            request("POST", "/upload", [*headers, ("Content-Length", str(len(body)))]) + body[: 2 * MIB]
        )
    if server_table.expected(site.name, "aborted upload").endswith("not begun"):
        with site.connect() as connection:
            assert connection.ask("GET", "/page/").status == 200
        seen = "not begun" if len(site.events()) == before else "begun"
    else:
        gone = ("file.rejected", "failure", "client_gone")
        new = wait_until(
            lambda: gone in site.events()[before:] and site.events()[before:], "the end of the upload"
        )
        assert ("file.encrypt", "failure", "client_gone") in new
        assert ("file.encrypt", "success", None) not in new
        seen = "recorded"
    assert "aborted" not in site.stored()
    with site.connect() as connection:
        assert connection.ask("GET", "/page/").status == 200
    holds(site, "aborted upload", f"nothing stored, {seen}")


def malformed():
    """The first MiB of a body that is refused as soon as it is read."""
    headers, body = form("smuggler", b"")
    head = body[: body.index(b"\r\n\r\n") + 4].replace(b"form-data", b"attachment")
    return headers, head.ljust(MIB, b"x")


def refused(site, case, headers, body, *, then=(200,)):
    """Send a body that is refused before it was read to its end, and a request: that one may be answered, and nothing else."""
    with site.connect() as connection:
        answer = connection.ask("POST", "/upload", headers, body)
        # Who closes while the client still sends may destroy the answer on its way.
        assert answer is None or answer.status == 400
        connection.send(request("GET", "/page/after"))
        assert [answer.status for answer in connection.rest()] in ([], *([status] for status in then))
    assert not [path for _, path, *_ in site.requests() if "smuggled" in path]
    with site.connect() as connection:
        assert connection.ask("GET", "/page/").status == 200
    holds(site, case, "refused, no rest read")


def test_the_rest_of_a_refused_body_is_no_request(site):
    headers, first = malformed()
    refused(site, "malformed upload", headers, first + SMUGGLED * (2 * MIB // len(SMUGGLED)))


@pytest.mark.parametrize("size", [MIB, 4 * MIB], ids=["several chunks", "one chunk"])
def test_the_rest_of_a_refused_chunked_body_is_no_request(size, site):
    headers, first = malformed()
    body = chunked(first + SMUGGLED * (2 * MIB // len(SMUGGLED)), size)
    refused(site, "malformed chunked", [*headers, ("Transfer-Encoding", "chunked")], body)


def test_a_chunk_that_reads_as_a_request_is_none(site):
    """A size line that is also a request line, its extension being the path, and data that reads as the headers."""
    headers, first = malformed()
    request_line = b"ADD;x /page/smuggled HTTP/1.1"
    data = b"Host: x\r\n\r\n".ljust(0xADD, b"x")
    body = b"%x\r\n%s\r\n%s\r\n%s\r\n0\r\n\r\n" % (len(first), first, request_line, data)
    # gunicorn reads on, and says 400 to such an extension.
    refused(site, "malformed chunked", [*headers, ("Transfer-Encoding", "chunked")], body, then=(200, 400))


def open_files(pid):
    """Return what a process and its children hold open on a disk, deleted files included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [path for child in children for path in open_files(int(child))]
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(link.readlink()).startswith("/") and link.is_file():
                found.append(link)
    return found


def start_of(path):
    """Return what a file begins with; nothing of one that is gone by now."""
    try:
        with path.open("rb") as file:
            return file.read(4 * MIB)
    except FileNotFoundError:
        return b""


def test_whether_plaintext_touches_a_disk_is_known(site):
    """The middleware writes none; a server may."""
    canary = b"canary:" + os.urandom(16).hex().encode()
    headers, body = form("watched", canary * (3 * MIB // len(canary)))
    begun = len(site.events())

    def on_disk():
        paths = [path for path in site.folder.rglob("*") if path.is_file()]
        return any(canary in start_of(path) for path in [*paths, *open_files(site.server.process.pid)])

    with site.connect() as connection:
        connection.send(
            request("POST", "/upload", [*headers, ("Content-Length", str(len(body)))]) + body[: 2 * MIB]
        )
        wait_until(lambda: len(site.events()) > begun or on_disk(), "the start of the upload")
        seen = "plaintext" if on_disk() else "none"
    holds(site, "plaintext on disk", seen)


def download(site, path, **options):
    with site.connect() as connection:
        answer = connection.ask("GET", path, **options)
        assert answer.whole
        return answer, connection.still_serves()


@pytest.mark.parametrize("case", ["file", "stream", "list"])
def test_a_download_arrives_as_it_was_uploaded(case, site):
    answer, connection = download(site, f"/{case}/good")
    assert (answer.status, answer.body) == (200, DATA)
    holds(site, case, f"{answer.framing}, {connection}")


def test_head_tells_the_length_of_the_plaintext(site):
    with site.connect() as connection:
        answer = connection.ask("HEAD", "/file/good")
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(DATA)))
        holds(site, "HEAD", f"length told, {connection.still_serves()}")


def test_a_range_is_of_the_plaintext(site):
    answer, connection = download(site, "/file/good", headers=[("Range", "bytes=-1000")])
    assert answer.headers["content-range"] == f"bytes {len(DATA) - 1000}-{len(DATA) - 1}/{len(DATA)}"
    assert answer.body == DATA[-1000:]
    holds(site, "range", f"{answer.status}, {connection}")


@pytest.mark.parametrize("case", ["file", "stream"])
def test_a_client_of_http_1_0_is_told_the_length(case, site):
    answer, _ = download(site, f"/{case}/good", protocol="HTTP/1.0")
    assert answer.body == DATA
    holds(site, f"HTTP/1.0 {case}", answer.framing)


BREAKS = {"length": "short of its length", "chunked": "no last chunk"}


@pytest.mark.parametrize(
    ("case", "path", "protocol"),
    [
        pytest.param("tampered file", "/file/bad", "HTTP/1.1", id="file"),
        pytest.param("tampered file", "/file/bad-2", "HTTP/1.1", id="file of suite 2"),
        pytest.param("tampered file", "/file/bad", "HTTP/1.0", id="file, HTTP/1.0"),
        pytest.param("tampered stream", "/stream/bad", "HTTP/1.1", id="stream"),
        pytest.param("tampered stream", "/list/bad-2", "HTTP/1.1", id="list of suite 2"),
        pytest.param("tampered HTTP/1.0", "/stream/bad", "HTTP/1.0", id="stream, HTTP/1.0"),
        pytest.param("tampered HTTP/1.0", "/list/bad", "HTTP/1.0", id="list, HTTP/1.0"),
        pytest.param("tampered HTTP/1.0", "/stream/bad-2", "HTTP/1.0", id="stream of suite 2, HTTP/1.0"),
    ],
)
def test_a_failure_in_mid_stream_shows(case, path, protocol, site):
    """Neither a full length nor a proper end, and nothing else on the connection."""
    keep = [("Connection", "keep-alive")]
    with site.connect() as connection:
        answer = connection.ask("GET", path, keep, protocol=protocol)
        assert answer.status == 200
        assert not answer.whole
        assert 0 < len(answer.body) < 2 * MIB
        assert DATA.startswith(answer.body)
        assert connection.still_serves() == "closed"
    holds(site, case, BREAKS[answer.framing])
    assert site.events(path)[-1] == ("file.integrity_failure", "failure", "tag_mismatch")


@pytest.mark.parametrize("path", ["/file/bad", "/stream/bad", "/list/bad-2"])
@pytest.mark.parametrize("option", ["--http1.1", "--http1.0"])
def test_curl_reports_the_failure(option, path, site, tmp_path):
    command = [
        "curl",
        "--silent",
        "--noproxy",
        "*",
        "--max-time",
        LIMIT,
        option,
        "--output",
        str(tmp_path / "part"),
    ]
    # 18: partial file; 56: the connection was reset.
    assert subprocess.run([*command, site.url + path], check=False).returncode in {18, 56}
    assert subprocess.run([*command, site.url + path.replace("bad", "good")], check=False).returncode == 0


@pytest.mark.parametrize("path", ["/file/bad", "/stream/bad", "/list/bad-2"])
def test_http_client_reports_the_failure(path, site):
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=float(LIMIT))
    connection.request("GET", path)
    with (
        connection.getresponse() as answer,
        pytest.raises((http.client.IncompleteRead, ConnectionResetError)),
    ):
        answer.read()
    connection.close()


@pytest.mark.parametrize("path", ["/file/bad", "/stream/bad", "/list/bad-2"])
def test_requests_reports_the_failure(path, site):
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            session.get(site.url + path, timeout=float(LIMIT))


def test_two_requests_at_once_are_answered_in_turn(site):
    """Pipelining (RFC 9112 section 9.3.2): the second must not be lost, nor mixed with the first."""
    with site.connect() as connection:
        connection.send(request("GET", "/file/good") + request("GET", "/page/second"))
        assert connection.receive().body == DATA
        # A server that keeps no connection says so, and drops the second.
        assert [answer.body for answer in connection.rest()] in ([], [b"plain page\n"])


def test_the_page_about_servers_is_what_the_table_says():
    assert server_table.is_current(), "run python tests/support/server_table.py"
