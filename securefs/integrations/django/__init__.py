"""Django: uploads that read as plaintext, and storages that hold ciphertext.

::

    INSTALLED_APPS += ["securefs.integrations.django"]
    FILE_UPLOAD_HANDLERS = [
        "securefs.integrations.django.MemoryFileUploadHandler",
        "securefs.integrations.django.TemporaryFileUploadHandler",
    ]
    STORAGES["default"] = {"BACKEND": "securefs.integrations.django.SealedStorage"}

and in ``wsgi.py`` ``from securefs.integrations.django import get_wsgi_application``. Forms, Pillow
and models then read verified plaintext, and every file that a storage keeps is ciphertext.
``manage.py check`` names the settings that would leak or fail. docs/django.md has a whole program.
"""

from securefs.integrations.django.handlers import (
    MemoryFileUploadHandler,
    SealedUploads,
    TemporaryFileUploadHandler,
)
from securefs.integrations.django.serving import get_wsgi_application, serve
from securefs.integrations.django.storage import PlainStorage, SealedStorage
from securefs.integrations.django.uploads import SealedUpload

__all__ = [
    "MemoryFileUploadHandler",
    "PlainStorage",
    "SealedStorage",
    "SealedUpload",
    "SealedUploads",
    "TemporaryFileUploadHandler",
    "get_wsgi_application",
    "serve",
]
