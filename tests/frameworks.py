"""The same small app, stored files in and out, through the idiom of each framework.

POST /upload stores every file part as ``<n>.bin`` in the folder and answers JSON: fields and files as the framework
saw them. GET /file/<name> serves a stored file as the framework serves files.
"""

from __future__ import annotations

import json
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


def django_app(folder: Path):
    import django
    from django.conf import settings
    from django.core.files.storage import FileSystemStorage
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse, JsonResponse
    from django.urls import path

    if not settings.configured:
        settings.configure(
            SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], USE_TZ=True
        )
        django.setup()

    def upload(request):
        files = []
        storage = FileSystemStorage(folder)
        number = 0
        for field, items in request.FILES.lists():
            for file in items:
                (folder / f"{number}.bin").unlink(missing_ok=True)
                storage.save(f"{number}.bin", file)
                number += 1
                files.append([field, file.name, file.content_type])
        fields = [[name, value] for name, values in request.POST.lists() for value in values]
        return JsonResponse({"fields": fields, "files": files})

    def download(request, name):
        return FileResponse((folder / name).open("rb"), filename="x.bin")

    urlpatterns[:] = [path("upload", upload), path("file/<name>", download)]
    from django.urls import clear_url_caches

    clear_url_caches()
    return WSGIHandler()


urlpatterns: list = []  # Django's ROOT_URLCONF is this module


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


FRAMEWORKS = {"werkzeug": werkzeug_app, "flask": flask_app, "django": django_app, "bottle": bottle_app}
