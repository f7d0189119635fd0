"""The small app that the clients of :mod:`support.client_matrix` upload to, wrapped or bare.

POST /upload/<case> stores file parts as ``<case>-<n>`` under MATRIX_DIR, and what the app saw as
``<case>.json``. GET /file/<case>-<n> gives a file back. With MATRIX_BARE it runs without SecureFS.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from werkzeug.formparser import parse_form_data

from securefs import Keyring
from securefs.audit import Journal
from securefs.middleware import SecureFS

KEYRING = Keyring(bytes(range(32)))
_TEXT = [("Content-Type", "text/plain"), ("Content-Length", "3")]


def _store(environ, folder: Path, case: str) -> None:
    _, fields, files = parse_form_data(environ, silent=False)
    parts = list(files.items(multi=True))
    for number, (_, part) in enumerate(parts):
        part.save(folder / f"{case}-{number}")
    seen = {
        "fields": list(fields.items(multi=True)),
        "files": [(name, part.filename, part.headers.get("Content-Type")) for name, part in parts],
        "chunked": environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked",
        "expect": environ.get("HTTP_EXPECT", "").lower() == "100-continue",
    }
    (folder / f"{case}.json").write_text(json.dumps(seen), "utf-8")


def make_app():
    """Return the app that the environment asks for."""
    folder = Path(os.environ["MATRIX_DIR"])
    store = folder / "files"

    def app(environ, start_response):
        _, _, name = environ["PATH_INFO"].rpartition("/")
        if environ["PATH_INFO"].startswith("/file/"):
            if not (store / name).exists():
                start_response("404 Not Found", _TEXT)
                return [b"no\n"]
            length = str((store / name).stat().st_size)
            headers = [("Content-Type", "application/octet-stream"), ("Content-Length", length)]
            start_response("200 OK", headers)
            return environ["wsgi.file_wrapper"]((store / name).open("rb"))
        if environ["REQUEST_METHOD"] == "POST":
            _store(environ, store, name)
        start_response("200 OK", _TEXT)
        return [b"ok\n"]

    if "MATRIX_BARE" in os.environ:
        return app
    return SecureFS(app, keyring=KEYRING, journal=Journal(folder / "journal", names="clear"), stores=[store])
