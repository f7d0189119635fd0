"""OpenSSL primitives, used if pyca ``cryptography`` 50 or later is installed (extra ``fast``).

This is the only module that imports that library. Importing this module fails with ImportError if
the library is missing or older; :func:`securefs.backend.default_primitives` then uses PyCryptodome.
A file does not show which of the two wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securefs.errors import IntegrityError, Reason
from securefs.primitives import GCM_TAG_SIZE
from securefs.secrecy import HoldsSecrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.primitives import Bytes, Gcm, StreamSealer

__all__ = ["OpenSSL"]


class _OpenSSLGcm(HoldsSecrets):
    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, nonce: bytes, plaintext: Bytes) -> bytes:
        return self._aead.encrypt(nonce, plaintext, None)

    def open(self, nonce: bytes, sealed: Bytes) -> bytes:
        try:
            return self._aead.decrypt(nonce, sealed, None)
        except InvalidTag:
            raise _mismatch() from None

    def open_into(self, nonce: bytes, sealed: Bytes, out: memoryview) -> int:
        try:
            return self._aead.decrypt_into(nonce, sealed, None, out[: len(sealed) - GCM_TAG_SIZE])
        except InvalidTag:
            raise _mismatch() from None


def _mismatch() -> IntegrityError:
    return IntegrityError("the authentication tag does not match", Reason.TAG_MISMATCH)


class OpenSSL:
    """:class:`securefs.primitives.Primitives` on pyca ``cryptography``."""

    name = "openssl"

    def cbc_encryptor(self, key: bytes, iv: bytes) -> Callable[[Bytes], bytes]:
        """See :meth:`securefs.primitives.Primitives.cbc_encryptor`."""
        return Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update

    def cbc_decrypt_into(self, key: bytes, iv: bytes, ciphertext: Bytes, out: memoryview) -> None:
        """See :meth:`securefs.primitives.Primitives.cbc_decrypt_into`."""
        Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update_into(ciphertext, out)

    def gcm(self, key: bytes) -> Gcm:
        """See :meth:`securefs.primitives.Primitives.gcm`."""
        return _OpenSSLGcm(key)

    def cobblestone_sealer(self, key: bytes, context: bytes) -> StreamSealer | None:
        """Return pyca's own Cobblestone-256 writer, which draws its salt from the system."""
        return Cobblestone256Encryptor(key, context)
