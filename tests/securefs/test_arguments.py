"""An argument of a wrong type is refused at once, by a sentence that names it and does not show it."""

from __future__ import annotations

import functools
import inspect
import io
import os
from pathlib import Path

import falcon.asgi
import pytest
from starlette.applications import Starlette
from support.sealing import OTHER_KEY, RING, seal

import securefs
from securefs import (
    ConfigurationError,
    Decryptor,
    Encryptor,
    Keyring,
    SecureFSError,
    Suite,
    decrypt_file,
    encrypt_file,
    open_encrypted,
    rewrap,
    verify,
)
from securefs.arguments import is_async, require, require_function, require_items, require_path
from securefs.audit import Journal, hash_name, verify_journal
from securefs.keys import key_id
from securefs.middleware import ClamAV, FileRules, Policy, SecureFS, attachment
from securefs.testing import Client, environment

SECRET = "the value that must not be shown"


def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


async def asgi(scope, receive, send):
    raise AssertionError("nobody calls it")


async def asynchronous(environ):
    raise AssertionError("nobody calls it")


class Service:
    kind, key_id, payload_size = 2, bytes(range(16)), 100

    def wrap(self, dek, bound, draw):
        return bytes(100)


class Anything:
    """Of no type that anything takes."""

    def __repr__(self):
        return SECRET


@pytest.mark.parametrize(
    ("value", "given"), [(None, "None"), (b"", "bytes"), (5, "int"), (Anything(), "Anything")]
)
def test_the_message_names_the_type(value, given):
    with pytest.raises(ConfigurationError, match=f"^keyring must be a Keyring, not {given}$"):
        require("keyring", value, Keyring, "a Keyring")
    require("keyring", RING, Keyring, "a Keyring")


@pytest.mark.parametrize("value", ["uploads", b"uploads", bytearray(2), Path("uploads"), None, 5], ids=repr)
def test_one_item_is_no_list(value):
    with pytest.raises(ConfigurationError, match=r"^stores must be a list of folders, not "):
        require_items("stores", value, "a list of folders")


@pytest.mark.parametrize(
    "value", [[], (), ["a"], {"a"}, iter("a")], ids=["list", "tuple", "list of one", "set", "iterator"]
)
def test_whatever_has_items_is_a_list(value):
    require_items("stores", value, "a list of folders")


class Callable:
    def __call__(self):
        pass

    async def method(self):
        pass


class AsyncCallable:
    async def __call__(self):
        pass


@pytest.mark.parametrize(
    "value", [hello, Callable(), Callable, AsyncCallable, print, functools.partial(hello)]
)
def test_whatever_can_be_called_is_a_function(value):
    assert not is_async(value)
    require_function("authorize", value, "a function")


@pytest.mark.parametrize("value", [asgi, AsyncCallable(), Callable().method, functools.partial(asgi)])
def test_a_coroutine_function_is_none(value):
    assert is_async(value)
    with pytest.raises(
        ConfigurationError, match=r"^authorize must be a function, and this is a coroutine function"
    ):
        require_function("authorize", value, "a function")


@pytest.mark.parametrize(
    "app",
    [asgi, Starlette(), falcon.asgi.App(), functools.partial(asgi)],
    ids=["function", "Starlette", "Falcon", "partial"],
)
def test_an_asgi_app_is_refused(app, tmp_path):
    with pytest.raises(ConfigurationError, match=r"must be a WSGI app, .* and this is an ASGI app"):
        SecureFS(app, keyring=RING, journal=Journal(tmp_path), policy=Policy())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Also the working folder: a wrong name must not make files where the tests are started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is called, and good arguments for it, given a folder.
CALLS = {
    SecureFS: lambda folder: {
        "app": hello,
        "stores": [folder],
        "keyring": RING,
        "journal": Journal(folder),
        "policy": Policy(),
        "context": lambda environ: b"",
        "authorize": lambda environ: "ann",
        "inspect": lambda part, chunks: None,
        "on_refusal": lambda environ, problem: None,
        "on_event": lambda entry: None,
    },
    Keyring: lambda _: {"primary": bytes(range(32)), "previous": [OTHER_KEY]},
    Keyring.of: lambda _: {"wrapper": Service(), "unwrappers": RING},
    Journal: lambda folder: {
        "directory": folder,
        "stream": None,
        "names": "clear",
        "sync": "buffered",
        "on_failure": "closed",
        "on_loss": lambda first: None,
    },
    Policy: lambda _: {},
    open_encrypted: lambda _: {
        "file": io.BytesIO(seal(b"x")),
        "keyring": RING,
        "context": b"",
        "max_format_1": 5,
    },
    Encryptor: lambda _: {"keyring": RING, "suite": Suite.GCM, "context": b"", "metadata": {"name": "a"}},
    Decryptor: lambda _: {"keyring": RING, "context": b""},
    encrypt_file: lambda folder: {
        "source": stored(folder),
        "target": folder / "t",
        "keyring": RING,
        "suite": Suite.GCM,
    },
    decrypt_file: lambda folder: {"source": stored(folder), "target": folder / "t", "keyring": RING},
    verify: lambda _: {"file": io.BytesIO(seal(b"x")), "keyring": RING, "context": b""},
    rewrap: lambda folder: {"path": stored(folder), "keyring": RING, "context": b""},
}
# Parameters whose value is only asked whether it is true, and the implementation of the primitives, which tests choose.
NO_TYPE = {"format_1", "unbound_format_1", "overwrite", "follow_links", "primitives"}
PATHS = {"source", "target", "path"}
# Names of files and choices are no secrets.
SHOWN = {
    "file",
    *PATHS,
    "stores",
    "directory",
    "names",
    "sync",
    "on_failure",
    "other_bodies",
    "ciphertext_uploads",
    "chunked_uploads",
}
WRONG = [
    None,
    True,
    5,
    -1,
    1.5,
    SECRET,
    SECRET.encode(),
    [SECRET],
    [5],
    {},
    Anything(),
    asynchronous,
    Anything,
]


def stored(folder: Path) -> Path:
    path = folder / "stored"
    path.write_bytes(seal(b"x"))
    (folder / "t").unlink(missing_ok=True)
    return path


def parameters():
    for function in CALLS:
        for name in inspect.signature(function).parameters:
            if name not in NO_TYPE:
                yield pytest.param(function, name, id=f"{function.__qualname__} {name}")


def outcome(function, arguments):
    """Call it, and use what it gives, so that nothing is found out later."""
    positional = arguments.pop("unwrappers", None)
    if positional is not None:
        return function(arguments["wrapper"], positional)
    made = function(**arguments)
    if isinstance(made, Encryptor):
        made.update(b"x")
        made.finalize()
    elif isinstance(made, Decryptor):
        made.update(seal(b"x"))
    return made


@pytest.mark.parametrize(
    "wrong", WRONG, ids=[f"{number} {type(one).__name__}" for number, one in enumerate(WRONG)]
)
@pytest.mark.parametrize(("function", "name"), [*parameters()])
def test_a_wrong_type_is_accepted_or_told_in_one_line(function, name, wrong, folder, monkeypatch):
    """It is never an AttributeError or a TypeError from somewhere inside."""
    monkeypatch.setenv("FILE_KEY_BASE64", OTHER_KEY.hex())
    monkeypatch.delenv("SECUREFS_AUDIT_DIR", raising=False)
    arguments = {**CALLS[function](folder), name: wrong}
    if name == "stream":
        arguments["directory"] = None
    try:
        outcome(function, arguments)
    except FileNotFoundError:
        assert name in PATHS | {"file"}  # it is a name, and of no file
    except SecureFSError as error:
        assert "\n" not in str(error)  # noqa: PT017  # either is right
        assert len(str(error)) > 20  # noqa: PT017
        assert name in SHOWN or SECRET not in str(error)  # noqa: PT017
    finally:
        if isinstance(arguments.get("journal"), Journal):
            arguments["journal"].close()


@pytest.mark.parametrize(
    ("function", "name", "wrong"),
    [
        pytest.param(SecureFS, "keyring", b"", id="a keyring that is empty"),
        pytest.param(SecureFS, "keyring", bytes(range(32)), id="a key for a keyring"),
        pytest.param(SecureFS, "journal", "/var/log", id="a folder for a journal"),
        pytest.param(SecureFS, "policy", {}, id="settings for a policy"),
        pytest.param(SecureFS, "stores", "uploads", id="one store"),
        pytest.param(SecureFS, "stores", [b"uploads"], id="a store in bytes"),
        pytest.param(SecureFS, "app", "module:app", id="the name of an app"),
        pytest.param(SecureFS, "authorize", asynchronous, id="a coroutine function"),
        pytest.param(SecureFS, "on_refusal", asynchronous, id="a coroutine function that renders"),
        pytest.param(SecureFS, "on_event", "counts.update", id="the name of a hook"),
        pytest.param(SecureFS, "context", "tenant", id="a context that is text"),
        pytest.param(Keyring, "primary", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", id="base64"),
        pytest.param(Keyring, "primary", 32, id="a number for a key"),
        pytest.param(Keyring, "previous", OTHER_KEY, id="one previous key"),
        pytest.param(Keyring, "previous", None, id="no list of keys"),
        pytest.param(Keyring.of, "unwrappers", b"key", id="what does not unwrap"),
        pytest.param(Journal, "directory", 5, id="a number for a folder"),
        pytest.param(Policy, "max_body", "10", id="text for a number"),
        pytest.param(Policy, "max_body", None, id="no limit where there must be one"),
        pytest.param(Policy, "max_files", True, id="True for a number"),
        pytest.param(Policy, "body_timeout", float("nan"), id="no number of seconds"),
        pytest.param(Policy, "spool", "no", id="text for a choice"),
        pytest.param(Policy, "suite", "aes-256-gcm", id="the name of a suite"),
        pytest.param(Policy, "stores", "uploads", id="one store in a policy"),
        pytest.param(open_encrypted, "keyring", OTHER_KEY, id="a key for the keyring of a file"),
        pytest.param(open_encrypted, "file", b"path", id="a path in bytes"),
        pytest.param(open_encrypted, "max_format_1", "1", id="text for a size"),
        pytest.param(Encryptor, "suite", "aes-256-gcm", id="a suite's name"),
        pytest.param(Encryptor, "keyring", None, id="no keyring"),
        pytest.param(Decryptor, "keyring", None, id="no keyring for a stream"),
        pytest.param(rewrap, "keyring", OTHER_KEY, id="a key for a rewrap"),
    ],
)
def test_a_mistake_that_people_make_is_refused(function, name, wrong, folder):
    with pytest.raises(SecureFSError) as caught:
        outcome(function, {**CALLS[function](folder), name: wrong})
    word = {"primary": "the primary key", "unwrappers": "unwrap", "stores": "store"}.get(name, name)
    assert word in str(caught.value)


# More of what is public, and takes one argument that may be mistaken.
MORE = {
    "hash_name": lambda wrong: hash_name(wrong, "text"),
    "hash_name text": lambda wrong: hash_name(Path.cwd(), wrong),
    "verify_journal": verify_journal,
    "environment": environment,
    "Client": lambda wrong: Client(hello, journal=wrong),
    "attachment": attachment,
    "key_id": key_id,
    "claimed_object_id": securefs.claimed_object_id,
    "FileRules types": lambda wrong: FileRules(types=wrong),
    "FileRules max_size": lambda wrong: FileRules(max_size=wrong),
    "FileRules then": lambda wrong: FileRules(then=wrong),
    "ClamAV address": ClamAV,
    "ClamAV timeout": lambda wrong: ClamAV(timeout=wrong),
}


@pytest.mark.parametrize(
    "wrong", WRONG, ids=[f"{number} {type(one).__name__}" for number, one in enumerate(WRONG)]
)
@pytest.mark.parametrize("name", MORE)
def test_a_wrong_argument_of_anything_public_is_told_in_one_line(name, wrong, folder):
    try:
        MORE[name](wrong)
    except FileNotFoundError:
        assert isinstance(wrong, str)  # a path, and of nothing
    except SecureFSError as error:
        assert "\n" not in str(error)  # noqa: PT017  # either is right
        assert SECRET not in str(error) or isinstance(wrong, (str, list))  # noqa: PT017


@pytest.mark.parametrize("function", [encrypt_file, decrypt_file, rewrap])
def test_a_number_is_no_path(function, folder):
    """Python takes it for an open file, and closes it: number 1 is the standard output."""
    with Path(os.devnull).open("rb") as file:
        for name in PATHS & inspect.signature(function).parameters.keys():
            with pytest.raises(SecureFSError, match=r"must be a path .*, not int$"):
                function(**{**CALLS[function](folder), name: file.fileno()})
        os.fstat(file.fileno())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b", "^target has a NUL character, which no path has$"),
        ("\ud800", "^target has characters that no path on this system has$"),
    ],
)
def test_a_text_that_no_path_is_is_refused(path, message, folder):
    for function in (encrypt_file, decrypt_file):
        with pytest.raises(ConfigurationError, match=message):
            function(**{**CALLS[function](folder), "target": path})
    require_path("target", "a\udcffb")  # a name that is not UTF-8


def test_each_field_of_a_policy_has_a_type_that_is_checked():
    for name in inspect.signature(Policy).parameters:
        with pytest.raises(ConfigurationError, match=f"^Policy.{name} must be "):
            Policy(**{name: Anything()})


def test_a_stream_without_a_descriptor_is_no_stream():
    for stream in (Anything(), io.BytesIO(), "text"):
        with pytest.raises(ConfigurationError, match="stream"):
            Journal(stream=stream)
    with Path(os.devnull).open("wb") as stream:
        Journal(stream=stream).close()


def test_the_public_callables_are_in_the_table():
    """But for what is no constructor, and what users do not make."""
    public = {name for name in securefs.__all__ if callable(getattr(securefs, name))}
    errors = {name for name in public if name.endswith(("Error", "Reason"))}
    made_here = {"EncryptedFile", "FileInfo", "Rewrapped", "Suite", "claimed_object_id"}
    assert public - errors - made_here == {function.__qualname__ for function in CALLS} & public
