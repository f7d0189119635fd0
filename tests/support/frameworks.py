"""The same small app, stored files in and out, through the idiom of each framework.

POST /upload stores every file part as ``<n>.bin`` in the folder and answers JSON: fields and files
as the framework saw them. GET /file/<name> serves a stored file as the framework serves files.
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from importlib import metadata
from pathlib import Path


def werkzeug_app(folder: Path):
    from werkzeug.utils import send_file
    from werkzeug.wrappers import Request, Response

    @Request.application
    def app(request):
        if request.method == "POST":
            files = []
            for number, (field, file) in enumerate(request.files.items(multi=True)):
                file.save(folder / f"{number}.bin")
                files.append([field, file.filename, file.content_type])
            return Response(json.dumps({"fields": list(request.form.items(multi=True)), "files": files}))
        name = request.path.rpartition("/")[2]
        return send_file(folder / name, request.environ, download_name="x.bin", conditional=True)

    return app


def flask_app(folder: Path):
    import flask

    app = flask.Flask("demo")

    @app.post("/upload")
    def upload():
        files = []
        for number, (field, file) in enumerate(flask.request.files.items(multi=True)):
            file.save(folder / f"{number}.bin")
            files.append([field, file.filename, file.content_type])
        return flask.jsonify(fields=list(flask.request.form.items(multi=True)), files=files)

    @app.get("/file/<name>")
    def download(name):
        return flask.send_file(folder / name, download_name="x.bin")

    return app


def django_settings():
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            SECRET_KEY="only for tests",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=__name__,
            # As every new project has it; it adds the Content-Length.
            MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
            USE_TZ=True,
            REST_FRAMEWORK={
                "DEFAULT_AUTHENTICATION_CLASSES": [],
                "DEFAULT_PERMISSION_CLASSES": [],
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
                "UNAUTHENTICATED_USER": None,
            },
        )
        django.setup()


def _django_urls(handler_of_uploads, folder: Path):
    """Answer POST /upload with ``handler_of_uploads``, and downloads."""
    from django.http import FileResponse
    from django.urls import path

    def download(request, name):
        return FileResponse((folder / name).open("rb"), filename="x.bin")

    return django_routes([path("upload", handler_of_uploads), path("file/<name>", download)])


def django_routes(patterns: list):
    """Return an app of Django that has these routes; its ROOT_URLCONF is this module."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.urls import clear_url_caches

    django_settings()
    inner = WSGIHandler()

    def app(environ, start_response):
        # One process, several apps: each brings its own routes to each request.
        if urlpatterns != patterns:
            urlpatterns[:] = patterns
            clear_url_caches()
        return inner(environ, start_response)

    return app


def _store_django_files(files, folder: Path) -> list:
    from django.core.files.storage import FileSystemStorage

    storage = FileSystemStorage(folder)
    seen = []
    for field, items in files.lists():
        for file in items:
            (folder / f"{len(seen)}.bin").unlink(missing_ok=True)
            storage.save(f"{len(seen)}.bin", file)
            seen.append([field, file.name, file.content_type])
    return seen


def django_app(folder: Path):
    django_settings()
    from django.http import JsonResponse

    def upload(request):
        files = _store_django_files(request.FILES, folder)
        fields = [[name, value] for name, values in request.POST.lists() for value in values]
        return JsonResponse({"fields": fields, "files": files})

    return _django_urls(upload, folder)


def rest_framework_app(folder: Path):
    django_settings()
    from rest_framework.decorators import api_view, parser_classes
    from rest_framework.parsers import MultiPartParser
    from rest_framework.response import Response

    @api_view(["POST"])
    @parser_classes([MultiPartParser])
    def upload(request):
        files = _store_django_files(request.FILES, folder)
        fields = [
            [name, value]
            for name, values in request.data.lists()
            for value in values
            if name not in request.FILES or isinstance(value, str)
        ]
        return Response({"fields": fields, "files": files})

    return _django_urls(upload, folder)


def bottle_app(folder: Path):
    import bottle

    app = bottle.Bottle()

    @app.post("/upload")
    def upload():
        files = []
        for number, (field, file) in enumerate(bottle.request.files.allitems()):
            file.save(str(folder / f"{number}.bin"), overwrite=True)
            files.append([field, file.raw_filename, file.content_type])
        fields = [[name, value] for name, value in bottle.request.forms.allitems()]
        return {"fields": fields, "files": files}

    @app.get("/file/<name>")
    def download(name):
        return bottle.static_file(name, root=str(folder), download="x.bin")

    return app


def falcon_app(folder: Path):
    import falcon

    class Upload:
        def on_post(self, request, response):
            fields, files = [], []
            for part in request.get_media():
                if part.filename is None:
                    fields.append([part.name, part.get_text()])
                    continue
                with (folder / f"{len(files)}.bin").open("wb") as target:
                    part.stream.pipe(target)
                files.append([part.name, part.filename, part.content_type])
            response.media = {"fields": fields, "files": files}

    class File:
        def on_get(self, request, response, name):
            response.stream = (folder / name).open("rb")
            response.content_length = (folder / name).stat().st_size
            response.content_type = "application/octet-stream"

    app = falcon.App()
    options = app.req_options.media_handlers["multipart/form-data"].parse_options
    options.max_body_part_count = 0
    app.add_route("/upload", Upload())
    app.add_route("/file/{name}", File())
    return app


def pyramid_app(folder: Path):
    with warnings.catch_warnings():
        # WebOb and Pyramid import modules that newer Pythons are about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        from pyramid.config import Configurator
        from pyramid.response import FileResponse

    def upload(request):
        fields, files = [], []
        for name, value in request.POST.items():
            if isinstance(value, (str, bytes)):
                # WebOb calls an empty file input b"".
                fields.append([name, value if isinstance(value, str) else value.decode("ascii")])
                continue
            with (folder / f"{len(files)}.bin").open("wb") as target:
                shutil.copyfileobj(value.file, target)
            files.append([name, value.filename, value.type])
        # Its copy of the body is a temporary file, which WebOb leaves to the garbage collector.
        request.body_file_raw.close()
        return {"fields": fields, "files": files}

    def download(request):
        return FileResponse(folder / request.matchdict["name"], request=request)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with Configurator() as config:
            config.add_route("upload", "/upload", request_method="POST")
            config.add_view(upload, route_name="upload", renderer="json")
            config.add_route("file", "/file/{name}")
            config.add_view(download, route_name="file")
            return config.make_wsgi_app()


def cherrypy_app(folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import cherrypy
        from cherrypy.lib.static import serve_file

    cherrypy.config.update({"environment": "embedded", "log.screen": False, "engine.autoreload.on": False})

    class Root:
        @cherrypy.expose
        @cherrypy.tools.json_out()
        def upload(self, **parameters):
            fields, files = [], []
            for name, values in parameters.items():
                for value in values if isinstance(values, list) else [values]:
                    if isinstance(value, str):
                        fields.append([name, value])
                        continue
                    # CherryPy keeps an empty file input in memory, as it does a field.
                    with value.file or io.BytesIO(value.value) as content:
                        (folder / f"{len(files)}.bin").write_bytes(content.read())
                    files.append([name, value.filename, str(value.content_type)])
            return {"fields": fields, "files": files}

        @cherrypy.expose
        def file(self, name):
            return serve_file(str((folder / name).resolve()), "application/octet-stream")

    application = cherrypy.Application(Root(), "")
    application.log.screen = False
    application.log.access_log.disabled = application.log.error_log.disabled = True
    return application


urlpatterns: list = []  # Django's ROOT_URLCONF is this module

FRAMEWORKS = {
    "werkzeug": werkzeug_app,
    "flask": flask_app,
    "django": django_app,
    "bottle": bottle_app,
    "falcon": falcon_app,
    "pyramid": pyramid_app,
    "cherrypy": cherrypy_app,
    "djangorestframework": rest_framework_app,
}


def installed(name: str) -> str | None:
    """Return the installed version of a framework, None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def make(name: str, folder: Path):
    """Return the app of framework ``name``; skip the test, with the reason, where it is not installed."""
    import pytest

    if installed(name) is None:
        pytest.skip(f"{name} is not installed")
    return FRAMEWORKS[name](folder)
