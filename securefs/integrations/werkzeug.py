"""Werkzeug: uploads that read as plaintext and are saved as ciphertext.

::

    from securefs.integrations.werkzeug import Request, send_sealed

``request.files`` gives :class:`SealedFile`. Its ``read()``, ``seek()`` and ``stream`` give verified
plaintext, and the journal says that the app looked; ``save()`` writes ciphertext. Guarantees: an
upload that this request did not seal is never shown. Refuses: to work without the middleware in
front, which would be to store plaintext. docs/looking.md has whole programs.
"""

from __future__ import annotations

import errno
import os
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, cast

from werkzeug.datastructures import FileStorage, ImmutableMultiDict
from werkzeug.exceptions import NotFound
from werkzeug.utils import send_file
from werkzeug.wrappers import Request as _Request

from securefs.errors import ConfigurationError, FormatError, Reason, SourceError
from securefs.middleware.media_type import DEFAULT_TYPE
from securefs.middleware.restored import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.datastructures import MultiDict
    from werkzeug.formparser import FormDataParser
    from werkzeug.wrappers import Response

    from securefs.middleware import Exchange, Upload

__all__ = ["Request", "SealedFile", "SealedRequest", "exchange_of", "send_sealed"]


def exchange_of(environ: Mapping[str, Any]) -> Exchange:
    """Return the middleware's side of a request.

    :raises ConfigurationError: the middleware is not in front of the app.
    """
    exchange: Exchange | None = environ.get("securefs")
    if exchange is None:
        raise ConfigurationError(
            "SecureFS is not in front of this app, so uploads are not encrypted: wrap it, app = SecureFS(app, stores=[…]), and send "
            "the requests of your tests through it"
        )
    return exchange


class SealedFile(FileStorage):
    """One upload: reading gives verified plaintext, and :meth:`save` stores ciphertext.

    It is opened, and recorded as opened, when something of it is first read. An app that replaces
    ``stream``, to rewrite an image for example, has the new content sealed by :meth:`save`.

    :ivar upload: what is known of it: object id, size in bytes, key id.
    """

    def __init__(self, sealed: FileStorage, upload: Upload, exchange: Exchange) -> None:
        self.upload = upload
        self._sealed = sealed
        self._exchange = exchange
        self._plain: IO[bytes] | None = None
        super().__init__(None, sealed.filename, sealed.name, headers=sealed.headers)
        self._plain, self._replaced = None, False

    @property
    def stream(self) -> IO[bytes]:
        """The plaintext, as a binary file that can seek.

        :raises IntegrityError: the upload was changed meanwhile. :raises JournalError: it can't be
            recorded.
        """
        if self._plain is None:
            self._plain = self._exchange.open(self._sealed.stream)
        return self._plain

    @stream.setter
    def stream(self, replacement: IO[bytes]) -> None:
        self._plain, self._replaced = replacement, True

    def save(self, dst: str | os.PathLike[str] | IO[bytes], buffer_size: int = 128 * 1024) -> None:
        """Store the whole ciphertext, wherever reading stands.

        :param dst: a path, or a binary file. :param buffer_size: bytes held at a time.
        """
        if self._replaced:
            self.stream.seek(0)
            name, media_type = self.filename or "", self.mimetype
            with self._exchange.seal(self.stream, name=name, content_type=media_type) as made:
                FileStorage(cast("IO[bytes]", made)).save(dst, buffer_size)
            return
        self._sealed.stream.seek(0)
        self._sealed.save(dst, buffer_size)

    def close(self) -> None:
        """Close the plaintext and the ciphertext."""
        if self._plain is not None:
            self._plain.close()
        self._sealed.close()


class SealedRequest:
    """A mixin for request classes: its files are :class:`SealedFile`."""

    environ: dict[str, Any]

    def make_form_data_parser(self) -> FormDataParser:
        """Return Werkzeug's parser; what it finds is shown as plaintext."""
        parser: FormDataParser = super().make_form_data_parser()  # type: ignore[misc]  # the request's
        return _Parser(parser, self.environ)  # type: ignore[return-value]  # it is called alone


class Request(SealedRequest, _Request):
    """Werkzeug's request, whose files read as plaintext and are saved as ciphertext."""


class _Parser:
    """Werkzeug's parser of forms, as a request uses it."""

    def __init__(self, parser: FormDataParser, environ: Mapping[str, Any]) -> None:
        self._parser = parser
        self._environ = environ

    def parse(self, *given: Any) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        stream, form, files = self._parser.parse(*given)
        if not files:
            return stream, form, files
        try:
            exchange = exchange_of(self._environ)
            shown = [(field, _shown(file, exchange)) for field, file in files.items(multi=True)]
        except BaseException:
            # Nobody else knows of them.
            for file in chain(*files.listvalues()):
                file.close()
            raise
        return stream, form, ImmutableMultiDict(shown)


def _shown(file: FileStorage, exchange: Exchange) -> FileStorage:
    upload = exchange.upload_of(file.stream)
    if upload is not None:
        return SealedFile(file, upload, exchange)
    file.stream.seek(0, os.SEEK_END)
    size = file.stream.tell()
    file.stream.seek(0)
    # Plain files (plain_fields, plain_uploads) are known by their sizes: parsers spell names in
    # different ways.
    if not file.filename or size in {other.size for other in exchange.uploads if not other.encrypted}:
        return file
    raise FormatError(
        f"the upload {file.filename!a} is not what the middleware encrypted: something between SecureFS and the app changed the "
        "request body",
        Reason.NOT_ENCRYPTED,
    )


def send_sealed(
    path: str | os.PathLike[str],
    environ: dict[str, Any],
    *,
    object_id: str | None = None,
    download_name: str | None = None,
    mimetype: str | None = None,
    as_attachment: bool = True,
    max_age: int | None = None,
) -> Response:
    """Return the response that is a stored file: verified first, served in ranges, recorded.

    :param path: a file of a declared store.
    :param object_id: the object id that the app expects, e.g. that of its database.
    :param download_name, mimetype: instead of those that are sealed in the file.
    :param as_attachment: False lets a browser show the file. Its uploader chose the sealed type, so
        give ``mimetype`` then.
    :param max_age: seconds for which a client may keep it.
    :raises NotFound: there is no such file (Werkzeug's exception, which becomes a 404).
    :raises FormatError, IntegrityError, UnknownKeyError: it is not in a store, or it does not
        verify. And as :meth:`securefs.middleware.Exchange.open`.
    """
    exchange = exchange_of(environ)
    try:
        file = exchange.open(os.fspath(path), object_id=object_id)
    except (FileNotFoundError, NotADirectoryError, SourceError):
        # Names that are no file's come from clients: a folder, one with a NUL.
        raise NotFound from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise NotFound from None
        raise
    try:
        response = send_file(file, environ, mimetype=DEFAULT_TYPE, max_age=max_age)
        response.content_length = file.size
        shown = {"name": download_name, "type": mimetype}
        described = {**file.metadata, **{key: text for key, text in shown.items() if text is not None}}
        # The uploader chose what the file is: a browser saves it, and runs nothing of it.
        for name, value in restored(response.headers.to_wsgi_list(), described):
            response.headers[name] = value
        if not as_attachment:
            response.headers["Content-Type"] = mimetype or DEFAULT_TYPE
            _, _, names = response.headers["Content-Disposition"].partition(";")
            response.headers["Content-Disposition"] = f"inline;{names}" if names else "inline"
    except BaseException:
        file.close()
        raise
    return response
