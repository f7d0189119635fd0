"""The pages: what came from a user stays text."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from securefs.app.pages import PAGE_HEADERS, Row, error_page, list_page, login_page

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
