"""The app that the HTTP benchmarks serve, bare or wrapped."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from securefs.middleware import SecureFS

if TYPE_CHECKING:
    from collections.abc import Callable


def make(wrapped: bool, folder: str) -> Callable[..., object]:
    """Return an app that stores one uploaded file and serves it again."""
    # A new file for each upload, as apps do: file systems flush one that is truncated and written again.
    stored = [Path(folder) / "none"]

    @Request.application
    def app(request: Request) -> Response:
        if request.method == "POST":
            path = Path(folder) / f"{token_hex(8)}.bin"
            request.files["file"].save(path, 1024 * 1024)
            stored[0].unlink(missing_ok=True)
            stored[0] = path
            return Response("stored")
        if request.path == "/file":
            return send_file(stored[0], request.environ, mimetype="application/octet-stream")
        return Response("<!doctype html><title>page</title>" + "x" * 2000, mimetype="text/html")

    return SecureFS(app) if wrapped else app
