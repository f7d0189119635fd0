"""For the tests of a Django project: Django's own test client, behind the middleware.

::

    from securefs.integrations.django.testing import Client

    class UploadTest(TestCase):
        client_class = Client

Django's client calls its handlers and not the application of ``wsgi.py``, so its uploads would not
be encrypted. This one sends each request through the middleware, with the project's settings, and
returns Django's response: templates, context and ``json()`` are there, and its content is what a
browser would get.
"""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from django.core import signals
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.db import close_old_connections
from django.http import HttpResponse
from django.http.response import ResponseHeaders
from django.test import Client as _Client

from securefs.integrations.django.config import means
from securefs.middleware import SecureFS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Client"]

_FAILURES: Final = 400  # the first HTTP status of them


class Client(_Client):
    """Django's test client. Its uploads are encrypted, and its downloads are verified."""

    def __init__(self, *, enforce_csrf_checks: bool = False, **options: Any) -> None:
        super().__init__(enforce_csrf_checks, **options)
        self.handler = _Handler(enforce_csrf_checks=enforce_csrf_checks)


class _Inner(WSGIHandler):
    """Django's own application, which keeps the response for the test."""

    def __init__(self, *, enforce_csrf_checks: bool) -> None:
        super().__init__()
        self.enforce_csrf_checks = enforce_csrf_checks
        self.response: Any = None

    def get_response(self, request: Any) -> Any:
        """Return Django's response."""
        request._dont_enforce_csrf_checks = not self.enforce_csrf_checks  # noqa: SLF001  # as ClientHandler
        self.response = super().get_response(request)
        self.response.wsgi_request = request
        return self.response


class _Handler:
    """In the place of Django's ``ClientHandler``: calls the middleware as a server does."""

    def __init__(self, *, enforce_csrf_checks: bool) -> None:
        self.enforce_csrf_checks = enforce_csrf_checks

    def __call__(self, environ: dict[str, Any]) -> Any:
        """Return Django's response as a browser would get it."""
        found = means()
        inner = _Inner(enforce_csrf_checks=self.enforce_csrf_checks)
        front = SecureFS(inner, keyring=found.keyring, journal=found.journal, policy=found.policy)
        started: list[tuple[str, list[tuple[str, str]]]] = []
        body = io.BytesIO()

        def start_response(status: str, headers: list[tuple[str, str]], *_error: object) -> Any:
            started.append((status, headers))
            return body.write

        # The connections to the test's database stay open.
        signals.request_started.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_old_connections)
        try:
            with closing(_Body(front(environ, start_response))) as pieces:
                body.writelines(pieces.of)
        finally:
            signals.request_started.connect(close_old_connections)
            signals.request_finished.connect(close_old_connections)
        status, headers = started[-1]
        return _sent(inner.response, environ, int(status.split()[0]), headers, body.getvalue())


class _Body:
    """What an application returns; it need not have a close()."""

    def __init__(self, of: Iterable[bytes]) -> None:
        self.of = of

    def close(self) -> None:
        """Close it."""
        getattr(self.of, "close", bool)()


def _sent(
    response: Any, environ: dict[str, Any], code: int, headers: list[tuple[str, str]], body: bytes
) -> Any:
    """Return Django's response with what the middleware made of it."""
    if response is None or (code != response.status_code and code >= _FAILURES):
        # A refusal of the middleware.
        response = HttpResponse()
        response.wsgi_request = WSGIRequest(environ)
    response.status_code = code
    response.headers = ResponseHeaders({name: value for name, value in headers if name != "Set-Cookie"})
    if response.streaming:
        response.streaming_content = [body]
    else:
        response.content = body
    return response
