"""The pages: what came from a user stays text."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from securefs.app.pages import PAGE_HEADERS, Row, error_page, harmless, list_page, login_page
from securefs.app.web import attachment

ROW = Row("0" * 64, "name", "text/plain", 1, 0)


def row(**changes):
    return Row(**{field: changes.get(field, getattr(ROW, field)) for field in Row.__slots__})


@pytest.mark.parametrize(
    "html",
    [
        pytest.param(login_page(), id="login"),
        pytest.param(login_page("wrong"), id="login error"),
        pytest.param(list_page("alice", []), id="empty"),
        pytest.param(list_page("alice", [ROW], notice="done", page=2, more=True), id="list"),
        pytest.param(error_page("Not Found", "nothing there"), id="error"),
    ],
)
def test_the_policy_allows_the_one_style_sheet_and_nothing_else_is_there(html):
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in PAGE_HEADERS["Content-Security-Policy"]
    assert "style=" not in html
    assert "<script" not in html
    assert not re.search(r"\son[a-z]+=", html)
    assert html.count("<h1>") == 1
    for control in re.findall(r'<input id="([a-z]+)"', html):
        assert f'<label for="{control}">' in html


def test_names_are_text_and_nothing_more():
    html = list_page('<i>"&', [row(name="<script>\"'&\u202e\n")], notice="<b>")
    assert "<script" not in html
    assert "<i>" not in html
    assert "<b>" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;&#34;&#39;&amp;\ufffd\ufffd" in html


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes_are_told_in_binary_units(size, text):
    assert f">{text}</td>" in list_page("alice", [row(size=size)])


def test_a_broken_file_can_be_deleted_and_not_downloaded():
    html = list_page("alice", [row(broken=True)])
    assert "cannot be opened" in html
    assert "Delete" in html
    assert "Download" not in html


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
        ("ü x.txt", "attachment; filename=\"_ x.txt\"; filename*=UTF-8''%C3%BC%20x.txt"),
        ('a"b\\c%41', "attachment; filename=\"a_b_c_41\"; filename*=UTF-8''a%22b%5Cc%2541"),
        (
            "a\r\nSet-Cookie: x",
            "attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a__Set-Cookie%3A%20x",
        ),
        ("inv\u202efdp.exe", "attachment; filename=\"inv_fdp.exe\"; filename*=UTF-8''inv_fdp.exe"),
        ("\ud800", "attachment; filename=\"_\"; filename*=UTF-8''%3F"),
        ("🦊", "attachment; filename=\"_\"; filename*=UTF-8''%F0%9F%A6%8A"),
    ],
)
def test_a_name_becomes_a_header_that_holds_nothing_else(name, value):
    assert attachment(name) == value


def test_ordinary_names_of_any_script_stay_as_they_are():
    for name in ("日本語　名.pdf", "שלום.txt", "👨\u200d👩\u200d👧.png", "a\u00a0b"):
        assert harmless(name) == name
