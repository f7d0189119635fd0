"""Conditional requests for files that the app gave no entity tag."""

from __future__ import annotations

import io

import pytest
from support.sealing import RING, pattern, seal, seal_1
from support.wsgi_client import call

from securefs import Suite
from securefs.header import claimed_object_id
from securefs.middleware import Policy, SecureFS
from securefs.middleware.conditions import entity_tag, failed_condition

TEXT = pattern(200_000)
STORED = seal(TEXT)
OTHER = seal(TEXT[::-1], label="the next version")
TAG, OTHER_TAG = entity_tag(claimed_object_id(STORED)), entity_tag(claimed_object_id(OTHER))


def by_file(environ, stored):
    return environ["wsgi.file_wrapper"](io.BytesIO(stored))


def by_generator(environ, stored):
    return (stored[at : at + 9000] for at in range(0, len(stored), 9000))


def ask(
    journal, method="GET", stored=STORED, source=by_file, headers=(), status="200 OK", policy=None, **asked
):
    def app(environ, start_response):
        sent = [("Content-Type", "a/b"), ("Content-Language", "en"), ("Cache-Control", "private"), *headers]
        start_response(status, [*sent, ("Content-Length", str(len(stored)))])
        return source(environ, stored)

    app = SecureFS(app, keyring=RING, journal=journal, policy=policy or Policy())
    lines = [(name.replace("_", "-"), value) for name, value in asked.items()]
    return call(app, method, "/f", headers=lines, SERVER_SOFTWARE="gunicorn/27")


def test_a_tag_is_of_one_object_and_does_not_name_it():
    assert TAG != OTHER_TAG
    assert entity_tag(claimed_object_id(seal(TEXT, Suite.GCM))) == TAG
    assert len(TAG) == 34
    assert claimed_object_id(STORED)[:8] not in TAG


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("If-None-Match", TAG, "304"),
        ("If-None-Match", f"W/{TAG}", "304"),
        ("If-None-Match", f'"x", W/"y,z" ,{TAG}', "304"),
        ("If-None-Match", " * ", "304"),
        ("If-None-Match", OTHER_TAG, None),
        ("If-None-Match", TAG.strip('"'), None),
        ("If-None-Match", "", None),
        ("If-Match", TAG, None),
        ("If-Match", f'"x",{TAG}', None),
        ("If-Match", "*", None),
        ("If-Match", f"W/{TAG}", "412"),
        ("If-Match", OTHER_TAG, "412"),
        ("If-Match", "", "412"),
    ],
)
def test_conditions_are_compared_as_the_rfc_says(header, value, status):
    name = f"HTTP_{header.upper().replace('-', '_')}"
    for method in ("GET", "HEAD"):
        failed = failed_condition({"REQUEST_METHOD": method, name: value}, TAG)
        assert (failed and failed[:3]) == status
    assert failed_condition({"REQUEST_METHOD": "POST", name: value}, TAG) is None


def test_if_match_comes_first():
    both = {"REQUEST_METHOD": "GET", "HTTP_IF_MATCH": OTHER_TAG, "HTTP_IF_NONE_MATCH": TAG}
    assert failed_condition(both, TAG).startswith("412")


@pytest.mark.parametrize("verify_first", [0, None])
@pytest.mark.parametrize("source", [by_file, by_generator])
def test_a_file_without_a_tag_gets_one(source, verify_first, journal):
    policy = Policy(verify_first=verify_first)
    for method in ("GET", "HEAD"):
        answer = ask(journal, method, source=source, policy=policy)
        assert (answer.status, answer.headers["etag"]) == (200, TAG)
    assert ask(journal, source=source, policy=policy, Range="bytes=0-9").headers["etag"] == TAG
    recorded = len(journal.records())
    for method in ("GET", "HEAD"):
        for conditions, status in (({"If_None_Match": TAG}, 304), ({"If_Match": OTHER_TAG}, 412)):
            answer = ask(journal, method, source=source, policy=policy, Range="bytes=0-9", **conditions)
            assert (answer.status, answer.body, answer.error) == (status, b"", None)
            length = {"content-length": "0"} if status == 412 else {}
            assert answer.headers == {"etag": TAG, "cache-control": "private"} | length
    assert len(journal.records()) == recorded


@pytest.mark.parametrize("source", [by_file, by_generator])
def test_a_resumed_download_never_joins_two_files(source, journal):
    asked = {"Range": "bytes=100-199", "If_Range": TAG, "source": source}
    answer = ask(journal, **asked)
    assert (answer.status, answer.body) == (206, TEXT[100:200])
    answer = ask(journal, stored=OTHER, **asked)
    assert (answer.status, answer.body) == (200, TEXT[::-1])


def test_a_changed_file_is_not_said_to_be_the_same(journal):
    for changed in (STORED[:-1000], STORED[:100] + b"?" + STORED[101:]):
        assert ask(journal, stored=changed, If_None_Match=TAG).status == 500


def test_the_app_s_own_tag_counts(journal):
    answer = ask(journal, headers=[("etag", '"own"')], If_None_Match=TAG)
    assert (answer.status, answer.headers["etag"], answer.body) == (200, '"own"', TEXT)


@pytest.mark.parametrize("status", ["404 Not Found", "201 Created"])
def test_another_status_gets_no_tag(status, journal):
    answer = ask(journal, status=status, If_None_Match=TAG)
    assert (answer.status, answer.body, "etag" in answer.headers) == (int(status[:3]), TEXT, False)


def test_format_1_has_no_tag(journal):
    policy = Policy(format_1_paths=("/f",))
    answer = ask(journal, stored=seal_1(TEXT), policy=policy, If_None_Match="*")
    assert (answer.status, answer.body, "etag" in answer.headers) == (200, TEXT, False)


def test_a_page_gets_no_tag(journal):
    answer = ask(journal, stored=b"a page", If_None_Match="*")
    assert (answer.status, "etag" in answer.headers) == (200, False)
