"""Format 1 files, opened for reading: verified as a whole, then compared block by block.

Format 1 has one tag for the whole file, so opening such a file reads all of it once. Later reads
are compared with digests from that pass, so that a file that was exchanged in between is not
decrypted.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from securefs.errors import IntegrityError, Reason
from securefs.format1 import ciphertext_size
from securefs.plaintext import Plaintext
from securefs.primitives import BLOCK_SIZE, HMAC_SIZE, unpadded_size

if TYPE_CHECKING:
    from securefs.keys import Keyring
    from securefs.primitives import Primitives
    from securefs.source import Source

__all__ = ["FORMAT_1_BLOCK", "Format1File"]

FORMAT_1_BLOCK: Final = 1024 * 1024  # bytes; an open file keeps one digest (32 bytes) of each block


class Format1File(Plaintext):
    """A Format 1 file: opening it verifies all of it, and each read is compared with that.

    :param most: the most bytes that the stored file may have, None for any number.
    :raises IntegrityError: no key of the keyring made its tag.
    """

    format = 1
    suite = "format-1"
    block_size = FORMAT_1_BLOCK

    def __init__(self, source: Source, keyring: Keyring, primitives: Primitives, most: int | None) -> None:
        super().__init__()
        self._source, self._primitives = source, primitives
        self._ciphertext_size = ciphertext_size(source.length, most)
        # The IV of each block is the ciphertext's 16 bytes before it.
        self._ivs: list[bytes] = []
        # Reused, as a run's plaintext is: a block of ciphertext, and its plaintext.
        size = min(self.block_size, self._ciphertext_size)
        self._buffer, self._output = (memoryview(bytearray(size + more)) for more in (0, BLOCK_SIZE))
        self._digests: list[bytes] = []
        self._keyring = keyring
        self._key_id, last = self._verify()
        self.key_id = self._key_id.hex()
        padded = self._decrypted(len(self._ivs) - 1, last)
        tail = bytes(padded[: unpadded_size(padded)])
        self._final = ((len(self._ivs) - 1) * self.block_size, memoryview(tail))
        self.size = self._final[0] + len(tail)

    def _stored(self, index: int) -> memoryview:
        """Return block ``index`` of the ciphertext, until the next call."""
        view = self._buffer[: self._ciphertext_size - index * self.block_size]
        if self._source.read_into(BLOCK_SIZE + index * self.block_size, view) < len(view):
            raise IntegrityError("the file ends before its length says", Reason.TRUNCATED, segment=index)
        return view

    def _verify(self) -> tuple[bytes, memoryview]:
        """Read the whole file once; return (the id of the key that made its tag, the last block).

        Keep IV and digest of each block for later reads.
        """
        verifier = self._keyring.format_1_verifier()
        stored = self._buffer
        iv = self._source.read_at(0, BLOCK_SIZE)
        verifier.update(iv)
        for index in range(-(-self._ciphertext_size // self.block_size)):
            stored = self._stored(index)
            verifier.update(stored)
            self._ivs.append(iv)
            self._digests.append(self._digest(index, stored).digest())
            iv = bytes(stored[-BLOCK_SIZE:])
        tag = self._source.read_at(self._source.length - HMAC_SIZE, HMAC_SIZE)
        return verifier.find_key(tag), stored

    def _run(self, index: int, count: int) -> memoryview:  # noqa: ARG002  # always one block
        stored = self._stored(index)
        self._compare(index, stored)
        return self._decrypted(index, stored)

    def _decrypted(self, index: int, ciphertext: memoryview) -> memoryview:
        """Return the plaintext of a block, with any padding, until the next call."""
        self._keyring.format_1_decrypt_into(
            self._key_id, self._ivs[index], ciphertext, self._output, self._primitives
        )
        return self._output[: len(ciphertext)]

    def _digest(self, index: int, stored: memoryview) -> hashlib._Hash:
        digest = hashlib.sha256(self._ivs[index])
        digest.update(stored)
        return digest

    def _compare(self, index: int, stored: memoryview) -> None:
        digest = self._digest(index, stored)
        if not hmac.compare_digest(digest.digest(), self._digests[index]):
            raise IntegrityError(
                f"block {index} changed while the file was open", segment=index, digest=digest.hexdigest()
            )

    def check(self, start: int, stop: int | None) -> None:
        """Do nothing: opening the file verified all of it, and each read is compared with that."""
