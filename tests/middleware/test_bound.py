"""The announced length: that no body outgrows it is tested in test_body.py; here is what it counts."""

from __future__ import annotations

import pytest

from securefs import Keyring, LimitExceededError, Suite
from securefs.metadata import encode_metadata
from securefs.middleware import Policy
from securefs.middleware.bound import HEADER_GROWTH, METADATA_SIZE, STREAMED_FIELD_BYTES, Bound
from securefs.middleware.media_type import MAX_MEDIA_TYPE
from securefs.middleware.servers import MAX_EPILOGUE
from securefs.sealer import NewFiles
from securefs.stream import growth

NEW = NewFiles(Keyring(bytes(range(32))))


def bound(policy=None, *, longer=0):
    return Bound(policy or Policy(max_files=2, max_fields=3), NEW.most_overhead, boundary=40, longer=longer)


def test_a_part_that_has_come_is_no_longer_expected():
    one = bound(longer=10)
    before = one.announce(0, None)
    one.add_field()
    assert one.announce(0, None) == before - 10, "its boundary"
    one.add_file()
    assert before - 20 - one.announce(0, None) == NEW.most_overhead(METADATA_SIZE + 2 * Policy().max_filename)
    assert one.parts == 2


@pytest.mark.parametrize(
    ("count", "message"), [("add_file", "more than 2 files"), ("add_field", "more than 3 fields")]
)
def test_too_many_parts_are_refused(count, message):
    add = getattr(bound(), count)
    for _ in range(int(message.split()[2])):
        add()
    with pytest.raises(LimitExceededError, match=f"^{message}$"):
        add()


def test_headers_and_fields_are_limited_from_when_the_length_is_announced():
    one = bound(longer=10)
    one.add_header(100 * HEADER_GROWTH, 0)
    one = bound(longer=10)
    one.add_field_bytes(2 * STREAMED_FIELD_BYTES)
    one.announce(0, None)
    one.add_header(HEADER_GROWTH + 30, 20)
    with pytest.raises(LimitExceededError, match="too terse to stream; Policy"):
        one.add_header(31, 20)
    one.add_field_bytes(STREAMED_FIELD_BYTES)
    with pytest.raises(LimitExceededError, match="too many bytes of fields to stream; Policy"):
        one.add_field_bytes(1)


def test_a_bound_is_close_by_default_and_not_where_every_part_grows():
    assert bound(Policy()).is_close()
    assert not bound(Policy(), longer=400).is_close()
    assert not bound(Policy(max_files=1000)).is_close()


def test_a_bound_is_not_close_where_every_part_may_shrink():
    """What a long boundary leaves over is filled, too; the bound itself is no smaller for it."""
    assert bound(Policy(max_files=32), longer=-10).is_close()
    assert not bound(Policy(max_files=32), longer=-400).is_close()
    assert bound(longer=-130).announce(0, None) == bound().announce(0, None)
    assert bound(longer=1).announce(0, None) == bound().announce(0, None) + 5, "parts"
    assert bound(Policy(max_fields=10**6)).is_close(), "none of them shrinks"
    one = bound(Policy(max_files=1, max_fields=1000), longer=-450)
    assert not one.is_close()
    for _ in range(800):
        one.add_field()
    assert one.is_close(), "few parts are left"


@pytest.mark.parametrize("suite", list(Suite))
def test_the_longest_metadata_is_counted(suite):
    longest = encode_metadata({"name": '"' * 255, "type": '"' * MAX_MEDIA_TYPE})
    assert len(longest) == METADATA_SIZE + 2 * 255
    sealer = NewFiles(NEW.keyring, 2, suite).sealer(b"", {"name": '"' * 255, "type": '"' * MAX_MEDIA_TYPE})
    assert sealer.stored_length(0) <= NEW.most_overhead(len(longest))


def test_a_bound_is_close_up_to_the_filling_that_is_allowed():
    one = bound(Policy(max_files=1, max_fields=1))
    left = MAX_EPILOGUE - one.announce(0, None) - growth(STREAMED_FIELD_BYTES) - Policy().max_part_header
    # A byte of each part is left over.
    assert bound(Policy(max_files=1, max_fields=left - 1), longer=-1).is_close()
    assert not bound(Policy(max_files=1, max_fields=left), longer=-1).is_close()
