"""Pieces of files, as browser widgets send them: recognised in any order of parts, and refused with the remedy."""

from __future__ import annotations

import pytest
from support.uploads import BROWSER_TYPE, MIB, browser_body, field, file, problem_of, seen_by

from securefs.errors import Reason
from securefs.middleware import BodyRefusedError, Policy
from securefs.middleware.chunks import ChunkedUploadError, ChunkWatch

MARKS = [
    ["dzchunkindex"],
    ["dzchunkbyteoffset"],
    ["resumableChunkNumber"],
    ["flowChunkNumber"],
    ["qqpartindex"],
    ["chunk", "chunks"],
    ["chunks", "chunk"],
]
ALLOWED = Policy(chunked_uploads="allow", raw_uploads=("/raw",))
REFUSED = Policy(raw_uploads=("/raw",))


def watch(*, content_range=False):
    return ChunkWatch(content_range=content_range)


@pytest.mark.parametrize("names", MARKS, ids=" ".join)
def test_a_file_beside_such_fields_is_a_piece_in_any_order(names):
    before = watch()
    for name in names:
        before.add_field(name)
    with pytest.raises(ChunkedUploadError, match=f"beside {' and '.join(sorted(names))}") as caught:
        before.add_file()
    assert caught.value.reason is Reason.CHUNKED_UPLOAD
    assert 'Policy(chunked_uploads="allow")' in str(caught.value)
    behind = watch()
    behind.add_file()
    for name in names:
        behind.add_field(name)
    with pytest.raises(ChunkedUploadError):
        behind.finish()


def test_other_fields_and_one_of_a_pair_are_no_mark():
    one = watch()
    for name in ("chunk", "dztotalfilesize", "Chunks", "resumablechunknumber", ""):
        one.add_field(name)
    one.add_file()
    one.add_query("chunk=1&a=b&chunk=2")


def test_a_content_range_counts_beside_a_file_alone():
    one = watch(content_range=True)
    one.add_field("a")
    with pytest.raises(ChunkedUploadError, match="a Content-Range"):
        one.add_file()
    with pytest.raises(ChunkedUploadError, match="a Content-Range"):
        watch().add_file(ranged=True)


def test_a_query_is_looked_through_up_to_a_number_of_pairs():
    one = watch()
    one.add_query("chunks=3&chunk")
    with pytest.raises(ChunkedUploadError):
        one.add_file()
    long = watch()
    long.add_query("a&" * 1000 + "flowChunkNumber=1")
    long.add_file()


@pytest.mark.parametrize("names", MARKS, ids=" ".join)
def test_a_piece_is_refused_with_a_reason_of_its_own_and_taken_where_that_is_allowed(lab_of, names):
    parts = [*[field(name, b"0") for name in names], file()]
    lab = lab_of(policy=REFUSED)
    answer = lab.post(BROWSER_TYPE, browser_body(parts))
    assert problem_of(answer)["status"] == 400
    (record,) = lab.records("file.rejected")
    assert record["reason"] == "chunked_upload"
    assert lab.app.calls == 0
    lab = lab_of(policy=ALLOWED)
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == 200
    assert seen_by(lab.app) == parts


def test_a_mark_behind_a_file_that_streams_is_found(lab_of):
    lab = lab_of(policy=REFUSED)
    answer = lab.post(BROWSER_TYPE, browser_body([file(content=bytes(3 * MIB)), field("qqpartindex")]))
    assert answer.status == 400
    assert isinstance(lab.app.error, BodyRefusedError)
    assert [record["reason"] for record in lab.records("file.rejected")] == ["chunked_upload"]


def test_fields_alone_are_no_piece(lab_of):
    lab = lab_of(policy=REFUSED)
    parts = [field("dzchunkindex"), file(filename="", content=b"")]
    headers = [("Content-Range", "bytes 0-1/9")]
    assert lab.post(BROWSER_TYPE, browser_body(parts), headers).status == 200


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        pytest.param("/upload", BROWSER_TYPE, browser_body([file()]), id="form"),
        pytest.param("/raw", "image/png", b"canary", id="raw"),
    ],
)
def test_a_request_with_a_content_range_is_a_piece(lab_of, path, kind, body):
    headers = [("Content-Range", "bytes 0-99/1000")]
    lab = lab_of(policy=REFUSED)
    assert lab.post(kind, body, headers, path).status == 400
    assert [record["reason"] for record in lab.records("file.rejected")] == ["chunked_upload"]
    assert lab.app.calls == 0
    lab = lab_of(policy=ALLOWED)
    assert lab.post(kind, body, headers, path).status == 200
    assert b"canary" not in lab.app.got


def test_a_raw_body_with_marks_in_its_query_is_a_piece(lab_of):
    for policy, status in ((REFUSED, 400), (ALLOWED, 200)):
        lab = lab_of(policy=policy)
        answer = lab.post("image/png", b"canary", path="/raw", QUERY_STRING="name=a&chunk=0&chunks=3")
        assert answer.status == status


def test_a_content_range_on_a_body_that_is_no_upload_is_the_app_s(lab_of):
    lab = lab_of(policy=REFUSED)
    assert lab.post("application/json", b"{}", [("Content-Range", "bytes 0-1/2")]).status == 200


@pytest.mark.parametrize("path", ["/files/1", "/raw"])
@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        pytest.param("application/offset+octet-stream", [("Upload-Offset", "0")], id="tus"),
        pytest.param("application/octet-stream", [("Upload-Offset", "100")], id="offset"),
        pytest.param("Application/Offset+Octet-Stream; a=b", [("Upload-Length", "9")], id="creation"),
        pytest.param("application/partial-upload", [("Upload-Complete", "?0")], id="draft"),
        pytest.param(BROWSER_TYPE, [("Upload-Offset", "0")], id="form"),
    ],
)
def test_what_tus_sends_is_a_piece_on_any_path(lab_of, kind, headers, path):
    """On a path that is not declared, it would pass without encryption."""
    body = browser_body([file()]) if kind == BROWSER_TYPE else b"canary"
    lab = lab_of(policy=REFUSED)
    assert lab.post(kind, body, headers, path, REQUEST_METHOD="PATCH").status == 400
    (record,) = lab.records("file.rejected")
    assert record["reason"] == "chunked_upload"
    assert "chunked_uploads" in record["obj"]["rule"]
    assert lab.app.calls == 0
    lab = lab_of(policy=ALLOWED)
    assert lab.post(kind, body, headers, path, REQUEST_METHOD="PATCH").status == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_request_of_tus_without_a_body_is_no_piece(lab_of, method):
    """The creation of an upload, and its end."""
    lab = lab_of(policy=REFUSED)
    headers = [("Upload-Length", "100"), ("Upload-Offset", "0")]
    assert lab.post("", b"", headers, REQUEST_METHOD=method).status == 200


TOTALS = [
    pytest.param("dztotalchunkcount", ["dzchunkindex", "dzchunkbyteoffset"], id="dropzone"),
    pytest.param("resumableTotalChunks", ["resumableChunkNumber"], id="resumable"),
    pytest.param("flowTotalChunks", ["flowChunkNumber"], id="flow"),
    pytest.param("qqtotalparts", ["qqpartindex"], id="fine uploader"),
    pytest.param("chunks", ["chunk"], id="plupload"),
]


@pytest.mark.parametrize(("value", "status"), [("1", 200), ("2", 400), ("10", 400), ("", 400), ("1 ", 400)])
@pytest.mark.parametrize(("total", "marks"), TOTALS)
def test_the_only_piece_is_a_whole_file(lab_of, total, marks, value, status):
    """Some widgets always cut, so a large size of their chunks is how to turn that off."""
    lab = lab_of(policy=REFUSED)
    parts = [*[field(name, b"0") for name in marks], field(total, value.encode()), file()]
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == status
    query = "&".join([*[f"{name}=0" for name in marks], f"{total}={value.replace(' ', '+')}"])
    lab = lab_of(policy=REFUSED)
    assert lab.post("image/png", b"canary", path="/raw", QUERY_STRING=query).status == status


def test_the_number_of_pieces_counts_in_any_order_behind_a_file(lab_of):
    """Of a mark before the file, it must come before the file, too: later, the app had read it."""
    for parts, status in (
        ([file(), field("flowTotalChunks", b"1"), field("flowChunkNumber", b"1")], 200),
        ([file(), field("flowChunkNumber", b"1"), field("flowTotalChunks", b"1")], 200),
        ([file(), field("flowChunkNumber", b"1"), field("flowTotalChunks", b"2")], 400),
        ([file(), field("flowChunkNumber", b"1")], 400),
        ([field("flowChunkNumber", b"1"), file(), field("flowTotalChunks", b"1")], 400),
    ):
        lab = lab_of(policy=REFUSED)
        assert lab.post(BROWSER_TYPE, browser_body(parts)).status == status


def test_the_only_piece_is_none_beside_a_content_range(lab_of):
    lab = lab_of(policy=REFUSED)
    ranged = [field("flowTotalChunks", b"1"), file()]
    headers = [("Content-Range", "bytes 0-9/100")]
    assert lab.post(BROWSER_TYPE, browser_body(ranged), headers).status == 400
