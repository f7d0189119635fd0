"""The two ends of a request: the application that a server calls, and the view of stored files."""

from __future__ import annotations

import errno
import mimetypes
from pathlib import PurePosixPath
from typing import Any, Final

from django.core import wsgi
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import storages
from django.http import FileResponse, Http404, HttpRequest

from securefs.errors import SourceError
from securefs.integrations.django.config import means
from securefs.middleware import SecureFS

__all__ = ["get_wsgi_application", "serve"]

# What a browser may show in the place of a page: it runs nothing of them.
_SHOWN: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"})


def get_wsgi_application(**options: Any) -> SecureFS:
    """Return Django's application with the middleware in front of it.

    :param options: ``context``, ``authorize``, ``inspect``, ``on_refusal``, ``on_event``, as
        :class:`securefs.middleware.SecureFS` takes them. The rest is in Django's settings.
    :raises ConfigurationError: a setting is unusable or not known.
    """
    application = wsgi.get_wsgi_application()
    found = means()
    given = {"keyring": found.keyring, "journal": found.journal, "policy": found.policy}
    return SecureFS(application, **{**given, **options})


def serve(request: HttpRequest, path: str, storage: str = "default") -> FileResponse:  # noqa: ARG001  # a view
    """Serve a stored file, verified first and in ranges: a view for ``MEDIA_URL``.

    Raster images are shown; everything else is saved by browsers, because its uploader chose it.
    Whoever knows the name gets the file: put your own check in front of it.

    :param path: the name in the storage. :param storage: an alias of ``STORAGES``.
    :raises Http404: there is no such file.
    """
    try:
        file = storages[storage].open(path)
    except (FileNotFoundError, NotADirectoryError, SourceError, SuspiciousFileOperation):
        # Names that are no file's come from clients: a folder, one with a NUL, one that leads out.
        raise Http404 from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise Http404 from None
        raise
    kind = mimetypes.guess_type(path)[0] or ""
    shown = kind in _SHOWN
    response = FileResponse(
        file,
        as_attachment=not shown,
        filename=PurePosixPath(path).name,
        content_type=kind if shown else "application/octet-stream",
    )
    response["X-Content-Type-Options"] = "nosniff"
    return response
