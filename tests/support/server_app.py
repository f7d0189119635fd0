"""The wrapped app that :mod:`support.server_matrix` runs on real servers, and the runner, for any app, of those that have no command line.

Uploads store what arrives under ``files/<name>`` by rename, so that a name stands for a whole file.
Downloads take the three ways an app has of giving a body: ``/file/`` by ``wsgi.file_wrapper``,
``/stream/`` by a generator without Content-Length, ``/list/`` as a list. ``/page/`` is plain. Every
request that the app is given, and what was answered, is a line in ``requests.log``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from werkzeug.exceptions import HTTPException
from werkzeug.formparser import parse_form_data

from securefs import Keyring
from securefs.audit import Journal
from securefs.middleware import Policy, SecureFS

KEYRING = Keyring(bytes(range(32)))
HEADERS = [("ETag", '"of-the-plaintext"'), ("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT")]
TYPES = {".wav": "audio/wav", ".mp4": "video/mp4", ".webm": "video/webm"}


def store(environ, folder: Path) -> bytes:
    """Store the file parts of a request, each by rename when all of them were read."""
    _, fields, files = parse_form_data(environ, silent=False)
    for name, part in files.items():
        temporary = folder / "files" / f".{name}"
        part.save(temporary)
        temporary.rename(folder / "files" / name)
    return b"stored %d, fields %d\n" % (len(files), len(fields))


def site(folder: Path):
    """Return the app: it knows nothing of encryption."""

    def stored(path: str) -> Path:
        return folder / "files" / path.rpartition("/")[2]

    def generator(path: Path):
        with path.open("rb") as file:
            while data := file.read(30_000):
                yield data

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        kind = [
            ("Content-Type", TYPES.get(Path(path).suffix, "application/octet-stream")),
            *HEADERS,
        ]
        if path == "/upload":
            try:
                text = store(environ, folder)
            except HTTPException as error:
                return error.get_response(environ)(environ, start_response)
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
            return [text]
        if path.startswith("/file/"):
            file = stored(path).open("rb")
            length = os.fstat(file.fileno()).st_size
            start_response("200 OK", [*kind, ("Content-Length", str(length))])
            return environ["wsgi.file_wrapper"](file, 8192)
        if path.startswith("/stream/"):
            start_response("200 OK", kind)
            return generator(stored(path))
        if path.startswith("/list/"):
            start_response("200 OK", kind)
            return [stored(path).read_bytes()]
        if path == "/report":
            text = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            (folder / ".report").write_bytes(text)
            (folder / ".report").rename(folder / "report")
        text = b"plain page\n"
        media_type = "text/plain"
        if path.startswith("/html/"):
            text, media_type = stored(path).read_bytes(), "text/html"
        start_response("200 OK", [("Content-Type", media_type), ("Content-Length", str(len(text)))])
        return [text]

    return app


def recorded(app, folder: Path):
    """Return ``app`` with a line in ``requests.log`` for each request: method, path, range asked for, status."""

    def recording(environ, start_response):
        def start(status, headers, exc_info=None):
            line = (
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ.get("HTTP_RANGE", "-"),
                status[:3],
            )
            with (folder / "requests.log").open("a") as log:
                log.write("\t".join(line) + "\n")
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        return app(environ, start)

    return recording


def make_app():
    """Return the wrapped app over the folder that MATRIX_DIR names. Nothing is verified whole before it is sent."""
    folder = Path(os.environ["MATRIX_DIR"])
    journal = Journal(folder / "journal", names="clear")
    paths = ("/file/*", "/stream/*", "/list/*")
    policy = replace(Policy.from_env(), verify_first=0, protected_paths=paths)
    return recorded(SecureFS(site(folder), keyring=KEYRING, journal=journal, policy=policy), folder)


def serve(server: str, app) -> None:
    """Serve on a port that the system chooses, and say which, until the process is ended."""
    if server == "waitress":
        import waitress

        running = waitress.create_server(app, host="127.0.0.1", port=0, threads=4)
        port, run = running.effective_port, running.run
    elif server == "cheroot":
        from cheroot.wsgi import Server

        running = Server(("127.0.0.1", 0), app, numthreads=4)
        running.prepare()
        port, run = running.socket.getsockname()[1], running.serve
    elif server == "werkzeug":
        from werkzeug.serving import make_server

        running = make_server("127.0.0.1", 0, app, threaded=True)
        port, run = running.port, running.serve_forever
    else:
        from wsgiref import simple_server

        running = simple_server.make_server("127.0.0.1", 0, app)
        port, run = running.server_port, running.serve_forever
    print(f"bound to 127.0.0.1:{port}", flush=True)
    run()


if __name__ == "__main__":
    serve(sys.argv[1], import_module(sys.argv[2]).make_app())
