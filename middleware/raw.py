"""Uploads whose request body is itself the file: PUT and POST on ``Policy.raw_uploads`` paths.

The type of the body does not matter. The length of the encrypted body follows from the
Content-Length, so the app gets an exact length and nothing is held. A chunked body is held as
ciphertext until its length is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.errors import JournalError
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import CIPHERTEXT, refuse_ciphertext

if TYPE_CHECKING:
    from collections.abc import Generator

    from securefs.middleware.sealing import Piece, SealedFile
    from securefs.middleware.source import BodySource

__all__ = ["RawPipeline"]


class RawPipeline:
    """One raw body on its way to the app.

    See :class:`securefs.middleware.upload.UploadPipeline`.

    :param ciphertext: whether it may start like an encrypted file.
    """

    def __init__(self, source: BodySource, file: SealedFile, *, ciphertext: bool = False) -> None:
        self.parts = 1
        self.produced = 0
        self.length = None if source.length is None else file.stored_length(source.length)
        self._source = source
        self._file = file
        self._ciphertext = ciphertext

    def pieces(self) -> Generator[Piece | None, None, None]:
        """Yield the new body, and None whenever more input must be read.

        :raises Refusal: the body exceeds a limit, is too slow, is refused by the inspector, or
            can't be recorded.
        """
        try:
            content = self._content()
            if not self._ciphertext:
                content = refuse_ciphertext(content, CIPHERTEXT)
            for piece in self._file.pieces(content):
                self.produced += len(piece.data) if piece else 0
                yield piece
        except JournalError as error:
            raise Refusal.of(error) from None
        finally:
            self._source.close()

    def _content(self) -> Generator[memoryview | None, None, None]:
        while data := self._source.read():
            yield memoryview(data)
            # As in UploadPipeline: processed input is not kept while the client is waited for.
            del data
            yield None
