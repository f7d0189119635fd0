"""The reference app: a small file store behind :class:`~securefs.middleware.SecureFS`, to copy.

``gunicorn`` alone, in the repository, serves ``securefs.app:serve()``. Start reading in
:mod:`securefs.app.views`.

The views need Werkzeug, and are imported only when :func:`create_app` is used: tokens, storage and
database work without it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from securefs import ConfigurationError, SecureFSError
from securefs.app.storage import owner_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.app.views import create_app
    from securefs.middleware import SecureFS

__all__ = ["create_app", "owner_context", "serve"]


def serve() -> SecureFS:
    """Return the app for a server: :func:`create_app`.

    A configuration that it refuses ends the process with one line on standard error and code 2.
    """
    try:
        return _create_app()()
    except SecureFSError as error:
        sys.stderr.write(f"securefs: {error}\n")
        raise SystemExit(2) from None


def __getattr__(name: str) -> object:
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _create_app()


def _create_app() -> Callable[[], SecureFS]:
    try:
        from securefs.app.views import create_app  # noqa: PLC0415  # Werkzeug, only where it is needed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: run pip install 'securefs[server]'"
        ) from None
    return create_app
