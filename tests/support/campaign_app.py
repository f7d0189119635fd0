"""The app that the campaigns upload to, bare and wrapped: it reads 1 MiB at a time, opens what it is given and keeps nothing.

``/upload`` answers what came, in JSON: how many files and fields, and of all files together the
bytes and their SHA-256. Behind SecureFS each file goes through a Decryptor first, so that anything
but genuine ciphertext is an error. ``/ignored`` does not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from multipart import PushMultipartParser

from securefs import Decryptor, Keyring, Suite
from securefs.audit import Journal
from securefs.middleware import Policy, SecureFS

KEYRING = Keyring(bytes(range(32)))
MIB = 1024 * 1024
POLICIES = {
    "default": Policy(),
    "gcm": Policy(suite=Suite.GCM),
    "environment": Policy.from_env(),  # of which gunicorn.conf.py sets SECUREFS_MAX_WAITING
    "wide": Policy(max_files=10_000, max_fields=10_000),
}


class Plain:
    """A file that came as it is, with a Decryptor's methods."""

    def update(self, data):
        return data

    def finalize(self):
        return b""


def received(environ) -> dict:
    """Read a multipart body to its end; return what was in it."""
    boundary = environ["CONTENT_TYPE"].partition("boundary=")[2]
    count = {"files": 0, "fields": 0, "size": 0}
    digest = hashlib.sha256()
    opening = None

    def take(data):
        count["size"] += len(data)
        digest.update(data)

    with PushMultipartParser(boundary) as parser:
        while data := environ["wsgi.input"].read(MIB):
            for event in parser.parse(data):
                if event is None:
                    take(opening.finalize() if opening else b"")
                elif isinstance(event, (bytes, bytearray)):
                    take(opening.update(event) if opening else b"")
                elif event.filename is None:
                    count["fields"] += 1
                    opening = None
                else:
                    count["files"] += 1
                    opening = Decryptor(KEYRING) if "securefs" in environ else Plain()
    return {**count, "sha256": digest.hexdigest()}


def app(environ, start_response):
    text = b"plain page\n"
    if environ["PATH_INFO"] == "/upload":
        text = json.dumps(received(environ)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


def make_app(name: str):
    """Return the app behind a policy of POLICIES, or itself where the name is "bare"; its journal is in CAMPAIGN_DIR."""
    if name == "bare":
        return app
    journal = Journal(Path(os.environ["CAMPAIGN_DIR"]) / "journal", names="clear")
    return SecureFS(app, keyring=KEYRING, journal=journal, policy=POLICIES[name])
