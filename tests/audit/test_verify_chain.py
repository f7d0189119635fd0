"""What the verifier of one chain makes of its bytes, however they come."""

import hashlib

import pytest
from support.chains import CHAIN, SOURCE, chain_bytes

from securefs.audit.fields import LONGEST_LINE
from securefs.audit.record import NO_LINE, Entry, Position, build_line, line_hash
from securefs.audit.verify_chain import ChainVerifier

LONG = b"x" * (3 * LONGEST_LINE)
START = chain_bytes(Entry("server.start"))


@pytest.mark.parametrize("step", [1009, LONGEST_LINE, 10 * LONGEST_LINE])
def test_line_of_any_length_is_one_finding(step):
    """Memory stays bounded, and what comes after the line is still verified."""
    after = build_line(Position(CHAIN, 2, line_hash(LONG)), SOURCE, 0, Entry("key.use"))
    data = START + LONG + b"\n" + after
    verifier = ChainVerifier("f", CHAIN)
    for offset in range(0, len(data), step):
        verifier.feed(data[offset : offset + step])
        assert len(verifier._rest) < LONGEST_LINE
    summary = verifier.finish()
    assert [(finding.code, finding.offset) for finding in verifier.findings] == [("too_long", len(START))]
    assert (summary.records, summary.head, summary.torn) == (3, line_hash(after[:-1]), None)


def test_torn_tail_that_no_record_could_leave():
    verifier = ChainVerifier("f", CHAIN)
    verifier.feed(START + LONG)
    summary = verifier.finish()
    assert [finding.code for finding in verifier.findings] == ["too_long"]
    assert summary.torn.size == len(LONG)
    assert summary.torn.digest == hashlib.sha256(LONG).hexdigest()


def test_pieces_of_any_size_give_the_same_answer():
    data = chain_bytes(Entry("server.start"), Entry("key.use"), Entry("server.stop")) + b"torn"
    answers = set()
    for step in (1, 2, 7, 100, len(data)):
        verifier = ChainVerifier("f", CHAIN)
        for offset in range(0, len(data), step):
            verifier.feed(data[offset : offset + step])
        answers.add(repr((verifier.finish(), verifier.findings)))
    assert len(answers) == 1


def test_other_line_ends_end_no_line():
    """U+2028, form feed and the like in a name are escaped; raw ones in a file make no second line."""
    verifier = ChainVerifier("f", CHAIN)
    verifier.feed(START[:-1] + b"\x0b" + START)
    assert verifier.finish().records == 1


def test_claim_of_a_first_line():
    obj = {"replaces": "x", "replaces_seq": 1, "replaces_hash": NO_LINE}
    verifier = ChainVerifier("f", CHAIN)
    later = {**obj, "replaces": "y"}
    verifier.feed(chain_bytes(Entry("server.start", obj=obj), Entry("server.start", obj=later)))
    claim = verifier.finish().claim
    assert (claim.replaces, claim.seq, claim.digest) == ("x", 1, NO_LINE)


@pytest.mark.parametrize("step", [1009, LONGEST_LINE, 10 * LONGEST_LINE])
def test_what_follows_a_line_that_is_too_long_is_found_where_it_stands(step):
    """Several such lines, one that is no record, a torn tail: offsets are bytes of the file."""
    data = START + LONG + b"\n" + LONG[:-1] + b"\n" + b"?\n" + b"torn"
    verifier = ChainVerifier("f", CHAIN)
    for offset in range(0, len(data), step):
        verifier.feed(data[offset : offset + step])
    summary = verifier.finish()
    second = len(START) + len(LONG) + 1
    assert [(finding.code, finding.offset) for finding in verifier.findings] == [
        ("too_long", len(START)),
        ("too_long", second),
        ("not_json", second + len(LONG)),
    ]
    assert (summary.torn.offset, summary.torn.size) == (len(data) - 4, 4)
    assert (summary.records, summary.head) == (4, line_hash(b"?"))
    assert summary.before_head == line_hash(LONG[:-1])


@pytest.mark.parametrize("step", [1009, LONGEST_LINE + 1, 10 * LONGEST_LINE])
def test_a_torn_tail_of_any_length_is_measured_however_it_is_read(step):
    data = START + LONG
    verifier = ChainVerifier("f", CHAIN)
    for offset in range(0, len(data), step):
        verifier.feed(data[offset : offset + step])
    torn = verifier.finish().torn
    assert (torn.offset, torn.size) == (len(START), len(LONG))
    assert torn.digest == hashlib.sha256(LONG).hexdigest()
    assert [(finding.code, finding.offset) for finding in verifier.findings] == [("too_long", len(START))]


@pytest.mark.parametrize(("size", "found"), [(LONGEST_LINE - 1, []), (LONGEST_LINE, ["too_long"])])
def test_a_torn_tail_may_be_as_long_as_a_record_without_its_line_end(size, found):
    verifier = ChainVerifier("f", CHAIN)
    verifier.feed(START + b"x" * size)
    assert verifier.finish().torn.size == size
    assert [finding.code for finding in verifier.findings] == found
