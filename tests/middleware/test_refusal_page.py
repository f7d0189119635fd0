"""What people see of a refusal: a page that says what to do next and leads back."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from support.uploads import browser_body, file
from support.wsgi_client import Input, call

from securefs import Keyring
from securefs.middleware import Policy, SecureFS
from securefs.middleware.refusal_page import POLICY, page, wants_page

KEYRING = Keyring(bytes(range(32)))
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
STATUSES = [400, 401, 408, 413, 415, 500, 503, 507]


class Page(HTMLParser):
    """Collects the tags, the links and the text of a page."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(body.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"href", "src", "action"}]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (FIREFOX, True),
        (CHROMIUM, True),
        ("text/html", True),
        ("TEXT/HTML;Q=0.5", True),
        ("application/json;q=0.5, text/html", True),
        ("application/json, text/html", True),
        ("application/json, text/html;q=0.9", False),
        ("application/problem+json, text/html;q=0.9, application/json;q=0.1", False),
        ("*/*", False),
        ("text/*", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("text/html;q=\u0661", False),
        ("text/html;level=1;q=0.3", True),
        ("application/json", False),
        ("image/avif,image/webp,*/*;q=0.8", False),
        ("", False),
        (";;,,=", False),
    ],
)
def test_who_gets_a_page(accept, wanted):
    assert wants_page({"HTTP_ACCEPT": accept}) is wanted
    assert not wants_page({})


@pytest.mark.parametrize("status", STATUSES)
def test_a_page_says_what_to_do_and_which_request_it_was(status):
    seen = Page(page({}, status, "Title.", "more than 3 files (max_files)", "request-1"))
    assert "Title." in seen.text
    assert "more than 3 files (max_files)" in seen.text
    assert "request-1" in seen.text
    assert seen.links == ["/"]
    assert not {"script", "img", "form", "link", "iframe"} & set(seen.tags)
    assert "The rule" not in Page(page({}, status, "Title.", None, "request-1")).text


def test_what_a_client_sent_is_text_on_the_page():
    seen = Page(page({}, 400, "T", "<script>alert(1)</script>", "request-1"))
    assert "script" not in seen.tags
    assert "<script>alert(1)</script>" in seen.text


@pytest.mark.parametrize(
    ("environ", "link"),
    [
        ({}, "/"),
        ({"SCRIPT_NAME": "/app"}, "/app/"),
        ({"SCRIPT_NAME": "/\u00c3\u00bc"}, "/%C3%BC/"),
        ({"HTTP_REFERER": "https://h/form?a=1&b=2"}, "/form?a=1&b=2"),
        ({"HTTP_REFERER": "http://h/"}, "/"),
        ({"HTTP_REFERER": "http://h"}, "/"),
        ({"HTTP_REFERER": "https://h/a%20b/%C3%BC"}, "/a%20b/%C3%BC"),
        ({"HTTP_REFERER": "https://h//evil.example/x"}, "/evil.example/x"),
        ({"HTTP_REFERER": "https://h/\\evil.example"}, "/evil.example"),
        ({"HTTP_REFERER": "https://evil.example/form"}, "/"),
        ({"HTTP_REFERER": "https://h:80/form"}, "/"),
        ({"HTTP_REFERER": "https://h@evil.example/form"}, "/"),
        ({"HTTP_REFERER": "javascript:alert(1)"}, "/"),
        ({"HTTP_REFERER": "javascript://h/%0aalert(1)"}, "/"),
        ({"HTTP_REFERER": "http://[h/form"}, "/"),
        ({"HTTP_REFERER": 'https://h/"><script>'}, "/%22%3E%3Cscript%3E"),
        ({"HTTP_REFERER": "//h/form"}, "/"),
    ],
)
def test_the_way_back_stays_on_this_site(environ, link):
    assert Page(page({"HTTP_HOST": "h", **environ}, 400, "T", None, "r")).links == [link]


def test_the_style_of_the_page_is_the_one_that_the_policy_allows():
    style = re.search(rb"<style>(.*?)</style>", page({}, 400, "T", None, "r"))[1]
    import hashlib
    from base64 import b64encode

    assert b64encode(hashlib.sha256(style).digest()).decode() in POLICY


def stored(environ, start_response):
    while environ["wsgi.input"].read(65_536):
        pass
    start_response("200 OK", [])
    return [b""]


def send(journal, accept=FIREFOX, method="POST", length=None, **options):
    app = SecureFS(stored, keyring=KEYRING, journal=journal, policy=Policy(max_files=1), **options)
    body = browser_body([file(), file()])
    kind = "multipart/form-data; boundary=----geckoformboundary00112233445566778899aabbccddeeff"
    headers = [("Host", "h"), ("Content-Type", kind), ("Accept", accept), ("Referer", "https://h/form")]
    if length == "absent":
        body, headers = Input(body), [*headers, ("Transfer-Encoding", "chunked")]
    return call(app, method, "/upload", body=body, headers=headers)


def test_a_browser_gets_a_page_and_others_get_json(journal):
    answer = send(journal)
    assert (answer.status, answer.headers["content-type"]) == (413, "text/html; charset=utf-8")
    seen = Page(answer.body)
    assert "max_files" in seen.text
    assert seen.links == ["/form"]
    assert answer.headers["x-request-id"] in seen.text
    assert send(journal, "*/*").headers["content-type"] == "application/problem+json"
    assert send(journal, method="HEAD").body == b""
    assert journal.records("file.rejected")[0]["obj"]["rule"] == "more than 1 files (max_files)"


# --- on_refusal


def test_an_app_renders_refusals_in_its_way(journal):
    seen = []

    def on_refusal(environ, problem):
        seen.append((environ["PATH_INFO"], problem.status, problem.detail, problem.title))
        return problem.line, [("Content-Type", "text/plain"), ("X-Request-ID", problem.request_id)], b"ours"

    answer = send(journal, on_refusal=on_refusal)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (413, b"ours", "text/plain")
    assert answer.headers["x-request-id"] == journal.records("file.rejected")[0]["req"]
    title = "The request exceeds a limit."
    assert seen == [("/upload", 413, "more than 1 files (max_files)", title)]
    assert send(journal, method="HEAD", on_refusal=on_refusal).body == b""


GOOD = ("413 Content Too Large", [("Content-Type", "text/plain")], b"ours")


@pytest.mark.parametrize(
    "rendered",
    [
        pytest.param(LookupError("no template\nGET '/': all is well"), id="raises"),
        pytest.param(b"x", id="one thing"),
        pytest.param((*GOOD[:2], "ours"), id="text"),
        pytest.param((*GOOD[:2], 4096), id="a number for a body"),
        pytest.param((413, *GOOD[1:]), id="a number for a status"),
        pytest.param(("Content Too Large", *GOOD[1:]), id="a status line without a number"),
        pytest.param(("100 Continue", *GOOD[1:]), id="a status that is not final"),
        pytest.param((GOOD[0], [("Content-Type", 5)], GOOD[2]), id="a number for a header"),
        pytest.param((GOOD[0], ["Content-Type"], GOOD[2]), id="a header without a value"),
        pytest.param((GOOD[0], [("X-Path", "/\r\nX: y")], GOOD[2]), id="a header with a line end"),
        pytest.param((GOOD[0], [("X-Path", "/\u20ac")], GOOD[2]), id="a header that is not latin-1"),
    ],
)
def test_an_app_that_fails_to_render_is_logged_and_the_client_gets_our_answer(rendered, journal, caplog):
    def on_refusal(environ, problem):
        if isinstance(rendered, Exception):
            raise rendered
        return rendered

    answer = send(journal, "*/*", on_refusal=on_refusal)
    assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")
    (message,) = [message for message in caplog.messages if "on_refusal failed" in message]
    assert message.isprintable()
    assert caplog.text.count("\n") == len(caplog.messages)


def test_an_app_that_renders_a_refusal_gets_nothing_of_what_was_refused(journal):
    """Its form parser would find plaintext there."""
    seen = []

    def on_refusal(environ, problem):
        length = environ["CONTENT_LENGTH"], environ.get("HTTP_TRANSFER_ENCODING")
        seen.append((environ["wsgi.input"].read(), *length))
        environ.clear()
        return GOOD

    assert send(journal, on_refusal=on_refusal).body == b"ours"
    assert send(journal, on_refusal=on_refusal, length="absent").body == b"ours"
    assert seen == 2 * [(b"", "0", None)]


def test_an_app_may_leave_a_refusal_to_us(journal):
    assert send(journal, "*/*", on_refusal=lambda environ, problem: None).status == 413


def test_an_app_that_renders_learns_no_more_of_a_stored_file_than_a_client(journal):
    seen = []

    def serving(environ, start_response):
        start_response("200 OK", [])
        return [b"planted"]

    policy = Policy(protected_paths=("/files/*",))
    app = SecureFS(
        serving, keyring=KEYRING, journal=journal, policy=policy, on_refusal=lambda *a: seen.append(a)
    )
    assert call(app, path="/files/1").status == 500
    assert (seen[0][1].status, seen[0][1].detail) == (500, None)
