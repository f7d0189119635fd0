"""A second decryptor, which follows docs/format.md: it imports nothing of securefs, and has from
pyca ``cryptography`` what a minimal install of securefs has from PyCryptodome.

It works on whole files in memory, checks in the order in which the page does, and knows two
outcomes: the plaintext, or :class:`Rejected`. If a reader of the page would go wrong somewhere, so
does this, and the vectors show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

MAGIC = b"\x89SFS2\r\n\x1a"


class Rejected(Exception):  # noqa: N818  # the page's own word
    """The file is not to be used, and no plaintext of it either."""


def must(condition: bool, why: str) -> None:
    if not condition:
        raise Rejected(why)


def u(data: bytes) -> int:
    return int.from_bytes(data, "big")


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt or None, info).derive(ikm)


def gcm_open(key: bytes, nonce: bytes, sealed: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, sealed, None)
    except (InvalidTag, ValueError) as error:
        raise Rejected("GCM tag") from error


def tag_holds(mac_key: bytes, covered: bytes, tag: bytes) -> bool:
    mac = HMAC(mac_key, SHA256())
    mac.update(covered)
    return bytes_eq(mac.finalize(), tag)


def cbc_hmac_open(enc_key: bytes, mac_key: bytes, prefix: bytes, sealed: bytes) -> bytes:
    """Open ``IV ‖ C ‖ T`` whose tag covers ``prefix ‖ IV ‖ C``: Format 1 as a whole, or one segment of suite 1."""
    must(len(sealed) >= 64 and len(sealed) % 16 == 0, "length")
    must(tag_holds(mac_key, prefix + sealed[:-32], sealed[-32:]), "HMAC tag")
    decryptor = Cipher(algorithms.AES(enc_key), modes.CBC(sealed[:16])).decryptor()
    padded = decryptor.update(sealed[16:-32]) + decryptor.finalize()
    count = padded[-1]
    must(1 <= count <= 16 and padded[-count:] == bytes([count]) * count, "padding")
    return padded[:-count]


def open_format_1(data: bytes, keys: list[bytes]) -> bytes:
    must(len({key.ljust(32, b"\0") for key in keys}) == len(set(keys)), "keys that can't be told apart")
    found = [key for key in keys if tag_holds(key, data[:-32], data[-32:])]
    must(len(found) == 1, "no key's tag")
    return cbc_hmac_open(found[0], found[0], b"", data)


def parse_slot(slot: bytes) -> tuple[int, int, bytes, bytes, bytes] | None:
    kind, size = slot[0], u(slot[2:4])
    if kind == 0:
        must(not any(slot), "empty slot")
        return None
    must(kind in {1, 2, 3} and slot[1] == 0 and size <= len(slot) - 24, "slot head")
    must(not any(slot[24 + size :]), "slot filling")
    must({1: size == 80, 2: size >= 3, 3: size == 1168}[kind], "payload length")
    return u(slot[4:8]), kind, slot[8:24], slot[:24], slot[24 : 24 + size]


def unwrap(
    slots: list[tuple[int, int, bytes, bytes, bytes]], preamble: bytes, keys: list[bytes]
) -> Iterator[bytes]:
    """Yield the DEK of each slot that unwraps: highest generation first, equal ones in table order."""
    ring = {hkdf(key, b"", b"securefs/2 key-id\0", 16): key for key in keys if len(key) == 32}
    for generation in sorted({slot[0] for slot in slots}, reverse=True):
        for _, kind, key_id, head, payload in [slot for slot in slots if slot[0] == generation]:
            if kind == 1 and key_id in ring:
                okm = hkdf(ring[key_id], payload[:32], b"securefs/2 wrap\0" + preamble + head, 44)
                with suppress(Rejected):
                    yield gcm_open(okm[:32], okm[32:], payload[32:])


def read_metadata(text: bytes) -> dict[str, object]:
    """Read one JSON object in the page's spelling."""
    depth, in_string, escaped = 0, False, False
    for byte in text:
        if in_string:
            in_string, escaped = escaped or byte != ord('"'), byte == ord("\\") and not escaped
        else:
            in_string = byte == ord('"')
            depth += (byte in b"[{") - (byte in b"]}")
            must(depth <= 32, "metadata depth")

    def distinct(members: list[tuple[str, object]]) -> dict[str, object]:
        must(len({name for name, _ in members}) == len(members), "a name twice")
        return dict(members)

    def number(digits: str) -> float:
        must(len(digits) <= 64 and abs(float(digits)) != float("inf"), "number")
        return int(digits) if set(digits) <= set("-0123456789") else float(digits)

    def constant(word: str) -> None:
        raise Rejected(word)

    try:
        metadata = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=distinct,
            parse_int=number,
            parse_float=number,
            parse_constant=constant,
        )
    except ValueError as error:
        raise Rejected("metadata") from error
    must(isinstance(metadata, dict), "metadata is an object")
    try:
        json.dumps(metadata, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Rejected("half a surrogate pair") from error
    return metadata


def open_format_2(data: bytes, keys: list[bytes], context: bytes = b"") -> tuple[bytes, dict[str, object]]:
    """Return (plaintext, metadata) of a Format 2 file."""
    must(len(data) >= 56 and data[:8] == MAGIC and data[8] == 2 and data[9] in {1, 2}, "preamble")
    preamble, suite, meta_len = data[:48], data[9], u(data[12:16])
    count, slot_size = data[48], u(data[50:52])
    must(u(data[10:12]) == 0 and (meta_len == 0 or 17 <= meta_len <= 65_536), "preamble fields")
    must(1 <= count <= 8 and 104 <= slot_size <= 4096 and data[49] == 0 and u(data[52:56]) == 0, "slot table")
    table_end = 56 + count * slot_size
    start = table_end + meta_len
    must(len(data) >= start + 57 and data[-1:] == b"\x5a", "cut, or no trailer")
    slots = [parse_slot(data[at : at + slot_size]) for at in range(56, table_end, slot_size)]
    ctx = b"securefs/2 body\0" + preamble + len(context).to_bytes(4, "big") + context
    for dek in unwrap([slot for slot in slots if slot], preamble, keys):
        # A slot that gives another file's DEK is passed over.
        with suppress(Rejected):
            metadata: dict[str, object] = {}
            if meta_len:
                okm = hkdf(dek, data[16:48], b"securefs/2 meta\0" + preamble, 44)
                metadata = read_metadata(gcm_open(okm[:32], okm[32:], data[table_end:start]))
            okm = committed_keys(suite, dek, ctx, data[start:-1])
            break
    else:
        raise Rejected("no slot opens")
    return open_segments(suite, okm, data[start:-1]), metadata


def committed_keys(suite: int, dek: bytes, ctx: bytes, body: bytes) -> bytes:
    """Return the keys of a body ``salt ‖ commitment ‖ segments`` that is committed to this DEK."""
    must(len(body) >= 56, "cut")
    label = {
        1: b"securefs/2+AES_256_CBC_HMAC_SHA256\0",
        2: b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0",
    }
    okm = HKDFExpand(SHA512(), {1: 96, 2: 76}[suite], label[suite] + body[:24] + ctx).derive(dek)
    must(bytes_eq(okm[-32:], body[24:56]), "commitment")
    return okm


def open_segments(suite: int, okm: bytes, body: bytes) -> bytes:
    """Open the segments; for suite 2 the body is one message of c2sp.org/chunked-encryption@v1."""
    stored, plain = {1: (65_600, 65_536), 2: (16_400, 16_384)}[suite]
    full = (len(body) - 56) // stored
    must(full < 2**32, "too many segments")
    output = []
    for index in range(full + 1):
        segment = body[56 + index * stored : 56 + (index + 1) * stored]
        must(len(segment) >= 16, "no final segment")
        if suite == 2:
            nonce = (u(okm[32:44]) ^ index).to_bytes(12, "big")
            piece = gcm_open(okm[:32], nonce, segment)
        else:
            prefix = index.to_bytes(8, "big") + (b"\1" if index == full else b"\0")
            piece = cbc_hmac_open(okm[:32], okm[32:64], prefix, segment)
        must(len(piece) < plain if index == full else len(piece) == plain, "segment length")
        output.append(piece)
    return b"".join(output)
