"""Makes the project's own test vectors, positive.json, negative.json and edges.json: ``python tests/vectors/generate.py``.

Deterministic: every "random" value of a file is expanded from the vector's name, so that each run
gives the same bytes, and whoever has another implementation can make them too. README.md beside
this file explains the fields. The functions that read vectors back (:func:`expand`,
:func:`plaintext_of`, :func:`file_of`, :func:`assemble`) serve the tests as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

from securefs import Keyring, Suite
from securefs.format1 import Format1Sealer
from securefs.primitives import PyCryptodome
from securefs.stream import Randomness, seal_with

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from edges import edges  # noqa: E402  # found by way of the line above

STORED_SIZE = 1200  # bytes; larger files are given by their SHA-256
PRIMITIVES = PyCryptodome()
SUITES = {"suite-1": Suite.CBC_HMAC, "suite-2": Suite.GCM}
METADATA = '{"name":"Übersicht 😀.pdf","type":"application/pdf"}'

Vector = dict[str, Any]


def expand(label: str, size: int) -> bytes:
    """Return ``size`` bytes: SHA-256(label ‖ u64(0)) ‖ SHA-256(label ‖ u64(1)) ‖ …, cut."""
    blocks = (
        hashlib.sha256(label.encode() + counter.to_bytes(8, "big")).digest()
        for counter in range(-(-size // 32))
    )
    return b"".join(blocks)[:size]


def key(number: int, size: int = 32) -> bytes:
    return expand(f"key {number}", size)


def plaintext_of(vector: Vector) -> bytes:
    if "plaintext" in vector:
        return bytes.fromhex(vector["plaintext"])
    return expand(f"{vector['name']}/plaintext", vector["size"])


def randomness_of(vector: Vector) -> Randomness:
    ivs = expand(f"{vector['name']}/iv", 16 * (1 + vector["size"] // 65_536))
    queue = iter(range(0, len(ivs), 16))

    def draw_iv() -> bytes:
        at = next(queue)
        return ivs[at : at + 16]

    fields = (bytes.fromhex(vector[name]) for name in ("file_id", "dek", "wrap_salt", "body_salt"))
    return Randomness(*fields, draw_iv)


def file_of(vector: Vector, primitives: Any = PRIMITIVES) -> bytes:
    """Return the file that a positive vector describes, made afresh."""
    sealing_key, plaintext = bytes.fromhex(vector["key"]), plaintext_of(vector)
    if vector["format"] == 1:
        sealer = Format1Sealer(sealing_key, expand(f"{vector['name']}/iv", 16), primitives)
        return sealer.update(plaintext) + sealer.finalize()
    return seal_with(
        randomness_of(vector),
        plaintext,
        Keyring(sealing_key),
        Suite(vector["suite"]),
        primitives,
        context=bytes.fromhex(vector["context"]),
        metadata_text=vector["metadata"].encode(),
    )


def _complete(vector: Vector) -> Vector:
    name = vector["name"]
    vector.setdefault("keyring", [vector["key"]])
    vector.setdefault("context", "")
    if vector["format"] == 2:
        vector.setdefault("metadata", "")
        for field, size in (("file_id", 32), ("dek", 32), ("wrap_salt", 32), ("body_salt", 24)):
            vector.setdefault(field, expand(f"{name}/{field}", size).hex())
    file = file_of(vector)
    vector["plaintext_sha256"] = hashlib.sha256(plaintext_of(vector)).hexdigest()
    vector["file_size"], vector["file_sha256"] = len(file), hashlib.sha256(file).hexdigest()
    if len(file) <= STORED_SIZE:
        vector["file"] = base64.b64encode(file).decode()
    return vector


def positive() -> list[Vector]:
    vectors: list[Vector] = []
    edges = [0, 1, 15, 16, 17]

    def add(name: str, size: int, sealing_key: bytes = key(1), **fields: Any) -> None:
        vectors.append(_complete({"name": name, "size": size, "key": sealing_key.hex(), **fields}))

    for size in [*edges, 65_535, 65_536, 65_537]:
        add(f"format-1/size-{size}", size, format=1)
    for bits in (128, 192):
        add(f"format-1/aes-{bits}", 17, key(2, bits // 8), format=1)
    add("format-1/retired-key", 17, format=1, keyring=[key(3).hex(), key(2, 16).hex(), key(1).hex()])
    add("format-1/worked-example", 5, bytes(range(32)), format=1, plaintext=b"hello".hex())
    for name, suite in SUITES.items():
        two: Vector = {"format": 2, "suite": suite.value}
        full = suite.segment_size
        for size in [*edges, full - 1, full, full + 1, 2 * full, 2 * full + 1]:
            add(f"{name}/size-{size}", size, **two)
        add(f"{name}/context", 17, **two, context=b"tenant 7".hex())
        add(f"{name}/metadata", 17, **two, metadata=METADATA)
        add(f"{name}/both", 17, **two, context=b"\0".hex(), metadata='{"name":"a"}')
        add(f"{name}/retired-key", 17, **two, keyring=[key(3).hex(), key(2, 16).hex(), key(1).hex()])
        add(f"{name}/worked-example", 5, bytes(range(32)), **two, plaintext=b"hello".hex())
        # The same DEK, file id and body as size-17, wrapped for another key: what a rewrap leaves
        # behind.
        add(
            f"{name}/rewrapped",
            17,
            key(4),
            **two,
            plaintext=expand(f"{name}/size-17/plaintext", 17).hex(),
            **{field: expand(f"{name}/size-17/{field}", 32).hex() for field in ("file_id", "dek")},
        )
        # The same preamble as size-17 around another DEK and body, for what must not be put
        # together.
        add(f"{name}/other-dek", 17, key(4), **two, file_id=expand(f"{name}/size-17/file_id", 32).hex())
    return vectors


def assemble(pieces: list[Any], files: dict[str, bytes]) -> bytes:
    """Return the file that ``pieces`` describe: hex, [vector, start, end] for a part of another file, a number of zeros."""
    return b"".join(_piece(piece, files) for piece in pieces)


def _piece(piece: Any, files: dict[str, bytes]) -> bytes:
    if isinstance(piece, int):
        return bytes(piece)
    return bytes.fromhex(piece) if isinstance(piece, str) else files[piece[0]][piece[1] : piece[2]]


class _Negatives:
    """Collects negative vectors that are edits of one file."""

    def __init__(self, base: str, positives: list[Vector], vectors: list[Vector]) -> None:
        self.base, self.vectors = base, vectors
        self.like = next(vector for vector in positives if vector["name"] == base)
        self.file = file_of(self.like)

    def add(self, what: str, outcome: str, *pieces: Any, **fields: Any) -> None:
        name = f"{self.base}/{what}"
        like = {field: self.like[field] for field in ("format", "keyring", "context")}
        self.vectors.append({"name": name, **like, "outcome": outcome, "pieces": list(pieces), **fields})

    def part(self, start: int, end: int | None = None) -> list[Any]:
        return [self.base, start, len(self.file) if end is None else end]

    def put(self, what: str, outcome: str, offset: int, data: bytes, **fields: Any) -> None:
        """Add the file with ``data`` written over it at ``offset``."""
        self.add(what, outcome, self.part(0, offset), data.hex(), self.part(offset + len(data)), **fields)

    def flip(self, what: str, outcome: str, offset: int) -> None:
        at = offset % len(self.file)
        self.put(what, outcome, at, bytes([self.file[at] ^ 1]))


def _header_negatives(n: _Negatives, suite: int) -> None:
    n.add("empty", "not_encrypted")
    n.add("half-magic", "not_encrypted", n.part(0, 4))
    n.add("magic-only", "truncated", n.part(0, 8))
    n.add("cut-in-preamble", "truncated", n.part(0, 55))
    n.add("cut-in-table", "truncated", n.part(0, 200))
    n.add("header-only", "truncated", n.part(0, 376))
    n.flip("magic", "not_encrypted", 0)
    n.put("version-3", "bad_header", 8, b"\x03")
    n.put("suite-0", "bad_header", 9, b"\x00")
    n.put("suite-3", "bad_header", 9, b"\x03")
    n.put("suite-exchanged", "tag_mismatch", 9, bytes([3 - suite]))
    n.put("flags", "bad_header", 10, b"\x00\x01")
    for size in (1, 16, 65_537, 0xFFFFFFFF):
        n.put(f"meta-len-{size}", "bad_header", 12, size.to_bytes(4, "big"))
    n.flip("file-id", "tag_mismatch", 16)
    for count in (0, 9, 255):
        n.put(f"slot-count-{count}", "bad_header", 48, bytes([count]))
    n.put("table-reserved", "bad_header", 49, b"\x01")
    for size in (0, 103, 4097, 65_535):
        n.put(f"slot-size-{size}", "bad_header", 50, size.to_bytes(2, "big"))
    n.put("table-reserved-end", "bad_header", 55, b"\x01")
    n.put("slot-kind-4", "bad_header", 56, b"\x04")
    n.put("slot-kind-0", "bad_header", 56, b"\x00")
    n.put("slot-reserved", "bad_header", 57, b"\x01")
    for size in (0, 79, 81, 137, 65_535):
        n.put(f"slot-payload-{size}", "bad_header", 58, size.to_bytes(2, "big"))
    n.flip("slot-generation", "tag_mismatch", 63)
    n.flip("slot-key-id", "unknown_key", 64)
    n.flip("slot-salt", "tag_mismatch", 80)
    n.flip("slot-wrapped-key", "tag_mismatch", 112)
    n.flip("slot-tag", "tag_mismatch", 159)
    n.flip("slot-filling", "bad_header", 160)
    n.flip("slot-filling-end", "bad_header", 215)
    for kind in (1, 2, 3):
        n.put(f"empty-slot-kind-{kind}", "bad_header", 216, bytes([kind]))
    n.flip("empty-slot-end", "bad_header", 375)
    n.add("other-key", "unknown_key", n.part(0), keyring=[key(5).hex()])


def _body_negatives(n: _Negatives, name: str) -> None:
    other = f"{name}/size-16"
    n.flip("salt", "commitment_mismatch", 376)
    n.flip("commitment", "commitment_mismatch", 431)
    n.add("wrong-context", "commitment_mismatch", n.part(0), context="00")
    n.add("body-of-another-file", "commitment_mismatch", n.part(0, 376), [other, 376, 10_000])
    n.add("segment-of-another-file", "tag_mismatch", n.part(0, 432), [other, 432, 10_000])
    n.add("slot-of-another-file", "tag_mismatch", n.part(0, 56), [other, 56, 216], n.part(216))
    n.add(
        "slot-with-another-dek",
        "commitment_mismatch",
        n.part(0, 56),
        [f"{name}/other-dek", 56, 216],
        n.part(216),
        keyring=[key(4).hex()],
    )
    n.flip("segment-start", "tag_mismatch", 432)
    n.flip("segment-tag", "tag_mismatch", -2)
    n.flip("trailer", "truncated", -1)
    n.add("trailer-missing", "truncated", n.part(0, len(n.file) - 1))
    n.add("no-segment", "truncated", n.part(0, 432), "5a")
    n.add("trailer-doubled", "truncated" if name == "suite-1" else "tag_mismatch", n.part(0), "5a")
    n.add("extended", "tag_mismatch", n.part(0, len(n.file) - 1), "00" * 16, "5a")
    n.add("read-as-format-1", "truncated", n.part(8), format=1)
    # The one segment of a suite 1 file has the shape of a whole Format 1 file; the length tells for
    # suite 2.
    n.add(
        "header-stripped",
        "tag_mismatch" if name == "suite-1" else "truncated",
        n.part(432, len(n.file) - 1),
        format=1,
    )


def _segment_negatives(n: _Negatives, size: int) -> None:
    """Two full segments and a short one, put together wrongly."""
    first, second, last = n.part(432, 432 + size), n.part(432 + size, 432 + 2 * size), n.part(432 + 2 * size)
    start = n.part(0, 432)
    n.add("first-dropped", "tag_mismatch", start, second, last)
    n.add("second-dropped", "tag_mismatch", start, first, last)
    n.add("last-dropped", "truncated", start, first, second, "5a")
    n.add("all-but-last-dropped", "tag_mismatch", start, last)
    n.add("first-doubled", "tag_mismatch", start, first, first, second, last)
    n.add("exchanged", "tag_mismatch", start, second, first, last)
    n.add("replaced", "tag_mismatch", start, first, first, last)
    n.add("two-finals", "tag_mismatch", start, first, second, n.part(432 + 2 * size, len(n.file) - 1), last)
    n.add("cut-in-second", "tag_mismatch", start, first, n.part(432 + size, 432 + size + 4096), "5a")


def _metadata_negatives(n: _Negatives, name: str) -> None:
    n.flip("changed", "tag_mismatch", 376)
    n.flip("tag", "tag_mismatch", n.file[12:16][-1] + 375)
    end = 376 + int.from_bytes(n.file[12:16], "big")
    n.add("of-another-file", "tag_mismatch", n.part(0, 376), [f"{name}/metadata", 376, end], n.part(end))
    n.add("removed", "tag_mismatch", n.part(0, 12), "00000000", n.part(16, 376), n.part(end))


def _format_1_negatives(n: _Negatives) -> None:
    for length in (0, 1, 16, 48, 63, 64, 79):
        n.add(f"cut-to-{length}", "tag_mismatch" if length == 64 else "truncated", n.part(0, length))
    n.add("extended-1", "truncated", n.part(0), "00")
    n.add("extended-16", "tag_mismatch", n.part(0), "00" * 16)
    for what, offset in (("iv", 0), ("ciphertext", 16), ("last-block", 32), ("tag", 48), ("last-byte", -1)):
        n.flip(what, "tag_mismatch", offset)
    n.add("blocks-exchanged", "tag_mismatch", n.part(0, 16), n.part(32, 48), n.part(16, 32), n.part(48))
    n.add("other-key", "tag_mismatch", n.part(0), keyring=[key(5).hex()])
    n.add("read-as-format-2", "not_encrypted", n.part(0), format=2)
    for what, block in (
        ("padding-0", bytes(16)),
        ("padding-17", b"\x11" * 16),
        ("padding-mixed", bytes(14) + b"\1\2"),
    ):
        stored = bytes(16) + PRIMITIVES.cbc_encryptor(key(1), bytes(16))(block)
        n.add(f"good-tag-{what}", "tag_mismatch", (stored + hmac.digest(key(1), stored, "sha256")).hex())


def negative(positives: list[Vector]) -> list[Vector]:
    vectors: list[Vector] = []
    _format_1_negatives(_Negatives("format-1/size-17", positives, vectors))
    for name, suite in SUITES.items():
        _header_negatives(_Negatives(f"{name}/size-17", positives, vectors), suite.value)
        _body_negatives(_Negatives(f"{name}/size-17", positives, vectors), name)
        _metadata_negatives(_Negatives(f"{name}/both", positives, vectors), name)
        many = _Negatives(f"{name}/size-{2 * suite.segment_size + 1}", positives, vectors)
        _segment_negatives(many, suite.sealed_size)
        for what, text in (("not-an-object", "[1]"), ("not-json", "{")):
            like = _complete(
                {
                    "name": f"{name}/{what}",
                    "format": 2,
                    "suite": suite.value,
                    "size": 0,
                    "key": key(1).hex(),
                    "metadata": text,
                }
            )
            piece = file_of(like).hex()
            vectors.append(
                {
                    "name": f"{name}/metadata-{what}",
                    "format": 2,
                    "keyring": like["keyring"],
                    "context": "",
                    "outcome": "bad_header",
                    "pieces": [piece],
                }
            )
    return vectors


def _with_metadata(fields: Vector) -> bytes:
    """Complete ``fields`` and return their file, whose metadata are any bytes."""
    text = fields.pop("metadata_text")
    fields |= {"key": key(1).hex(), "metadata": ""}
    _complete(fields)
    return seal_with(
        randomness_of(fields),
        plaintext_of(fields),
        Keyring(key(1)),
        Suite(fields["suite"]),
        PRIMITIVES,
        metadata_text=text,
    )


def render(vectors: list[Vector]) -> str:
    return json.dumps({"vectors": vectors}, indent=1, ensure_ascii=False) + "\n"


def build() -> dict[str, str]:
    """Return the text of every vector file by its name."""
    positives = positive()
    by_name = {vector["name"]: vector for vector in positives}
    found = edges(lambda name: (by_name[name], file_of(by_name[name])), _with_metadata)
    return {
        "positive.json": render(positives),
        "negative.json": render(negative(positives)),
        "edges.json": render(found),
    }


if __name__ == "__main__":
    for name, text in build().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text)} bytes")
