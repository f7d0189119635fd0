"""Containers one behind another: found in any number, also where one was cut or damaged."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sealing import KEY, OTHER_KEY, RING, SUITES, pattern, seal, seal_1

from securefs import Keyring, Reason, Suite
from securefs.files import COPY_SIZE
from securefs.header import MAGIC
from securefs.joined import Part, examine, is_joined, parts

SIZES = (0, 1, 15, 16, 16_383, 16_384, 65_535, 65_536, 65_537, 200_000)


def containers(*sizes, suites=(Suite.CBC_HMAC, Suite.GCM), **options):
    """Return containers of these sizes, in one suite after the other."""
    return [
        seal(pattern(size, str(number)), suites[number % len(suites)], str(number), **options)
        for number, size in enumerate(sizes)
    ]


def starts(data):
    return [part.start for part in parts(io.BytesIO(data))]


def found(data, ring=RING, context=b""):
    """Return (start, reason) of each container; the reason is None if it verifies."""
    return [
        (container.part.start, container.fault and container.fault.reason)
        for container in examine(io.BytesIO(data), ring, context)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_each_container_is_found_and_verified(count):
    made = containers(*SIZES[:count])
    data = b"".join(made)
    assert is_joined(io.BytesIO(data)) is (count > 1)
    examined = list(examine(io.BytesIO(data), RING))
    assert [one.part.number for one in examined] == list(range(1, count + 1))
    assert [one.info.size for one in examined] == list(SIZES[:count])
    assert [data[one.part.start : one.part.stop] for one in examined] == made


@given(
    st.lists(st.sampled_from(SIZES), min_size=2, max_size=5),
    st.sampled_from([(Suite.CBC_HMAC,), (Suite.GCM,), (Suite.CBC_HMAC, Suite.GCM)]),
    st.data(),
)
def test_a_container_that_was_cut_or_damaged_hides_no_other(sizes, suites, data):
    made = containers(*sizes, suites=suites)
    bad = data.draw(st.integers(0, len(made) - 1), label="which")
    at = data.draw(st.integers(len(MAGIC), len(made[bad]) - 1), label="where")
    if data.draw(st.booleans(), label="cut"):
        made[bad] = made[bad][:at]
    else:
        made[bad] = made[bad][:at] + bytes([made[bad][at] ^ 1]) + made[bad][at + 1 :]
    borders = [sum(map(len, made[:number])) for number in range(len(made))]
    result = found(b"".join(made))
    assert [start for start, _ in result] == borders
    wrong = [number for number, (_, reason) in enumerate(result) if reason is not None]
    # A changed byte of the unused slot makes the table malformed: any change is refused.
    assert wrong == [bad]


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_damaged_magic_makes_one_part_of_two(bad):
    made = containers(1000, 1000, 1000)
    made[bad] = b"\x88" + made[bad][1:]
    borders = [0, *(sum(map(len, made[:number])) for number in (1, 2) if number != bad)]
    result = found(b"".join(made))
    assert [start for start, _ in result] == borders
    assert sum(reason is not None for _, reason in result) == 1


@pytest.mark.parametrize("offset", [*range(-9, 2), 100])
def test_a_magic_is_found_wherever_a_read_ends(offset):
    at = COPY_SIZE + offset
    assert starts(bytes(at) + MAGIC + bytes(5)) == [0, at]
    assert starts(MAGIC + bytes(at - 8) + MAGIC * 2) == [0, at, at + 8]


@pytest.mark.parametrize("suite", SUITES)
def test_chunks_that_were_written_at_the_offsets_of_their_plaintexts_are_told(suite):
    """Each container overwrites the end of the one before it: only the last one is whole."""
    made = containers(5000, 5000, 3000, suites=(suite,))
    data = bytearray()
    for number, one in enumerate(made):
        data[number * 5000 :] = one
    assert [(start, reason is None) for start, reason in found(bytes(data))] == [
        (0, False),
        (5000, False),
        (10_000, True),
    ]


def test_what_is_no_container_is_one_part_that_does_not_verify():
    assert found(b"") == [(0, Reason.NOT_ENCRYPTED)]
    assert found(b"plaintext") == [(0, Reason.NOT_ENCRYPTED)]
    assert found(b"before" + containers(9)[0]) == [(0, Reason.NOT_ENCRYPTED), (6, None)]
    # Format 1 has no magic: what is joined of it can't be told from anything else.
    assert found(seal_1(b"1") + seal_1(b"2")) == [(0, Reason.NOT_ENCRYPTED)]


def test_another_key_and_another_context_are_told_of_each():
    data = seal(b"1", label="1", ring=Keyring(OTHER_KEY)) + seal(b"2", label="2", context=b"owner:ann")
    second = len(seal(b"1"))
    assert found(data) == [(0, Reason.UNKNOWN_KEY), (second, Reason.COMMITMENT_MISMATCH)]
    assert found(data, Keyring(OTHER_KEY, [KEY]), b"owner:ann") == [
        (0, Reason.COMMITMENT_MISMATCH),
        (second, None),
    ]


def test_what_was_verified_is_told_as_it_goes():
    told = []
    data = b"".join(containers(0, 1000, 70_000))
    assert len(list(examine(io.BytesIO(data), RING, on_bytes=told.append))) == 3
    assert told == [0, 1000, 70_000]


def test_a_part_is_a_file():
    part = Part(io.BytesIO(b"before|the part|behind"), 1, 7, 15)
    assert part.read() == b"the part"
    assert (part.read(), part.tell()) == (b"", 8)
    assert part.seek(4) == 4
    assert part.read(2) == b"pa"
    assert part.seek(-2, os.SEEK_CUR) == 4
    assert part.read(100) == b"part"
    assert part.seek(-3, os.SEEK_END) == 5
    assert part.read() == b"art"
