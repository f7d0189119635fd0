"""The app that the HTTP benchmarks serve, bare or wrapped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from securefs.middleware import SecureFS

if TYPE_CHECKING:
    from collections.abc import Callable


def make(wrapped: bool, folder: str) -> Callable[..., object]:
    """Return an app that stores one uploaded file and serves it again."""
    path = Path(folder) / "stored.bin"

    @Request.application
    def app(request: Request) -> Response:
        if request.method == "POST":
            request.files["file"].save(path, 1024 * 1024)
            return Response("stored")
        if request.path == "/file":
            return send_file(path, request.environ, mimetype="application/octet-stream")
        return Response("<!doctype html><title>page</title>" + "x" * 2000, mimetype="text/html")

    return SecureFS(app) if wrapped else app
