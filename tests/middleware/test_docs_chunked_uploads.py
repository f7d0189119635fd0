"""docs/chunked-uploads.md: what each widget sends is refused. ``cli/test_recover.py`` runs its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.uploads import BROWSER_TYPE, browser_body, field, file

from securefs.middleware import Policy

PAGE = (Path(__file__).resolve().parents[2] / "docs/chunked-uploads.md").read_text("utf-8")
TABLE = re.search(r"^\| widget \|.*\n\| ---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)[1]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines()]
WIDGETS = [
    *("Dropzone", "Resumable.js", "Flow.js, ng-flow", "Fine Uploader", "Plupload", "jQuery File Upload"),
    *("FilePond", "Uppy", "tus (tus-js-client and others)", "drf-chunked-upload", "django-chunked-upload"),
]


def code_in(text):
    return re.findall(r"`([^`]+)`", text)


def test_the_page_has_each_widget():
    assert [row[0] for row in ROWS] == WIDGETS


def requests_of(marks):
    """Yield (type, body, headers) of each request that a row of the table speaks of."""
    names = code_in(marks)
    alternatives = [names] if " and " in marks else [[name] for name in names]
    for some in alternatives:
        if some[0] == "Content-Range":
            yield BROWSER_TYPE, browser_body([file()]), [("Content-Range", "bytes 0-9/100")]
        elif some[0] == "Upload-Offset":
            yield "application/octet-stream", b"piece", [("Upload-Offset", "0")]
        elif "/" in some[0]:
            yield some[0], b"piece", []
        else:
            yield BROWSER_TYPE, browser_body([*[field(name, b"0") for name in some], file()]), []


@pytest.mark.parametrize(("widget", "marks"), [pytest.param(*row[:2], id=row[0]) for row in ROWS])
def test_what_it_sends_is_refused_and_allowed_on_demand(lab_of, widget, marks):
    requests = list(requests_of(marks))
    assert requests, widget
    for kind, body, headers in requests:
        for setting, status in (("refuse", 400), ("allow", 200)):
            lab = lab_of(policy=Policy(chunked_uploads=setting))
            assert lab.post(kind, body, headers).status == status


@pytest.mark.parametrize(
    "name", re.findall(r"`(\w+)`", PAGE.partition("**A single piece**")[2].partition("\n- **")[0])
)
def test_each_number_of_pieces_that_the_page_names_lets_a_single_piece_pass(lab_of, name):
    marks = [field(mark, b"0") for row in ROWS for mark in code_in(row[1]) if "-" not in mark]
    for value, status in ((b"1", 200), (b"3", 400)):
        for parts in ([*marks, field(name, value), file()], [file(), *marks, field(name, value)]):
            others = [part for part in parts if part.name != name] if name == "chunks" else parts
            extra = [field(name, value)] if name == "chunks" else []
            body = browser_body([*extra, *others] if parts[-1].filename else [*others, *extra])
            assert lab_of(policy=Policy()).post(BROWSER_TYPE, body).status == status
