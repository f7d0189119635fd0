"""The app that the HTTP benchmarks serve: takes one file, gives it back, and has a page. In three frameworks, bare or not.

``make(framework, kind, folder)``: the kind is ``bare``, ``naive`` (the original scheme, written
into the app), ``wrapped`` or ``wrapped without fast`` (as if pyca cryptography were not installed).
Django has its own settings, so each server serves one app.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1024 * 1024
PAGE = "<!doctype html><title>page</title>" + "x" * 2000
OCTETS = "application/octet-stream"


class Store:
    """The folder in which the app, in however many workers, keeps its one file."""

    def __init__(self, folder: str, naive: bool) -> None:
        self._path = Path(folder) / "stored.bin"
        self._peer = None
        if naive:
            from .peers import naive as scheme  # noqa: PLC0415

            self._peer = scheme()

    def save(self, chunks: Iterable[bytes]) -> None:
        """Keep a file instead of the one before."""
        # A new one for each upload, as apps do: file systems flush one that is truncated and
        # written again.
        path = self._path.with_name(token_hex(8))
        with path.open("wb") as file:
            if self._peer:
                self._peer[0](b"".join(chunks), file)
            else:
                for chunk in chunks:
                    file.write(chunk)
        path.replace(self._path)

    def open(self) -> Any:
        """Return the file that was kept: its path, or for the naive scheme its content."""
        return io.BytesIO(self._peer[1](self._path.read_bytes())) if self._peer else self._path


def in_chunks(file: Any) -> Iterable[bytes]:
    """Read an upload by the mebibyte."""
    return iter(lambda: file.read(MIB), b"")


def werkzeug(store: Store) -> Callable[..., Any]:
    """Return the app in plain Werkzeug."""
    from werkzeug.utils import send_file  # noqa: PLC0415
    from werkzeug.wrappers import Request, Response  # noqa: PLC0415

    @Request.application
    def app(request: Request) -> Response:
        if request.method == "POST":
            store.save(in_chunks(request.files["file"]))
            return Response("stored")
        if request.path == "/file":
            return send_file(store.open(), request.environ, mimetype=OCTETS)
        return Response(PAGE, mimetype="text/html")

    return app


def flask(store: Store) -> Callable[..., Any]:
    """Return the app in Flask."""
    from flask import Flask, request, send_file  # noqa: PLC0415

    app = Flask(__name__)

    @app.post("/")
    def take() -> str:
        store.save(in_chunks(request.files["file"]))
        return "stored"

    @app.get("/file")
    def give() -> Any:
        return send_file(store.open(), mimetype=OCTETS)

    app.add_url_rule("/", "page", lambda: PAGE)
    return app


def django(store: Store) -> Callable[..., Any]:
    """Return the app in Django."""
    from django.conf import settings  # noqa: PLC0415

    middleware = ["django.middleware.common.CommonMiddleware"]
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=token_hex(16), MIDDLEWARE=middleware
    )
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415
    from django.http import FileResponse, HttpResponse  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415

    def page(request: Any) -> HttpResponse:
        if request.method == "POST":
            store.save(request.FILES["file"].chunks(MIB))
            return HttpResponse("stored")
        return HttpResponse(PAGE)

    def give(_request: Any) -> FileResponse:
        found = store.open()
        return FileResponse(found.open("rb") if isinstance(found, Path) else found, content_type=OCTETS)

    global urlpatterns  # noqa: PLW0603  # where Django looks for them
    urlpatterns = [path("", page), path("file", give)]
    return get_wsgi_application()


FRAMEWORKS = {"Werkzeug": werkzeug, "Flask": flask, "Django": django}


def make(framework: str, kind: str, folder: str) -> Callable[..., Any]:
    """Return the app of a framework, of a kind."""
    app = FRAMEWORKS[framework](Store(folder, kind == "naive"))
    if not kind.startswith("wrapped"):
        return app
    if kind == "wrapped without fast":
        sys.modules["cryptography"] = None  # type: ignore[assignment]
    from securefs.middleware import SecureFS  # noqa: PLC0415

    return SecureFS(app)


def serving_folder(folder: str) -> Callable[..., Any]:
    """Return a wrapped app that serves the files of a folder."""
    from werkzeug.utils import send_file  # noqa: PLC0415
    from werkzeug.wrappers import Request, Response  # noqa: PLC0415

    from securefs.middleware import SecureFS  # noqa: PLC0415

    @Request.application
    def app(request: Request) -> Response:
        if request.path == "/":
            return Response(PAGE, mimetype="text/html")
        return send_file(Path(folder) / Path(request.path).name, request.environ, mimetype=OCTETS)

    return SecureFS(app)


def discarding(wrapped: bool) -> Callable[..., Any]:
    """Return an app that reads the file of an upload and keeps nothing: what is measured is what others keep."""
    from werkzeug.formparser import parse_form_data  # noqa: PLC0415
    from werkzeug.wrappers import Response  # noqa: PLC0415

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        parse_form_data(environ, stream_factory=lambda **_: Forgetting())
        return Response("stored")(environ, start_response)

    if not wrapped:
        return app
    from securefs.middleware import SecureFS  # noqa: PLC0415

    return SecureFS(app)


class Forgetting(io.RawIOBase):
    """A file that takes everything and has nothing."""

    def write(self, data: Any, /) -> int:
        """Take data."""
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Be at the start."""
        return 0

    def seekable(self) -> bool:
        """Say so."""
        return True

    def writable(self) -> bool:
        """Say so."""
        return True
