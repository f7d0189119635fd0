"""Ed25519 for the log, through pyca ``cryptography`` (extra ``fast``).

Guarantees: a signature is either verified or refused with :class:`SignatureError`; nothing returns
whether it was good. The library is imported on the first use, so a journal that is only written
does not need it. Refuses: to do anything without it, with a sentence that says how to install it.

This is the only module of the journal that imports that library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.audit.note import COSIGNATURE, ED25519, NoteError, cosigned_message, split_cosignature
from securefs.errors import ConfigurationError
from securefs.secrecy import HoldsSecrets, clears_frames

if TYPE_CHECKING:
    from types import ModuleType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from securefs.audit.note import Note, Signature, VerificationKey

__all__ = [
    "EvolvingKey",
    "SignatureError",
    "SigningKey",
    "signature_of",
    "verify_cosignature",
    "verify_note",
    "verify_signature",
]


class SignatureError(ValueError):
    """The signature is missing, or is not one of this key over this text."""


def _ed25519() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - optional
    except ImportError:
        raise ConfigurationError(
            "the log's signatures need the library cryptography: pip install 'securefs[fast]'"
        ) from None
    return ed25519


def verify_signature(public: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature (64 bytes) of this public key (32 bytes) over the message.

    :raises SignatureError: it is not one.
    :raises ConfigurationError: the library is not installed.
    """
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError("the signature does not verify: the text or the signature was changed") from None


def signature_of(note: Note, key: VerificationKey) -> Signature:
    """Return the signature line of this key in the note; it is not verified.

    :raises SignatureError: there is none, or more than one.
    """
    found = [line for line in note.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
    if len(found) != 1:
        raise SignatureError(f"the note has {len(found)} signatures of the key {key}, not one")
    return found[0]


def verify_note(note: Note, key: VerificationKey) -> None:
    """Check that the note is signed by this log's key.

    :raises SignatureError: it is not. :raises ConfigurationError: the library is not installed.
    """
    if key.kind != ED25519:
        raise SignatureError("a log signs with a key of type 1; this key is a witness's")
    verify_signature(key.public, signature_of(note, key).value, note.text.encode())


def verify_cosignature(note: Note, key: VerificationKey) -> int:
    """Check that a witness cosigned this checkpoint; return when, in POSIX seconds.

    :raises SignatureError: it did not. :raises ConfigurationError: the library is not installed.
    """
    if key.kind != COSIGNATURE:
        raise SignatureError("a witness cosigns with a key of type 4; this key is a log's")
    try:
        time, signature = split_cosignature(signature_of(note, key).value)
    except NoteError as error:
        raise SignatureError(str(error)) from None
    verify_signature(key.public, signature, cosigned_message(time, note.text))
    return time


class SigningKey(HoldsSecrets):
    """An Ed25519 private key. It leaves this object only by :meth:`pem`."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey | None = None) -> None:
        self._key: Ed25519PrivateKey = _ed25519().Ed25519PrivateKey.generate() if key is None else key
        self.public: Final = self._key.public_key().public_bytes_raw()  # 32 bytes

    @classmethod
    @clears_frames
    def from_pem(cls, data: bytes, name: str) -> SigningKey:
        """Return the key in a PKCS #8 PEM file.

        :param name: of the file, for the error.
        :raises ConfigurationError: there is another thing in it, or the library is not installed.
        """
        kind = _ed25519().Ed25519PrivateKey
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - optional
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        try:
            key = load_pem_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, kind):
            raise ConfigurationError(f"{name} is not an Ed25519 private key in PEM (PKCS #8, not encrypted)")
        return cls(key)

    @clears_frames
    def pem(self) -> bytes:
        """Return the key as PKCS #8 in PEM.

        Python cannot overwrite these bytes: write them to a file and end the process.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - optional

        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(message)


class EvolvingKey(HoldsSecrets):
    """The keys of the next two checkpoints. Each signs one, and is dropped.

    Whoever takes the process or the machine gets keys of checkpoints to come, and none of those
    that were signed.

    :param key: of the next checkpoint; a fresh one if it is None.
    """

    __slots__ = ("_key", "_next")

    def __init__(self, key: SigningKey | None = None) -> None:
        self._key = SigningKey() if key is None else key
        self._next = SigningKey()

    @property
    def public(self) -> bytes:
        """The public key (32 bytes) of the next checkpoint."""
        return self._key.public

    @property
    def next_public(self) -> bytes:
        """The public key (32 bytes) of the checkpoint after that."""
        return self._next.public

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes, and drop the key that made it."""
        key = self._key
        self.drop()
        return key.sign(message)

    def drop(self) -> None:
        """Go on to the next key without a signature."""
        self._key, self._next = self._next, SigningKey()

    def pem(self) -> bytes:
        """Return the key of the next checkpoint: see :meth:`SigningKey.pem`."""
        return self._key.pem()
