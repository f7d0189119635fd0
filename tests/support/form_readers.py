"""What takes a body for a form: the apps of frameworks.py, and greedier ones.

Each stores every part that it takes for a file in its folder, as ``0.bin`` and so on. Some of the
parsers here belong to no WSGI framework; WSGI apps use them all the same.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from support.frameworks import FRAMEWORKS, installed
from support.odd_types import BOUNDARY


def _answer(start_response, count: int):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"fields": [], "files": [["", "", ""]] * count}).encode()]


def _body(environ) -> bytes:
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def falcon_every_part(folder: Path, **options):
    """Falcon hands out fields and files alike."""
    import falcon

    class Upload:
        def on_post(self, request, response):
            media = request.get_media()
            if isinstance(media, falcon.media.multipart.MultipartForm):
                for number, part in enumerate(media):
                    (folder / f"{number}.bin").write_bytes(part.stream.read())

    app = falcon.App(**options)
    app.add_route("/upload", Upload())
    return app


def falcon_forms_by_default(folder: Path):
    """A request without a type has the app's default one."""
    return falcon_every_part(folder, media_type=f"multipart/form-data; boundary={BOUNDARY}")


def cherrypy_every_part(folder: Path):
    """CherryPy keeps parts of other multipart types beside the parameters."""
    import cherrypy

    class Root:
        @cherrypy.expose
        def upload(self, **parameters):
            values = [v for each in parameters.values() for v in (each if isinstance(each, list) else [each])]
            parts = [value for value in values if not isinstance(value, str)]
            for number, part in enumerate([*parts, *(cherrypy.request.body.parts or [])]):
                with (
                    part.file or io.BytesIO(part.value) as content,
                    (folder / f"{number}.bin").open("wb") as to,
                ):
                    shutil.copyfileobj(content, to)
            return "{}"

    application = cherrypy.Application(Root(), "")
    application.log.screen = False
    application.log.access_log.disabled = application.log.error_log.disabled = True
    return application


def multipart_package(folder: Path):
    """The function for WSGI of ``multipart``."""
    import multipart

    def app(environ, start_response):
        _, files = multipart.parse_form_data(environ)
        for number, (_, part) in enumerate(files.iterallitems()):
            (folder / f"{number}.bin").write_bytes(part.raw)
        return _answer(start_response, len(list(files.iterallitems())))

    return app


def python_multipart_package(folder: Path):
    """``parse_form`` of python-multipart; a whole body of octets is a raw upload to it, and no form."""
    import python_multipart

    def app(environ, start_response):
        files = []
        kind = environ.get("CONTENT_TYPE", "")
        body = _body(environ)
        if python_multipart.multipart.parse_options_header(kind)[0] != b"application/octet-stream":
            headers = {"Content-Type": kind.encode("latin-1"), "Content-Length": str(len(body)).encode()}
            python_multipart.parse_form(headers, io.BytesIO(body), None, files.append)
        for number, file in enumerate(files):
            file.file_object.seek(0)
            (folder / f"{number}.bin").write_bytes(file.file_object.read())
            file.close()
        return _answer(start_response, len(files))

    return app


def starlette_request(folder: Path):
    """Starlette's ``Request.form``, as a WSGI app that borrows it would use it."""
    from starlette.datastructures import UploadFile
    from starlette.requests import Request

    async def read(scope, body):
        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        found = []
        async with Request(scope, receive).form() as form:
            for _, value in form.multi_items():
                if isinstance(value, UploadFile):
                    found.append(await value.read())
        return found

    def app(environ, start_response):
        kind = environ.get("CONTENT_TYPE", "").encode("latin-1")
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind)]}
        found = asyncio.run(read(scope, _body(environ)))
        for number, data in enumerate(found):
            (folder / f"{number}.bin").write_bytes(data)
        return _answer(start_response, len(found))

    return app


# The distribution and the import name of what each needs, and how it is made.
READERS = {name: (name, None, make) for name, make in FRAMEWORKS.items()} | {
    "falcon, every part": ("falcon", None, falcon_every_part),
    "falcon, forms by default": ("falcon", None, falcon_forms_by_default),
    "cherrypy, every part": ("cherrypy", None, cherrypy_every_part),
    "multipart": ("multipart", None, multipart_package),
    "python-multipart": ("python-multipart", "python_multipart", python_multipart_package),
    "starlette": ("starlette", "python_multipart", starlette_request),
}


def missing(name: str) -> str | None:
    """Return what is not installed of what a reader needs, None if nothing is."""
    distribution, module, _ = READERS[name]
    if installed(distribution) is None:
        return distribution
    return module if module is not None and find_spec(module) is None else None


def make(name: str, folder: Path):
    """Return the app of a reader."""
    return READERS[name][2](folder)
