"""What each WSGI server does in each case, and ``docs/servers.md`` made of it.

``python tests/support/server_table.py`` writes the page, with the versions that are installed; with
``--check`` it says by its exit code whether the page is the one that it would write, versions
aside. That the servers really do so is what ``tests/middleware/test_servers.py`` tests.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support.server_matrix import SERVERS, version  # noqa: E402  # a script: its path comes first

PAGE = Path(__file__).resolve().parents[2] / "docs" / "servers.md"

# Case: what it is, and what most servers do. The words are those that the tests make of what they
# see.
CASES = {
    "upload": ("a small upload", "stored, kept"),
    "upload of 3 MiB": ("an upload that streams", "stored, kept"),
    "chunked upload": ("`Transfer-Encoding: chunked`", "stored, kept"),
    "Expect": ("an upload whose client waits for `100 Continue`", "100, stored, kept"),
    "aborted upload": ("the client closes in mid-body", "nothing stored, recorded"),
    "malformed upload": ("refused after 1 MiB of 3; the rest reads as requests", "refused, no rest read"),
    "malformed chunked": (
        "the same in chunks, one of which reads as a request line",
        "refused, no rest read",
    ),
    "plaintext on disk": ("the server's temporary files while an upload runs", "none"),
    "file": ("download of a file, its length known", "length, kept"),
    "stream": ("download by a generator, suite 1, its length unknown", "chunked, kept"),
    "list": ("download as a list", "chunked, kept"),
    "HEAD": ("", "length told, kept"),
    "range": ("the last 1,000 bytes", "206, kept"),
    "HTTP/1.0 file": ("", "length"),
    "HTTP/1.0 stream": ("held as ciphertext until its length is known", "length"),
    "tampered file": ("`verify_first=0`: found in mid-stream", "short of its length"),
    "tampered stream": ("the same without a known length", "no last chunk"),
    "tampered HTTP/1.0": ("the same to a client of HTTP/1.0", "short of its length"),
}

_NO_KEEP_ALIVE = {
    "upload": "stored, closed",
    "upload of 3 MiB": "stored, closed",
    "file": "length, closed",
    "stream": "length, closed",
    "list": "length, closed",
    "HEAD": "length told, closed",
    "range": "206, closed",
    "tampered stream": "short of its length",
}
# What is otherwise.
OTHERWISE = {
    "gunicorn sync": {
        "upload": "stored, closed",
        "upload of 3 MiB": "stored, closed",
        "chunked upload": "stored, closed",
        "Expect": "100, stored, closed",
        "file": "length, closed",
        "stream": "chunked, closed",
        "list": "chunked, closed",
        "HEAD": "length told, closed",
        "range": "206, closed",
    },
    "waitress": {
        "aborted upload": "nothing stored, not begun",
        "plaintext on disk": "plaintext",
        "stream": "chunked, closed",
        "list": "chunked, closed",
    },
    "uwsgi": _NO_KEEP_ALIVE | {"chunked upload": "400, closed", "Expect": "no 100, stored, closed"},
    "werkzeug": _NO_KEEP_ALIVE | {"chunked upload": "stored, closed", "Expect": "100, stored, closed"},
    "wsgiref": _NO_KEEP_ALIVE | {"chunked upload": "400, closed", "Expect": "no 100, stored, closed"},
}

_INTRODUCTION = """\
# Servers

<!-- Made by tests/support/server_table.py; tests hold every cell against the server. -->

This page shows one app behind SecureFS on each of these servers. Every row below the versions is
tested with real connections
([tests/middleware/test_servers.py](../tests/middleware/test_servers.py)). *Kept* and *closed* say
whether a second request on the connection was answered.
[Every framework on these servers](matrix.md) has a page of its own.
"""

_NOTES = """\
## What follows

- **A client sees a failure in mid-stream on every server.** This was tested with curl, http.client
  and requests, and behind gunicorn also with Chromium, Firefox and through nginx. The answer is
  shorter than its Content-Length, or its last chunk is missing. A body with neither ends with its
  connection, and looks whole wherever it is cut (RFC 9112 section 8). So SecureFS sends such a body
  only to HTTP/1.1 clients of gunicorn, waitress and cheroot, whose chunks were tested. For clients
  of HTTP/1.0, which nginx is by default, and on every other server, it holds the ciphertext (in
  memory up to 1 MiB, then in a temporary file) until its length is known. This concerns bodies that
  can't seek and that are of suite 1 or have no Content-Length of the app's. If you give files to
  `wsgi.file_wrapper`, nothing is held.
- **One set-up hides such a failure**: gunicorn with `protocol = "uwsgi"` behind nginx's
  `uwsgi_pass`. It sends no chunks and does not tell its apps. In a test, nginx took the part for
  the whole. With this set-up, give files that can seek, which have a length, or set
  `Policy(verify_first=None)`.
- **waitress** reads a whole body before it calls the app, and writes a body longer than
  `inbuf_overflow` (512 KiB) to a temporary file **in plaintext**. Raise that limit above your
  largest upload, or put `TMPDIR` on a memory file system. The app is not told of an upload that
  breaks off.
- **uWSGI** (`--http-socket`) and **wsgiref** do not decode chunked requests: such uploads are
  refused. wsgiref waits for the client to close first. Neither sends `100 Continue`; curl sends its
  body after a second without it.
- **cheroot** takes what an app left of a chunked body for the next request, which allows request
  smuggling. SecureFS ends the connection after each refusal of such a body. An app that answers
  without reading it is exposed by cheroot itself, with or without SecureFS. cheroot also reads what
  was left of a body with a Content-Length into memory at once.
- **gunicorn** reads what was left of a refused body, up to 64 KiB, and closes the connection beyond
  that. waitress and wsgiref allow no `Connection` header of an app's (PEP 3333), so refusals have
  none.
"""


def expected(server: str, case: str) -> str:
    """Return what ``server`` does in ``case``, in the words of the tests."""
    return OTHERWISE.get(server, {}).get(case, CASES[case][1])


def render() -> str:
    """Return the page."""
    versions = [version(server) or "-" for server in SERVERS]
    rows = [
        ["", *SERVERS],
        ["---"] * (len(SERVERS) + 1),
        ["version", *versions],
        *([case, *(expected(server, case) for server in SERVERS)] for case in CASES),
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    legend = "\n".join(f"- {case}: {text}" for case, (text, _) in CASES.items() if text)
    system = f"CPython {platform.python_version()}, Linux."
    return f"{_INTRODUCTION}\n{table}\n\nMeasured on {system}\n\n{legend}\n\n{_NOTES}"


def without_versions(page: str) -> str:
    """Return a page without what another installation would have otherwise."""
    return re.sub(r"^(\| version .*|Measured on .*)$", "", page, flags=re.MULTILINE)


def is_current() -> bool:
    """Return whether the page is what :func:`render` gives, versions aside."""
    return PAGE.exists() and without_versions(PAGE.read_text("utf-8")) == without_versions(render())


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not is_current():
            sys.exit(f"{PAGE} is out of date: run python tests/support/server_table.py")
    else:
        PAGE.write_text(render(), "utf-8")
