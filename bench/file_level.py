"""File level, in memory: securefs beside what users would pick instead, and beside the bare primitives as the limit."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securefs import Suite

from .measure import MIB, Table, take_turns
from .peers import OURS, PEERS, Sink, missing, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .peers import Peer

KEY = os.urandom(32)
TAG = 16  # bytes
BARE = "the limit: OpenSSL's {} by itself"
BARE_GCM, BARE_CBC = BARE.format("AES-GCM"), BARE.format("CBC, then HMAC,")


def from_file(data: bytes, size: int) -> Iterator[memoryview]:
    """Read whole segments from a file, into one buffer: what comes from a file is read first, by whoever decrypts it."""
    file, room = io.BytesIO(data), memoryview(bytearray(size))
    while file.readinto(room) == size:
        yield room


def bare_gcm() -> Peer:
    """Return AES-256-GCM on segments of our size into one buffer."""
    aead, size = AESGCM(KEY), Suite.GCM.segment_size
    room = bytearray(size + TAG)

    def encrypt(data: bytes, sink: Sink) -> None:
        for number, piece in enumerate(pieces(data, size)):
            aead.encrypt_into(number.to_bytes(12, "big"), piece, None, memoryview(room)[: len(piece) + TAG])
            sink.write(room)

    def decrypt(sealed: bytes) -> None:
        for number, piece in enumerate(from_file(sealed, size + TAG)):
            aead.decrypt_into(number.to_bytes(12, "big"), piece, None, memoryview(room)[: len(piece) - TAG])

    return encrypt, decrypt


def bare_cbc() -> Peer:
    """Return AES-256-CBC and HMAC-SHA256 one after the other, on segments of our size, into one buffer."""
    size = Suite.CBC_HMAC.segment_size
    room = bytearray(size + 16)
    cipher, mac = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))), hmac.new(KEY, digestmod=hashlib.sha256)

    def tag(sealed: memoryview) -> bytes:
        digest = mac.copy()
        digest.update(sealed)
        return digest.digest()

    def encrypt(data: bytes, sink: Sink) -> None:
        for piece in pieces(data, size):
            cipher.encryptor().update_into(piece, room)
            sink.write(room)
            sink.write(tag(memoryview(room)[: len(piece)]))

    def decrypt(sealed: bytes) -> None:
        for piece in from_file(sealed, size):
            tag(piece)
            cipher.decryptor().update_into(piece, room)

    return encrypt, decrypt


LIMITS: dict[str, Callable[[], Peer]] = {BARE_GCM: bare_gcm, BARE_CBC: bare_cbc}
FAST = (*(name for name in OURS if "openssl" in name), *LIMITS)  # of these the quick run makes do
CONTENDERS = {**PEERS, **OURS, **LIMITS}


def run(quick: bool) -> list[Table]:
    """Return the tables for encrypting and decrypting a buffer."""
    return tables(32 * MIB, 3, FAST) if quick else tables(256 * MIB, 5, tuple(CONTENDERS))


def tables(size: int, turns: int, names: tuple[str, ...]) -> list[Table]:
    """Return the tables of these contenders: encrypting, then decrypting."""
    data = os.urandom(size)
    made = {name: _made(CONTENDERS[name]) for name in names}
    encrypting = {name: _encrypt(peer[0], data) for name, peer in made.items()}
    first = _table("Encrypt", data, encrypting, turns)
    sealed = {name: _sealed(peer[0], data) for name, peer in made.items()}
    decrypting = {name: _decrypt(peer[1], sealed[name]) for name, peer in made.items()}
    return [first, _table("Decrypt", data, decrypting, turns)]


def _made(make: Callable[[], Peer]) -> Peer:
    try:
        return make()
    except ImportError as error:
        return missing(error)


def _table(what: str, data: bytes, contenders: dict[str, Callable[[], object]], turns: int) -> Table:
    rows = take_turns(contenders, turns, len(data) / 1e6, warm=len(data) < 100 * MIB)
    return Table(f"{what} {len(data) // MIB} MiB in memory", "MB/s", rows, base=next(iter(contenders)))


def _encrypt(encrypt: Callable[[bytes, Sink], object], data: bytes) -> Callable[[], object]:
    return lambda: encrypt(data, Sink())


def _sealed(encrypt: Callable[[bytes, Sink], object], data: bytes) -> bytes:
    sink = Sink(keep=True)
    try:
        encrypt(data, sink)
    except ImportError:
        return b""
    return sink.getvalue()


def _decrypt(decrypt: Callable[[bytes], object], sealed: bytes) -> Callable[[], object]:
    return lambda: decrypt(sealed)
