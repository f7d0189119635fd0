"""docs/bounds.md says how much longer an upload becomes, and which limits of apps count that: each number is asked of the core."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import flask
import pytest
from support.frameworks import cherrypy_app, django_routes, flask_app
from support.uploads import KEYRING, MIB, Lab
from support.wsgi_client import multipart

from securefs import Suite
from securefs.metadata import encode_metadata
from securefs.middleware import Policy
from securefs.middleware.bound import LONGEST_METADATA, MAX_SEALED_NAME, STREAMED_FILES, Bound
from securefs.middleware.media_type import MAX_MEDIA_TYPE
from securefs.middleware.servers import MAX_EPILOGUE
from securefs.sealer import NewFiles

KIB = 1024
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "bounds.md").read_text("utf-8")
SECTION = PAGE.partition("## How much longer an upload becomes")[2].partition("\n## ")[0]
SUITES = [pytest.param(suite, id=suite.label) for suite in Suite]
# Frameworks leave temporary files to the garbage collector, which may come at any time.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def figures(pattern: str) -> list[int]:
    match = re.search(pattern, " ".join(SECTION.split()))
    assert match, pattern
    return [int(group.replace(",", "")) for group in match.groups()]


LONGER, PER_FILE, FILES = figures(
    r"n \+ n/1024 \+ (\d+) KiB \+ (\d+) KiB for each file that may still follow \(`max_files`, at most (\d+)\)"
)


def most(size: int, max_files: int = 100) -> int:
    """What the page says of a longer form."""
    return size + size // 1024 + KIB * (LONGER + PER_FILE * min(max_files, FILES))


def new_files(suite: Suite) -> NewFiles:
    return NewFiles(KEYRING, 2, suite)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("max_files", [1, 2, 100, 300, 5000])
def test_the_upper_bound_is_the_page_s(max_files, suite):
    """With a boundary of the usual length, wherever in the body the length is announced."""
    assert FILES == STREAMED_FILES
    policy = Policy(max_files=max_files)
    for size in (0, MIB, 100 * MIB, 2**40):
        one = Bound(policy, new_files(suite).most_overhead, boundary=40, longer=0)
        assert one.announce(size, None) <= most(size, max_files)
        one = Bound(policy, new_files(suite).most_overhead, boundary=40, longer=0)
        one.add_file()
        begun = new_files(suite).sealer(b"", {"name": "n" * MAX_SEALED_NAME, "type": "a/b"})

        # A file that has begun has given its header at least.
        class Begun:
            taken, given = 0, begun.stored_length(0) - 100

        assert one.announce(size, Begun()) <= most(size, max_files)
    # And no number on the page is far from what it is.
    assert (
        most(0, 1)
        - Bound(Policy(max_files=1), new_files(suite).most_overhead, boundary=40, longer=0).announce(0, None)
        < 3 * KIB
    )


def test_the_default_is_the_page_s():
    assert Policy().max_files == figures(r"With the default of (\d+) files")[0]
    (total,) = figures(r"default of 100 files, n \+ n/1024 \+ (\d+) KiB")
    core = Bound(Policy(), new_files(Suite.GCM).most_overhead, boundary=40, longer=0).announce(0, None)
    assert core <= total * KIB < core + 4 * KIB


@pytest.mark.parametrize("suite", SUITES)
def test_a_stored_file_is_as_much_longer_as_the_page_says(suite):
    short, longest, rounded = figures(
        r"some (\d+) bytes with a short name, at most ([\d,]+) with the longest .* rounded up by up to (\d+) bytes"
    )
    new = new_files(suite)
    for size in (0, 1, 1000, 65_536, MIB, 2**30):
        usual = new.sealer(b"", {"name": "letter.pdf", "type": "application/pdf"}).stored_length(size)
        assert abs(usual - size - size // 1024 - short) <= 60
        metadata = {"name": '"' * MAX_SEALED_NAME, "type": '"' * MAX_MEDIA_TYPE}
        assert len(encode_metadata(metadata)) <= LONGEST_METADATA
        assert new.sealer(b"", metadata).stored_length(size) <= size + size // 1024 + longest
    assert new.most_overhead(LONGEST_METADATA) == longest
    lengths = [new.sealer(b"", {}).stored_length(size) - size for size in range(100, 132)]
    assert max(lengths) - min(lengths) == (rounded if suite is Suite.CBC_HMAC else 0)


# --- what the app sees


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    ("size", "how"),
    [
        pytest.param(0, {}, id="empty"),
        pytest.param(500_000, {}, id="up to 1 MiB"),
        pytest.param(3 * MIB, {"spool": True}, id="spool"),
        pytest.param(3 * MIB, {"chunked": True}, id="chunked"),
        pytest.param(100, {"chunked": True}, id="chunked, short"),
        pytest.param(3 * MIB, {}, id="longer"),
    ],
)
def test_where_the_length_is_exact(size, how, suite, tmp_path):
    """Exact is: the last byte that the app reads is that of the closing boundary's line."""
    lab = Lab(tmp_path, policy=Policy(suite=suite, spool=how.get("spool", False)))
    kind, body = multipart(("f", "a.bin", b"x" * size))
    more = {"length": "absent", "wsgi.input_terminated": True} if "chunked" in how else {}
    assert lab.post(kind, body, **more).status == 200
    app = lab.app
    assert len(app.got) == app.length
    exact = app.got.endswith(b"--\r\n") and not app.got.endswith(b"\r\n\r\n")
    assert exact is not (size > MIB and not how)
    if not exact:
        assert app.length <= most(len(body))


@pytest.mark.parametrize("length", ["absent", None], ids=["chunked", "with its length"])
@pytest.mark.parametrize("suite", SUITES)
def test_on_a_raw_path_it_is_the_stored_file_s(suite, length, tmp_path):
    lab = Lab(tmp_path, policy=Policy(suite=suite, raw_uploads=("/raw",)))
    more = {} if length is None else {"length": "absent", "wsgi.input_terminated": True}
    assert lab.post("application/pdf", b"x" * (2 * MIB), path="/raw", **more).status == 200
    assert lab.app.length == len(lab.app.got)
    assert lab.app.length <= 2 * MIB + 2 * KIB + 2852


def test_any_other_body_has_the_client_s(tmp_path):
    lab = Lab(tmp_path)
    assert lab.post("application/json", b"[1]").status == 200
    assert lab.app.length == 3


# --- the limits of apps


def uploaded(app, folder, size, **policy) -> int:
    kind, body = multipart(("f", "a.bin", b"x" * size))
    lab = Lab(folder, app, policy=Policy(**policy))
    return lab.post(kind, body, path="/upload").status


@pytest.mark.parametrize("size", [500_000, 3 * MIB])
def test_flask_counts_the_body(size, tmp_path):
    app = flask_app(tmp_path)
    length = len(multipart(("f", "a.bin", b"x" * size))[1])
    app.config["MAX_CONTENT_LENGTH"] = length
    assert uploaded(app, tmp_path, size) == 413
    app.config["MAX_CONTENT_LENGTH"] = most(length)
    assert uploaded(app, tmp_path, size) == 200
    assert "`MAX_CONTENT_LENGTH`" in SECTION


def test_cherrypy_leaves_its_limit_to_its_server(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import cherrypy

    app, default = cherrypy_app(tmp_path), cherrypy.server.max_request_body_size
    try:
        cherrypy.server.max_request_body_size = 1
        assert uploaded(app, tmp_path, 3 * MIB) == 200
    finally:
        cherrypy.server.max_request_body_size = default


def test_werkzeug_counts_the_filling_among_what_it_keeps_in_memory(tmp_path):
    """The most filling is 448 KiB: with 300 files, and each of them could have come."""
    kib, as_bytes = figures(r"below (\d+) KiB \(([\d,]+) bytes\)")
    assert MAX_EPILOGUE == kib * KIB == as_bytes
    (default,) = figures(r"`MAX_FORM_MEMORY_SIZE` \(([\d,]+) bytes by default\)")
    assert flask.Flask("x").config["MAX_FORM_MEMORY_SIZE"] == default
    app = flask_app(tmp_path)
    for limit, status in ((as_bytes, 200), (100_000, 413)):
        app.config["MAX_FORM_MEMORY_SIZE"] = limit
        assert uploaded(app, tmp_path, 3 * MIB, max_files=300) == status


def test_django_counts_no_file_of_a_form_and_all_of_another_body(tmp_path):
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    def form_view(request):
        return HttpResponse(str(len(request.FILES)))

    def raw_view(request):
        return HttpResponse(str(len(request.body)))

    app = django_routes([path("upload", form_view), path("raw", raw_view)])
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000, FILE_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert uploaded(app, tmp_path, 3 * MIB) == 200
    size = 3 * MIB
    (allowance,) = figures(r"on a `raw_uploads` path, n/1024 \+ (\d+) KiB")
    for limit, status in ((size, 400), (size + size // 1024 + allowance * KIB, 200)):
        with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=limit):
            lab = Lab(tmp_path, app, policy=Policy(raw_uploads=("/raw",)))
            assert lab.post("application/pdf", b"x" * size, path="/raw").status == status


def test_an_app_that_checks_a_size_finds_the_plaintext_s_beside_it(tmp_path):
    seen = {}

    def app(environ, start_response):
        seen["stored"] = len(environ["wsgi.input"].read())
        seen["plain"] = environ["securefs"].uploads[0].size
        start_response("200 OK", [])
        return []

    lab = Lab(tmp_path, app, policy=Policy(raw_uploads=("/raw",)))
    assert lab.post("application/pdf", b"x" * MIB, path="/raw").status == 200
    (allowance,) = figures(r"the stored file \| n/1024 \+ (\d+) KiB")
    assert seen["plain"] == MIB < seen["stored"] <= MIB + MIB // 1024 + allowance * KIB


def test_the_policy_s_limit_counts_the_client_s_body(tmp_path):
    kind, body = multipart(("f", "a.bin", b"x" * MIB))
    for limit, status in ((len(body), 200), (len(body) - 1, 413)):
        assert Lab(tmp_path, policy=Policy(max_body=limit)).post(kind, body).status == status
