"""Signed notes, verification keys, checkpoints and cosignatures, as bytes and text.

Guarantees: what :func:`parse_note`, :func:`parse_vkey` and :func:`parse_checkpoint` accept is
written in exactly one way, and writing it again gives the same bytes. Sizes are limited before
anything is decoded. Refuses: everything else, with :class:`NoteError` and one sentence. No
signature is verified here: :mod:`securefs.audit.signing` does that. Pure.

Implements C2SP signed-note, tlog-checkpoint (without extension lines) and tlog-cosignature (Ed25519
alone).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from securefs.audit.tree import HASH_SIZE

__all__ = [
    "COSIGNATURE",
    "ED25519",
    "MAX_NOTE",
    "MAX_SIGNATURES",
    "MAX_TREE_SIZE",
    "PUBLIC_KEY_SIZE",
    "SIGNATURE_SIZE",
    "Checkpoint",
    "Note",
    "NoteError",
    "Signature",
    "VerificationKey",
    "cosigned_message",
    "decode_base64",
    "encode_base64",
    "parse_checkpoint",
    "parse_count",
    "parse_note",
    "parse_signature_line",
    "parse_vkey",
    "split_cosignature",
]

ED25519: Final = 0x01  # signature types of C2SP signed-note
COSIGNATURE: Final = 0x04
PUBLIC_KEY_SIZE: Final = 32  # bytes, Ed25519
SIGNATURE_SIZE: Final = 64  # bytes, Ed25519
MAX_NOTE: Final = 64 * 1024  # bytes
MAX_SIGNATURES: Final = 64  # of one note; C2SP signed-note asks for 16 at least
MAX_TREE_SIZE: Final = 2**63 - 1  # leaves
MAX_NAME: Final = 255  # characters of a key's name or an origin

_KEY_ID_SIZE: Final = 4  # bytes
_TIME_SIZE: Final = 8  # bytes, of a cosignature
_MAX_BASE64: Final = 8 * 1024  # characters: a post-quantum signature has 3.3 KiB
_DASH: Final = "\N{EM DASH} "
_COUNT: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_HEX_ID: Final = re.compile(r"[0-9a-f]{8}")


class NoteError(ValueError):
    """The bytes are no note, key or checkpoint, or not in its one spelling."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the key's name, the key id (4 bytes) and the signature's bytes."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line, with its line end."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text (which ends in a line end) and its signatures, none of which was verified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """Return the note's bytes."""
        return f"{self.text}\n{''.join(line.line() for line in self.signatures)}".encode()


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, its name and what it signs: ``kind`` is the signature type.

    ``public`` is the key of 32 bytes for the types that are known here.
    """

    name: str
    public: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that name this key in a signature line."""
        data = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(data).digest()[:_KEY_ID_SIZE]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.kind]) + self.public)}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: its origin, its size in leaves and its root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text of the note that is signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


def encode_base64(data: bytes) -> str:
    """Return the standard base64 of these bytes."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, limit: int = _MAX_BASE64) -> bytes:
    """Return the bytes; refuse base64 that is not spelled as :func:`encode_base64` spells it.

    :param limit: the most characters that it may have.
    """
    if len(text) > limit:
        raise NoteError(f"base64 has more than {limit} characters")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # Bits beyond the last byte, which a decoder drops, would be a second spelling.
    if not data or encode_base64(data) != text:
        raise NoteError("this is not standard base64 with padding")
    return data


def parse_count(text: str) -> int:
    """Return a decimal number from 0 to 2**63 - 1 without leading zeros."""
    if not _COUNT.fullmatch(text) or (count := int(text)) > MAX_TREE_SIZE:
        raise NoteError("a size or index is a decimal number below 2**63 without leading zeros")
    return count


def parse_note(data: bytes) -> Note:
    """Return the note that these bytes are; its signatures are not verified."""
    text = _decode(data)
    body, gap, signatures = text.rpartition("\n\n")
    if not gap or not body or not signatures.endswith("\n"):
        raise NoteError("a note is text, an empty line and signature lines, each with a line end")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"the note has more than {MAX_SIGNATURES} signatures")
    return Note(f"{body}\n", tuple(parse_signature_line(line) for line in lines))


def _decode(data: bytes) -> str:
    if len(data) > MAX_NOTE:
        raise NoteError(f"the note has more than {MAX_NOTE} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError("a note is UTF-8") from None
    if any(character < " " and character != "\n" for character in text):
        raise NoteError("a note has no control character but the line end")
    return text


def parse_signature_line(line: str) -> Signature:
    """Return the signature in a line (without its line end)."""
    if not line.startswith(_DASH):
        raise NoteError("a signature line begins with an em dash and a space")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    _check_name(name)
    data = decode_base64(encoded)
    if len(data) <= _KEY_ID_SIZE:
        raise NoteError("a signature line holds a key id of four bytes and a signature")
    return Signature(name, data[:_KEY_ID_SIZE], data[_KEY_ID_SIZE:])


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME or any(character == "+" or character.isspace() for character in name):
        raise NoteError(f"a key's name has 1 to {MAX_NAME} characters, and no space and no plus sign")


def parse_vkey(text: str) -> VerificationKey:
    """Return the Ed25519 verification key in this text (one line without its line end).

    ``kind`` is :data:`ED25519` for a log and :data:`COSIGNATURE` for a witness.
    """
    # Names have no plus sign; base64 may have some.
    name, plus, rest = text.partition("+")
    key_id, second_plus, encoded = rest.partition("+")
    if not (plus and second_plus and _HEX_ID.fullmatch(key_id)):
        raise NoteError("a verification key is NAME+KEY ID+KEY, as `securefs audit init` prints it")
    _check_name(name)
    _check_printable(name)
    data = decode_base64(encoded)
    if data[0] not in {ED25519, COSIGNATURE} or len(data) != 1 + PUBLIC_KEY_SIZE:
        raise NoteError("the verification key is not an Ed25519 key (type 1) or Ed25519 cosigner's (type 4)")
    key = VerificationKey(name, data[1:], data[0])
    if key.key_id.hex() != key_id:
        raise NoteError(
            "the key id in the verification key is not the id of the key: it was mistyped or changed"
        )
    return key


def _check_printable(name: str) -> None:
    if not name.isprintable():
        raise NoteError("a name has no control characters")


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint that the text of a note is."""
    lines = text.split("\n")
    if len(lines) != len(("origin", "size", "root", "")) or lines[3]:
        raise NoteError("a checkpoint of a journal has three lines: origin, size and root")
    origin, size, root = lines[:3]
    _check_name(origin)
    _check_printable(origin)
    checkpoint = Checkpoint(origin, parse_count(size), decode_base64(root))
    if len(checkpoint.root) != HASH_SIZE:
        raise NoteError(f"a root has {HASH_SIZE} bytes")
    return checkpoint


def cosigned_message(time: int, text: str) -> bytes:
    """Return what a witness signs (Ed25519) at ``time``, POSIX seconds, under this note's text."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def split_cosignature(value: bytes) -> tuple[int, bytes]:
    """Return (POSIX seconds, Ed25519 signature) of a cosignature's bytes."""
    if len(value) != _TIME_SIZE + SIGNATURE_SIZE:
        raise NoteError(f"an Ed25519 cosignature has {_TIME_SIZE + SIGNATURE_SIZE} bytes")
    time = int.from_bytes(value[:_TIME_SIZE], "big")
    if time > MAX_TREE_SIZE:
        raise NoteError("the time of a cosignature is below 2**63 seconds")
    return time, value[_TIME_SIZE:]
