"""Downloads: ciphertext from the app in, verified plaintext out.

No byte leaves before the tag over it was verified. A body of up to ``Policy.verify_first`` bytes is verified whole before the
status line, so that a tampered file is a clean 500 with no byte of it. A longer one is sent segment by segment; a failure
then breaks the connection off, so that no client can take the part for the whole.

The journal has the start of an operation before its first byte, and its outcome before its last segment is released.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from securefs.errors import FormatError, IntegrityError, JournalError, Reason, SecureFSError
from securefs.header import MAGIC
from securefs.middleware.problem import Refusal
from securefs.middleware.response import HELD_IN_MEMORY, READ_SIZE
from securefs.reader import open_encrypted
from securefs.stream import TRAILER, Decryptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securefs.keys import Keyring
    from securefs.middleware.exchange import Exchange
    from securefs.middleware.policy import Policy
    from securefs.middleware.response import Headers, Response
    from securefs.reader import EncryptedFile, SeekableFile

__all__ = ["Delivery", "open_download"]

# They describe the ciphertext (RFC 9530, RFC 1864), or ranges of it.
_STALE_HEADERS: Final = frozenset(
    {"content-length", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"}
)
FILE_ID_START: Final = 16  # offsets in a Format 2 file
FILE_ID_END: Final = 48


class Delivery:
    """The plaintext of one file on its way to the client, as an iterable of chunks.

    :param size: bytes of plaintext, None where the end alone will tell.
    """

    def __init__(self, exchange: Exchange, about: dict[str, str | int], size: int | None) -> None:
        self.size = size
        self._exchange = exchange
        self.about = about
        self._open = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._open:
            raise StopIteration
        try:
            data, last = self._read()
            if last:
                self._open = False
                self._record("success")
        except (SecureFSError, OSError) as error:
            self._open = False
            record_failure(self._exchange, error, self.about, None)
            raise
        return data

    def _read(self) -> tuple[bytes, bool]:
        """Return the next verified plaintext, and whether it is the last."""
        raise NotImplementedError  # pragma: no cover  # abstract

    def verify(self, limit: int | None) -> None:
        """Verify the whole file before anything is sent, where it has no more than ``limit`` bytes (None: always)."""

    def begin(self) -> None:
        """Record that the operation starts; raise :class:`JournalError` where that can't be."""
        self._record("started")
        self._open = True

    def close(self) -> None:
        """Note that the client went away, where the last byte was not handed out."""
        if self._open:
            self._open = False
            # Nothing more is released, so a journal that fails here holds nothing back.
            with suppress(JournalError):
                self._record("failure", severity=2, reason=Reason.CLIENT_GONE)

    def headers(self, headers: Headers) -> Headers:
        """Return the app's headers as they are true of the plaintext."""
        kept = [(name, value) for name, value in headers if name.lower() not in _STALE_HEADERS]
        return kept if self.size is None else [*kept, ("Content-Length", str(self.size))]

    def _record(self, outcome: str, *, severity: int = 1, reason: Reason | None = None) -> None:
        self._exchange.record(
            "file.decrypt", outcome=outcome, severity=severity, reason=reason, about=self.about
        )


class _FileDelivery(Delivery):
    """From a source that can seek, or was spooled: its end is known to be there before its first byte goes out."""

    def __init__(self, exchange: Exchange, file: EncryptedFile, held: IO[bytes] | None) -> None:
        super().__init__(exchange, _about(file), file.size)
        self._file = file
        self._held = held
        self._kept: bytes | None = None

    def verify(self, limit: int | None) -> None:
        # What fits one read is read once, to be verified and to be sent.
        if self._file.size <= READ_SIZE:
            self._kept = self._file.read()
        elif self._file.format != 1 and (limit is None or self._file.size <= limit):
            self._file.check()

    def close(self) -> None:
        super().close()
        if self._held is not None:
            self._held.close()

    def _read(self) -> tuple[bytes, bool]:
        data = self._file.read(READ_SIZE) if self._kept is None else self._kept
        self._kept = None
        return data, self._file.tell() == self._file.size


class _StreamDelivery(Delivery):
    """From a source that comes once and is too long to hold: each segment goes out when it is verified."""

    def __init__(
        self, exchange: Exchange, chunks: Iterator[bytes], decryptor: Decryptor, length: int | None
    ) -> None:
        self._chunks = chunks
        self._decryptor = decryptor
        self._ready = b""
        while decryptor.unlocked is None and (chunk := next(chunks, None)) is not None:
            self._ready = decryptor.update(chunk)
        unlocked = decryptor.unlocked
        if unlocked is None:
            # The body ended inside its header: say where.
            decryptor.finalize()
            raise IntegrityError("the file ends where its header does", Reason.TRUNCATED)
        header = unlocked.header
        body = None if length is None else length - header.length - len(TRAILER)
        about: dict[str, str | int] = {
            "id": header.object_id,
            "key_id": unlocked.key_id,
            "format": 2,
            "suite": header.suite.label,
        }
        super().__init__(exchange, about, None if body is None else header.suite.plaintext_length(body))

    def _read(self) -> tuple[bytes, bool]:
        ready, self._ready = self._ready, b""
        while not ready:
            chunk = next(self._chunks, None)
            if chunk is None:
                return self._decryptor.finalize(), True
            ready = self._decryptor.update(chunk)
        return ready, False


def _about(file: EncryptedFile) -> dict[str, str | int]:
    about: dict[str, str | int] = {"key_id": file.key_id, "format": file.format, "size": file.size}
    return about | ({"id": file.object_id, "suite": file.suite} if file.object_id else {})


def open_download(
    response: Response,
    exchange: Exchange,
    policy: Policy,
    keyring: Keyring,
    context: bytes,
    *,
    format_1: bool,
    head: bool,
) -> Delivery:
    """Return the plaintext of the app's response, verified as far as the policy asks, its start recorded.

    For a HEAD request (``head``) only what the headers need is read, and nothing is recorded: no content goes out.

    :raises Refusal: the response must not be sent; the journal has the reason.
    """
    about: dict[str, str | int] = {}
    held: IO[bytes] | None = None
    try:
        _check_servable(response)
        length = _announced_length(response)
        limit = None if format_1 else policy.verify_first
        source = response.seekable_file()
        chunks = response.chunks()
        if source is None and (limit is None or length is None or length <= limit):
            held, chunks = _hold(chunks, limit)
            source = held
        delivery: Delivery
        if source is None:
            delivery = _StreamDelivery(exchange, chunks, Decryptor(keyring, context), length)
        else:
            about = _peek(source)
            file = open_encrypted(source, keyring, context, format_1=format_1)
            delivery = _FileDelivery(exchange, file, held)
        about = delivery.about
        if exchange.expected is not None and about.get("id") != exchange.expected:
            raise IntegrityError("the file is not the one that was asked for", Reason.WRONG_OBJECT)
        if not head:
            delivery.begin()
            delivery.verify(policy.verify_first)
    except (SecureFSError, OSError) as error:
        if held is not None:
            held.close()
        raise record_failure(exchange, error, about, 500) from None
    return delivery


def _check_servable(response: Response) -> None:
    """Refuse what would make the client decode plaintext as something that it is not."""
    if response.status.startswith("206"):
        raise FormatError(
            "the app answered a part of a ciphertext; ranges are ours to serve", Reason.BAD_HEADER
        )
    if (response.header("content-encoding") or "identity").lower() != "identity":
        raise FormatError("the app put a Content-Encoding on a ciphertext", Reason.BAD_HEADER)


def _announced_length(response: Response) -> int | None:
    text = response.header("content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _hold(chunks: Iterator[bytes], limit: int | None) -> tuple[IO[bytes] | None, Iterator[bytes]]:
    """Keep a body that ends within ``limit`` bytes of ciphertext and return it as a file.

    A longer one comes back as an iterator over all of it.
    """
    held: IO[bytes] = SpooledTemporaryFile(HELD_IN_MEMORY)  # noqa: SIM115  # closed with the delivery
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            held.write(chunk)
            if limit is not None and size > limit:
                return None, chain(_drain(held), chunks)
    except BaseException:
        held.close()
        raise
    return held, iter(())


def _drain(held: IO[bytes]) -> Iterator[bytes]:
    with held:
        held.seek(0)
        while data := held.read(READ_SIZE):
            yield data


def _peek(source: SeekableFile) -> dict[str, str | int]:
    """Return the object id that a file claims, for the record of its failure."""
    start = source.read(FILE_ID_END)
    return (
        {"id": start[FILE_ID_START:].hex()} if start.startswith(MAGIC) and len(start) == FILE_ID_END else {}
    )


def record_failure(
    exchange: Exchange, error: SecureFSError | OSError, about: dict[str, str | int], status: int | None
) -> Refusal:
    """Record why a file is not served; return the refusal to answer with, 503 where that can't be recorded."""
    if isinstance(error, JournalError):
        return Refusal.of(error)
    if isinstance(error, OSError):
        refusal = Refusal(500, Reason.IO_ERROR, f"the stored file can't be read: {error.strerror}")
        event, severity = "file.decrypt", 3
    else:
        refusal = Refusal.of(error)
        event, severity = "file.integrity_failure", 3 if refusal.reason is Reason.UNKNOWN_KEY else 4
    details = dict(about)
    if isinstance(error, IntegrityError) and error.segment is not None:
        details["segment"] = error.segment
        details["digest"] = error.digest or ""
    refusal.recorded = True
    try:
        exchange.record(
            event, outcome="failure", severity=severity, reason=refusal.reason, status=status, about=details
        )
    except JournalError as journal_error:
        return Refusal.of(journal_error)
    return refusal
