"""An album: Django's admin, images with thumbnails, and imports of tables. What securefs needs stands at the end."""

import os
from pathlib import Path

if not os.environ.get("ALBUM_DATA"):
    raise SystemExit("album: set ALBUM_DATA to a folder for the database and the uploads")
DATA = Path(os.environ["ALBUM_DATA"])
SECRET_KEY = os.environ["ALBUM_SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "album.urls"
WSGI_APPLICATION = "wsgi.application"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "easy_thumbnails",
    "import_export",
    "album",
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
# Thumbnails take this alias unless it is missing; then they take the default one.
THUMBNAIL_ALIASES = {"": {"small": {"size": (64, 64), "crop": True}}}
# Between the upload of a table and its confirmation, django-import-export keeps it: in a storage, not in /tmp.
IMPORT_EXPORT_TMP_STORAGE_CLASS = "import_export.tmp_storages.MediaStorage"

# --- securefs
INSTALLED_APPS += ["securefs.integrations.django"]
_OURS = "securefs.integrations.django."
FILE_UPLOAD_HANDLERS = [_OURS + "MemoryFileUploadHandler", _OURS + "TemporaryFileUploadHandler"]
STORAGES["default"] = {"BACKEND": _OURS + "SealedStorage"}
