"""One file of a request on its way to the app: sealed, inspected, recorded.

A file that the policy declares plain takes the same way, but for the sealing.

The journal has a record of its start before its first byte is passed on, and of its outcome before
its last segment is. With an inspector, no byte is passed on before the inspector has accepted the
whole file.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securefs.errors import JournalError, LimitExceededError, Reason
from securefs.header import MAGIC
from securefs.middleware.evidence import Upload
from securefs.middleware.inspection import FileRefusedError
from securefs.middleware.multipart import MalformedBodyError
from securefs.middleware.refusal import Refusal
from securefs.middleware.spool import SealedSpool, Spool
from securefs.secrecy import HoldsSecrets

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from securefs.middleware.evidence import Evidence
    from securefs.middleware.inspection import Inspector
    from securefs.primitives import Bytes
    from securefs.sealer import FileSealer, NewFiles

__all__ = ["CIPHERTEXT", "Piece", "SealedFile", "Sealing", "refuse_ciphertext"]

# Bytes sealed at a time: such pieces stay in the processor's cache. With 1 MiB, suite 1 was a third
# slower.
STEP: Final = 128 * 1024
# The detail of the refusal of such a file.
CIPHERTEXT: Final = (
    "a file starts like an encrypted file: ciphertext_uploads (SECUREFS_CIPHERTEXT_UPLOADS) is refuse"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for the app. An atomic piece (a boundary, a part's header) must be read whole.

    It must not be split between two reads.
    """

    data: Bytes
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class Sealing:
    """The settings by which the files of one request are sealed, inspected and recorded.

    :ivar context: returns the context that a file is bound to; called for each file.
    :ivar inspect: inspects each file before any of it is passed on, if given.
    """

    new: NewFiles
    evidence: Evidence
    context: Callable[[], bytes] = bytes
    inspect: Inspector | None = None

    def begin(
        self,
        content_type: str,
        metadata: dict[str, str],
        *,
        field: str = "",
        name: str = "",
        plain: bool = False,
    ) -> SealedFile:
        """Return a new file. Its start is recorded when its pieces are first drawn.

        :param plain: the file is declared so and is not encrypted.
        """
        if plain:
            return SealedFile(Upload("", field, name, content_type, 0, "", encrypted=False), _Plain(), self)
        sealer = self.new.sealer(self.context(), metadata) if self.new.binds else self.new.sealer()
        upload = Upload(sealer.object_id, field, name, content_type, 0, sealer.key_id)
        return SealedFile(upload, sealer, self)


class _Plain:
    """Seals nothing: the stored form of a plain file is the file."""

    def update(self, data: Bytes) -> bytes:
        return bytes(data)

    def finalize(self) -> bytes:
        return b""

    def stored_length(self, size: int) -> int:
        return size


@dataclass
class _Looked:
    """How an inspector's input ended: at its end, or with an error that is not the inspector's."""

    error: Exception | None = None
    whole: bool = False


class SealedFile(HoldsSecrets):
    """The stored form of one file, piece by piece.

    :ivar taken: bytes of plaintext so far. :ivar given: stored bytes so far, passed on or held.
    """

    def __init__(self, upload: Upload, sealer: FileSealer | _Plain, sealing: Sealing) -> None:
        self.taken = self.given = 0
        self._upload = upload
        self._sealer = sealer
        self._sealing = sealing

    @property
    def upload(self) -> Upload:
        """What is known of the file; its size, from its end on."""
        return self._upload

    def stored_length(self, size: int) -> int:
        """Return the size in bytes of the stored file for ``size`` bytes of plaintext."""
        return self._sealer.stored_length(size)

    def pieces(
        self, content: Iterable[memoryview | None], header: Piece | None = None
    ) -> Generator[Piece | None, None, None]:
        """Yield ``header``, then the stored bytes of ``content``; None if more input must be read.

        :raises Refusal: the inspector refuses the file. :raises JournalError: it can't be recorded.
        """
        # Not before: a file of which nothing is ever read would have a start without an outcome.
        self._record("started")
        self._sealing.evidence.receives = True
        # The reason if this generator is closed: the app stopped reading.
        reason: Reason | None = Reason.IO_ERROR
        try:
            inspect = self._sealing.inspect
            if inspect is None:
                yield header
                yield from self._sealed(content)
                last = self._finish()
            else:
                with closing(Spool() if self._upload.encrypted else SealedSpool()) as held:
                    self._look(content, inspect, held)
                    yield header
                    yield from map(Piece, held.pieces())
                last = self._finish()
            reason = None
        except (Refusal, MalformedBodyError, LimitExceededError, JournalError) as error:
            reason = error.reason
            raise
        finally:
            if reason is not None:
                with suppress(JournalError):
                    self._record("failure", reason)
        yield Piece(last)

    def _sealed(self, content: Iterable[memoryview | None]) -> Iterator[Piece | None]:
        for data in _steps(content):
            yield None if data is None else Piece(self._seal(data))

    def _seal(self, data: memoryview) -> bytes:
        sealed = self._sealer.update(data)
        self.taken += len(data)
        self.given += len(sealed)
        return sealed

    def _finish(self) -> bytes:
        last = self._sealer.finalize()
        upload = self._upload
        self._upload = Upload(
            upload.object_id,
            upload.field,
            upload.filename,
            upload.content_type,
            self.taken,
            upload.key_id,
            upload.encrypted,
        )
        self._record("success")
        self._sealing.evidence.sealed(self._upload, last)
        return last

    def _look(
        self, content: Iterable[memoryview | None], inspect: Inspector, held: Spool | SealedSpool
    ) -> None:
        """Seal all of ``content`` into ``held`` while the inspector reads it.

        An error in the input counts even if the inspector suppresses it, and so does an input that
        it closes early: a part of a file is never taken for the whole.
        """
        looked = _Looked()
        chunks = self._plaintext(content, held, looked)
        try:
            inspect(self._upload, chunks)
            # The inspector may have read only the beginning.
            for _ in chunks:
                pass
        except FileRefusedError as error:
            raise Refusal(400, Reason.INSPECTION, f"the inspector refused a file: {error}") from None
        except Exception as error:
            if looked.error is None:
                # Fail closed: an inspector that fails in any way has accepted nothing.
                raise Refusal(503, Reason.INSPECTION, f"the inspector failed: {error!r}") from error
        if looked.error is not None:
            raise looked.error
        if not looked.whole:
            raise Refusal(503, Reason.INSPECTION, "the inspector closed its input before the end")

    def _plaintext(
        self, content: Iterable[memoryview | None], held: Spool | SealedSpool, looked: _Looked
    ) -> Iterator[bytes]:
        """Yield the plaintext, each piece after it was sealed into ``held``."""
        try:
            for data in _steps(content):
                if data is not None:
                    held.write(self._seal(data))
                    yield bytes(data)
        except Exception as error:
            looked.error = error
            raise
        looked.whole = True

    def _record(self, outcome: str, reason: Reason | None = None) -> None:
        upload, new = self._upload, self._sealing.new
        about: dict[str, str | int | None] = {
            "size": upload.size if outcome == "success" else None,
            "field": upload.field,
            "name": upload.filename,
        }
        if upload.encrypted:
            about |= {"id": upload.object_id, "key_id": upload.key_id}
            about |= {"format": new.format, "suite": new.suite_label}
        event = "file.encrypt" if upload.encrypted else "file.plain"
        self._sealing.evidence.record(event, outcome=outcome, reason=reason, about=about)


def refuse_ciphertext(
    content: Iterable[memoryview | None], detail: str
) -> Generator[memoryview | None, None, None]:
    """Yield ``content``; raise :class:`Refusal` if it starts with the magic.

    Stored as it is, or encrypted and opened again by the app, it could be decrypted for the client
    that sent it.
    """
    start = b""
    for data in content:
        if data is not None and len(start) < len(MAGIC):
            start += bytes(data[: len(MAGIC) - len(start)])
            if start == MAGIC:
                raise Refusal(400, Reason.CIPHERTEXT_INJECTION, detail)
        yield data


def _steps(content: Iterable[memoryview | None]) -> Iterator[memoryview | None]:
    for data in content:
        if data is None:
            yield None
            continue
        for start in range(0, len(data), STEP):
            yield data[start : start + STEP]
