"""What users would pick instead. A peer is a pair of calls, made when it is asked for: what is not installed raises then.

Whoever can stream gets pieces of a mebibyte and writes to something that forgets; whoever can't
gets all of it at once.
"""

from __future__ import annotations

import hmac
import io
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from Crypto.Cipher import AES
from Crypto.Util.Padding import pad, unpad

from securefs import Encryptor, Keyring, Suite, open_encrypted
from securefs.accelerated import OpenSSL
from securefs.primitives import PyCryptodome

from .measure import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.primitives import Primitives

    Peer = tuple[
        Callable[[bytes, "Sink"], Any], Callable[[bytes], Any]
    ]  # encrypt(plaintext, to), decrypt(ciphertext)


class Sink(io.BytesIO):
    """Forgets what is written, unless it is told to keep it. A stream that closes it leaves what was kept."""

    def __init__(self, *, keep: bool = False) -> None:
        super().__init__()
        self._keep = keep

    def write(self, data: Any, /) -> int:
        """Take data."""
        return super().write(data) if self._keep else len(data)

    def close(self) -> None:
        """Stay."""


def pieces(data: bytes, size: int = MIB) -> Iterator[memoryview]:
    """Yield data in the pieces in which a server would give it."""
    view = memoryview(data)
    for at in range(0, len(data), size):
        yield view[at : at + size]


def naive() -> Peer:
    """Return the original scheme as an app writes it: whole file, PyCryptodome, one key."""
    key = os.urandom(32)

    def encrypt(data: bytes, sink: Sink) -> None:
        cipher = AES.new(key, AES.MODE_CBC)
        body = bytes(cipher.iv) + cipher.encrypt(pad(data, 16))
        sink.write(body + hmac.new(key, body, "sha256").digest())

    def decrypt(sealed: bytes) -> bytes:
        body, tag = sealed[:-32], sealed[-32:]
        if not hmac.compare_digest(hmac.new(key, body, "sha256").digest(), tag):
            raise ValueError
        return unpad(AES.new(key, AES.MODE_CBC, iv=body[:16]).decrypt(body[16:]), 16)

    return encrypt, decrypt


def fernet() -> Peer:
    """Return the recipe of pyca cryptography: whole messages, base64."""
    from cryptography.fernet import Fernet  # noqa: PLC0415

    box = Fernet(Fernet.generate_key())
    return lambda data, sink: sink.write(box.encrypt(data)), box.decrypt


def cobblestone() -> Peer:
    """Return the streaming format of pyca cryptography."""
    from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor  # noqa: PLC0415

    key = os.urandom(32)

    def encrypt(data: bytes, sink: Sink) -> None:
        sealer = Cobblestone256Encryptor(key, b"")
        for piece in pieces(data):
            sink.write(sealer.update(piece))
        sink.write(sealer.finalize())

    def decrypt(sealed: bytes) -> None:
        opener = Cobblestone256Decryptor(key, b"")
        for piece in pieces(sealed):
            opener.update(piece)
        opener.finalize()

    return encrypt, decrypt


def tink(template: str) -> Peer:
    """Return a streaming AEAD of Tink."""
    import tink as library  # noqa: PLC0415
    from tink import streaming_aead  # noqa: PLC0415

    streaming_aead.register()
    handle = library.new_keyset_handle(getattr(streaming_aead.streaming_aead_key_templates, template))
    primitive = handle.primitive(streaming_aead.StreamingAead)

    def encrypt(data: bytes, sink: Sink) -> None:
        with primitive.new_encrypting_stream(sink, b"") as stream:
            for piece in pieces(data):
                stream.write(bytes(piece))

    def decrypt(sealed: bytes) -> None:
        with primitive.new_decrypting_stream(io.BytesIO(sealed), b"") as stream:
            while stream.read(MIB):
                pass

    return encrypt, decrypt


def pyrage() -> Peer:
    """Return age's format by its Rust implementation."""
    import pyrage as library  # noqa: PLC0415

    identity = library.x25519.Identity.generate()
    return (
        lambda data, sink: sink.write(library.encrypt(data, [identity.to_public()])),
        lambda sealed: library.decrypt(sealed, [identity]),
    )


def aws(frame: int) -> Peer:
    """Return the AWS Encryption SDK with a raw AES key, key commitment, no signature, and frames of so many bytes."""
    import aws_encryption_sdk as sdk  # noqa: PLC0415
    from aws_encryption_sdk.identifiers import Algorithm, EncryptionKeyType, WrappingAlgorithm  # noqa: PLC0415
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey  # noqa: PLC0415
    from aws_encryption_sdk.key_providers.raw import RawMasterKey  # noqa: PLC0415

    wrapping = WrappingKey(
        wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
        wrapping_key=os.urandom(32),
        wrapping_key_type=EncryptionKeyType.SYMMETRIC,
    )
    key = RawMasterKey(provider_id="bench", key_id="bench", wrapping_key=wrapping)
    client = sdk.EncryptionSDKClient()
    options = {"algorithm": Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY, "frame_length": frame}

    def run(mode: str, data: bytes, sink: Sink, **extra: Any) -> None:
        with client.stream(mode=mode, source=io.BytesIO(data), key_provider=key, **extra) as stream:
            while piece := stream.read(MIB):
                sink.write(piece)

    return (
        lambda data, sink: run("e", data, sink, **options),
        lambda sealed: run("d", sealed, Sink()),
    )


def ours(suite: Suite, primitives: Primitives) -> Peer:
    """Return securefs as its users call it."""
    ring = Keyring(os.urandom(32))

    def encrypt(data: bytes, sink: Sink) -> None:
        encryptor = Encryptor(ring, suite, primitives=primitives)
        for piece in pieces(data):
            sink.write(encryptor.update(piece))
        sink.write(encryptor.finalize())

    def decrypt(sealed: bytes) -> None:
        with open_encrypted(io.BytesIO(sealed), ring, primitives=primitives) as file:
            while file.read(MIB):
                pass

    return encrypt, decrypt


def missing(error: Exception) -> Any:
    """Return a pair of calls that say why there is nothing to be measured."""

    def fail(*_: object) -> None:
        raise error

    return fail, fail


OURS: dict[str, Callable[[], Peer]] = {
    f"securefs {suite.label}, {primitives.name}": partial(ours, suite, primitives)
    for suite in (Suite.GCM, Suite.CBC_HMAC)
    for primitives in (OpenSSL(), PyCryptodome())
}
PEERS: dict[str, Callable[[], Peer]] = {
    "naive: CBC and HMAC of the whole file": naive,
    "Fernet": fernet,
    "cobblestone": cobblestone,
    "Tink AES256_GCM_HKDF_1MB": lambda: tink("AES256_GCM_HKDF_1MB"),
    "Tink AES256_CTR_HMAC_SHA256_1MB": lambda: tink("AES256_CTR_HMAC_SHA256_1MB"),
    "pyrage": pyrage,
    "AWS Encryption SDK, frames of 64 KiB": lambda: aws(64 * KIB),
}
