"""A Django project in this process, without a database: settings that adopt securefs, and routes for each test."""

from __future__ import annotations

import base64
from contextlib import contextmanager

from django.test import override_settings

from support.frameworks import django_settings
from support.sealing import KEY

HANDLERS = [
    "securefs.integrations.django.MemoryFileUploadHandler",
    "securefs.integrations.django.TemporaryFileUploadHandler",
]
STATIC = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
urlpatterns: list = []
django_settings()  # default_storage, which tests import, must be usable


@contextmanager
def project(folder, monkeypatch, **changed):
    """Yield the folder of the uploads of a project that has the settings of docs/django.md."""
    from django.core.files.storage import storages
    from django.urls import clear_url_caches

    from securefs.integrations.django import config

    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(KEY).decode())
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(folder / "audit"))
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    media = folder / "media"
    (folder / "tmp").mkdir(exist_ok=True)
    chosen = {
        "INSTALLED_APPS": ["securefs.integrations.django"],
        "ROOT_URLCONF": __name__,
        "MEDIA_ROOT": str(media),
        "MEDIA_URL": "/media/",
        "FILE_UPLOAD_TEMP_DIR": str(folder / "tmp"),
        "FILE_UPLOAD_HANDLERS": HANDLERS,
        "STORAGES": {
            "default": {"BACKEND": "securefs.integrations.django.SealedStorage"},
            "staticfiles": STATIC,
        },
    }
    urlpatterns.clear()
    clear_url_caches()
    with override_settings(**(chosen | changed)):
        config.forget()
        try:
            yield media
        finally:
            config.forget()
            storages._storages.clear()
