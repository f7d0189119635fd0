"""django-filer: images with thumbnails, and files. What securefs needs stands at the end."""

import os
from pathlib import Path

if not os.environ.get("LIBRARY_DATA"):
    raise SystemExit("library: set LIBRARY_DATA to a folder for the database and the uploads")
DATA = Path(os.environ["LIBRARY_DATA"])
SECRET_KEY = os.environ["LIBRARY_SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "library.urls"
WSGI_APPLICATION = "wsgi.application"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "easy_thumbnails",
    "filer",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "database"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGIN_URL = "/admin/login/"
STATIC_URL = "/static/"
MEDIA_URL = "/media/"
MEDIA_ROOT = DATA / "media"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# --- securefs
INSTALLED_APPS += ["securefs.integrations.django"]
_OURS = "securefs.integrations.django."
FILE_UPLOAD_HANDLERS = [_OURS + "MemoryFileUploadHandler", _OURS + "TemporaryFileUploadHandler"]
STORAGES["default"] = {"BACKEND": _OURS + "SealedStorage"}
# What filer calls private has storages of its own.
_PRIVATE = {
    "ENGINE": _OURS + "SealedStorage",
    "OPTIONS": {"location": MEDIA_ROOT / "private", "base_url": "/private/"},
}
FILER_STORAGES = {"private": {"main": _PRIVATE, "thumbnails": _PRIVATE}}
