"""A vault opens and seals files with the middleware's settings, in a worker or in a request, and everything is in the journal."""

from __future__ import annotations

import base64
import copy
import io
import os
import pickle
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journals import all_records, open_descriptors
from support.sealing import BODY_START, KEY, OTHER_KEY, RING, chosen, pattern, seal, seal_1, slot_of
from support.uploads import CANARY, KEYRING

from securefs import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    JournalError,
    Keyring,
    LimitExceededError,
    SecureFSError,
    SourceError,
    Suite,
    UnknownKeyError,
    verify,
)
from securefs.audit import Journal
from securefs.backend import default_primitives
from securefs.errors import Reason
from securefs.header import claimed_object_id, slot_table
from securefs.keys import FileKey
from securefs.keys.material import KeyMaterial
from securefs.middleware import Policy, SecureFS, Vault
from securefs.reader import forget_nested

MIB = 1024 * 1024
TEXT = pattern(300_000)
STORED = seal(TEXT, ring=KEYRING)
ID = claimed_object_id(STORED)
# What somebody who writes to the storage can put in a file's place, and the reason in the journal.
PUT_IN_PLACE = {
    "a bit of the magic": (bytes([STORED[0] ^ 1]) + STORED[1:], Reason.NOT_ENCRYPTED),
    "a bit of the preamble": (STORED[:20] + bytes([STORED[20] ^ 1]) + STORED[21:], None),
    "nothing": (b"", Reason.NOT_ENCRYPTED),
    "five bytes": (STORED[:5], None),
    "half": (STORED[: len(STORED) // 2], Reason.TRUNCATED),
    "a byte more": (STORED + b"\0", Reason.TRUNCATED),
    "the last byte": (STORED[:-1] + bytes([STORED[-1] ^ 1]), Reason.TRUNCATED),
    "the tag of the end": (STORED[:-2] + bytes([STORED[-2] ^ 1]) + STORED[-1:], Reason.TAG_MISMATCH),
    "plaintext": (TEXT, Reason.NOT_ENCRYPTED),
    "another key": (seal(TEXT, ring=Keyring(OTHER_KEY)), Reason.UNKNOWN_KEY),
    "another context": (seal(TEXT, ring=KEYRING, context=b"elsewhere"), Reason.COMMITMENT_MISMATCH),
    "format 1": (seal_1(TEXT), Reason.NOT_ENCRYPTED),
}


@pytest.fixture(autouse=True)
def _nothing_nested():
    forget_nested()
    yield
    forget_nested()


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "file").write_bytes(STORED)
    return folder


@pytest.fixture
def vault_of(journal, store):
    def make(**options):
        options.setdefault("policy", Policy(stores=(str(store),)))
        return Vault(**{"keyring": KEYRING, "journal": journal, **options})

    return make


@pytest.fixture
def vault(vault_of):
    return vault_of()


def content(vault, file, **said):
    with vault.open(file, **said) as opened:
        return opened.read()


def test_a_file_of_a_store_is_opened_and_recorded(vault, store, journal):
    with vault.open(store / "file") as file:
        assert (file.read(10), file.seek(-5, io.SEEK_END), file.read()) == (TEXT[:10], 299_995, TEXT[-5:])
        assert (file.size, file.object_id) == (len(TEXT), ID)
    record = journal.records("file.open")[0]
    assert record["obj"] == {
        "id": ID,
        "key_id": KEYRING.primary_id.hex(),
        "format": 2,
        "suite": "aes-256-cbc-hmac-sha256",
        "size": len(TEXT),
        "name": "file",
    }
    assert (record["outcome"], record["sev"]) == ("success", 1)
    assert record.keys().isdisjoint({"req", "http", "actor"})


@pytest.mark.parametrize("path_of", [str, os.fspath, lambda path: path], ids=["str", "fspath", "Path"])
def test_a_file_that_was_opened_by_its_path_is_closed_with_the_result(vault, store, path_of, journal):
    journal.check()  # its own file is open before descriptors are counted
    before = open_descriptors()
    file = vault.open(path_of(store / "file"))
    assert open_descriptors() != before
    file.close()
    assert open_descriptors() == before


def test_a_file_of_the_callers_stays_open(vault, store):
    with (store / "file").open("rb") as file:
        file.seek(17)
        assert content(vault, file) == TEXT
        vault.open(file).close()
        assert not file.closed


@pytest.mark.parametrize("what", PUT_IN_PLACE)
def test_what_is_put_in_a_files_place_is_refused_recorded_and_named(what, vault, store, journal, caplog):
    content, reason = PUT_IN_PLACE[what]
    (store / "file").write_bytes(content)
    journal.check()
    before = open_descriptors()
    with pytest.raises(SecureFSError, match=f"^{store}/file: ") as caught:
        vault.open(store / "file")
    assert open_descriptors() == before
    assert caught.value.reason == (reason or caught.value.reason)
    (told,) = journal.events()
    assert told == ("file.integrity_failure", "failure", caught.value.reason.value)
    assert journal.records("file.integrity_failure")[0]["obj"]["name"] == "file"
    assert f"{store}/file can't be opened: " in caplog.text


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("read", ["read", "check", "line"])
def test_a_segment_that_fails_later_is_recorded_once(suite, read, vault, store, journal):
    data = bytearray(seal(TEXT, suite, ring=KEYRING))
    data[BODY_START + suite.sealed_size + 100] ^= 1
    (store / "file").write_bytes(data)
    with vault.open(store / "file") as file:
        assert file.read(suite.segment_size) == TEXT[: suite.segment_size]
        ways = {"read": file.read, "check": file.check, "line": lambda: list(file)}
        for _ in range(2):
            with pytest.raises(IntegrityError) as caught:
                ways[read]()
            file.seek(suite.segment_size)
    assert str(caught.value)
    assert journal.events() == [
        ("file.open", "success", None),
        ("file.integrity_failure", "failure", "tag_mismatch"),
    ]
    about = journal.records("file.integrity_failure")[0]["obj"]
    assert (about["id"], about["segment"], len(about["digest"])) == (ID, 1, 64)


def test_the_first_error_of_a_later_read_names_the_file(vault, store):
    data = bytearray(STORED)
    data[BODY_START + 100] ^= 1
    (store / "file").write_bytes(data)
    with vault.open(store / "file") as file, pytest.raises(IntegrityError, match=f"^{store}/file: segment 0"):
        file.read()


def test_a_planted_slot_is_recorded_beside_the_file(vault_of, store, journal):
    ring = Keyring(OTHER_KEY, [KEY])
    good = slot_of(OTHER_KEY, STORED[:48], chosen().dek)
    planted = slot_of(KEY, STORED[:48], bytes(range(200, 232)), 2)
    (store / "file").write_bytes(STORED[:48] + slot_table([planted, good], 2, 160) + STORED[56 + 320 :])
    assert content(vault_of(keyring=ring), store / "file") == TEXT
    assert journal.events() == [
        ("file.integrity_failure", "failure", "commitment_mismatch"),
        ("file.open", "success", None),
    ]
    assert journal.records("file.integrity_failure")[0]["obj"]["slot"] == 0


def test_only_what_is_in_a_store_is_opened(vault, store, journal, tmp_path):
    (tmp_path / "elsewhere").write_bytes(STORED)
    (store / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(store / "pipe")
    (store / "folder").mkdir()
    with (tmp_path / "elsewhere").open("rb") as there:
        refused = {
            "path": tmp_path / "elsewhere",
            "open file": there,
            "bytes": io.BytesIO(STORED),
        }
        for file in refused.values():
            with pytest.raises(FormatError, match=r"stores \(SECUREFS_STORES\)") as caught:
                vault.open(file)
            assert caught.value.reason is Reason.UNDECLARED
    with pytest.raises(FormatError, match=r"link in a store leads out of it"):
        vault.open(store / "link")
    for name in ("pipe", "folder"):
        with pytest.raises(SourceError, match=r"not a regular file"):
            vault.open(store / name)
    with pytest.raises(FileNotFoundError):
        vault.open(store / "nothing")
    undeclared = [("file.open", "failure", "undeclared")] * 3
    odd = [("file.integrity_failure", "failure", "not_encrypted")] + [
        ("file.open", "failure", "io_error")
    ] * 3
    assert journal.events() == undeclared + odd


def test_a_link_within_the_stores_is_followed(vault, store):
    (store / "link").symlink_to(store / "file")
    assert content(vault, store / "link") == TEXT


def test_the_caller_may_vouch_for_a_place(vault, journal):
    with vault.open(io.BytesIO(STORED), anywhere=True) as file:
        assert file.read() == TEXT
    assert journal.events() == [("file.open", "success", None)]


def test_with_nothing_declared_it_warns_and_opens(vault_of, journal, caplog):
    vault = vault_of(policy=Policy())
    assert "no store is declared: a vault opens ciphertext from anywhere" in caplog.text
    assert content(vault, io.BytesIO(STORED)) == TEXT
    assert journal.records("server.start")[0]["obj"]["places"] == "undeclared"


def test_with_stores_declared_it_says_nothing(vault, store, journal, caplog):
    vault.open(store / "file").close()
    assert not caplog.records
    assert journal.records("server.start")[0]["obj"]["places"] == "declared"


def test_protected_paths_are_no_store(vault_of):
    vault = vault_of(policy=Policy(protected_paths=("/files/*",)))
    with pytest.raises(FormatError, match=r"anywhere=True"):
        vault.open(io.BytesIO(STORED))


@pytest.mark.parametrize("way", ["vault", "call", "function"])
def test_a_file_opens_in_its_own_context_alone(way, vault_of, store, tmp_path):
    def made(context):
        if way == "vault":
            return vault_of(context=context), {}
        if way == "function":
            return vault_of(context=lambda: context), {}
        return vault_of(context=b"of others"), {"context": context}

    vault, said = made(b"tenant 7")
    vault.seal(io.BytesIO(TEXT), **said).save(store / "bound")
    assert content(vault, store / "bound", **said) == TEXT
    for context in (b"tenant 8", b""):
        other, said = made(context)
        with pytest.raises(IntegrityError) as caught:
            other.open(store / "bound", **said)
        assert caught.value.reason is Reason.COMMITMENT_MISMATCH


def test_a_function_that_does_not_tell_its_arguments_is_called(vault_of, store):
    assert content(vault_of(context=bytes), store / "file") == TEXT


def test_a_context_is_asked_for_at_each_call(vault_of, store):
    tenants = [b"a", b"b", b"a"]
    vault = vault_of(context=lambda: tenants.pop(0))
    vault.seal(io.BytesIO(TEXT)).save(store / "bound")
    with pytest.raises(IntegrityError):
        vault.open(store / "bound")
    assert content(vault, store / "bound") == TEXT


def test_a_vault_of_a_middleware_that_asks_requests_must_be_told_the_context(journal, store):
    app = SecureFS(
        lambda *_: [],
        keyring=KEYRING,
        journal=journal,
        policy=Policy(),
        stores=[store],
        context=lambda environ: b"tenant 7",
    )
    for call in (partial(app.vault.open, store / "file"), partial(app.vault.seal, io.BytesIO(TEXT))):
        with pytest.raises(ConfigurationError, match=r'context=b"…"'):
            call()
    app.vault.seal(io.BytesIO(TEXT), context=b"tenant 7").save(store / "bound")
    assert content(app.vault, store / "bound", context=lambda: b"tenant 7") == TEXT


@pytest.mark.parametrize("bound", [None, b"", b"tenant 7"])
def test_a_vault_of_a_middleware_with_one_context_needs_not_be_told(bound, journal, store):
    options = {
        "keyring": KEYRING,
        "journal": journal,
        "policy": Policy(),
        "stores": [store],
        "context": bound,
    }
    app = SecureFS(lambda *_: [], **options)
    app.vault.seal(io.BytesIO(TEXT)).save(store / "bound")
    assert verify(store / "bound", KEYRING, bound or b"").size == len(TEXT)
    assert content(app.vault, store / "bound") == TEXT


async def awaited():
    return b"tenant"


BAD = {
    "a context that is text": ({"context": "tenant"}, {}, "context must be bytes, or a function"),
    "a context that is a number": ({"context": 7}, {}, "context must be bytes, or a function"),
    "a context of an environ": ({"context": lambda environ: b""}, {}, "context must be .* takes some"),
    "a context that is awaited": ({}, {"context": awaited}, "context must be .* coroutine function"),
    "what a context returns": ({"context": lambda: "tenant"}, {}, "context must be bytes"),
    "the context of a call": ({}, {"context": "tenant"}, "context must be bytes"),
    "an object id": ({}, {"object_id": 7}, "object_id must be 64 hex digits, or None"),
    "a keyring": ({"keyring": KEY}, {}, "keyring must be a Keyring"),
    "a journal": ({"journal": "folder"}, {}, "journal must be a Journal"),
    "a policy": ({"policy": {}}, {}, "policy must be a Policy"),
    "a store": ({"stores": "uploads"}, {}, "stores must be a list of folders"),
    "a hook": ({"on_event": 1}, {}, "on_event must be a function"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_argument_of_a_wrong_type_is_named(what, vault_of, store, journal):
    made, said, message = BAD[what]
    with pytest.raises(ConfigurationError, match=message):
        vault_of(**made).open(store / "file", **said)
    assert journal.events() == []


def test_the_expected_object_id_catches_another_file(vault, store, journal):
    vault.open(store / "file", object_id=ID).close()
    for other in ("0" * 64, ID.upper(), ""):
        with pytest.raises(IntegrityError, match=r"not the one that was asked for") as caught:
            vault.open(store / "file", object_id=other)
        assert caught.value.reason is Reason.WRONG_OBJECT
    assert journal.events()[1:] == [("file.integrity_failure", "failure", "wrong_object")] * 3


def test_a_ciphertext_out_of_an_encrypted_file_is_never_opened(vault, store, journal):
    """Somebody who may upload, and have the app copy what it reads, would have a stolen ciphertext decrypted."""
    (store / "outer").write_bytes(seal(STORED, label="outer", ring=KEYRING))
    inner = content(vault, store / "outer")
    for said in ({}, {"anywhere": True}):
        with pytest.raises(FormatError, match=r"encrypted it twice") as caught:
            vault.open(io.BytesIO(inner), **said)
        assert caught.value.reason is Reason.CIPHERTEXT_INJECTION
    (store / "copy").write_bytes(inner)
    with pytest.raises(FormatError):
        vault.open(store / "copy")
    assert journal.records("file.open")[-1]["sev"] == 4


NO_FILES = {
    "None": None,
    "a number": 3,
    "bytes": b"store/file",
    "text": io.StringIO("text"),
    "a function": print,
    "an empty name": "",
    "a NUL in a name": "file\0",
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_refused_in_a_sentence(what, vault, journal):
    for use in (vault.open, vault.is_sealed, lambda file: vault.seal(file).read()):
        with pytest.raises((SourceError, FileNotFoundError)) as caught:
            use(NO_FILES[what])
        assert str(caught.value)
    assert ("file.open", "failure", "io_error") in journal.events()


def test_a_closed_file_and_a_pipe_are_no_files(vault):
    closed = io.BytesIO(STORED)
    closed.close()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb"):
        for file in (closed, pipe):
            with pytest.raises((SourceError, OSError)):
                vault.open(file)


def test_a_later_failure_that_cannot_be_recorded_says_so(vault, store, journal):
    data = bytearray(STORED)
    data[BODY_START + 100] ^= 1
    (store / "file").write_bytes(data)
    with vault.open(store / "file") as file:
        journal.lose()
        with pytest.raises(JournalError):
            file.read()


def test_what_is_open_already_is_told(vault, store):
    with vault.open(store / "file") as file:
        with pytest.raises(ConfigurationError, match=r"open already"):
            vault.open(file)
        assert not vault.is_sealed(file)


def test_a_worker_that_may_not_read_is_told(vault_of, store, journal):
    writer = vault_of(keyring=Keyring.of(FileKey(KeyMaterial(KEY), default_primitives())))
    writer.seal(io.BytesIO(TEXT)).save(store / "made")
    with pytest.raises(UnknownKeyError, match=r"it may store files and not read them"):
        writer.open(store / "made")
    assert content(vault_of(), store / "made") == TEXT
    events = [("file.encrypt", "started", None), ("file.encrypt", "success", None)]
    refused = ("file.integrity_failure", "failure", "unknown_key")
    assert journal.events() == [*events, refused, ("file.open", "success", None)]


def test_a_worker_that_may_only_read_is_told(vault_of, store, journal):
    reader = vault_of(keyring=Keyring.of(None, FileKey(KeyMaterial(KEY), default_primitives())))
    assert content(reader, store / "file") == TEXT
    with pytest.raises(ConfigurationError, match=r"no key of the ring seals"):
        reader.seal(io.BytesIO(TEXT))


def test_a_worker_without_the_key_is_told_which_setting(vault_of, store):
    with pytest.raises(UnknownKeyError, match=r"add it to FILE_KEY_BASE64_PREVIOUS") as caught:
        vault_of(keyring=Keyring(OTHER_KEY)).open(store / "file")
    assert caught.value.key_ids == (KEYRING.primary_id.hex(),)


def test_a_worker_without_settings_is_told_which(tmp_path):
    with pytest.raises(ConfigurationError, match=r"FILE_KEY_BASE64 is not set"):
        Vault.from_env({})
    with pytest.raises(ConfigurationError, match=r"stores \(SECUREFS_STORES\)"):
        Vault.from_env({"FILE_KEY_BASE64": base64.b64encode(KEY).decode(), "SECUREFS_STORES": "/nowhere"})


def test_a_worker_has_the_settings_of_the_environment(tmp_path, store, caplog):
    environ = {
        "FILE_KEY_BASE64": base64.b64encode(KEY).decode(),
        "SECUREFS_STORES": str(store),
        "SECUREFS_AUDIT_DIR": str(tmp_path / "audit"),
        "SECUREFS_SUITE": "aes-256-gcm",
    }
    vault = Vault.from_env(environ, context=b"tenant 7")
    vault.seal(io.BytesIO(TEXT), name="r.pdf").save(store / "made")
    assert verify(store / "made", RING, b"tenant 7").suite == "aes-256-gcm"
    assert all_records(tmp_path / "audit")[-1]["event"] == "file.encrypt"
    assert not caplog.records
    del environ["SECUREFS_STORES"]
    Vault.from_env(environ)
    assert "no store is declared" in caplog.text


def test_what_cannot_be_recorded_is_not_opened(vault_of, store):
    with Path("/dev/full").open("wb") as full:
        vault = vault_of(journal=Journal(stream=full))
        with pytest.raises(JournalError):
            vault.open(io.BytesIO(STORED), anywhere=True)
        before = open_descriptors()
        with pytest.raises(JournalError):
            vault.open(store / "file")
        (store / "file").write_bytes(b"plaintext")
        with pytest.raises(JournalError):
            vault.open(store / "file")
        sealed = vault.seal(io.BytesIO(TEXT))
        with pytest.raises(JournalError):
            sealed.read()
        sealed.close()
        assert open_descriptors() == before


def test_a_hook_hears_of_each_record(vault_of, store, caplog):
    heard = []

    def hook(entry):
        heard.append(entry.event)
        raise RuntimeError("the hook's own fault")

    vault_of(on_event=hook).open(store / "file").close()
    assert heard == ["file.open"]
    assert "on_event failed for file.open: " in caplog.text


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_vault_is_not_pickled_or_copied(vault, take):
    with pytest.raises(TypeError, match=r"Vault holds secret keys"):
        take(vault)
    assert KEY.hex() not in repr(vault)


# --- Format 1


@pytest.fixture
def old(vault_of, store):
    return vault_of(policy=Policy(stores=(str(store),), format=1))


def test_format_1_is_opened_where_the_policy_reads_it(old, vault_of, store, journal):
    (store / "old").write_bytes(seal_1(TEXT))
    assert content(old, store / "old") == TEXT
    assert journal.records("file.open")[0]["obj"].keys() == {"key_id", "format", "size", "name"}
    both = vault_of(policy=Policy(stores=(str(store),), format_1_paths=("/old/*",)))
    assert content(both, store / "old") == content(both, store / "file") == TEXT
    with pytest.raises(IntegrityError):
        old.open(store / "old", object_id=ID)


def test_a_long_format_1_file_is_refused_by_the_limit(vault_of, store, journal):
    (store / "old").write_bytes(seal_1(TEXT))
    vault = vault_of(policy=Policy(stores=(str(store),), format=1, max_format_1=100_000))
    with pytest.raises(LimitExceededError):
        vault.open(store / "old")
    assert journal.events() == [("file.open", "failure", "limit")]


def test_format_1_is_sealed_where_the_policy_writes_it(old, store, journal):
    sealed = old.seal(io.BytesIO(TEXT), name="r.pdf", content_type="application/pdf")
    assert sealed.object_id == ""
    sealed.save(store / "made")
    assert content(old, store / "made") == TEXT
    assert old.is_sealed(store / "made")


def test_a_context_beside_format_1_is_refused(vault_of, old, store):
    with pytest.raises(ConfigurationError, match=r"unbound_format_1"):
        vault_of(policy=Policy(stores=(str(store),), format=1), context=b"tenant")
    for call in (old.open, old.seal):
        with pytest.raises(ConfigurationError, match=r"unbound_format_1"):
            call(store / "file", context=b"tenant")
    with pytest.raises(ConfigurationError, match=r"unbound_format_1"):
        SecureFS(lambda *_: [], keyring=KEYRING, policy=Policy(format=1), context=b"tenant")
    unbound = Policy(stores=(str(store),), format=1, unbound_format_1=True)
    vault = vault_of(policy=unbound, context=b"tenant")
    vault.seal(io.BytesIO(TEXT)).save(store / "made")
    assert content(vault, store / "made") == TEXT


# --- is_sealed


def test_is_sealed_tells_ciphertext_from_plaintext(vault, old, store, journal):
    (store / "plain").write_bytes(TEXT)
    (store / "empty").write_bytes(b"")
    (store / "old").write_bytes(seal_1(TEXT))
    (store / "cut").write_bytes(seal_1(TEXT)[:-1])
    told = {
        name: (vault.is_sealed(store / name), old.is_sealed(store / name))
        for name in ("file", "plain", "empty", "old", "cut")
    }
    assert told == {
        "file": (True, True),
        "plain": (False, False),
        "empty": (False, False),
        "old": (False, True),
        "cut": (False, False),
    }
    assert journal.events() == []


def test_is_sealed_leaves_a_file_where_it_stands(vault):
    file = io.BytesIO(STORED)
    file.seek(77)
    assert vault.is_sealed(file)
    assert file.tell() == 77


def test_is_sealed_says_what_it_cannot_read(vault, store):
    with pytest.raises(SourceError):
        vault.is_sealed(object())
    with pytest.raises(FileNotFoundError):
        vault.is_sealed(store / "nothing")


# --- sealing


def test_what_an_app_made_is_sealed_and_recorded(vault, store, journal):
    sealed = vault.seal(io.BytesIO(TEXT), name="photo.png", content_type="image/png")
    assert journal.events() == []
    assert sealed.save(store / "made") == len(TEXT) == sealed.size
    with vault.open(store / "made", object_id=sealed.object_id) as file:
        assert file.read() == TEXT
        assert file.metadata == {"name": "photo.png", "type": "image/png"}
    started, done = journal.records("file.encrypt")
    assert (started["outcome"], done["outcome"]) == ("started", "success")
    assert done["obj"] == {
        "id": sealed.object_id,
        "key_id": sealed.key_id,
        "format": 2,
        "suite": "aes-256-cbc-hmac-sha256",
        "size": len(TEXT),
        "name": "photo.png",
    }


@given(
    size=st.one_of(
        st.integers(0, 200), st.sampled_from([65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 300_000])
    ),
    reads=st.lists(st.integers(1, 70_000), max_size=5),
    suite=st.sampled_from(Suite),
    old=st.booleans(),
)
def test_however_it_is_read_it_opens(tmp_path_factory, size, reads, suite, old):
    with Path(os.devnull).open("wb") as nowhere:
        vault = Vault(
            keyring=KEYRING,
            journal=Journal(stream=nowhere),
            policy=Policy(format=1 if old else 2, suite=suite, protected_paths=("/",)),
        )
        sealed = vault.seal(io.BytesIO(TEXT[:size]))
        stored = b"".join(sealed.read(count) for count in reads)
        stored += b"".join(sealed)
        assert len(stored) == sealed.tell() == sealed.stored_length(size)
        forget_nested()
        with vault.open(io.BytesIO(stored), anywhere=True) as file:
            assert file.read() == TEXT[:size]


def test_a_file_is_sealed_from_where_it_stands(vault):
    source = io.BytesIO(TEXT)
    source.seek(1000)
    stored = vault.seal(source).read()
    assert content(vault, io.BytesIO(stored), anywhere=True) == TEXT[1000:]


def test_a_path_is_sealed_and_closed(vault, tmp_path, store, journal):
    journal.check()
    (tmp_path / "thumbnail").write_bytes(TEXT)
    before = open_descriptors()
    with vault.seal(tmp_path / "thumbnail") as sealed:
        sealed.save(store / "made")
    assert open_descriptors() == before
    assert content(vault, store / "made") == TEXT
    with pytest.raises(FileNotFoundError):
        vault.seal(tmp_path / "nothing")


def test_what_is_sealed_already_is_not_sealed_again(vault, vault_of, store, journal):
    with pytest.raises(FormatError, match=r"sealed already: ciphertext_uploads"):
        vault.seal(store / "file").save(store / "twice")
    assert not (store / "twice").exists()
    assert journal.events()[-1] == ("file.encrypt", "failure", "ciphertext_injection")
    allowed = vault_of(policy=Policy(stores=(str(store),), ciphertext_uploads="allow"))
    allowed.seal(store / "file").save(store / "twice")
    assert content(allowed, store / "twice") == STORED


class Odd(io.RawIOBase):
    """A source that has given some bytes, and then does what a binary file must not."""

    def __init__(self, then):
        super().__init__()
        self.then = [TEXT[:1000], then]

    def read(self, size=-1):
        given = self.then.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


@pytest.mark.parametrize("then", [None, "text", OSError(5, "gone")], ids=["nothing yet", "text", "error"])
def test_a_source_that_fails_leaves_no_file(then, vault, store, journal):
    with pytest.raises((SourceError, OSError)):
        vault.seal(Odd(then)).save(store / "made")
    assert sorted(path.name for path in store.iterdir()) == ["file"]
    assert journal.events() == [("file.encrypt", "started", None), ("file.encrypt", "failure", "io_error")]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": b"r.pdf"}, "name must be a str"),
        ({"content_type": None}, "content_type must be a str"),
        ({"content_type": "image"}, "content_type must be a media type"),
        ({"content_type": "image/png\r\nX: y"}, "content_type must be a media type"),
        ({"name": "\ud800"}, "metadata"),
    ],
)
def test_a_name_or_a_type_that_cannot_be_sealed_is_told(said, message, vault):
    with pytest.raises(ConfigurationError, match=message):
        vault.seal(io.BytesIO(TEXT), **said)


def test_of_a_long_name_the_beginning_and_the_suffix_are_sealed(vault):
    stored = vault.seal(io.BytesIO(TEXT), name="n" * 5000 + ".png").read()
    with vault.open(io.BytesIO(stored), anywhere=True) as file:
        name = file.metadata["name"]
    assert (len(name), name[-5:]) == (1024, "n.png")


# --- memory


@pytest.mark.parametrize("suite", Suite)
def test_memory_does_not_depend_on_the_size_of_a_file(suite, vault_of, store, tmp_path):
    size = 256 * MIB
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(size)
    vault = vault_of(policy=Policy(stores=(str(store),), suite=suite))
    tracemalloc.start()
    try:
        assert vault.seal(tmp_path / "zeros").save(store / "sealed") == size
        with vault.open(store / "sealed") as file:
            assert sum(len(piece) for piece in iter(partial(file.read, 65_536), b"")) == size
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
        (store / "sealed").unlink()


def test_no_plaintext_is_on_the_disk(vault, store, tmp_path):
    vault.seal(io.BytesIO(CANARY * 100_000), name="made").save(store / "made")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY not in path.read_bytes()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_error_of_the_process_is_no_failure_of_the_file(error, vault, journal):
    class Source(io.BytesIO):
        def read(self, size=-1):
            raise error

    with pytest.raises(error):
        vault.open(Source(STORED))
    assert journal.events() == []


# --- a storage that forgot to seal


def test_what_is_in_a_store_and_not_encrypted_is_found(vault, old, store, tmp_path):
    assert list(vault.unsealed()) == []
    (store / "deep" / "er").mkdir(parents=True)
    (store / "deep" / "er" / "plain").write_bytes(TEXT)
    (store / "empty").write_bytes(b"")
    (store / "old").write_bytes(seal_1(TEXT))
    (tmp_path / "elsewhere").write_bytes(TEXT)
    (store / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(store / "pipe")
    there = {path.relative_to(store).as_posix() for path in vault.unsealed()}
    assert there == {"deep/er/plain", "empty", "old"}
    assert {path.name for path in old.unsealed()} == {"plain", "empty"}


def test_what_cannot_be_listed_is_not_passed_over(vault_of, tmp_path):
    (tmp_path / "gone").mkdir()
    vault = vault_of(policy=Policy(stores=(str(tmp_path / "gone"),)))
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        list(vault.unsealed())
