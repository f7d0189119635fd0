"""The announced length: that no body outgrows it is tested in test_body.py; here is what it counts."""

from __future__ import annotations

import re

import pytest

from securefs import Keyring, LimitExceededError, Suite
from securefs.metadata import encode_metadata
from securefs.middleware import Policy
from securefs.middleware.bound import (
    HEADER_GROWTH,
    LONG_NAMES,
    LONGEST_METADATA,
    MAX_SEALED_NAME,
    STREAMED_FIELD_BYTES,
    STREAMED_FILES,
    USUAL_METADATA,
    USUAL_NAME,
    Bound,
)
from securefs.middleware.media_type import MAX_MEDIA_TYPE
from securefs.middleware.multipart import MAX_AROUND
from securefs.middleware.servers import MAX_EPILOGUE
from securefs.sealer import NewFiles
from securefs.stream import growth

NEW = NewFiles(Keyring(bytes(range(32))))


def bound(policy=None, *, longer=0):
    return Bound(policy or Policy(max_files=2, max_fields=3), NEW.most_overhead, boundary=40, longer=longer)


def test_a_file_that_has_come_is_no_longer_expected():
    one = bound()
    before = one.announce(0, None)
    one.add_field()
    assert one.announce(0, None) == before, "headers have a common allowance"
    one.add_file()
    assert before - one.announce(0, None) == NEW.most_overhead(USUAL_METADATA)
    assert one.parts == 2


@pytest.mark.parametrize(
    ("count", "message"),
    [("add_file", "more than 2 files (max_files)"), ("add_field", "more than 3 fields (max_fields)")],
)
def test_too_many_parts_are_refused(count, message):
    add = getattr(bound(), count)
    for _ in range(int(message.split()[2])):
        add()
    with pytest.raises(LimitExceededError, match=f"^{re.escape(message)}$"):
        add()


def test_headers_and_fields_are_limited_from_when_the_length_is_announced():
    one = bound()
    one.add_header(100 * HEADER_GROWTH, 0)
    one.add_field_bytes(2 * STREAMED_FIELD_BYTES)
    one.announce(0, None)
    one.add_header(20, 1000)
    one.add_header(HEADER_GROWTH + 20, 20)
    with pytest.raises(LimitExceededError, match="too terse to stream; Policy"):
        one.add_header(21, 20)
    one.add_field_bytes(STREAMED_FIELD_BYTES)
    with pytest.raises(LimitExceededError, match="too many bytes of fields to stream; Policy"):
        one.add_field_bytes(1)


def test_files_are_limited_from_when_the_length_is_announced():
    one = bound(Policy(max_files=1000))
    for _ in range(10):
        one.add_file()
    one.announce(0, None)
    for _ in range(STREAMED_FILES):
        one.add_file()
    with pytest.raises(LimitExceededError, match=r"more than 300 files follow .*Policy"):
        one.add_file()


def test_a_bound_is_close_whatever_the_policy_allows():
    for longer in (-130, -30, 0, 31):
        assert bound(Policy(), longer=longer).is_close(0, None)
    assert bound(Policy(max_files=300), longer=31).is_close(0, None)
    assert bound(Policy(max_files=10**6, max_fields=10**6, max_filename=4096)).is_close(0, None)


def test_a_bound_is_not_close_where_many_files_came_and_more_may_follow():
    one = bound(Policy(max_files=1000))
    one.add_file()
    assert one.is_close(0, None)
    one.add_file()
    assert not one.is_close(0, None)
    for _ in range(700):
        one.add_file()
    assert one.is_close(0, None), "few are left"


def test_a_bound_is_not_close_where_every_part_may_shrink():
    """What a long boundary leaves over is filled, too; the bound itself is no smaller for it."""
    assert not bound(Policy(max_files=300), longer=-130).is_close(0, None)
    assert bound(longer=-130).announce(0, None) == bound().announce(0, None)
    one = bound(Policy(max_files=1, max_fields=3000), longer=-130)
    assert not one.is_close(0, None)
    for _ in range(1500):
        one.add_field()
    assert one.is_close(0, None), "few parts are left"


@pytest.mark.parametrize("suite", list(Suite))
def test_the_longest_metadata_is_counted(suite):
    new = NewFiles(NEW.keyring, 2, suite)
    for size, name, kind in (
        (LONGEST_METADATA, '"' * MAX_SEALED_NAME, '"' * MAX_MEDIA_TYPE),
        (USUAL_METADATA, "n" * USUAL_NAME, "a/b" + ';c=""' * 24),
    ):
        metadata = {"name": name, "type": kind}
        assert len(encode_metadata(metadata)) <= size
        assert new.sealer(b"", metadata).stored_length(0) <= new.most_overhead(size)


def test_names_are_sealed_whole_until_their_allowance_is_used_up():
    one = bound()
    long = "n" * 1020 + ".txt"
    for _ in range(100):
        assert one.sealed_name(long, "a/b") == long, "not announced"
    one.announce(0, None)
    sealed = [one.sealed_name(long, "a/b") for _ in range(100)]
    assert set(sealed) == {long, "n" * 251 + ".txt"}
    assert (
        0
        < LONG_NAMES
        - sealed.count(long) * (len(encode_metadata({"name": long, "type": "a/b"})) - USUAL_METADATA)
        < 1024
    )
    quotes = [one.sealed_name('"' * 300 + ".txt", "a/b") for _ in range(5)][-1]
    assert len(encode_metadata({"name": quotes, "type": "a/b"})) <= USUAL_METADATA
    assert one.sealed_name("n" * 255, "a/b") == "n" * 255


def test_a_bound_is_close_up_to_the_filling_that_is_allowed():
    one = bound(Policy(max_files=1, max_fields=1))
    left = MAX_EPILOGUE - one.announce(0, None) - growth(STREAMED_FIELD_BYTES) - MAX_AROUND
    # A byte of each part is left over.
    assert bound(Policy(max_files=1, max_fields=left - 1), longer=-1).is_close(0, None)
    assert not bound(Policy(max_files=1, max_fields=left), longer=-1).is_close(0, None)


def test_what_may_be_plain_is_held_if_it_would_not_grow_enough():
    """Announced for encryption, it would be filled by what it did not grow."""
    plain = Policy(max_files=300, plain_fields=("f",))
    assert bound(Policy(max_files=300)).is_close(10**10, None)
    assert bound(plain).is_close(0, None)
    assert not bound(plain).is_close(10**10, None)
    nothing = Bound(plain, None, boundary=40, longer=0)
    assert nothing.is_close(10**10, None), "nothing of it grows"
    assert nothing.announce(10**10, None) < 10**10 + MAX_EPILOGUE
