"""docs/format.md is normative, so its worked examples are compared with the vectors of the same name."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from securefs.header import FIXED_SIZE, MAX_META_SIZE, MAX_SLOT_SIZE, MAX_SLOTS
from securefs.keys import key_id
from securefs.primitives import hkdf, hkdf_expand
from securefs.suites import BODY_HEAD_SIZE, Suite, body_context

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "format.md").read_text("utf-8")
VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent / "positive.json").read_text("utf-8"))["vectors"]
}


def example(heading: str) -> dict[str, bytes]:
    """The ``name  hex`` lines under a heading; "and N zero bytes" counts as hex, other words end the line."""
    text = PAGE.split(f"### {heading}", 1)[1].split("\n#", 1)[0]
    fields: dict[str, bytes] = {}
    name = ""
    for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            name = line[:12].strip() or name
            zeros = re.fullmatch(r"(?:and )?(\d+) zero bytes", line[12:])
            data = bytes(int(zeros[1])) if zeros else hex_at_start(line[12:])
            fields[name] = fields.get(name, b"") + data
    return fields


def hex_at_start(text: str) -> bytes:
    return bytes.fromhex(
        "".join(re.match(r"(?:[0-9a-f]{2})*(?: (?:[0-9a-f]{2})+(?![\w]))*", text)[0].split())
    )


def stored(name: str) -> tuple[dict, bytes]:
    vector = VECTORS[name]
    return vector, base64.b64decode(vector["file"])


def test_the_format_1_example_is_the_vector():
    fields = example("Format 1, 64 bytes")
    _, data = stored("format-1/worked-example")
    assert fields["IV"] + fields["C"] + fields["T"] == data


def test_the_suite_1_example_is_the_vector():
    fields = example("Format 2, suite 1, 497 bytes")
    vector, data = stored("suite-1/worked-example")
    parts = ("preamble", "table", "slot 0", "slot 1", "salt", "commitment", "IV", "C", "T", "trailer")
    assert b"".join(fields[part] for part in parts) == data
    key, bind = bytes.fromhex(vector["key"]), data[:48] + data[56:80]
    assert fields["key id"] == key_id(key) == data[64:80]
    okm = hkdf("sha256", key, data[80:112], b"securefs/2 wrap\0" + bind, 44)
    assert fields["wrap_key"] + fields["nonce"] == okm
    assert fields["DEK"].hex() == vector["dek"]
    assert fields["ctx"] == body_context(data[:48], b"")[:16]
    info = b"securefs/2+AES_256_CBC_HMAC_SHA256\0" + fields["salt"] + body_context(data[:48], b"")
    assert fields["enc_key"] + fields["mac_key"] + fields["commitment"] == hkdf_expand(
        "sha512", fields["DEK"], info, 96
    )


def test_the_suite_2_example_is_the_vector():
    fields = example("Format 2, suite 2, 454 bytes")
    vector, data = stored("suite-2/worked-example")
    assert b"".join(fields[part] for part in ("salt", "commitment", "segment 0", "trailer")) == data[376:]
    assert vector["dek"] in PAGE
    assert vector["file_id"] in PAGE
    info = (
        b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + fields["salt"] + body_context(data[:48], b"")
    )
    okm = hkdf_expand("sha512", bytes.fromhex(vector["dek"]), info, 76)
    assert fields["key"] + fields["base_nonce"] + fields["commitment"] == okm


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 16_383, 16_384, 65_535, 65_536, 65_537, 1_000_000])
def test_the_size_formulas_of_the_page_hold(size):
    head = 376
    quotient, rest = divmod(size, 65_536)
    assert head + Suite.CBC_HMAC.body_length(size) + 1 == head + 57 + quotient * 65_600 + 48 + 16 * (
        rest // 16 + 1
    )
    body = Suite.CBC_HMAC.body_length(size) - 56
    assert (
        65_536 * (body // 65_600) + body % 65_600 - 64
        <= size
        <= 65_536 * (body // 65_600) + body % 65_600 - 49
    )
    quotient, rest = divmod(size, 16_384)
    assert head + Suite.GCM.body_length(size) + 1 == head + 57 + quotient * 16_400 + rest + 16
    body = Suite.GCM.body_length(size) - 56
    assert 16_384 * (body // 16_400) + body % 16_400 - 16 == size


def test_the_bounds_of_the_page_hold():
    longest = FIXED_SIZE + MAX_SLOTS * MAX_SLOT_SIZE + MAX_META_SIZE
    assert f"= {longest:,} bytes" in PAGE
    assert f"at most {longest + BODY_HEAD_SIZE:,} bytes" in PAGE
