"""Temporary storage for a whole body: uploads, inspector input, downloads, ``write()`` output.

No other module holds a body. Up to 1 MiB is held in memory, more in a temporary file without a
name. If that fails, every request is refused in the same way: 507 if there is no room, 500 for any
other failure, ``io_error`` in the journal.
"""

from __future__ import annotations

from contextlib import contextmanager
from secrets import token_bytes
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from securefs.disk import explain, is_full
from securefs.errors import Reason
from securefs.keys import KEY_SIZE, Keyring
from securefs.middleware.refusal import Refusal
from securefs.reader import open_encrypted
from securefs.secrecy import HoldsSecrets
from securefs.stream import Encryptor
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securefs.primitives import Bytes
    from securefs.reader import EncryptedFile

__all__ = ["SealedSpool", "Spool"]

HELD_IN_MEMORY: Final = 1024 * 1024  # bytes; a larger body is in a temporary file
PIECE: Final = 256 * 1024  # bytes read back at a time


class Spool:
    """A held body. Its creator closes it."""

    def __init__(self) -> None:
        # Closed by close().
        self._file: IO[bytes] = SpooledTemporaryFile(HELD_IN_MEMORY)  # noqa: SIM115

    def write(self, data: Bytes) -> None:
        """Take the next bytes; raise :class:`Refusal` if they can't be held."""
        with _refusing():
            self._file.write(data)

    def finish(self) -> IO[bytes]:
        """Return everything that was written, as a file at its beginning."""
        with _refusing():
            self._file.seek(0)
        return self._file

    def pieces(self) -> Iterator[bytes]:
        """Yield everything that was written."""
        file = self.finish()
        while True:
            with _refusing():
                data = file.read(PIECE)
            if not data:
                return
            yield data

    def close(self) -> None:
        """Close the temporary file."""
        self._file.close()


class SealedSpool(HoldsSecrets):
    """A held body that is, or has, plaintext, which must never be on a disk.

    It is sealed under a key that exists only in this object. Its creator closes it.
    """

    def __init__(self) -> None:
        self._keyring = Keyring(token_bytes(KEY_SIZE))
        self._sealer = Encryptor(self._keyring, Suite.GCM)
        self._spool = Spool()
        self._held: EncryptedFile | None = None

    def write(self, data: Bytes) -> None:
        """Take the next bytes; raise :class:`Refusal` if they can't be held."""
        self._spool.write(self._sealer.update(data))

    def finish(self) -> EncryptedFile:
        """Return everything that was written, as a file at its beginning."""
        self._spool.write(self._sealer.finalize())
        self._held = open_encrypted(self._spool.finish(), self._keyring)
        return self._held

    def pieces(self) -> Iterator[bytes]:
        """Yield everything that was written."""
        held = self.finish()
        while data := held.read(PIECE):
            yield data

    def close(self) -> None:
        """Close the temporary file."""
        if self._held is not None:
            self._held.close()
        self._spool.close()


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        status = 507 if is_full(error) else 500
        detail = f"a temporary file (TMPDIR) can't hold the body: {explain(error)}"
        raise Refusal(status, Reason.IO_ERROR, detail) from None
