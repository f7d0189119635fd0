"""Odd Content-Types through every framework: what one of them takes for a form with files, we rewrite or refuse.

``SECUREFS_FUZZ=50`` sends fifty times as many, of another seed.
"""

from __future__ import annotations

import gc
import io
from collections import Counter

import pytest
from support.form_readers import READERS, make, missing
from support.frameworks import FRAMEWORKS
from support.fuzzing import FACTOR
from support.odd_types import BOUNDARY, FORMS, Odd, odd_types
from support.uploads import KEYRING, Lab
from support.wsgi_client import Input, call

from securefs import Encryptor, open_encrypted
from securefs.header import MAGIC
from securefs.middleware import Policy, SecureFS

SEED = 20_240_229 + FACTOR
COUNT = 250 * FACTOR
ODD = odd_types(SEED, COUNT)
CANARY = b"canary-51b7"
SECRET = b"somebody-else-s-secret"


def form(content: bytes) -> bytes:
    return (
        (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="n"\r\n\r\nvalue\r\n--{BOUNDARY}\r\n'
            f'Content-Disposition: form-data; name="f"; filename="a.bin"\r\nContent-Type: image/png\r\n\r\n'
        ).encode()
        + content
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


HIDDEN = "refused that the bare framework takes for a form with files"
# What became of the types in each framework.
COUNTS: dict[str, Counter[str]] = {}


class Reader:
    """A framework's app, bare and behind the middleware, with the folders in which they store files."""

    def __init__(self, name, folder) -> None:
        self.name = name
        self.plain, self.sealed = folder / "plain", folder / "sealed"
        self.plain.mkdir()
        self.sealed.mkdir()
        self.bare = make(name, self.plain)
        allowed = Policy(ciphertext_uploads="allow")
        self.lab = Lab(folder, make(name, self.sealed), policy=allowed)
        short = Policy(max_field_bytes=65_536)
        self.strict = SecureFS(self.lab.app, keyring=KEYRING, journal=self.lab.journal, policy=short)

    def send_bare(self, odd, body):
        return self._send(self.bare, self.plain, odd, io.BytesIO(body), len(body))

    def send(self, odd, body, wrapped=None):
        return self._send(wrapped or self.lab.wrapped, self.sealed, odd, Input(body), len(body))

    def _send(self, app, folder, odd, stream, length):
        """Return the answer, None for an error, and the files that were stored."""
        for path in folder.iterdir():
            path.unlink()
        environ = {"wsgi.input": stream, "CONTENT_LENGTH": str(length), **odd.environ}
        try:
            answer = call(app, "POST", "/upload", b"", [("Host", "localhost")], watched=False, **environ)
        except Exception:  # noqa: BLE001  # each framework has errors of its own for a type
            answer = None
        return answer, [path.read_bytes() for path in sorted(folder.iterdir())]

    def download(self, number):
        host = [("Host", "localhost")]
        return call(self.lab.wrapped, "GET", f"/file/{number}.bin", None, host, watched=False).body


@pytest.fixture(scope="module", params=READERS)
def reader(request, tmp_path_factory):
    if (lacking := missing(request.param)) is not None:
        pytest.skip(f"{lacking} is not installed")
    reader = Reader(request.param, tmp_path_factory.mktemp("reader"))
    yield reader
    reader.lab.close()
    gc.collect()


pytestmark = [
    # WebOb warns of charsets; frameworks that are interrupted leave files to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def refused(answer) -> bool:
    return answer is not None and answer.status == 400 and b'"request_id"' in answer.body


def opened(stored, content):
    """Return how many of the stored files are ours, with ``content`` in them; fail if one is plaintext."""
    found = 0
    for data in stored:
        assert content not in data, "stored as it came"
        if data.startswith(MAGIC):
            with open_encrypted(io.BytesIO(data), KEYRING) as file:
                assert file.read() == content
            found += 1
    return found


@pytest.fixture(scope="module")
def stolen():
    encryptor = Encryptor(KEYRING)
    return encryptor.update(SECRET) + encryptor.finalize()


def test_no_type_leaves_a_file_in_plaintext_or_has_a_ciphertext_decrypted(reader, stolen):
    counts = Counter()
    for odd in ODD:
        _, plain = reader.send_bare(odd, form(CANARY))
        taken = any(CANARY in data for data in plain)
        answer, stored = reader.send(odd, form(CANARY))
        encrypted = opened(stored, CANARY)
        outcome = "refused" if refused(answer) else "encrypted" if encrypted else "no file for the framework"
        assert not (taken and outcome == "no file for the framework"), odd
        counts[outcome] += 1
        counts[HIDDEN] += taken and outcome == "refused"
        if outcome == "refused":
            assert stored == []
            continue
        _, stored = reader.send(odd, form(stolen))
        assert opened(stored, stolen) == encrypted
        if reader.name in FRAMEWORKS:
            # What was sent comes back, with its own encryption on it.
            assert [reader.download(number) for number in range(len(stored))] == [stolen] * encrypted, odd
    COUNTS[reader.name] = counts


@pytest.mark.parametrize("text", [None, "", " ", "\t"])
def test_a_body_without_a_type_is_no_form_with_files_for_any_framework(reader, text):
    odd = Odd({} if text is None else {"CONTENT_TYPE": text})
    _, stored = reader.send_bare(odd, form(CANARY))
    assert not any(CANARY in data for data in stored)
    answer, stored = reader.send(odd, form(CANARY))
    assert stored == []
    assert not refused(answer)


@pytest.mark.parametrize("text", FORMS)
def test_a_form_arrives_encrypted_however_its_type_is_spelled(reader, text):
    answer, stored = reader.send(Odd({"CONTENT_TYPE": text}), form(CANARY))
    assert answer.status == 200
    assert opened(stored, CANARY) == 1


# What takes a field of this many bytes for a file, or does not tell the two apart: docs/http.md.
LONG_FIELD = 102_401
FIELDS_ARE_FILES = {"bottle", "multipart", "falcon, every part", "falcon, forms by default"}


def test_a_long_field_is_a_file_to_some_and_can_be_refused(reader):
    field = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="n"\r\nContent-Type: image/png\r\n\r\n'.encode()
        + CANARY.ljust(LONG_FIELD, b".")
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )
    odd = Odd({"CONTENT_TYPE": FORMS[0]})
    _, stored = reader.send_bare(odd, field)
    assert any(CANARY in data for data in stored) is (reader.name in FIELDS_ARE_FILES)
    answer, stored = reader.send(odd, field, reader.strict)
    assert answer.status == 413
    assert stored == []


# Falcon hands out all parts alike.
EVERY_PART = {"falcon, every part", "falcon, forms by default"}
FIELD_TYPES = [
    "text/plain",
    "application/json",
    "image/png",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "message/rfc822",
    "text/plain; charset=iso-8859-1",
    "text/plain; name=a.txt",
]


@pytest.mark.parametrize("kind", FIELD_TYPES)
def test_a_field_is_no_file_whatever_its_type(reader, kind):
    field = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="n"\r\nContent-Type: {kind}\r\n\r\n'.encode()
    )
    field += CANARY + f"\r\n--{BOUNDARY}--\r\n".encode()
    answer, stored = reader.send(Odd({"CONTENT_TYPE": FORMS[0]}), field)
    assert answer.status == 200
    assert any(CANARY in data for data in stored) is (reader.name in EVERY_PART)


def test_the_types_are_the_same_each_time():
    assert odd_types(SEED, 50) == odd_types(SEED, 50) != odd_types(SEED + 1, 50)


# Frameworks that take more than multipart/form-data for a form with files, so that the search finds
# what it looks for.
LENIENT = {"bottle", "falcon", "cherrypy", "djangorestframework", "django"}


def test_every_framework_was_given_types_of_each_kind(capsys):
    """The figures of this run, for whoever reads its output."""
    lacking = {name for name in READERS if missing(name) is None} - COUNTS.keys()
    if lacking:
        pytest.skip(f"only a part of this module was run: the counts of {len(lacking)} readers are missing")
    for name, counts in COUNTS.items():
        assert counts["encrypted"] >= 20, name
        assert counts["no file for the framework"] >= 20, name
        assert counts["refused"] >= 100, name
        assert name not in LENIENT or counts[HIDDEN] >= 5, name
    total = sum(COUNTS.values(), Counter())
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))
    with capsys.disabled():
        print(f"\n{len(ODD)} types through {len(COUNTS)} readers: {outcomes}")
