"""The reference app: a small file store behind :class:`~securefs.middleware.SecureFS`, to copy.

``gunicorn`` alone, in the repository, serves ``securefs.app:create_app()``. Start reading in
:mod:`securefs.app.views`.
"""

from securefs.app.views import create_app, owner_context

__all__ = ["create_app", "owner_context"]
