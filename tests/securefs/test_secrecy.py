"""Keys and plaintext leave in no traceback, pickle or copy: each way to fail that a test can make."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import multiprocessing
import pickle
import secrets
import traceback
from functools import partial

import pytest
from support.frames import secrets_in, spellings, variables_of
from support.journals import file_size_limit
from support.keys import PREVIOUS, PRIMARY, b64
from support.sealing import (
    BODY_START,
    HEADER_SIZE,
    KEY,
    LIBRARIES,
    OTHER_KEY,
    RING,
    ExchangedFile,
    chosen,
    pattern,
    seal,
    seal_1,
    slot_of,
)

import securefs
import securefs.audit
import securefs.keys
import securefs.middleware
from securefs import (
    Decryptor,
    Encryptor,
    IntegrityError,
    Keyring,
    Suite,
    decrypt_file,
    encrypt_file,
    open_encrypted,
    rewrap,
    secrecy,
    verify,
)
from securefs.audit import Entry, Journal, hash_name, verify_journal
from securefs.audit.pseudonym import KEY_FILE, Pseudonyms
from securefs.cli import main
from securefs.format1 import Format1Sealer, Format1Verifier
from securefs.header import KIND_KEY_SERVICE, parse_header, slot_table
from securefs.keys import FileKey
from securefs.keys.material import KeyMaterial
from securefs.metadata import seal_metadata
from securefs.middleware import ClamAV, FileRules
from securefs.middleware.sealing import SealedFile
from securefs.primitives import PyCryptodome
from securefs.sealer import NewFiles
from securefs.secrecy import HoldsSecrets, clear_frames, clears_frames
from securefs.stream import unlock
from securefs.suites import derive

MARK = b"plaintext of a user of the app. "
TEXT = MARK * 7000  # three segments and a half in suite 1
DEK = chosen().dek
PSEUDONYM_KEY = pattern(32, "pseudonyms")
SECRETS = [KEY, OTHER_KEY, DEK, MARK, PSEUDONYM_KEY]
NAMED = b'{"name":"plaintext of a user of the app. "}'


class Interrupt(BaseException):
    """What a signal handler may raise at any line."""


class Failing(PyCryptodome):
    """Primitives of which one fails: stands for a library without memory, and for an interrupt in any frame."""

    def __init__(self, method: str, error: type[BaseException] = Interrupt, after: int = 0) -> None:
        def fail(*_):
            nonlocal after
            after -= 1
            if after < 0:
                raise error
            return getattr(PyCryptodome, method)(self, *_)

        setattr(self, method, fail)


class Service:
    """A key service that does not answer, or not as it should."""

    kind, key_id, payload_size = KIND_KEY_SERVICE, bytes(16), 100

    def __init__(self, payload: object = None) -> None:
        self.payload = payload

    def wrap(self, dek, bound, draw):
        if self.payload is None:
            raise ConnectionError("the service does not answer")
        return self.payload

    def unwrap(self, slot, bound):
        raise ConnectionError("the service does not answer")


class Unreadable(io.BytesIO):
    """A disk that fails behind some bytes."""

    def __init__(self, data: bytes, good: int, error: BaseException) -> None:
        super().__init__(data)
        self.good, self.error = good, error

    def read(self, size=-1, /):
        if self.tell() + size > self.good:
            raise self.error
        return super().read(size)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def read(data, ring=RING, context=b"", **options) -> bytes:
    with open_encrypted(
        io.BytesIO(data) if isinstance(data, bytes) else data, ring, context, **options
    ) as file:
        return file.read()


# Ways to read a file other than read().
WAYS = {
    "iterate": list,
    "readline": lambda file: [file.readline(1000) for _ in range(200)],
    "readlines": lambda file: file.readlines(),
    "read1": lambda file: [file.read1() for _ in range(5)],
    "readinto": lambda file: file.readinto(bytearray(150_000)),
    "readinto1": lambda file: [file.readinto1(bytearray(10_000)) for _ in range(15)],
    "peek": lambda file: (file.seek(66_000), file.peek()),
    "text": lambda file: io.TextIOWrapper(file, "latin-1").read(),
    "raw read": lambda file: (file.raw.seek(66_000), file.raw.read(20)),
    "raw readall": lambda file: file.raw.readall(),
    "check": lambda file: file.check(),
}


def feed(data: bytes, ring=RING, context=b"", **options) -> None:
    decryptor = Decryptor(ring, context, **options)
    for at in range(0, len(data), 50_000):
        decryptor.update(data[at : at + 50_000])
    decryptor.finalize()


def write(text=TEXT, ring=RING, suite=Suite.CBC_HMAC, **options) -> None:
    encryptor = Encryptor(ring, suite, **options)
    encryptor.update(text)
    encryptor.finalize()
    encryptor.update(text)


def exchanged(before: bytes, after: bytes, **options) -> None:
    source = ExchangedFile(before)
    file = open_encrypted(source, RING, **options)
    file.read(10)
    source.exchange(after)
    file.read()


def other_metadata(text: bytes) -> bytes:
    """A file whose metadata has a good tag and is none."""
    random = chosen()
    whole = seal(TEXT, metadata_text=NAMED[: len(text)].ljust(len(text), b"."))
    header = parse_header(whole)
    sealed = seal_metadata(text, random.dek, random.file_id, header.preamble, LIBRARIES[0])
    return whole[: header.length - len(sealed)] + sealed + whole[header.length :]


def planted(data: bytes, dek: bytes = bytes(range(7, 39))) -> bytes:
    """A file with a second slot, of the same key, that holds another DEK."""
    header = parse_header(data)
    slots = [slot.head + slot.payload for slot in header.slots] + [slot_of(KEY, header.preamble, dek, 2)]
    return header.preamble + slot_table(slots, 2, header.slot_size) + data[HEADER_SIZE:]


def stored(folder, data: bytes):
    path = folder / f"stored.{secrets.token_hex(4)}"
    path.write_bytes(data)
    return path


def full(folder, data: bytes, run) -> None:
    """Run on a disk without room for what it writes."""
    source = stored(folder, data)
    with file_size_limit(70_000):
        run(source, folder / "target")


def env(folder=None, content: bytes | None = None, mode=0o600, **variables: str) -> None:
    if content is not None:
        path = stored(folder, content)
        path.chmod(mode)
        variables[f"{PRIMARY}_FILE"] = str(path)
    Keyring.from_env(variables)


def journal_key(folder, key: bytes, mode=0o600):
    (folder / KEY_FILE).write_bytes(key)
    (folder / KEY_FILE).chmod(mode)
    return folder


def inspect_with(inspector) -> None:
    class Part:
        content_type = "application/pdf"

    inspector(Part, iter([MARK * 100]))


GOOD = b64(KEY)
F1 = seal_1(TEXT)
SHORT = seal(MARK)
LONG = seal_1(MARK * 80_000)  # three blocks of the reader, which keeps the last one


def key_cases():
    """Keys that are no keys, wherever they come from."""
    yield "Keyring of 31 bytes", lambda _: Keyring(KEY[:31])
    yield "Keyring of text", lambda _: Keyring(GOOD)
    yield "Keyring with one byte", lambda _: Keyring(KEY, [bytes(32)])
    yield "Keyring of two lengths", lambda _: Keyring(KEY, [KEY[:24], KEY[:24] + bytes(8)])
    yield "Keyring with None", lambda _: Keyring(KEY, [OTHER_KEY, None])
    yield "Keyring without Format 2", lambda _: Encryptor(Keyring(KEY[:24], [OTHER_KEY]))
    yield (
        "Keyring without a sealer",
        lambda _: Encryptor(Keyring.of(None, FileKey(KeyMaterial(KEY), LIBRARIES[0]))),
    )
    yield "Keyring of a bad wrapper", lambda _: Keyring.of(object())
    yield "Keyring without Format 1", lambda _: Keyring.of(None).format_1_sealer()
    for text in (
        GOOD[:20] + "!" + GOOD[21:],
        GOOD[:-3],
        GOOD[:20] + "é" + GOOD[21:],
        f"{GOOD},{GOOD}",
        KEY.hex(),
    ):
        yield f"from_env {len(text)}", lambda _, text=text: env(**{PRIMARY: text})
        if "," not in text:
            yield (
                f"from_env previous {len(text)}",
                lambda _, text=text: env(**{PRIMARY: b64(OTHER_KEY), PREVIOUS: text}),
            )
        yield f"from_env path {len(text)}", lambda _, text=text: env(**{f"{PRIMARY}_FILE": text})
        yield f"from_env file {len(text)}", lambda folder, text=text: env(folder, text.encode())
    yield "from_env both", lambda _: env(**{PRIMARY: GOOD, f"{PRIMARY}_FILE": GOOD})
    yield "from_env huge", lambda folder: env(folder, GOOD.encode() * 2000)
    yield "from_env binary", lambda folder: env(folder, bytes(range(200, 232)) + KEY)
    yield "from_env shared", lambda folder: env(folder, GOOD.encode(), 0o644)
    yield "from_env of the process", lambda _: Keyring.from_env()


def file_cases(library):
    """Files that were changed, cut or exchanged, and disks that fail or are full."""
    use = {"primitives": library}
    for suite in Suite:
        data = seal(TEXT, suite, metadata_text=NAMED, primitives=library)
        tag = f"{library.name} {suite.value}"
        start = parse_header(data).length
        body = [start + at for at in (3, 30, 60, 90_000)]
        places = [9, 20, 60, 100, HEADER_SIZE + 5, *body, len(data) - 20, len(data) - 1]
        for at in places:
            bad = changed(data, at)
            yield f"read {tag} {at}", lambda _, bad=bad, use=use: read(bad, **use)
            yield f"feed {tag} {at}", lambda _, bad=bad, use=use: feed(bad, **use)
            yield f"verify {tag} {at}", lambda _, bad=bad, use=use: verify(io.BytesIO(bad), RING, **use)
            yield (
                f"decrypt {tag} {at}",
                lambda d, bad=bad, use=use: decrypt_file(stored(d, bad), d / "t", RING, **use),
            )
        for at in places[:7]:
            yield (
                f"rewrap {tag} {at}",
                lambda d, data=data, at=at, use=use: rewrap(
                    stored(d, changed(data, at)), Keyring(OTHER_KEY, [KEY]), **use
                ),
            )
        for size in (0, 40, 300, start + 20, start + 100, 150_000, len(data) - 1):
            yield f"read {tag} cut {size}", lambda _, bad=data[:size], use=use: read(bad, **use)
            yield f"feed {tag} cut {size}", lambda _, bad=data[:size], use=use: feed(bad, **use)
        yield f"read {tag} key", lambda _, data=data, use=use: read(data, Keyring(OTHER_KEY), **use)
        yield f"feed {tag} key", lambda _, data=data, use=use: feed(data, Keyring(OTHER_KEY), **use)
        yield f"read {tag} context", lambda _, data=data, use=use: read(data, context=b"other", **use)
        yield f"feed {tag} context", lambda _, data=data, use=use: feed(data, context=b"other", **use)
        yield f"read {tag} no context", lambda _, data=data, use=use: read(data, context="text", **use)
        yield (
            f"exchanged {tag}",
            lambda _, data=data, use=use: exchanged(data, changed(data, 70_000), **use),
        )
        yield f"shorter {tag}", lambda _, data=data, use=use: exchanged(data, data[:70_000], **use)
        for way, take in WAYS.items():
            yield (
                f"{way} {tag}",
                lambda _, data=data, take=take, use=use: take(
                    open_encrypted(io.BytesIO(changed(data, 70_000)), RING, **use)
                ),
            )
        for error in (OSError(5, "the disk"), Interrupt(), RuntimeError()):
            for good in (0, 56, 300, 80_000):
                yield (
                    f"disk {tag} {good} {error!r}",
                    lambda _, data=data, good=good, error=error, use=use: read(
                        Unreadable(data, good, error), **use
                    ),
                )
        yield f"write {tag} twice", lambda _, suite=suite, use=use: write(suite=suite, **use)
        yield f"write {tag} text", lambda _, suite=suite, use=use: write("text", suite=suite, **use)
        yield (
            f"write {tag} context",
            lambda _, suite=suite, use=use: write(suite=suite, context="text", **use),
        )
        yield (
            f"write {tag} metadata",
            lambda _, suite=suite, use=use: write(suite=suite, metadata={"n": MARK}, **use),
        )
        yield (
            f"write {tag} service",
            lambda _, suite=suite, use=use: write(ring=Keyring.of(Service()), suite=suite, **use),
        )
        yield (
            f"write {tag} bad payload",
            lambda _, suite=suite, use=use: write(ring=Keyring.of(Service(b"")), suite=suite, **use),
        )
        yield (
            f"write {tag} no payload",
            lambda _, suite=suite, use=use: write(ring=Keyring.of(Service("")), suite=suite, **use),
        )
        yield (
            f"encrypt {tag} full",
            lambda d, suite=suite, use=use: full(
                d, TEXT, lambda f, t: encrypt_file(f, t, RING, suite=suite, **use)
            ),
        )
        yield (
            f"decrypt {tag} full",
            lambda d, data=data, use=use: full(d, data, lambda f, t: decrypt_file(f, t, RING, **use)),
        )
    yield f"format 1 {library.name} read", lambda _, use=use: read(changed(F1, 200), format_1=True, **use)
    yield f"format 1 {library.name} cut", lambda _, use=use: read(F1[:-1], format_1=True, **use)
    yield (
        f"format 1 {library.name} exchanged",
        lambda _, use=use: exchanged(LONG, changed(LONG, 1_100_000), format_1=True, **use),
    )
    yield (
        f"format 1 {library.name} sealer",
        lambda _, use=use: Format1Sealer(KEY, bytes(16), **use).update("text"),
    )
    yield f"format 1 {library.name} key", lambda _, use=use: Format1Sealer(KEY[:31], bytes(16), **use)
    yield (
        f"format 1 {library.name} context",
        lambda d, use=use: encrypt_file(stored(d, TEXT), d / "t", RING, format_1=True, context=b"c", **use),
    )


def library_cases():
    """Metadata that is none though its tag is good, and libraries that fail midway."""
    for text in (
        b"[1]",
        b'{"a":NaN, "b": "plaintext of a user of the app. "}',
        b"plaintext of a user of the app. ",
        MARK + b"\xff",
    ):
        yield f"metadata {text[:5]!r}", lambda _, text=text: read(other_metadata(text))
        yield f"metadata {text[:5]!r} fed", lambda _, text=text: feed(other_metadata(text))
    for method in ("cbc_encryptor", "gcm", "cobblestone_sealer"):
        for suite in Suite:
            if (method, suite) not in {("cbc_encryptor", Suite.GCM), ("cobblestone_sealer", Suite.CBC_HMAC)}:
                yield (
                    f"write without {method} {suite.value}",
                    lambda _, m=method, s=suite: write(suite=s, primitives=Failing(m), metadata={"n": "m"}),
                )
    for after in (0, 1, 2):
        yield (
            f"read without cbc {after}",
            lambda _, n=after: read(seal(TEXT), primitives=Failing("cbc_decrypt_into", MemoryError, n)),
        )
        yield (
            f"feed without cbc {after}",
            lambda _, n=after: feed(seal(TEXT), primitives=Failing("cbc_decrypt_into", Interrupt, n)),
        )
    yield "open without gcm", lambda _: read(seal(TEXT, metadata_text=NAMED), primitives=Failing("gcm"))
    yield "unwrap without gcm", lambda _: read(seal(TEXT), Keyring(KEY, primitives=Failing("gcm")))
    yield "wrap without gcm", lambda _: write(ring=Keyring(KEY, primitives=Failing("gcm")))
    yield (
        "rewrap without gcm",
        lambda d: rewrap(
            stored(d, SHORT), Keyring(OTHER_KEY, [KEY], primitives=Failing("gcm", Interrupt, 1))
        ),
    )


def other_cases():
    """The rest: slots, services, paths, the journal, inspectors."""
    yield "rewrap planted", lambda d: rewrap(stored(d, planted(SHORT)), Keyring(OTHER_KEY, [KEY]))
    yield (
        "rewrap planted, no context",
        lambda d: rewrap(stored(d, planted(SHORT)), Keyring(OTHER_KEY, [KEY]), None),
    )
    yield "rewrap context", lambda d: rewrap(stored(d, SHORT), Keyring(OTHER_KEY, [KEY]), b"other")
    yield (
        "rewrap to a service",
        lambda d: rewrap(stored(d, SHORT), Keyring.of(Service(), FileKey(KeyMaterial(KEY), LIBRARIES[0]))),
    )
    yield (
        "rewrap to a bad service",
        lambda d: rewrap(stored(d, SHORT), Keyring.of(Service(b""), FileKey(KeyMaterial(KEY), LIBRARIES[0]))),
    )
    yield (
        "rewrap to a service that forgets",
        lambda d: rewrap(
            stored(d, SHORT), Keyring.of(Service(bytes(100)), FileKey(KeyMaterial(KEY), LIBRARIES[0]))
        ),
    )
    yield "rewrap Format 1", lambda d: rewrap(stored(d, F1), RING)
    yield (
        "open by a service",
        lambda _: read(SHORT, Keyring.of(None, FileKey(KeyMaterial(KEY), Failing("gcm")), Service())),
    )
    yield "encrypt onto a file", lambda d: encrypt_file(stored(d, TEXT), stored(d, b""), RING)
    yield "encrypt nothing", lambda d: encrypt_file(d / "none", d / "t", RING)
    yield "decrypt onto a file", lambda d: decrypt_file(stored(d, SHORT), stored(d, b""), RING)
    yield "journal key short", lambda d: hash_name(journal_key(d, PSEUDONYM_KEY + b"\0"), "n")
    yield "journal key shared", lambda d: hash_name(journal_key(d, PSEUDONYM_KEY, 0o644), "n")
    yield "journal key bad", lambda d: Journal(journal_key(d, PSEUDONYM_KEY + b"\0"), names="hash")
    yield (
        "journal record",
        lambda d: Journal(journal_key(d, PSEUDONYM_KEY), names="hash").record(Entry("nothing")),
    )
    yield "journal verified", lambda d: verify_journal(d / "none")
    yield "clamd is not there", lambda d: inspect_with(ClamAV(str(d / "none")))
    yield "file rules", lambda _: inspect_with(FileRules(types=("application/pdf",)))


def cases():
    """Yield (name, what fails): given a folder, it raises."""
    yield from key_cases()
    for library in LIBRARIES:
        yield from file_cases(library)
    yield from library_cases()
    yield from other_cases()


CASES = [pytest.param(run, id=name) for name, run in cases()]


def failure_of(run, folder) -> BaseException:
    with pytest.raises(BaseException) as caught:  # each case has its own
        run(folder)
    return caught.value


@pytest.fixture(autouse=True)
def process_key(monkeypatch):
    """The key in the process's own environment is not a good one."""
    monkeypatch.setenv(PRIMARY, GOOD[:-3])


@pytest.mark.parametrize("run", CASES)
def test_what_fails_leaves_no_secret_in_a_frame(run, tmp_path):
    error = failure_of(run, tmp_path)
    assert secrets_in(error, SECRETS) == []
    assert variables_of(error) == []


def test_the_cases_find_what_is_not_cleared(tmp_path, monkeypatch):
    """Without it each leaves variables of this library, and a third of them a secret that this file knows.

    What the others leave (data keys that were drawn, derived keys) it does not know.
    """
    monkeypatch.setattr(secrecy, "clear_frames", lambda *_: None)
    silent, shown = [], 0
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        error = failure_of(case.values[0], folder)
        shown += bool(secrets_in(error, SECRETS))
        if not variables_of(error):
            silent.append(case.id)
    assert silent == []
    assert shown > len(CASES) / 3


def test_a_cleared_traceback_still_says_where():
    error = failure_of(lambda _: read(changed(SHORT, BODY_START + 3)), None)
    assert isinstance(error, IntegrityError)
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert names[-2:] == ["_authenticated", "_reject"]


def locals_of(error: BaseException, function: str) -> list[list[str]]:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [sorted(frame.f_locals) for frame in frames if frame.f_code.co_name == function]


def test_frames_of_the_caller_are_left_alone():
    """What is in a frame of its file or inspector is the caller's, to find the fault with."""
    error = failure_of(lambda _: read(Unreadable(SHORT, 0, OSError())), None)
    assert locals_of(error, "read")[-1] == ["__class__", "self", "size"]


@pytest.mark.parametrize(
    ("run", "method"),
    [
        pytest.param(lambda: write(ring=Keyring.of(Service())), "wrap", id="wrap"),
        pytest.param(lambda: read(SHORT, Keyring.of(None, Service())), "unwrap", id="unwrap"),
    ],
)
def test_frames_of_a_key_service_are_cleared_because_it_got_a_data_key(run, method):
    error = failure_of(lambda _: run(), None)
    assert isinstance(error, ConnectionError)
    found = locals_of(error, method)
    assert found
    assert not any(found)


def test_errors_that_are_hidden_are_dropped_and_shown_ones_kept():
    @clears_frames
    def fail(*, hidden: bool) -> None:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise KeyError("second") from (None if hidden else error)

    with pytest.raises(KeyError) as caught:
        fail(hidden=True)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    with pytest.raises(KeyError) as caught:
        fail(hidden=False)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_what_an_error_came_from_is_cleared_too(link):
    with pytest.raises(ValueError, match="32 bytes") as first:
        derive(Suite.GCM, DEK[:31], bytes(24), b"", LIBRARIES[0], bytes)
    assert variables_of(first.value)

    @clears_frames
    def fail():
        second = KeyError("second")
        setattr(second, link, first.value)
        raise second

    with pytest.raises(KeyError) as caught:
        fail()
    assert getattr(caught.value, link) is first.value
    assert variables_of(caught.value) == []


@pytest.mark.parametrize(
    ("module", "cleared"),
    [
        *((name, True) for name in ("base64", "contextlib", "cryptography", "hmac", "json", "tempfile")),
        ("securefs.anything", True),
        ("Crypto.Cipher.AES", True),
        ("securefs_admin", False),
        ("app", False),
        ("app.securefs", False),
        (None, False),
    ],
)
def test_frames_are_told_by_the_package_they_belong_to(module, cleared):
    """It needs no failure of each library that keys go to: an interrupt may fall into any of them."""
    space = {"__name__": module}
    exec("def called(secret):\n    raise ValueError", space)
    with pytest.raises(ValueError) as caught:  # it says nothing
        clears_frames(space["called"])(KEY)
    assert locals_of(caught.value, "called") == [[] if cleared else ["secret"]]


def test_a_command_that_fails_unexpectedly_shows_no_key(monkeypatch):
    class Screen:
        encoding = "utf-8"

        def write(self, _):
            raise RuntimeError("an error that no command expects")

        buffer = property(lambda self: self)

    monkeypatch.setattr("sys.stdout", Screen())
    error = failure_of(lambda _: main(["keygen"]), None)
    assert isinstance(error, RuntimeError)
    assert variables_of(error) == []


def test_errors_that_lead_to_each_other_end():
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    clear_frames(first)


def holders():
    """Everything that holds a key or the state of a cipher."""
    random = chosen()
    file, header_and_head = seal(TEXT), BODY_START
    yield from (RING, KeyMaterial(KEY), FileKey(KeyMaterial(KEY), LIBRARIES[0]), random, NewFiles(RING))
    yield from (Format1Sealer(KEY, bytes(16), LIBRARIES[0]), Format1Verifier({b"": KEY}))
    yield from (open_encrypted(io.BytesIO(file), RING), open_encrypted(io.BytesIO(F1), RING, format_1=True))
    yield Pseudonyms(PSEUDONYM_KEY)
    yield SealedFile.__new__(SealedFile)  # what it seals with is in the list by itself
    for library in LIBRARIES:
        yield library.gcm(KEY)
        yield Decryptor(RING, primitives=library)
        for suite in Suite:
            yield Encryptor(RING, suite, primitives=library)
            yield Encryptor(RING, suite, primitives=library)._sealer
            yield derive(suite, DEK, bytes(24), b"", library, bytes)[0]
            yield unlock(seal(TEXT, suite)[:header_and_head], RING, b"", library)


HOLDERS = [pytest.param(one, id=f"{number} {type(one).__name__}") for number, one in enumerate(holders())]


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    "action",
    [
        copy.copy,
        copy.deepcopy,
        *(partial(pickle.dumps, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
    ids=["copy", "deepcopy", *(f"pickle {number}" for number in range(pickle.HIGHEST_PROTOCOL + 1))],
)
def test_what_holds_a_key_refuses_to_be_pickled_or_copied(holder, action):
    # pyca's own writer of suite 2 is the one that is not this project's class.
    message = "refuses to be pickled or copied$" if isinstance(holder, HoldsSecrets) else "cannot pickle"
    with pytest.raises(TypeError, match=message):
        action(holder)


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_holds_a_key_does_not_show_it(holder):
    shown = "".join((repr(holder), str(holder), f"{holder}", repr([holder])))
    assert [text for secret in SECRETS for text in spellings(secret) if text in shown] == []


def test_the_refusal_names_the_class_that_the_caller_knows():
    for holder, name in (
        (RING, "Keyring"),
        (open_encrypted(io.BytesIO(F1), RING, format_1=True), "EncryptedFile"),
    ):
        with pytest.raises(TypeError, match=f"^{name} holds secret keys and refuses"):
            pickle.dumps(holder)
    with pytest.raises(TypeError, match=r"^PyCryptodomeGcm holds"):
        copy.copy(LIBRARIES[0].gcm(KEY))


@pytest.mark.parametrize(
    "holder", [RING, Encryptor(RING), Decryptor(RING)], ids=["ring", "encryptor", "decryptor"]
)
def test_no_key_goes_to_another_process(holder):
    process = multiprocessing.get_context("spawn").Process(target=print, args=(holder,))
    with pytest.raises(TypeError, match="refuses to be pickled or copied"):
        process.start()
    process.close()


# Public functions that see neither key nor plaintext, and so need not clear frames.
NOT_WRAPPED = {
    "claimed_object_id": "reads a header",
    "generate_key": "fails only if the system has no random numbers",
    "verify_chain": "reads a journal",
    "attachment": "spells a file name",
    "Exchange.answered": "records a status",
    "EncryptedFile.__init__": "makes a buffer of what open_encrypted opened",
    "EncryptedFile.check": "what can fail in it is wrapped",
    "EncryptedFile.detach": "raises",
    "EncryptedFile.read": "runs for each small read; what can fail in it is wrapped",
    "EncryptedFile.read1": "the same",
    "EncryptedFile.keep": "notes a file",
    "EncryptedFile.watch": "notes a function",
    "Encryptor.stored_length": "computes",
    "Decryptor.skip_to": "counts",
    "Exchange.__init__": "sees a request's head",
    "Exchange.break_off": "records ids",
    "Exchange.check": "knows ids",
    "Exchange.expect": "notes an id",
    "Exchange.permit": "notes an upload",
    "Exchange.record": "the journal's own is wrapped",
    "Exchange.sealed": "notes an upload",
    "Exchange.settle": "knows ids",
    "Exchange.spoil": "notes a refusal",
    "Exchange.tell": "logs a refusal",
    "FileRules.__init__": "takes settings",
    "FileKey.wrap": "is called as every wrapper is: its caller clears all frames",
    "FileKey.unwrap": "the same",
    "Keyring.wrapper": "sees the keyring alone, which shows ids",
    "ClamAV.__init__": "takes settings",
    "Suite.parse": "finds a name",
    "Sealed.__init__": "takes a stream of stored bytes",
    "Sealed.close": "what can fail in it is the caller's file",
    "Sealed.readable": "returns True",
    "Sealed.seek": "counts",
    "Sealed.stored_length": "computes",
    "Sealed.tell": "counts",
    "Vault.unsealed": "asks is_sealed, which is wrapped",
}


def public_functions():
    """Yield (name, function) of all public functions and methods, constructors among them."""
    for room in (securefs, securefs.keys, securefs.audit, securefs.middleware):
        for name in room.__all__:
            thing = getattr(room, name)
            if inspect.isfunction(thing):
                yield name, thing
            elif (
                inspect.isclass(thing)
                and not issubclass(thing, (BaseException, Suite))
                and not dataclasses.is_dataclass(thing)
            ):
                for key, value in vars(thing).items():
                    function = getattr(value, "__func__", value)
                    if inspect.isfunction(function) and (not key.startswith("_") or key == "__init__"):
                        yield f"{name}.{key}", function


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(*pair, id=pair[0]) for pair in public_functions()]
)
def test_each_public_function_clears_frames_or_says_why_not(name, function):
    wrapped = function.__code__.co_name == "guarded"
    protocol = name.partition(".")[0] in {"Wrapper", "Unwrapper"}
    assert wrapped != (name in NOT_WRAPPED or protocol)
