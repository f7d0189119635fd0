from __future__ import annotations

import json
import tracemalloc
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.sealing import (
    BODY_START,
    HEADER_SIZE,
    KEY,
    LIBRARIES,
    OTHER_KEY,
    PRIMITIVES,
    RING,
    CountingFile,
    VirtualFile,
    chosen,
    read_all,
    seal,
)

from securefs import (
    ConfigurationError,
    Encryptor,
    FormatError,
    IntegrityError,
    Keyring,
    Reason,
    SecureFSError,
    Suite,
    UnknownKeyError,
    open_encrypted,
)
from securefs.header import FIXED_SIZE, MAGIC, claimed_object_id, claimed_suite, header_length, parse_header
from securefs.keys import key_id
from securefs.primitives import hkdf
from securefs.stream import unlock

FILE = seal(b"hello")


def with_slots(*slots: bytes, size: int = 160, data: bytes = FILE) -> bytes:
    """``data`` with another slot table."""
    head = bytes([len(slots), 0]) + size.to_bytes(2, "big") + bytes(4)
    return data[:48] + head + b"".join(slot.ljust(size, b"\0") for slot in slots) + data[HEADER_SIZE:]


USED = FILE[56:216]  # the slot of KEY
LONG = bytes([3, 0]) + (1168).to_bytes(2, "big") + (9).to_bytes(4, "big") + b"p" * 16 + b"x" * 1168
SERVICE = (
    bytes([2, 0]) + (20).to_bytes(2, "big") + (7).to_bytes(4, "big") + b"s" * 16 + b"\x07aws-kms" + b"c" * 12
)


def test_the_header_of_a_new_file_is_what_the_page_says():
    header = parse_header(FILE)
    assert (header.length, header.slot_count, header.slot_size) == (HEADER_SIZE, 2, 160)
    assert header.preamble == FILE[:48]
    assert header.object_id == FILE[16:48].hex()
    (slot,) = header.slots
    assert (slot.kind, slot.generation, slot.key_id, len(slot.payload)) == (1, 1, key_id(KEY), 80)
    assert not any(FILE[216:HEADER_SIZE])


def test_the_magic_has_a_high_bit_crlf_and_sub():
    assert MAGIC == b"\x89SFS2\r\n\x1a"


@pytest.mark.parametrize("length", range(len(MAGIC)))
def test_what_is_shorter_than_the_magic_is_not_encrypted(length):
    with pytest.raises(FormatError) as caught:
        header_length(FILE[:length])
    assert caught.value.reason is Reason.NOT_ENCRYPTED


@pytest.mark.parametrize("length", [8, 9, 47, 55, 56, 57, 215, HEADER_SIZE - 1])
def test_a_header_that_ends_early_is_truncated(length):
    with pytest.raises(FormatError, match="ends inside its header") as caught:
        parse_header(FILE[:length])
    assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("slots", "size"),
    [
        pytest.param([USED], 104, id="smallest slot, one"),
        pytest.param([USED] + [b""] * 7, 160, id="most slots"),
        pytest.param([b"", USED], 4096, id="largest slot, second"),
        pytest.param([SERVICE, USED], 160, id="beside a key service"),
        pytest.param([LONG, USED], 1192, id="beside an HPKE recipient"),
        pytest.param([USED, USED], 160, id="twice"),
    ],
)
def test_slot_tables_of_all_allowed_shapes_open(slots, size):
    slots = [slot[:size] if slot is USED else slot for slot in slots]
    assert read_all(with_slots(*slots, size=size)) == b"hello"


@pytest.mark.parametrize("count", [0, 9, 255])
def test_too_few_or_too_many_slots_are_refused(count):
    with pytest.raises(FormatError, match="outside the format's limits"):
        parse_header(FILE[:48] + bytes([count]) + FILE[49:])


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        pytest.param(b"\0" * 103 + b"\1", "empty slot", id="empty, not zero at its end"),
        pytest.param(b"\4" + USED[1:], "unknown slot kind 4", id="unknown kind"),
        pytest.param(b"\xff" + USED[1:], "unknown slot kind 255", id="kind 255"),
        pytest.param(USED[:1] + b"\1" + USED[2:], "reserved byte", id="reserved byte"),
        pytest.param(USED[:2] + b"\0\x89" + USED[4:], "payload length", id="payload over the slot"),
        pytest.param(USED[:159] + b"\1", "filling", id="filling"),
        pytest.param(USED[:2] + b"\0\x4f" + USED[4:103] + bytes(57), "of kind 1", id="file key, 79 bytes"),
        pytest.param(USED[:2] + b"\0\x51" + USED[4:], "of kind 1", id="file key, 81 bytes"),
        pytest.param(
            bytes([2, 0, 0, 2]) + bytes(20) + b"\1k", "of kind 2", id="key service without ciphertext"
        ),
        pytest.param(b"\2", "of kind 2", id="key service without anything"),
        pytest.param(b"\3", "of kind 3", id="HPKE without anything"),
    ],
)
def test_a_slot_that_no_writer_makes_is_refused(slot, message):
    for table in ([USED, slot], [slot, USED]):
        with pytest.raises(FormatError, match=message) as caught:
            parse_header(with_slots(*table))
        assert caught.value.reason is Reason.BAD_HEADER


@pytest.mark.parametrize("size", [1167, 1169])
def test_an_hpke_slot_has_one_payload_size(size):
    slot = LONG[:2] + size.to_bytes(2, "big") + LONG[4:24] + b"x" * size
    with pytest.raises(FormatError, match="of kind 3"):
        parse_header(with_slots(USED, slot, size=1200))


def test_a_file_for_other_kinds_of_slots_is_of_an_unknown_key():
    with pytest.raises(UnknownKeyError) as caught:
        read_all(with_slots(SERVICE, b""))
    assert caught.value.key_ids == ((b"s" * 16).hex(),)
    assert caught.value.reason is Reason.UNKNOWN_KEY


def test_a_slot_of_another_kind_is_not_tried_even_if_it_names_our_key():
    named = SERVICE[:8] + key_id(KEY) + SERVICE[24:]
    with pytest.raises(UnknownKeyError):
        read_all(with_slots(named, b""))


def test_a_file_with_empty_slots_only_is_of_an_unknown_key():
    with pytest.raises(UnknownKeyError, match="it names none") as caught:
        read_all(with_slots(b"", b""))
    assert caught.value.key_ids == ()


def test_an_unknown_key_is_named_and_is_no_integrity_failure():
    with pytest.raises(UnknownKeyError, match=key_id(KEY).hex()) as caught:
        read_all(FILE, Keyring(OTHER_KEY))
    assert caught.value.key_ids == (key_id(KEY).hex(),)
    assert not isinstance(caught.value, IntegrityError)


def test_a_changed_slot_of_a_known_key_is_an_integrity_failure():
    changed = USED[:100] + bytes([USED[100] ^ 1]) + USED[101:]
    with pytest.raises(IntegrityError, match="no key slot unwraps"):
        read_all(with_slots(changed, b""))


def test_the_next_slot_is_tried_where_one_fails():
    broken = USED[:4] + (9).to_bytes(4, "big") + USED[8:]
    assert read_all(with_slots(broken, USED)) == b"hello"
    assert read_all(with_slots(USED, broken)) == b"hello"


def test_the_newest_slot_of_a_key_is_tried_first():
    """An older one that still unwraps, to another DEK: taking it would fail at the commitment."""
    stale = seal(b"", random=chosen(dek=bytes(range(32))))
    newer = _rewrap_slot(generation=2)
    for table in ([stale[56:216], newer], [newer, stale[56:216]]):
        assert read_all(with_slots(*table)) == b"hello"


def _rewrap_slot(generation: int) -> bytes:
    """A slot for KEY around the DEK of FILE, as a rewrap writes it."""
    head = USED[:4] + generation.to_bytes(4, "big") + USED[8:24]
    salt = bytes(range(32))
    okm = hkdf("sha256", KEY, salt, b"securefs/2 wrap\0" + FILE[:48] + head, 44)
    return head + salt + LIBRARIES[0].gcm(okm[:32]).seal(okm[32:], chosen().dek) + bytes(56)


def test_short_keys_open_no_format_2_file_even_if_a_slot_names_them():
    short = KEY[:16]
    slot = USED[:8] + key_id(short) + USED[24:]
    with pytest.raises(UnknownKeyError):
        read_all(with_slots(slot, b""), Keyring(OTHER_KEY, [short]))


def test_a_key_that_no_slot_names_is_never_tried():
    """The file opens under OTHER_KEY, but the slot says that it is for another: so it stays shut."""
    slot = seal(b"hello", ring=Keyring(OTHER_KEY))[56:216]
    renamed = slot[:8] + b"?" * 16 + slot[24:]
    with pytest.raises(UnknownKeyError):
        read_all(with_slots(renamed, b""), Keyring(OTHER_KEY))


def test_short_primary_keys_cannot_seal():
    with pytest.raises(ConfigurationError, match="Format 1 only"):
        Encryptor(Keyring(KEY[:24]))


HEADERS = st.tuples(
    st.sampled_from([0, 1, 2, 3, 255]),
    st.integers(0, 255),
    st.integers(0, 65_535),
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 70_000)),
    st.integers(0, 255),
    st.sampled_from([0, 1]),
    st.one_of(st.integers(0, 65_535), st.integers(100, 4100)),
    st.sampled_from([0, 1, 2**31]),
)


@given(HEADERS)
@example((2, 1, 0, 65_536, 8, 0, 4096, 0))
@example((2, 1, 0, 2**32 - 1, 2, 0, 160, 0))
@example((2, 1, 0, 65_537, 2, 0, 160, 0))
@example((2, 1, 0, 0, 9, 0, 160, 0))
@example((2, 1, 0, 0, 255, 0, 65_535, 0))
def test_header_lengths_of_any_value_are_refused_within_bounds(fields):
    """The source claims to have an exabyte, so that nothing but the limits of the format holds the reader back."""
    version, suite, flags, meta_len, count, reserved, slot_size, end = fields
    data = (
        MAGIC + bytes([version, suite]) + flags.to_bytes(2, "big") + meta_len.to_bytes(4, "big") + bytes(32)
    )
    data += bytes([count, reserved]) + slot_size.to_bytes(2, "big") + end.to_bytes(4, "big")
    source = VirtualFile(2**60, {0: data})
    with pytest.raises(SecureFSError):
        open_encrypted(source, RING)
    assert sum(source.asked) <= 98_360 + 56
    assert max(source.asked) <= 98_360


def test_the_largest_header_takes_little_memory():
    data = MAGIC + bytes([2, 1, 0, 0]) + (65_536).to_bytes(4, "big") + bytes(32)
    data += bytes([8, 0]) + (4096).to_bytes(2, "big") + bytes(4)
    source = VirtualFile(2**60, {0: data})
    tracemalloc.start()
    try:
        with pytest.raises(UnknownKeyError):
            open_encrypted(source, RING)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({}, id="none"),
        pytest.param({"name": "a"}, id="short"),
        pytest.param({"name": "Übersicht 😀.pdf", "type": "a/b", "more": [1, None, {"x": 1.5}]}, id="rich"),
        pytest.param({"": ""}, id="empty name"),
        pytest.param({"a": "x" * (65_520 - 8)}, id="longest"),
    ],
)
def test_metadata_comes_back(metadata, suite, primitives):
    encryptor = Encryptor(RING, suite, b"", metadata, primitives=primitives)
    data = encryptor.update(b"x") + encryptor.finalize()
    with open_encrypted(BytesIO(data), RING, primitives=primitives) as file:
        assert file.metadata == metadata
        assert file.object_id == encryptor.object_id
        assert file.key_id == encryptor.key_id == RING.primary_id.hex()


def deep() -> dict:
    top: dict = {}
    level = top
    for _ in range(100_000):
        level["a"] = {}
        level = level["a"]
    return top


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"a": "x" * (65_521 - 8)}, id="one byte too long"),
        pytest.param({"a": b"bytes"}, id="bytes"),
        pytest.param({("a",): 1}, id="tuple as name"),
        pytest.param({"a": float("nan")}, id="not a number"),
        pytest.param({"a": "\ud800"}, id="lone surrogate"),
        pytest.param([1, 2], id="list"),
        pytest.param(deep(), id="too deep"),
    ],
)
def test_metadata_that_cannot_be_stored_is_refused(metadata):
    with pytest.raises(ConfigurationError, match="metadata"):
        Encryptor(RING, metadata=metadata)


def test_metadata_is_bound_to_its_file():
    """The same DEK, so the same metadata key but for the preamble: another file id is enough to refuse it."""
    one = seal(b"x", metadata_text=b'{"a":1}')
    other = seal(b"x", metadata_text=b'{"a":2}', random=chosen(file_id=bytes(32)))
    end = HEADER_SIZE + int.from_bytes(one[12:16], "big")
    with pytest.raises(IntegrityError):
        read_all(one[:HEADER_SIZE] + other[HEADER_SIZE:end] + one[end:])


def test_both_libraries_make_the_same_header():
    headers = {
        seal(b"", suite, primitives=library, metadata_text=b"{}")[:BODY_START]
        for suite in Suite
        for library in LIBRARIES
    }
    assert len(headers) == len(Suite)


def test_opening_reads_the_header_in_two_reads():
    source = CountingFile(FILE)
    open_encrypted(source, RING)
    assert source.reads[:2] == [(0, FIXED_SIZE), (FIXED_SIZE, BODY_START - FIXED_SIZE)]


def test_a_header_and_an_unlocked_file_do_not_show_metadata_or_keys():
    data = seal(b"x", metadata_text=json.dumps({"name": "secret plan"}).encode())
    header = parse_header(data)
    dek = chosen().dek
    unlocked = unlock(data, RING, b"", LIBRARIES[0])
    for text in (repr(header), repr(unlocked), repr(chosen())):
        assert "secret plan" not in text
        assert dek.hex() not in text
        assert repr(dek)[2:-1] not in text


@pytest.mark.parametrize(
    ("start", "suite", "object_id"),
    [
        pytest.param(b"", None, None, id="nothing"),
        pytest.param(MAGIC, None, None, id="the magic"),
        pytest.param(MAGIC + b"\x02\x01", Suite.CBC_HMAC, None, id="a suite"),
        pytest.param(MAGIC + b"\x02\x07" + bytes(38), None, bytes(32).hex(), id="no suite"),
        pytest.param(FILE[:47], Suite.CBC_HMAC, None, id="a byte less than the preamble"),
        pytest.param(FILE[:48], Suite.CBC_HMAC, FILE[16:48].hex(), id="the preamble"),
        pytest.param(b"x" * 48, None, None, id="another file"),
    ],
)
def test_what_a_file_claims_is_told_from_its_beginning(start, suite, object_id):
    assert claimed_suite(start) is suite
    assert claimed_object_id(start) == object_id
