"""System checks: which setting would leak plaintext, or fail.

``manage.py check`` runs them, and so do ``runserver`` and ``migrate``. An error is something that
stores plaintext, or that can't work. A warning is something that this process can't see to its end.
docs/django.md lists them.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning  # noqa: A004  # Django's name
from django.core.files.storage import Storage, storages
from django.db.models import FileField
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from securefs.errors import SecureFSError
from securefs.integrations.django import config
from securefs.integrations.django.handlers import SealedUploads
from securefs.integrations.django.storage import PlainStorage, SealedStorage
from securefs.middleware import SecureFS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.checks import CheckMessage

__all__ = ["CHECKS"]

_SEALED: Final = "securefs.integrations.django.SealedStorage"
_PLAIN: Final = "securefs.integrations.django.PlainStorage"
_HANDLERS: Final = "securefs.integrations.django.MemoryFileUploadHandler and …TemporaryFileUploadHandler"


def check_means(**_options: Any) -> list[CheckMessage]:
    """Find keys, a journal or a setting that can't be used (E001)."""
    try:
        config.means()
    except SecureFSError as error:
        return [Error(str(error), id="securefs.E001")]
    return []


def check_handlers(**_options: Any) -> list[CheckMessage]:
    """Find upload handlers that show ciphertext to the app (E002)."""
    return [
        Error(
            f"FILE_UPLOAD_HANDLERS has {name}: forms, Pillow and models would read ciphertext.",
            hint=f"Use {_HANDLERS}, or add the mixin securefs.integrations.django.SealedUploads to a handler of your own.",
            id="securefs.E002",
        )
        for name in settings.FILE_UPLOAD_HANDLERS
        if not issubclass(import_string(name), SealedUploads)
    ]


def check_storages(**_options: Any) -> list[CheckMessage]:
    """Find aliases whose storage does not seal (E003)."""
    return [
        Error(
            f"STORAGES[{alias!r}] is {settings.STORAGES[alias]['BACKEND']}, which does not seal: what the app makes is stored as plaintext there.",
            hint=f"Use {_SEALED} with OPTIONS={{'storage': …}}, or, for files that everybody may read, {_PLAIN}.",
            id="securefs.E003",
        )
        for alias, storage in _aliases()
        if not _is_ours(storage)
    ]


def check_fields(**_options: Any) -> list[CheckMessage]:
    """Find fields of models whose storage does not seal (E004), or has no declared store (E005)."""
    return [
        Error(
            f"{field} keeps its files in {type(storage).__name__}, which does not seal.",
            hint=f"Give it storage=storages[…], an alias that is {_SEALED} or {_PLAIN}.",
            obj=field,
            id="securefs.E004",
        )
        for field in _fields()
        for storage in _storages_of(field)
        if not _is_ours(storage)
    ]


def check_stores(**_options: Any) -> list[CheckMessage]:
    """Find sealed storages outside of the stores, and plain ones inside (E005, E006)."""
    try:
        stores = [_resolved(store) for store in config.policy().stores]
    except SecureFSError:
        return []  # check_means tells
    named = [(f"STORAGES[{alias!r}]", storage) for alias, storage in _aliases()]
    named += [(str(field), storage) for field in _fields() for storage in _storages_of(field)]
    found: dict[str, CheckMessage] = {}
    for what, storage in named:
        folder = getattr(storage, "folder", None) if _is_ours(storage) else None
        if folder is None:
            continue
        inside = any(_resolved(folder).startswith(store) for store in stores)
        if isinstance(storage, SealedStorage) and not inside:
            message = f"{what} keeps ciphertext in {folder}, which is in no declared store: its files can't be opened."
            found[what] = Error(message, hint="Add the folder to SECUREFS_STORES.", id="securefs.E005")
        if isinstance(storage, PlainStorage) and inside:
            message = f"{what} keeps plaintext in {folder}, which is in a store of ciphertext: its files are not served."
            found[what] = Error(message, hint="Give it a location of its own.", id="securefs.E006")
    return list(found.values())


def check_application(**_options: Any) -> list[CheckMessage]:
    """Find a WSGI application without the middleware in front (W007)."""
    hint = "In wsgi.py: from securefs.integrations.django import get_wsgi_application. And name it in WSGI_APPLICATION."
    name = settings.WSGI_APPLICATION
    if name is None:
        return [
            Warning(
                "WSGI_APPLICATION is not set: runserver starts Django without securefs.",
                hint=hint,
                id="securefs.W007",
            )
        ]
    module, _, attribute = name.rpartition(".")
    try:
        application = getattr(import_module(module), attribute)
    except SecureFSError:
        return []  # check_means tells
    except (ImportError, AttributeError) as error:
        return [Error(f"WSGI_APPLICATION names {name}, which can't be imported: {error}", id="securefs.E008")]
    if isinstance(application, SecureFS):
        return []
    message = f"{name} is no SecureFS: unless that is inside of it, uploads are refused."
    return [Warning(message, hint=hint, id="securefs.W007")]


def check_media(**_options: Any) -> list[CheckMessage]:
    """Find where files are served past the middleware (W009, W010), or compressed (W011)."""
    return [*_media_url(), *_static(), *_compression()]


def _media_url() -> Iterator[CheckMessage]:
    hint = 'Add path("media/<path:path>", securefs.integrations.django.serve) to the URLs, behind your own check of who may see it.'
    if not any(isinstance(storage, SealedStorage) for _, storage in _aliases()):
        return
    if not settings.MEDIA_URL or urlsplit(settings.MEDIA_URL).netloc:
        yield Warning(
            f"MEDIA_URL is {settings.MEDIA_URL!r}, which is not this application: what is served there is ciphertext.",
            hint=hint,
            id="securefs.W009",
        )
        return
    try:
        resolve(f"{settings.MEDIA_URL}a")
    except Resolver404:
        yield Warning(
            f"MEDIA_URL is {settings.MEDIA_URL!r}, which no URL of this application leads to. A web server that serves the folder "
            "itself hands out ciphertext.",
            hint=hint,
            id="securefs.W009",
        )


def _static() -> Iterator[CheckMessage]:
    """Find folders that are served as they are, and that hold sealed storages."""
    served = [("STATIC_ROOT", settings.STATIC_ROOT)]
    served += [
        ("STATICFILES_DIRS", one[1] if isinstance(one, tuple) else one)
        for one in _folders("STATICFILES_DIRS")
    ]
    served += [("WHITENOISE_ROOT", getattr(settings, "WHITENOISE_ROOT", None))]
    for alias, storage in _aliases():
        folder = getattr(storage, "store", None)
        for setting, path in served:
            if folder and path and _resolved(folder).startswith(_resolved(path)):
                yield Warning(
                    f"STORAGES[{alias!r}] keeps its files in {folder}, which is in {setting}: they are served as ciphertext.",
                    hint="Give the storage a folder of its own.",
                    id="securefs.W010",
                )


def _aliases() -> list[tuple[str, Any]]:
    """Return the storages of ``STORAGES`` that hold uploads, with their aliases."""
    return [(alias, storages[alias]) for alias in settings.STORAGES if alias != config.STATICFILES]


def _folders(setting: str) -> list[Any]:
    return list(getattr(settings, setting, None) or [])


def _compression() -> Iterator[CheckMessage]:
    name = "django.middleware.gzip.GZipMiddleware"
    if name in settings.MIDDLEWARE:
        yield Warning(
            f"MIDDLEWARE has {name}: it compresses files before securefs sees them, so they are not served in ranges.",
            hint="Compress in the web server, or leave out the files.",
            id="securefs.W011",
        )


def _fields() -> Iterator[Any]:
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.get_fields(include_hidden=True):  # noqa: SLF001  # Django's public API
            if isinstance(field, FileField) and field.model is model:
                yield field


def _storages_of(field: Any) -> list[Any]:
    """Return all storages that a field has: those of other apps have more than ``storage``."""
    found: list[Any] = []
    for value in vars(field).values():
        found += value.values() if isinstance(value, dict) else [value]
    return [_real(one) for one in found if isinstance(one, Storage)]


def _real(storage: Any) -> Any:
    """Return the storage behind ``default_storage``, which is a lazy object."""
    return storages["default"] if type(storage).__name__ == "DefaultStorage" else storage


def _is_ours(storage: Any) -> bool:
    return isinstance(storage, (SealedStorage, PlainStorage))


def _resolved(folder: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # the slash keeps /a/bc out of /a/b


CHECKS: Final = (
    check_means,
    check_handlers,
    check_storages,
    check_fields,
    check_stores,
    check_application,
    check_media,
)
