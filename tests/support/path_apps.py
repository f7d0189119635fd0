"""One route in eight frameworks: which paths lead to it. The apps of docs/paths.md, for :mod:`support.path_table`.

Each app answers ``file`` on the route :data:`ROUTE`, whatever the method, and 404 elsewhere. A
server runs them all (:func:`make_app`): the headers ``X-Column`` and ``X-Rule`` say which app is
asked, and what is in front of it.
"""

from __future__ import annotations

import logging
import os
import warnings
from http import HTTPStatus
from pathlib import Path

from securefs import Keyring
from securefs.audit import Journal
from securefs.middleware import Policy, SecureFS
from support.frameworks import django_routes, django_settings

ROUTE = "/files/q3_report"
FILE = b"file"  # the answer of the route: plaintext where there should be ciphertext
METHODS = ("GET", "POST")


def flask_app(**options):
    import flask

    app = flask.Flask("paths")
    app.add_url_rule(ROUTE, "file", lambda: FILE, methods=METHODS, **options)
    return app.wsgi_app


def werkzeug_mount():
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.wrappers import Request, Response

    folder, _, name = ROUTE.rpartition("/")

    @Request.application
    def inner(request):
        found = request.path == f"/{name}"
        return Response(FILE if found else b"", HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)

    return DispatcherMiddleware(_nothing, {folder: inner})


def _nothing(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b""]


def django_app(pattern: str = f"^{ROUTE[1:]}$"):
    django_settings()
    from django.http import HttpResponse
    from django.urls import re_path

    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    return django_routes([re_path(pattern, lambda request: HttpResponse(FILE))])


def bottle_app(rule: str = ROUTE):
    import bottle

    app = bottle.Bottle()
    app.route(rule, METHODS, lambda **_: FILE)
    return app


def falcon_app(*, strip: bool = False):
    import falcon

    class File:
        def on_get(self, request, response):
            response.data = FILE

        on_post = on_get

    app = falcon.App()
    app.req_options.strip_url_path_trailing_slash = strip
    app.add_route(ROUTE, File())
    return app


def _pyramid(configure):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        from pyramid.config import Configurator

        with Configurator() as config:
            configure(config)
            return config.make_wsgi_app()


def _pyramid_view(context, request):
    from pyramid.response import Response

    return Response(FILE)


def pyramid_routes():
    def configure(config):
        config.add_route("file", ROUTE)
        config.add_view(_pyramid_view, route_name="file")

    return _pyramid(configure)


def pyramid_traversal():
    class Stored:
        pass

    _, folder, name = ROUTE.split("/")

    def configure(config):
        config.set_root_factory(lambda request: {folder: {name: Stored()}})
        config.add_view(_pyramid_view, context=Stored)

    return _pyramid(configure)


def cherrypy_app():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import cherrypy

    cherrypy.config.update({"environment": "embedded", "log.screen": False, "engine.autoreload.on": False})

    def answer(_self, **_):
        return FILE

    _, folder, name = ROUTE.split("/")
    files = type("Files", (), {name: cherrypy.expose(answer)})()
    application = cherrypy.Application(type("Root", (), {folder: files})(), "")
    application.log.screen = False
    application.log.access_log.disabled = application.log.error_log.disabled = True
    return application


# Column of the table: how the app is made, and the distribution whose routing it is.
COLUMNS = {
    "Flask": (flask_app, "werkzeug"),
    "Werkzeug, mounted": (werkzeug_mount, "werkzeug"),
    "Django": (django_app, "django"),
    "Bottle": (bottle_app, "bottle"),
    "Falcon": (falcon_app, "falcon"),
    "Pyramid, routes": (pyramid_routes, "pyramid"),
    "Pyramid, traversal": (pyramid_traversal, "pyramid"),
    "CherryPy": (cherrypy_app, "CherryPy"),
}
# Further apps, each with an option that makes it less strict about paths.
LENIENT = {
    "Flask, strict_slashes=False": lambda: flask_app(strict_slashes=False),
    "Django, any letter case": lambda: django_app(f"(?i)^{ROUTE[1:]}/?$"),
    "Bottle, any letter case": lambda: bottle_app("/<x:re:(?i:files)>/<y:re:(?i:q3_report)>"),
    "Falcon, slash stripped": lambda: falcon_app(strip=True),
    "Falcon, path in lower case": lambda: _changed(falcon_app(), str.lower),
    "CherryPy, path in lower case": lambda: _changed(cherrypy_app(), str.lower),
}


def _changed(app, change):
    """Put middleware in front of an app that changes the path."""

    def changed(environ, start_response):
        return app(environ | {"PATH_INFO": change(environ["PATH_INFO"])}, start_response)

    return changed


def anything(environ, start_response):
    """Answer every request with plaintext: what is refused is refused by the middleware in front."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(FILE)))])
    return [FILE]


def echo(environ, start_response):
    """Answer with what the server took the path for."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode("latin-1")]


def make_app():
    """Return all apps: bare, behind a rule that protects :data:`ROUTE`, and behind one that permits it."""
    folder = Path(os.environ["MATRIX_DIR"])
    keyring, journal = Keyring(bytes(range(32))), Journal(folder / "journal")
    bare = {name: make() for name, (make, _) in COLUMNS.items()} | {"anything": anything, "echo": echo}
    rules = {"protects": Policy(protected_paths=(ROUTE,)), "permits": Policy(upload_paths=(ROUTE,))}
    apps = {(name, "none"): app for name, app in bare.items()}
    for rule, policy in rules.items():
        for name, app in bare.items():
            apps[name, rule] = SecureFS(app, keyring=keyring, journal=journal, policy=policy)

    def app(environ, start_response):
        column, rule = environ.get("HTTP_X_COLUMN", "anything"), environ.get("HTTP_X_RULE", "none")
        return apps[column, rule](environ, start_response)

    return app
