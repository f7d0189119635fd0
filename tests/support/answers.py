"""Apps that answer with given bytes in each way that WSGI knows, and files to answer with."""

from __future__ import annotations

import io
import os

from securefs import Encryptor, Suite
from securefs.middleware import Policy, SecureFS

TEXT = bytes(os.urandom(3 * 65_536 + 100))


def seal(keyring, data=TEXT, suite=Suite.CBC_HMAC, context=b"", metadata=None):
    encryptor = Encryptor(keyring, suite, context, metadata)
    return encryptor.update(data) + encryptor.finalize()


def seal_format_1(keyring, data=TEXT):
    sealer = keyring.format_1_sealer()
    return sealer.update(data) + sealer.finalize()


class Closable:
    """An iterable that counts how often it is closed."""

    def __init__(self, chunks):
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.chunks)

    def close(self):
        self.closed += 1


def pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def file_source(data):
    return lambda environ, write: environ["wsgi.file_wrapper"](io.BytesIO(data), 8192)


class OneWay(io.BytesIO):
    def seekable(self):
        return False


SOURCES = {
    "file wrapper": file_source,
    "file that can't seek": lambda data: (
        lambda environ, write: environ["wsgi.file_wrapper"](OneWay(data), 1000)
    ),
    "file read in part": lambda data: (
        lambda environ, write: environ["wsgi.file_wrapper"](started_file(data), 1000)
    ),
    "list of one": lambda data: lambda environ, write: [data],
    "tuple": lambda data: lambda environ, write: tuple(pieces(data, 70_000)),
    "generator of 7": lambda data: lambda environ, write: (piece for piece in pieces(data, 7)),
    "generator with empty chunks": lambda data: (
        lambda environ, write: (chunk for piece in pieces(data, 5000) for chunk in (b"", piece))
    ),
    "iterator of all": lambda data: lambda environ, write: Closable([data]),
    "write()": lambda data: lambda environ, write: [write(piece) for piece in pieces(data, 5)][:0],
    "write() and list": lambda data: lambda environ, write: (write(data[:3]), [data[3:]])[1],
}


def started_file(data):
    """A file whose first byte was read and pushed in front again: it can seek, but does not stand at its start."""
    file = io.BytesIO(b"?" + data)
    file.read(1)
    return file


def app_of(source, status="200 OK", headers=(), *, length=None):
    """A WSGI app that answers ``source``; it remembers what it returned."""

    def app(environ, start_response):
        sent = [("Content-Type", "image/png"), *headers]
        if length is not None:
            sent.append(("Content-Length", str(length)))
        write = start_response(status, sent)
        app.result = source(environ, write)
        return app.result

    return app


def wrap(app, keyring, journal, **kwargs):
    policy = kwargs.pop("policy", Policy())
    return SecureFS(app, keyring=keyring, journal=journal, policy=policy, **kwargs)
