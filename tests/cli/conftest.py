"""Every test runs in a folder of its own, with one key and no other setting."""

from __future__ import annotations

import base64
import io
import os
import threading

import pytest
from support.commands import KEY, OTHER_KEY, Result

from securefs.audit import Journal
from securefs.cli import main


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    """Every test runs in its own folder, with one key and no other setting."""
    for name in list(os.environ):
        if name.startswith(("SECUREFS_", "FILE_KEY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(KEY).decode())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """Run a command in this process: run("verify", ".", stdin=b"...") -> Result."""

    def run_command(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(
                "sys.stdin", stdin if hasattr(stdin, "buffer") else io.TextIOWrapper(io.BytesIO(stdin))
            )
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return Result(code, *capsysbinary.readouterr())

    return run_command


@pytest.fixture
def pipe():
    """Make a standard input that cannot seek, as a pipe cannot."""
    opened = []

    def make(data):
        read, write = os.pipe()
        writer = threading.Thread(target=_feed, args=(write, data))
        writer.start()
        opened.append((writer, os.fdopen(read, "r")))
        return opened[-1][1]

    yield make
    for writer, file in opened:
        file.close()
        writer.join()


def _feed(descriptor, data):
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass


@pytest.fixture
def rotating(monkeypatch):
    """FILE_KEY_BASE64 holds a new key, and KEY is the previous one."""
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(OTHER_KEY).decode())
    monkeypatch.setenv("FILE_KEY_BASE64_PREVIOUS", base64.b64encode(KEY).decode())


@pytest.fixture
def full_journal(monkeypatch):
    """Make the disk under the journal in this folder full; in the test, once all else is in place."""
    real = os.open

    def full(name, flags, *arguments, **options):
        if str(name).endswith(".jsonl"):
            raise OSError(28, "No space left on device", name)
        return real(name, flags, *arguments, **options)

    def fill():
        Journal("journal").close()  # which makes the key of its pseudonyms, while there is room
        monkeypatch.setattr("os.open", full)

    return fill
