"""Upload handlers: memory and temporary files hold ciphertext, and the app reads plaintext.

Guarantees: what a handler collects is what the middleware sealed, and is shown as
:class:`SealedUpload`. Refuses: to work without the middleware in front, which would be to store
plaintext.
"""

from __future__ import annotations

from typing import Any

from django.core.files import uploadhandler

from securefs.integrations.django.config import exchange_of
from securefs.integrations.django.uploads import shown

__all__ = ["MemoryFileUploadHandler", "SealedUploads", "TemporaryFileUploadHandler"]


class SealedUploads:
    """A mixin for upload handlers: the files that they complete are :class:`SealedUpload`."""

    request: Any

    def file_complete(self, file_size: int) -> Any:
        """Return the upload as the app is to see it, None if another handler has it.

        :raises ConfigurationError: the middleware is not in front. :raises FormatError: it is not
            what the middleware encrypted.
        """
        uploaded = super().file_complete(file_size)  # type: ignore[misc]  # the handler's
        if uploaded is None:
            return None
        try:
            return shown(uploaded, exchange_of(self.request.META))
        except BaseException:
            # Nobody else knows of it.
            uploaded.close()
            raise


class MemoryFileUploadHandler(SealedUploads, uploadhandler.MemoryFileUploadHandler):
    """Django's handler of small uploads; memory holds ciphertext."""


class TemporaryFileUploadHandler(SealedUploads, uploadhandler.TemporaryFileUploadHandler):
    """Django's handler of large uploads; the temporary file holds ciphertext."""
