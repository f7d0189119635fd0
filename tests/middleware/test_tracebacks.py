"""What the app and the server catch when the middleware fails: exceptions without keys and plaintext.

What is in frames of the app, of inspectors, of key services and of the server itself is theirs; the
tests of this file play all of them.
"""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from support.frames import secrets_in
from support.journals import Evidence, file_size_limit
from support.sealing import KEY, LIBRARIES, OTHER_KEY, pattern, seal, seal_1
from support.uploads import BROWSER_TYPE, browser_body, file
from support.wsgi_client import Input, make_environ

from securefs import ConfigurationError, Keyring, Suite, secrecy
from securefs.keys import FileKey
from securefs.keys.material import KeyMaterial
from securefs.middleware import FileRefusedError, Policy, SecureFS, body
from securefs.middleware.file_wrapper import FileWrapper
from securefs.primitives import PyCryptodome
from securefs.stream import Randomness

MARK = b"plaintext of a user of the app. "
TEXT = MARK * 70_000  # 2.1 MiB
DRAWN = pattern(32, "a drawn data key")
SECRETS = [KEY, OTHER_KEY, DRAWN, MARK, pattern(32, "file dek")]
FORM = browser_body([file("f", TEXT, "a.pdf", "application/pdf")])
SMALL = browser_body([file("f", MARK * 100, "a.pdf", "application/pdf")])


class Interrupt(BaseException):
    """What a server's signal handler raises: at any line."""


class Failing(PyCryptodome):
    """A library that fails at the n-th encryption of a segment or key."""

    def __init__(self, error: type[BaseException], after: int = 0) -> None:
        self.error, self.left = error, after

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error

    def cbc_encryptor(self, key, iv):
        self._count()
        return super().cbc_encryptor(key, iv)

    def cbc_decrypt_into(self, key, iv, ciphertext, out):
        self._count()
        return super().cbc_decrypt_into(key, iv, ciphertext, out)


class Broken(Input):
    """A connection that fails behind some bytes."""

    def __init__(self, data: bytes, good: int, error: BaseException) -> None:
        super().__init__(data, 300_000)
        self.good, self.error = good, error

    def read(self, size=-1):
        if self.position >= self.good:
            raise self.error
        return super().read(size)


class Stage:
    """A server and an app that keep whatever is raised into them."""

    passes_on = False  # whether the app lets what it caught go on to the server

    def __init__(self, folder, **options) -> None:
        self.errors: list[BaseException] = []
        self.journal = Evidence(folder / "journal")
        options.setdefault("keyring", Keyring(KEY, [OTHER_KEY]))
        self.app = SecureFS(self.inner, journal=self.journal, **options)
        self.answer = lambda: [b"stored"]

    def inner(self, environ, start_response):
        try:
            while environ["wsgi.input"].read(100_000):
                pass
        except BaseException as error:
            self.errors.append(error)
            if self.passes_on:
                raise
        start_response("200 OK", [("Content-Type", "application/pdf")])
        return self.answer()

    def serve(self, environ) -> None:
        result = None
        try:
            result = self.app(environ, lambda *_: lambda _: None)
            for _ in result:
                pass
        except BaseException as error:  # noqa: BLE001  # a server catches all
            self.errors.append(error)
        try:
            getattr(result, "close", lambda: None)()
        except BaseException as error:  # noqa: BLE001  # the same
            self.errors.append(error)

    def upload(self, data=FORM, **options) -> None:
        stream = data if isinstance(data, io.RawIOBase) else Input(data)
        length = options.pop("length", len(stream.data))
        headers = [("Content-Type", BROWSER_TYPE)]
        self.serve(make_environ("POST", "/upload", stream, headers, length, **options))

    def download(self, answer) -> None:
        self.answer = answer
        self.serve(make_environ("GET", "/file"))


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def wrapped(data: bytes):
    return lambda: FileWrapper(io.BytesIO(data))


def pieces(data: bytes, error: BaseException | None = None):
    def answer():
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]
        if error is not None:
            raise error

    return answer


def refusing(part, chunks):
    next(chunks)
    raise FileRefusedError("no")


def failing(part, chunks):
    next(chunks)
    raise RuntimeError("the inspector has a bug")


def interrupted(part, chunks):
    next(chunks)
    raise Interrupt


class Service:
    """A key service that does not answer."""

    kind, key_id, payload_size = 2, bytes(16), 100

    def wrap(self, dek, bound, draw):
        raise ConnectionError("no answer")

    def unwrap(self, slot, bound):
        raise ConnectionError("no answer")


def full(folder):
    stage = Stage(folder)
    with file_size_limit(1_000_000):
        stage.upload(FORM, length=None, HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True})
    return stage


class Losing(io.BytesIO):
    """A stored file; while its middle is read, the journal is lost."""

    def __init__(self, data: bytes, stage: Stage) -> None:
        super().__init__(data)
        self.stage = stage

    def read(self, size=-1, /):
        if 1_000_000 < self.tell() < 1_500_000:
            self.stage.journal.lose()
        return super().read(size)


def lost(stage: Stage, data: bytes) -> Stage:
    return fetched(stage, lambda: FileWrapper(Losing(data, stage)))


def uploads():
    """Yield (name, what returns a stage after an upload that failed)."""
    yield "cut", lambda d: run(Stage(d), FORM[:-200_000], length=len(FORM))
    yield "cut boundary", lambda d: run(Stage(d), FORM[:-2])
    yield "malformed", lambda d: run(Stage(d), FORM[:-60] + b"\r\nnot a boundary" * 4)
    yield "behind its end", lambda d: run(Stage(d), FORM + b"more" * 10)
    yield (
        "too long a file",
        lambda d: run(Stage(d, policy=Policy(max_body=1_500_000)), FORM, length=len(FORM)),
    )
    yield (
        "too long a field",
        lambda d: run(Stage(d, policy=Policy(max_field_bytes=10)), SMALL.replace(b'; filename="a.pdf"', b"")),
    )
    yield "refused", lambda d: run(Stage(d, inspect=refusing))
    yield "inspector fails", lambda d: run(Stage(d, inspect=failing))
    yield "inspector interrupted", lambda d: run(Stage(d, inspect=interrupted))
    yield "service", lambda d: run(Stage(d, keyring=Keyring.of(Service())))
    yield "full", full
    for error in (OSError(5, "reset"), Interrupt(), RuntimeError("the server")):
        yield f"input {error!r} at once", lambda d, e=error: run(Stage(d), Broken(FORM, 0, e))
        yield f"input {error!r} later", lambda d, e=error: run(Stage(d), Broken(FORM, 1_500_000, e))
    for error in (Interrupt, MemoryError):
        for after in (0, 5, 30):
            yield f"library {error.__name__} {after}", lambda d, e=error, n=after: broken_library(d, e, n)


def run(stage: Stage, data=FORM, **options) -> Stage:
    stage.upload(data, **options)
    return stage


def broken_library(folder, error, after) -> Stage:
    with pytest.MonkeyPatch.context() as patch:
        library = Failing(error, after)
        patch.setattr("securefs.stream.default_primitives", lambda: library)
        return run(Stage(folder))


UPLOADS = [pytest.param(case, id=name) for name, case in uploads()]


@pytest.fixture(autouse=True)
def known_data_key(monkeypatch):
    """Files get a data key that this file knows; it is drawn where all others are."""
    draw = Randomness.draw.__func__

    def drawn(cls):
        return replace(draw(cls), dek=DRAWN)

    monkeypatch.setattr(Randomness, "draw", classmethod(drawn))


@pytest.mark.parametrize("passes_on", [False, True], ids=["app goes on", "app fails too"])
@pytest.mark.parametrize("case", UPLOADS)
def test_an_upload_that_fails_shows_no_secret(case, passes_on, tmp_path, monkeypatch):
    monkeypatch.setattr(Stage, "passes_on", passes_on)
    stage = case(tmp_path)
    assert [place for error in stage.errors for place in secrets_in(error, SECRETS)] == []


def downloads():
    """Yield (name, what returns a stage after a download that failed)."""
    for suite in Suite:
        data = seal(TEXT, suite, primitives=LIBRARIES[1])
        for at in (60, 100, 400, 500, 1_000_000, len(data) - 10):
            bad = changed(data, at)
            for first in (0, 10_000_000):
                policy = Policy(verify_first=first)
                yield (
                    f"{suite.value} {at} {first} file",
                    lambda d, b=bad, p=policy: fetched(Stage(d, policy=p), wrapped(b)),
                )
                yield (
                    f"{suite.value} {at} {first} pieces",
                    lambda d, b=bad, p=policy: fetched(Stage(d, policy=p), pieces(b)),
                )
        yield (
            f"{suite.value} cut",
            lambda d, b=data[:-1]: fetched(Stage(d, policy=Policy(verify_first=0)), pieces(b)),
        )
        for error in (OSError(5, "the app's disk"), Interrupt(), RuntimeError("the app")):
            yield (
                f"{suite.value} app {error!r}",
                lambda d, b=data[:-50_000], e=error: fetched(
                    Stage(d, policy=Policy(verify_first=0)), pieces(b, e)
                ),
            )
        yield (
            f"{suite.value} journal lost",
            lambda d, b=data: lost(Stage(d, policy=Policy(verify_first=0)), b),
        )
        yield (
            f"{suite.value} key",
            lambda d, b=data: fetched(Stage(d, keyring=Keyring(OTHER_KEY)), wrapped(b)),
        )
        yield (
            f"{suite.value} service",
            lambda d, b=data: fetched(Stage(d, keyring=Keyring.of(Service(), Service())), wrapped(b)),
        )
        yield (
            f"{suite.value} context",
            lambda d, b=data: fetched(Stage(d, context=lambda _: b"other"), wrapped(b)),
        )
    yield (
        "format 1",
        lambda d: fetched(
            Stage(d, policy=Policy(format_1_paths=("/file",))), wrapped(changed(seal_1(TEXT), 500))
        ),
    )


def fetched(stage: Stage, answer) -> Stage:
    stage.download(answer)
    return stage


DOWNLOADS = [pytest.param(case, id=name) for name, case in downloads()]


@pytest.mark.parametrize("case", DOWNLOADS)
def test_a_download_that_fails_shows_no_secret(case, tmp_path):
    stage = case(tmp_path)
    assert [place for error in stage.errors for place in secrets_in(error, SECRETS)] == []


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"keyring": Keyring(KEY[:16])}, id="short key"),
        pytest.param({"keyring": Keyring.of(None, FileKey(KeyMaterial(KEY), LIBRARIES[0]))}, id="no sealer"),
        pytest.param({}, id="no key"),
    ],
)
def test_a_middleware_that_does_not_start_shows_no_secret(options, tmp_path, monkeypatch):
    monkeypatch.setenv("FILE_KEY_BASE64", KEY.hex())
    with pytest.raises(ConfigurationError) as caught:
        SecureFS(None, journal=Evidence(tmp_path), **options)
    assert secrets_in(caught.value, SECRETS) == []


def test_the_cases_find_what_is_not_cleared(tmp_path, monkeypatch):
    """Most failures end in a response, and nobody catches anything; of what is caught, some shows secrets."""
    for module in (secrecy, body):
        monkeypatch.setattr(module, "clear_frames", lambda *_: None)
    shown = {"uploads": 0, "downloads": 0}
    for kind, cases in (("uploads", UPLOADS), ("downloads", DOWNLOADS)):
        for number, case in enumerate(cases):
            folder = tmp_path / f"{kind}{number}"
            folder.mkdir()
            errors = case.values[0](folder).errors
            shown[kind] += any(secrets_in(error, SECRETS) for error in errors)
    assert min(shown.values()) >= 5
