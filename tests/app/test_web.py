"""Cookies, the check of the origin, and errors for people and for programs."""

from __future__ import annotations

import pytest
from support.reference_app import HTML, SAME_SITE, post_files

from securefs.app.pages import harmless
from securefs.app.web import attachment


def test_a_download_is_saved_and_never_shown(site):
    (file,) = site.upload(("x.html", b"<script>")).json["files"]
    headers = site.get(file["url"]).headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment; filename=\"x.html\"; filename*=UTF-8''x.html"
    assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["ETag"] == f'"{file["id"]}"'


@pytest.mark.parametrize(
    ("scheme", "name", "secure"), [("http", "securefs", False), ("https", "__Host-securefs", True)]
)
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site, scheme, name, secure):
    secret = site.tokens.issue("carol").secret
    with site.client.post(
        "/login", data={"token": secret}, headers=SAME_SITE, base_url=f"{scheme}://localhost"
    ) as response:
        cookie = response.headers["Set-Cookie"]
    parts = cookie.split("; ")
    assert parts[0].startswith(f"{name}=sfs_")
    assert secret not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts)
    assert ("Secure" in parts) is secure


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        pytest.param({"Sec-Fetch-Site": "same-origin"}, True, id="own page"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, False, id="other site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, False, id="neighbouring host"),
        pytest.param(
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
            False,
            id="other site, forged origin",
        ),
        pytest.param({"Origin": "http://localhost"}, True, id="own origin"),
        pytest.param({"Origin": "http://evil.example"}, False, id="other origin"),
        pytest.param({"Origin": "http://localhost.evil.example"}, False, id="origin that begins like ours"),
        pytest.param({"Origin": "null"}, False, id="null origin"),
        pytest.param({}, False, id="nothing said"),
    ],
)
def test_another_site_cannot_make_a_browser_act(site, headers, allowed):
    browser = site.browser()
    with post_files(browser, [("a", b"1")], headers) as response:
        assert response.status_code == (201 if allowed else 403)
    assert len(site.stored()) == allowed
    if not allowed:
        with browser.post("/files", headers={**headers, **HTML}) as response:
            assert response.status_code == 403
            assert "did not come from this site" in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PUT", "/files", 405),
        ("GET", "/login", 405),
        ("GET", "/files/..%2f..%2fetc", 404),
        ("GET", "/files/" + "0" * 64, 404),
        ("GET", "/files//", 404),
    ],
)
def test_errors_are_a_page_for_people_and_a_problem_for_programs(site, method, path, status):
    with site.client.open(path, method=method, headers=site.alice) as response:
        assert response.status_code == status
        assert response.mimetype == "application/problem+json"
        assert response.json["status"] == status
        assert ("Allow" in response.headers) is (status == 405)
    with site.client.open(path, method=method, headers={**site.alice, **HTML}) as response:
        assert response.status_code == status
        assert 'role="alert"' in response.text


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
