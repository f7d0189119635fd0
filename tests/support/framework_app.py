"""The app of one framework, wrapped or bare, for a server process of :mod:`support.server_matrix`.

MATRIX_ROW names the row of the matrix, MATRIX_DIR the folder; with MATRIX_BARE the app runs without
SecureFS. ``/page/`` is plain, and so is ``/healthz``, which is asked for until the server answers.
"""

from __future__ import annotations

import os
from pathlib import Path

from securefs import Keyring
from securefs.audit import Journal
from securefs.middleware import Policy, SecureFS
from support import frameworks

KEYRING = Keyring(bytes(range(32)))
PASSWORD = "only for tests"


def django_project():
    """Return the app of :mod:`support.django_site`, with a database and somebody who may log in to the admin."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "support.django_site.settings"
    from django.core.wsgi import get_wsgi_application

    app = get_wsgi_application()
    from django.apps import apps
    from django.contrib.auth.models import User
    from django.db import connection

    with connection.schema_editor() as editor:
        for model in apps.get_models():
            editor.create_model(model)
    User.objects.create_superuser("admin", password=PASSWORD)
    connection.close()
    return app


def bare_app(row: str, folder: Path):
    """Return the app of a row as it is without us, with a plain page beside it."""
    inner = frameworks.FRAMEWORKS[row](folder) if row in frameworks.FRAMEWORKS else django_project()

    def app(environ, start_response):
        if environ["PATH_INFO"] not in {"/page/", "/healthz"}:
            return inner(environ, start_response)
        text = b"plain page\n"
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]

    return app


def make_app():
    """Return the app that the environment asks for."""
    folder = Path(os.environ["MATRIX_DIR"])
    app = bare_app(os.environ["MATRIX_ROW"], folder / "files")
    if "MATRIX_BARE" in os.environ:
        return app
    policy = Policy(protected_paths=("/file/*",))
    return SecureFS(app, keyring=KEYRING, journal=Journal(folder / "journal", names="clear"), policy=policy)
