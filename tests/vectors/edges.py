"""The vectors of edges.json: what only a holder of keys can write, and slot tables of every shape.

Such a file opens, or is rejected, for a reason that no change of single bytes brings up: slots of
several keys that the reader holds, metadata under a good tag, padding under a good tag.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from securefs import Suite
from securefs.header import slot_table
from securefs.keys.material import KeyMaterial
from securefs.keys.slots import FileKey, new_slot
from securefs.metadata import MAX_DEPTH, MAX_NUMBER
from securefs.primitives import PyCryptodome
from securefs.suites import body_context, derive

if TYPE_CHECKING:
    from collections.abc import Callable

    Vector = dict[str, Any]

PRIMITIVES = PyCryptodome()
MAX_GENERATION = 2**32 - 1

METADATA_TAKEN = {
    "white-space": b' \t\r\n{ "a" : 1 }\n',
    "pair": rb'{"a":"\ud83d\ude00"}',
    "escaped-backslash": rb'{"a":"\\ud800"}',
    "deepest": b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
    "brackets-in-text": b'{"a":"' + b"[" * 40 + b'"}',
    "longest-number": b'{"a":' + b"7" * MAX_NUMBER + b"}",
    "name-in-two-objects": b'{"a":{"a":1},"b":{"a":2}}',
    "other-types": b'{"name":1,"type":null}',
}
METADATA_REFUSED = {
    "byte-order-mark": b'\xef\xbb\xbf{"a":1}',
    "utf-16": '{"a":1}'.encode("utf-16-le"),
    "latin-1": '{"a":"ä"}'.encode("latin-1"),
    "overlong": b'{"a":"\xc0\xaf"}',
    "surrogate-bytes": b'{"a":"\xed\xa0\x80"}',
    "half-pair": rb'{"a":"\ud800"}',
    "halves-exchanged": rb'{"a":"\ude00\ud83d"}',
    "null": b"null",
    "two-objects": b"{}{}",
    "nul-at-end": b"{}\0",
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "beyond-a-double": b'{"a":1e309}',
    "number-too-long": b'{"a":' + b"7" * (MAX_NUMBER + 1) + b"}",
    "leading-zero": b'{"a":01}',
    "name-twice": b'{"a":1,"a":1}',
    "name-twice-escaped": rb'{"a":1,"\u0061":2}',
    "comma-at-end": b'{"a":1,}',
    "control-character": b'{"a":"\x01"}',
    "too-deep": b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
}


def edges(file: Callable[[str], tuple[Vector, bytes]], make: Callable[[Vector], bytes]) -> list[Vector]:
    """Return the vectors.

    :param file: gives (fields, bytes) of a positive vector by its name. :param make: gives the file
        of such fields.
    """
    vectors: list[Vector] = []
    for suite in Suite:
        name = f"suite-{suite.value}"
        _slots(vectors, name, file)
        _metadata(vectors, name, suite, make)
    _padding(vectors, *file("suite-1/size-65537"))
    fields, data = file("suite-1/size-17")
    whole = ["suite-1/size-17", 0, len(data)]
    _add(vectors, "suite-1/size-17/told-to-be-format-1", fields, [whole], opens=True, format=1)
    return vectors


def _add(
    vectors: list[Vector], name: str, fields: Vector, pieces: list[Any], *, opens: bool, **other: Any
) -> None:
    vector = {field: fields[field] for field in ("format", "keyring", "context")}
    vector |= {"name": name, "outcome": "opens" if opens else "commitment_mismatch"} | other
    vector["pieces"] = pieces
    if opens:
        vector |= {
            "plaintext_sha256": fields["plaintext_sha256"],
            "metadata": other.get("metadata", fields["metadata"]),
        }
        vector.setdefault("passed_over", [])
    vectors.append(vector)


def _slots(vectors: list[Vector], suite: str, file: Callable[[str], tuple[Vector, bytes]]) -> None:
    """Tables in front of one file; its keyring holds the file's own key and another one."""
    fields, data = file(f"{suite}/size-17")
    _, rewrapped = file(f"{suite}/rewrapped")
    own, other = (bytes.fromhex(text) for text in (fields["key"], file(f"{suite}/rewrapped")[0]["key"]))
    keyring = {"keyring": [own.hex(), other.hex()]}
    good, also = data[56:160], rewrapped[56:160]

    def planted(generation: int) -> bytes:
        dek, salt = (hashlib.sha256(text).digest() for text in (b"planted", generation.to_bytes(4, "big")))
        return new_slot(FileKey(KeyMaterial(other), PRIMITIVES), dek, data[:48], generation, lambda _: salt)

    def add(
        what: str, slots: list[bytes], *, opens: bool = True, size: int = 160, count: int = 0, **extra: Any
    ) -> None:
        head = slot_table([], count or max(2, len(slots)), size)[:8]
        pieces: list[Any] = [[f"{suite}/size-17", 0, 48], head.hex()]
        for slot in slots:
            pieces += [slot.hex(), size - len(slot)] if slot else [size]
        pieces += [size * (head[0] - len(slots)), [f"{suite}/size-17", 376, len(data)]]
        _add(vectors, f"{suite}/size-17/{what}", fields, pieces, opens=opens, **keyring | extra)

    theirs, contents = file(f"{suite}/other-dek")
    pieces: list[Any] = [
        [f"{suite}/size-17", 0, 216],
        contents[56:160].hex(),
        56,
        [f"{suite}/other-dek", 376, len(contents)],
    ]
    _add(
        vectors,
        f"{suite}/other-dek/beside-the-genuine-slot",
        theirs,
        pieces,
        opens=True,
        passed_over=[0],
        **keyring,
    )
    broken = good[:-1] + bytes([good[-1] ^ 1])
    service = bytes([2, 0]) + (40).to_bytes(2, "big") + bytes(4) + bytes(range(16 + 40))
    recipient = bytes([3, 0]) + (1168).to_bytes(2, "big") + bytes(4) + bytes(16 + 1168)
    add("planted-newer", [good, planted(MAX_GENERATION)], passed_over=[1])
    add("planted-newer-in-front", [planted(2), good], passed_over=[0])
    add("planted-as-new-in-front", [planted(1), good], passed_over=[0])
    add("planted-as-new-behind", [good, planted(1)])
    add("planted-older", [good, planted(0)])
    add("planted-twice", [planted(3), good, planted(2)], passed_over=[0, 2])
    add("planted-alone", [planted(1)], opens=False)
    add("two-good", [good, also])
    add("one-does-not-unwrap", [broken, also])
    add("none-unwraps", [broken], opens=False, outcome="tag_mismatch")
    add("beside-kind-2", [service, good])
    add("beside-kind-3", [recipient, good], size=1192)
    add("kind-2-alone", [service], opens=False, outcome="unknown_key")
    add("smallest-table", [good], size=104, count=1)
    add("largest-table", [*[b""] * 7, good], size=4096, count=8)


def _metadata(vectors: list[Vector], suite: str, number: Suite, make: Callable[[Vector], bytes]) -> None:
    texts = [(name, text, True) for name, text in METADATA_TAKEN.items()]
    texts += [(name, text, False) for name, text in METADATA_REFUSED.items()]
    for what, text, opens in texts:
        name = f"{suite}/metadata-{what}"
        fields = {"name": name, "format": 2, "suite": number.value, "size": 0, "metadata_text": text}
        data = make(fields)
        canonical = json.dumps(json.loads(text), ensure_ascii=False, sort_keys=True) if opens else ""
        outcome = {"metadata": canonical} if opens else {"outcome": "bad_header"}
        _add(vectors, name, fields, [data.hex()], opens=opens, **outcome)


def _padding(vectors: list[Vector], fields: Vector, data: bytes) -> None:
    """Suite 1: a full segment and one byte, with padding of a key holder's choice under good tags."""
    dek, salt = bytes.fromhex(fields["dek"]), bytes.fromhex(fields["body_salt"])
    cipher: Any = derive(Suite.CBC_HMAC, dek, salt, body_context(data[:48], b""), PRIMITIVES, bytes)[0]

    def segment(index: int, *, final: bool, padded: bytes) -> bytes:
        iv = bytes([index]) * 16
        ciphertext = PRIMITIVES.cbc_encryptor(cipher._enc_key, iv)(padded)  # what no writer does
        return iv + ciphertext + cipher._tag(index, final, (iv, ciphertext))  # the same

    size = Suite.CBC_HMAC.sealed_size
    start, first = [fields["name"], 0, 432], [fields["name"], 432, 432 + size]
    last = [fields["name"], 432 + size, len(data)]
    for what, ending in (("0", bytes(16)), ("17", b"\x11" * 16), ("mixed", bytes(13) + b"\1\3\3")):
        pieces = [start, first, segment(1, final=True, padded=ending).hex(), "5a"]
        _add(vectors, f"suite-1/good-tag-padding-{what}", fields, pieces, opens=False, outcome="tag_mismatch")
    too_full = segment(0, final=False, padded=bytes(65_551) + b"\1").hex()
    _add(
        vectors,
        "suite-1/good-tag-too-full",
        fields,
        [start, too_full, last],
        opens=False,
        outcome="tag_mismatch",
    )
