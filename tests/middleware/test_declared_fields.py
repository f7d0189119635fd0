"""Parts that the policy declares: files that stay plain, fields that are files, ciphertext as a file."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from support import frameworks
from support.uploads import (
    BROWSER_TYPE,
    CANARY,
    KEYRING,
    MIB,
    browser_body,
    canonical_parts,
    field,
    file,
    problem_of,
    seen_by,
)
from support.wsgi_client import Input, call

from securefs import open_encrypted
from securefs.header import MAGIC
from securefs.middleware import FileRefusedError, Policy, SecureFS
from securefs.middleware.spool import HELD_IN_MEMORY

LARGE = os.urandom(3 * MIB)
AVATARS = Policy(plain_uploads=("/avatars/*",))


def parts_of(lab):
    assert len(lab.app.got) == lab.app.length
    return canonical_parts(lab.app.content_type, bytes(lab.app.got))


# --- plain_uploads, plain_fields


@pytest.mark.parametrize("content", [b"", CANARY, LARGE], ids=["empty", "small", "streamed"])
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize(
    ("declared", "path"),
    [({"plain_uploads": ("/avatars/*",)}, "/avatars/7"), ({"plain_fields": ("f",)}, "/anywhere")],
    ids=["by path", "by field"],
)
def test_a_declared_file_passes_as_it_is_and_the_journal_says_so(declared, path, spool, content, lab_of):
    lab = lab_of(policy=Policy(spool=spool, **declared))
    parts = [file(content=content), field()]
    assert lab.post(BROWSER_TYPE, browser_body(parts), path=path).status == 200
    assert parts_of(lab) == [file(content=content), field()]
    assert lab.records("file.encrypt") == []
    assert [record["outcome"] for record in lab.records("file.plain")] == ["started", "success"]
    assert lab.records("file.plain")[-1]["obj"].keys() == {"field", "name", "size"}
    (upload,) = lab.app.environ["securefs"].uploads
    assert (upload.encrypted, upload.object_id, upload.key_id, upload.size) == (False, "", "", len(content))


def test_a_file_under_another_name_beside_it_is_encrypted(lab_of):
    lab = lab_of(policy=Policy(plain_fields=("logo",)))
    parts = [file("logo"), file("logo2"), file("Logo"), file("logo"), file("logo ")]
    lab.post(BROWSER_TYPE, browser_body(parts))
    assert [part.content == CANARY for part in parts_of(lab)] == [True, False, False, True, False]
    assert [item.encrypted for item in lab.app.environ["securefs"].uploads] == [
        False,
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "path", ["/avatars/../files/1", "/avatars/%2e%2e/files/1", "/avatars/..;/files", "/x/avatars/1", "/files"]
)
def test_a_path_that_may_be_read_as_another_stays_encrypted(path, lab_of):
    lab = lab_of(policy=AVATARS)
    lab.post(BROWSER_TYPE, browser_body([file()]), path=path)
    assert [part.content for part in seen_by(lab.app)] == [CANARY]
    assert lab.records("file.plain") == []


def test_a_long_body_with_a_plain_field_keeps_its_filling_short(lab_of):
    """Announced for encryption, it would be filled by more bytes than frameworks skip."""
    lab = lab_of(policy=Policy(plain_fields=("f",), max_files=300))
    size = 64 * MIB
    head, tail = browser_body([file(content=b"@")]).split(b"@")

    class Zeros(Input):
        def __init__(self):
            super().__init__(head)
            self.left, self.tail = size, Input(tail)

        def read(self, wanted=-1):
            if data := super().read(wanted):
                return data
            if self.left:
                data = bytes(min(wanted, self.left))
                self.left -= len(data)
                return data
            return self.tail.read(wanted)

    seen = {}

    def app(environ, start_response):
        seen["length"], body = int(environ["CONTENT_LENGTH"]), environ["wsgi.input"]
        seen["read"] = sum(len(data) for data in iter(lambda: body.read(MIB), b""))
        start_response("200 OK", [])
        return [b""]

    wrapped = SecureFS(app, keyring=KEYRING, journal=lab.journal, policy=lab.wrapped._settings.policy)
    length = len(head) + size + len(tail)
    headers = [("Host", "localhost"), ("Content-Type", BROWSER_TYPE)]
    assert call(wrapped, "POST", "/upload", Zeros(), headers, length=length).status == 200
    assert seen["read"] == seen["length"]
    assert abs(seen["length"] - length) < 200, "held, and so announced to the byte"


def test_a_plain_file_that_starts_as_ciphertext_is_refused_whatever_is_allowed(lab_of):
    """The app stores it as it is: it would be decrypted for whoever posted it."""
    for allowed in ("refuse", "allow"):
        lab = lab_of(policy=Policy(plain_fields=("f",), ciphertext_uploads=allowed))
        answer = lab.post(BROWSER_TYPE, browser_body([file(content=MAGIC + CANARY)]), step=3)
        assert answer.status == 400
        assert "starts like an encrypted file" in problem_of(answer)["detail"]
        assert lab.records("file.rejected")[-1]["reason"] == "ciphertext_injection"
        assert CANARY not in bytes(lab.app.got)


def test_an_inspector_sees_a_plain_file_which_is_held_encrypted(lab_of, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = CANARY + bytes(2 * HELD_IN_MEMORY)
    held = []

    def inspect(part, chunks):
        seen = b"".join(chunks)
        assert (part.encrypted, seen) == (False, content)
        for link in list(Path("/proc/self/fd").iterdir()):
            with suppress(OSError):  # the listing's own is closed by now
                path = str(link.readlink())
                if path.startswith(str(tmp_path)) and "journal" not in path:
                    held.append(os.pread(int(link.name), 3 * HELD_IN_MEMORY, 0))

    lab = lab_of(policy=AVATARS, inspect=inspect)
    assert lab.post(BROWSER_TYPE, browser_body([file(content=content)]), path="/avatars/1").status == 200
    assert parts_of(lab) == [file(content=content)]
    assert any(len(data) > HELD_IN_MEMORY for data in held)
    assert not any(CANARY in data for data in held)


def test_an_inspector_refuses_a_plain_file(lab_of):
    def inspect(part, chunks):
        raise FileRefusedError("the operator's words")

    lab = lab_of(policy=AVATARS, inspect=inspect)
    answer = lab.post(BROWSER_TYPE, browser_body([file()]), path="/avatars/1")
    assert problem_of(answer)["detail"] == "a file was refused by an inspection"
    assert CANARY not in bytes(lab.app.got)
    assert lab.records("file.plain")[-1]["reason"] == "inspection"


def test_a_plain_file_that_cannot_be_recorded_does_not_pass(lab_of):
    lab = lab_of(policy=AVATARS)
    lab.journal.close()
    assert lab.post(BROWSER_TYPE, browser_body([file()]), path="/avatars/1").status == 503
    assert CANARY not in bytes(lab.app.got)


# --- file_fields


@pytest.mark.parametrize(
    "content", [b"", CANARY, LARGE], ids=["empty", "small", "longer than a field may be"]
)
def test_a_part_without_a_file_name_is_a_file_where_its_name_says_so(content, lab_of):
    lab = lab_of(policy=Policy(file_fields=("document",)))
    parts = [field("document", content), field("other"), file("document", filename="own.txt")]
    assert lab.post(BROWSER_TYPE, browser_body(parts)).status == 200
    assert seen_by(lab.app) == [
        file("document", content, "document", "application/octet-stream"),
        field("other"),
        file("document", filename="own.txt"),
    ]
    uploads = lab.app.environ["securefs"].uploads
    assert [(item.field, item.filename, item.encrypted) for item in uploads] == [
        ("document", "document", True),
        ("document", "own.txt", True),
    ]


@pytest.mark.parametrize(("name", "filename"), [("a/b", "b"), ("..", "unnamed"), ('q"q', "q%22q")])
def test_the_name_of_such_a_file_is_safe(name, filename, lab_of):
    lab = lab_of(policy=Policy(file_fields=(name,)))
    lab.post(BROWSER_TYPE, browser_body([field(name.replace('"', "%22"), CANARY)]))
    assert [(part.filename, part.content) for part in seen_by(lab.app)] == [(filename, CANARY)]


@pytest.mark.parametrize("name", frameworks.FRAMEWORKS)
def test_every_framework_gets_it_as_a_file(name, journal, tmp_path):
    policy = Policy(file_fields=("document",))
    app = SecureFS(frameworks.make(name, tmp_path), keyring=KEYRING, journal=journal, policy=policy)
    body = browser_body([field("document", CANARY), field("other", b"y")])
    headers = [("Host", "localhost"), ("Content-Type", BROWSER_TYPE)]
    answer = call(app, "POST", "/upload", body=body, headers=headers)
    assert answer.status == 200
    assert json.loads(answer.body)["fields"] == [["other", "y"]]
    (stored,) = tmp_path.glob("*.bin")
    with open_encrypted(stored, KEYRING) as opened:
        assert (opened.read(), opened.metadata["name"]) == (CANARY, "document")


ALIKE = [" document", "document ", "\u00a0document", "=?utf-8?q?document?=", "%64ocument", "doc&#117;ment"]
ALIKE += [
    "document;x=1",
    "document,x",
    "document%22",
    "\uff44ocument",
    "document\u200b",
    "a/document",
    "document%00",
]


@pytest.mark.parametrize("sent", ALIKE)
@pytest.mark.parametrize("name", frameworks.FRAMEWORKS)
def test_no_spelling_of_a_name_leaves_the_text_of_a_declared_file_to_a_framework(
    name, sent, journal, tmp_path
):
    """Where a framework reads the declared name, it gets a file."""
    policy = Policy(file_fields=("document",))
    app = SecureFS(frameworks.make(name, tmp_path), keyring=KEYRING, journal=journal, policy=policy)
    headers = [("Host", "localhost"), ("Content-Type", BROWSER_TYPE)]
    answer = call(app, "POST", "/upload", body=browser_body([field(sent, CANARY)]), headers=headers)
    assert answer.status == 200
    assert "document" not in dict(json.loads(answer.body)["fields"])
    for stored in tmp_path.glob("*.bin"):
        assert CANARY not in stored.read_bytes()


def test_a_declared_name_may_have_spaces(lab_of):
    lab = lab_of(policy=Policy(file_fields=(" document ",)))
    lab.post(BROWSER_TYPE, browser_body([field(" document ", CANARY), field("document")]))
    assert [part.filename is None for part in seen_by(lab.app)] == [False, True]


# --- ciphertext_uploads


@pytest.mark.parametrize("step", [None, 1, 7])
def test_a_file_that_starts_as_ciphertext_is_refused_unless_allowed(step, lab_of):
    """Opened by the app and served, it would be decrypted once more for whoever posted it."""
    lab = lab_of()
    answer = lab.post(BROWSER_TYPE, browser_body([file(content=MAGIC + CANARY)]), step=step)
    assert answer.status == 400
    assert "ciphertext_uploads" in problem_of(answer)["detail"]
    assert lab.records("file.rejected")[-1]["reason"] == "ciphertext_injection"
    lab = lab_of(policy=Policy(ciphertext_uploads="allow"))
    assert lab.post(BROWSER_TYPE, browser_body([file(content=MAGIC + CANARY)]), step=step).status == 200
    assert [part.content for part in seen_by(lab.app)] == [MAGIC + CANARY]


def test_a_file_that_only_resembles_ciphertext_is_accepted(lab_of):
    for content in (MAGIC[:7], MAGIC[:7] + b"x", b"x" + MAGIC):
        lab = lab_of()
        assert lab.post(BROWSER_TYPE, browser_body([file(content=content)])).status == 200
        assert [part.content for part in seen_by(lab.app)] == [content]
