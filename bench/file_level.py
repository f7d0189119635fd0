"""File level: a buffer encrypted and decrypted in memory, beside the naive scheme, Fernet and the bare primitives."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
from typing import TYPE_CHECKING

from Crypto.Cipher import AES
from Crypto.Util.Padding import pad, unpad
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securefs import Encryptor, Keyring, Suite, open_encrypted
from securefs.accelerated import OpenSSL
from securefs.primitives import PyCryptodome

from .measure import take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.primitives import Primitives

    from .measure import Row

MIB = 1024 * 1024
KEY = os.urandom(32)
RING = Keyring(KEY)


def _ours(
    data: bytes, suite: Suite, primitives: Primitives
) -> tuple[Callable[[], bytes], Callable[[], None]]:
    def encrypt() -> bytes:
        encryptor = Encryptor(RING, suite, primitives=primitives)
        pieces = [encryptor.update(data[at : at + MIB]) for at in range(0, len(data), MIB)]
        return b"".join([*pieces, encryptor.finalize()])

    sealed = encrypt()

    def decrypt() -> None:
        with open_encrypted(io.BytesIO(sealed), RING, primitives=primitives) as file:
            while file.read(MIB):
                pass

    return encrypt, decrypt


def _naive_encrypt(data: bytes) -> bytes:
    cipher = AES.new(KEY, AES.MODE_CBC)
    body = bytes(cipher.iv) + cipher.encrypt(pad(data, 16))
    return body + hmac.digest(KEY, body, "sha256")


def _naive_decrypt(sealed: bytes) -> bytes:
    body, tag = sealed[:-32], sealed[-32:]
    if not hmac.compare_digest(hmac.digest(KEY, body, "sha256"), tag):
        raise ValueError
    return unpad(AES.new(KEY, AES.MODE_CBC, iv=body[:16]).decrypt(body[16:]), 16)


def _series(data: bytes) -> None:
    """CBC and HMAC of OpenSSL one after the other on the same segments: what suite 1 can't be faster than."""
    view = memoryview(data)
    for at in range(0, len(data), 65_536):
        sealed = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))).encryptor().update(view[at : at + 65_536])
        hmac.new(KEY, sealed, hashlib.sha256).digest()


def _bare_gcm(data: bytes) -> None:
    aead, view = AESGCM(KEY), memoryview(data)
    for number, at in enumerate(range(0, len(data), 16_384)):
        aead.encrypt(number.to_bytes(12, "big"), view[at : at + 16_384], None)


def _cobblestone(data: bytes) -> bytes:
    sealer = Cobblestone256Encryptor(KEY, b"")
    return sealer.update(data) + sealer.finalize()


def _cobblestone_decrypt(sealed: bytes) -> None:
    opener = Cobblestone256Decryptor(KEY, b"")
    opener.update(sealed)
    opener.finalize()


def run(size: int, turns: int) -> dict[str, list[Row]]:
    """Return the rows for encrypting and decrypting ``size`` bytes."""
    data = os.urandom(size)
    ours = {
        f"securefs {suite.label}, {primitives.name}": _ours(data, suite, primitives)
        for suite in Suite
        for primitives in (PyCryptodome(), OpenSSL())
    }
    fernet = Fernet(Fernet.generate_key())
    naive, token, stone = _naive_encrypt(data), fernet.encrypt(data), _cobblestone(data)
    encrypt: dict[str, Callable[[], object]] = {"naive, whole file": lambda: _naive_encrypt(data)}
    encrypt |= {name: pair[0] for name, pair in ours.items()}
    encrypt |= {
        "Fernet": lambda: fernet.encrypt(data),
        "cobblestone": lambda: _cobblestone(data),
        "bare CBC then HMAC (OpenSSL)": lambda: _series(data),
        "bare GCM (OpenSSL)": lambda: _bare_gcm(data),
    }
    decrypt: dict[str, Callable[[], object]] = {"naive, whole file": lambda: _naive_decrypt(naive)}
    decrypt |= {name: pair[1] for name, pair in ours.items()}
    decrypt |= {"Fernet": lambda: fernet.decrypt(token), "cobblestone": lambda: _cobblestone_decrypt(stone)}
    return {
        f"Encrypt {size // MIB} MiB in memory": take_turns(encrypt, size / 1e6, "MB", turns),
        f"Decrypt {size // MIB} MiB in memory": take_turns(decrypt, size / 1e6, "MB", turns),
    }
