"""Werkzeug's requests read uploads as plaintext and save ciphertext, and never the other way round."""

from __future__ import annotations

import csv
import io
import json

import pytest
from PIL import Image
from support.journals import open_descriptors
from support.sealing import BODY_START, pattern, seal
from support.uploads import BROWSER_TYPE, CANARY, KEYRING, Lab, browser_body, file
from support.wsgi_client import call
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Request as PlainRequest
from werkzeug.wrappers import Response

from securefs import ConfigurationError, FormatError, IntegrityError, Suite, open_encrypted, verify
from securefs.header import claimed_object_id
from securefs.integrations.werkzeug import Request, SealedFile, SealedRequest, send_sealed
from securefs.middleware import Policy

MIB = 1024 * 1024
TEXT = pattern(300_000)


@pytest.fixture
def lab_of(tmp_path):
    """A lab whose app is a function of a request."""
    labs = []
    (tmp_path / "store").mkdir()

    def make(view, policy=None, request_class=Request, **options):
        folder = tmp_path / f"lab {len(labs)}"
        folder.mkdir()
        if not options.pop("undeclared", False):
            options.setdefault("stores", [tmp_path / "store"])
        app = request_class.application(view)
        labs.append(Lab(folder, app, policy=policy or Policy(), **options))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def store(tmp_path, lab_of):
    return tmp_path / "store"


def upload(lab, content=TEXT, *more, filename="photo.png", kind="image/png", **options):
    parts = [file("f", content, filename, kind), *more]
    return lab.post(BROWSER_TYPE, browser_body(parts), **options)


def stored(path, **options):
    with open_encrypted(path, KEYRING, **options) as opened:
        return opened.read()


POLICIES = [
    pytest.param(Policy(), id="suite 1"),
    pytest.param(Policy(suite=Suite.GCM), id="suite 2"),
    pytest.param(Policy(format=1), id="format 1"),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MIB])
@pytest.mark.parametrize("first", ["read", "save"])
def test_an_upload_reads_as_plaintext_and_saves_as_ciphertext(policy, size, first, lab_of, store):
    content = pattern(size)

    def view(request):
        given = request.files["f"]
        if first == "read":
            assert given.read() == content
        given.save(store / "file")
        assert given.seek(0) == 0
        assert given.read() == content
        given.seek(0)
        assert b"".join(given) == content
        assert (given.filename, given.content_type, given.upload.size) == ("photo.png", "image/png", size)
        given.save(str(store / "again"))
        return Response("stored")

    lab = lab_of(view, policy)
    assert upload(lab, content).status == 200
    for name in ("file", "again"):
        assert stored(store / name, format_1=policy.format == 1) == content
    assert [record["outcome"] for record in lab.records("file.open")] == ["success"]


def test_an_upload_that_is_only_saved_was_not_looked_at(lab_of, store):
    def view(request):
        request.files["f"].save(store / "file")
        return Response("stored")

    lab = lab_of(view)
    assert upload(lab).status == 200
    assert lab.records("file.open") == []
    assert verify(store / "file", KEYRING).size == len(TEXT)


def test_it_is_saved_to_a_file_too(lab_of, store):
    def view(request):
        with (store / "file").open("wb") as target:
            request.files["f"].save(target, 1000)
        return Response("stored")

    assert upload(lab_of(view)).status == 200
    assert stored(store / "file") == TEXT


def png(size=(64, 48)):
    target = io.BytesIO()
    Image.new("RGB", size, "red").save(target, "PNG")
    return target.getvalue()


def test_readers_of_files_take_an_upload(lab_of):
    def view(request):
        image = Image.open(request.files["f"])
        rows = list(csv.reader(io.TextIOWrapper(request.files["rows"].stream, "utf-8")))
        return Response(json.dumps([image.size, rows]))

    answer = upload(lab_of(view), png(), file("rows", b"a,b\r\n1,2\r\n", "rows.csv", "text/csv"))
    assert json.loads(answer.body) == [[64, 48], [["a", "b"], ["1", "2"]]]


def test_what_an_app_puts_in_an_uploads_place_is_sealed(lab_of, store):
    """As an app does that takes the position out of photographs."""

    def view(request):
        given = request.files["f"]
        small = io.BytesIO()
        Image.open(given).resize((8, 8)).save(small, "PNG")
        given.stream = small
        given.filename = "small.png"
        given.save(store / "file")
        assert given.read(4) == b""
        return Response("stored")

    lab = lab_of(view)
    assert upload(lab, png()).status == 200
    with open_encrypted(store / "file", KEYRING) as opened:
        assert Image.open(opened).size == (8, 8)
        assert opened.metadata == {"name": "small.png", "type": "image/png"}
    assert [record["outcome"] for record in lab.records("file.encrypt")] == ["started", "success"] * 2


def test_an_empty_file_input_is_as_it_was(lab_of):
    def view(request):
        given = request.files["f"]
        return Response(json.dumps([bool(given), given.read().decode(), isinstance(given, SealedFile)]))

    assert json.loads(upload(lab_of(view), b"", filename="").body) == [False, "", False]


@pytest.mark.parametrize("policy", [Policy(plain_fields=("f", 'f"g')), Policy(plain_uploads=("/upload",))])
@pytest.mark.parametrize("field", ["f", "f%22g"])
@pytest.mark.parametrize(
    "filename", ["photo.png", "a%22b.png", "a b;c.png", "ä€.png", "a%2522.png", "a'b\\\\.png"]
)
def test_a_plain_upload_is_as_it_was(policy, field, filename, lab_of):
    def view(request):
        ((_, given),) = request.files.items()
        assert type(given) is FileStorage
        assert given.read() == TEXT
        return Response("read")

    lab = lab_of(view, policy)
    answer = lab.post(BROWSER_TYPE, browser_body([file(field, TEXT, filename)]))
    assert answer.body == b"read", [upload.filename for upload in lab.app.uploads]


def test_an_upload_that_something_between_put_there_is_refused(lab_of):
    body = browser_body([file("f", TEXT, "other.png")])

    def view(request):
        environ = {**request.environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ["CONTENT_TYPE"] = BROWSER_TYPE
        for name in ("werkzeug.request", "wsgi.input_terminated"):
            environ.pop(name, None)
        with pytest.raises(
            FormatError, match=r"the upload 'other\.png' is not what the middleware encrypted"
        ):
            _ = Request(environ).files
        return Response("refused")

    assert upload(lab_of(view)).body == b"refused"


def test_without_the_middleware_a_form_is_refused():
    body = browser_body([file("f", TEXT, "a.png")])
    request = Request.from_values(data=body, content_type=BROWSER_TYPE, method="POST")
    with pytest.raises(ConfigurationError, match=r"SecureFS is not in front of this app"):
        _ = request.files
    assert Request.from_values(data={"a": "b"}, method="POST").form["a"] == "b"


def test_an_upload_that_was_changed_on_the_disk_is_refused(lab_of):
    class Spooled(Request):
        def _get_file_stream(self, **given):
            self.spool = io.BytesIO()
            return self.spool

    def view(request):
        given = request.files["f"]
        request.spool.getbuffer()[BODY_START + 100] ^= 1
        with pytest.raises(IntegrityError, match=r"the upload 'photo\.png'"):
            given.read()
        return Response("refused")

    lab = lab_of(view, request_class=Spooled)
    assert upload(lab).body == b"refused"
    assert [record["reason"] for record in lab.records("file.integrity_failure")] == ["tag_mismatch"]


def test_a_request_of_the_apps_own_takes_the_mixin(lab_of, store):
    class Own(SealedRequest, PlainRequest):
        own = "the app's"

    def view(request):
        assert request.own == "the app's"
        return Response(request.files["f"].read())

    assert upload(lab_of(view, request_class=Own)).body == TEXT


def test_files_are_closed_with_the_request(lab_of):
    kept = []

    def view(request):
        kept.extend([request.files["f"], request.files["g"]])
        kept[0].read()
        request.close()
        return Response("closed")

    assert upload(lab_of(view), TEXT, file("g", TEXT, "b.png")).body == b"closed"
    assert kept[0].stream.closed
    assert all(given._sealed.stream.closed for given in kept)


# --- downloads


ATTACHMENT = "attachment; filename=\"photo.png\"; filename*=UTF-8''photo.png"


@pytest.fixture
def serving(lab_of, store):
    sealed = seal(TEXT, ring=KEYRING, metadata_text=b'{"name":"photo.png","type":"image/png"}')
    (store / "file").write_bytes(sealed)
    options = {}

    def view(request):
        return send_sealed(store / "file", request.environ, **options)

    return lab_of(view), options


def test_a_stored_file_is_sent_verified_and_in_ranges(serving):
    lab, _ = serving
    whole = call(lab.wrapped, watched=False)
    assert (whole.status, whole.body) == (200, TEXT)
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["content-disposition"] == ATTACHMENT
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-security-policy"] == "sandbox; default-src 'none'"
    part = call(lab.wrapped, headers=[("Range", "bytes=-10")], watched=False)
    assert (part.status, part.body) == (206, TEXT[-10:])
    events = [record["event"] for record in lab.records() if record["seq"]]
    assert events == ["file.open", "file.decrypt", "file.decrypt"] * 2


@pytest.mark.parametrize(
    ("options", "media_type", "disposition"),
    [
        (
            {"download_name": "x.jpg", "mimetype": "image/jpeg"},
            "image/jpeg",
            ATTACHMENT.replace("photo.png", "x.jpg"),
        ),
        # Its uploader chose the sealed type: nothing is shown by it.
        ({"as_attachment": False}, "application/octet-stream", ATTACHMENT.replace("attachment", "inline")),
        (
            {"as_attachment": False, "mimetype": "image/png"},
            "image/png",
            ATTACHMENT.replace("attachment", "inline"),
        ),
        # A script is no document, so it could be run by a page.
        ({"mimetype": "text/javascript"}, "text/plain", ATTACHMENT),
    ],
)
def test_the_app_says_how_it_is_shown(options, media_type, disposition, serving):
    lab, chosen = serving
    chosen |= options
    answer = call(lab.wrapped, watched=False)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"] == disposition


@pytest.mark.parametrize("sealed", [b"", b'{"name":7,"type":"text/html\\r\\nX: y"}'])
@pytest.mark.parametrize("shown", ["attachment", "inline"])
def test_a_name_and_a_type_that_are_not_sealed_or_unusable_are_left_out(sealed, shown, serving, store):
    lab, options = serving
    options["as_attachment"] = shown == "attachment"
    (store / "file").write_bytes(seal(TEXT, ring=KEYRING, metadata_text=sealed))
    answer = call(lab.wrapped, watched=False)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == shown


def test_another_file_than_the_expected_one_is_not_sent(serving, store):
    lab, options = serving
    options["object_id"] = claimed_object_id((store / "file").read_bytes())
    assert call(lab.wrapped, watched=False).body == TEXT
    options["object_id"] = "0" * 64
    with pytest.raises(IntegrityError, match=r"not the one that was asked for"):
        call(lab.wrapped, watched=False)


def test_a_file_that_is_in_no_store_is_not_sent(lab_of, tmp_path):
    (tmp_path / "plain").write_bytes(CANARY)
    (tmp_path / "elsewhere").write_bytes(seal(TEXT, ring=KEYRING))
    for name in ("plain", "elsewhere"):
        lab = lab_of(lambda request, name=name: send_sealed(tmp_path / name, request.environ))
        with pytest.raises(FormatError, match=r"SECUREFS_STORES"):
            call(lab.wrapped, watched=False)


def test_a_file_that_is_not_there_is_404(serving, store):
    lab, _ = serving
    (store / "file").unlink()
    assert call(lab.wrapped, watched=False).status == 404


def test_a_response_that_cannot_be_made_leaves_no_file_open(serving):
    lab, options = serving
    options |= {"mimetype": "text/plain\r\nX: y", "as_attachment": False}
    lab.journal.check()
    before = open_descriptors()
    with pytest.raises(ValueError, match=r"newline"):
        call(lab.wrapped, watched=False)
    assert open_descriptors() == before
