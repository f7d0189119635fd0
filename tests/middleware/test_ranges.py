"""Ranges as RFC 9110 section 14 reads them, compared with a brute-force reading."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fuzzing import examples

from securefs.middleware.ranges import UnsatisfiableRangeError, if_range_holds, parse_ranges


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        pytest.param("bytes=0-0", 10, [range(1)], id="first byte"),
        pytest.param("bytes=0-9", 10, [range(10)], id="all"),
        pytest.param("bytes=3-", 10, [range(3, 10)], id="open-ended"),
        pytest.param("bytes=-4", 10, [range(6, 10)], id="suffix"),
        pytest.param("bytes=-40", 10, [range(10)], id="suffix longer than the file"),
        pytest.param("bytes=5-99", 10, [range(5, 10)], id="end beyond the file"),
        pytest.param("Bytes=1-2", 10, [range(1, 3)], id="unit in another case"),
        pytest.param("bytes= 1-2 ,\t4-5 ", 10, [range(1, 3), range(4, 6)], id="white space"),
        pytest.param("bytes=,1-2,, ,", 10, [range(1, 3)], id="empty list elements"),
        pytest.param("bytes=1-2,20-30", 10, [range(1, 3)], id="one of two unsatisfiable"),
        pytest.param("bytes=0-4,2-6", 10, [range(7)], id="overlapping"),
        pytest.param("bytes=0-4,5-6", 10, [range(7)], id="touching"),
        pytest.param("bytes=8-9,0-1", 10, [range(8, 10), range(2)], id="order as asked"),
        pytest.param("bytes=0-1,8-9,1-8", 10, [range(10)], id="one that joins two"),
        pytest.param("bytes=1-2", 0, UnsatisfiableRangeError, id="empty file"),
        pytest.param("bytes=-5", 0, UnsatisfiableRangeError, id="suffix of an empty file"),
        pytest.param("bytes=10-", 10, UnsatisfiableRangeError, id="beyond the end"),
        pytest.param("bytes=-0", 10, UnsatisfiableRangeError, id="suffix of nothing"),
        pytest.param("bytes=9999999999999999999-", 10, UnsatisfiableRangeError, id="19 digits"),
        pytest.param("bytes=5-4", 10, None, id="backwards"),
        pytest.param("bytes=1-2,5-4", 10, None, id="one of two malformed"),
        pytest.param("bytes=", 10, None, id="nothing"),
        pytest.param("bytes=,", 10, None, id="only commas"),
        pytest.param("bytes=-", 10, None, id="only a hyphen"),
        pytest.param("bytes=a-b", 10, None, id="letters"),
        pytest.param("bytes=1-2-3", 10, None, id="two hyphens"),
        pytest.param("bytes=+1-2", 10, None, id="sign"),
        pytest.param("bytes=\u0661-\u0662", 10, None, id="digits of another script"),
        pytest.param("bytes=1" + "0" * 5000 + "-", 10, None, id="5,001 digits"),
        pytest.param("bytes", 10, None, id="unit alone"),
        pytest.param("lines=1-2", 10, None, id="another unit"),
        pytest.param("bytes=0-0,2-2,4-4,6-6", 10, None, id="more than the limit"),
    ],
)
def test_a_header_means_what_the_rfc_says(header, size, expected):
    if expected is UnsatisfiableRangeError:
        with pytest.raises(UnsatisfiableRangeError):
            parse_ranges(header, size, 3)
    else:
        assert parse_ranges(header, size, 3) == expected


bound = st.integers(0, 60)
spec = st.one_of(
    st.tuples(bound, bound).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    bound.map(lambda first: f"{first}-"),
    bound.map(lambda suffix: f"-{suffix}"),
)


def brute_force(element: str, size: int) -> set[int]:
    first, _, last = element.partition("-")
    if not first:
        return set(range(size)[-int(last) :]) if int(last) else set()
    return {n for n in range(size) if int(first) <= n and (not last or n <= int(last))}


@given(st.lists(spec, min_size=1, max_size=8), st.integers(0, 50))
def test_merged_spans_hold_each_byte_asked_for_once(elements, size):
    wanted = set().union(*(brute_force(element, size) for element in elements))
    header = "bytes=" + ",".join(elements)
    if not wanted:
        with pytest.raises(UnsatisfiableRangeError):
            parse_ranges(header, size, 8)
        return
    spans = parse_ranges(header, size, 8)
    got = [number for span in spans for number in span]
    assert sorted(got) == sorted(wanted)
    assert len(got) == len(set(got)), "no byte twice"


@given(st.text(alphabet="bytes=0123456789-, \t", max_size=40), st.integers(0, 100))
def test_any_header_gives_spans_within_the_file_or_none(header, size):
    try:
        spans = parse_ranges(header, size, 16)
    except UnsatisfiableRangeError:
        return
    assert spans is None or all(0 <= span.start < span.stop <= size for span in spans)


DATE = "Mon, 23 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("condition", "etag", "modified", "holds"),
    [
        pytest.param(None, None, None, True, id="none given"),
        pytest.param('"a"', '"a"', None, True, id="same tag"),
        pytest.param('"a"', '"b"', None, False, id="another tag"),
        pytest.param('"a"', None, DATE, False, id="no tag to compare"),
        pytest.param('W/"a"', 'W/"a"', None, False, id="weak tags never match strongly"),
        pytest.param('"a"', 'W/"a"', None, False, id="a weak tag of ours"),
        pytest.param(DATE, '"a"', DATE, True, id="same date"),
        pytest.param(DATE, '"a"', "Mon, 23 Nov 2026 10:00:01 GMT", False, id="later"),
        pytest.param(DATE, '"a"', None, False, id="no date to compare"),
        pytest.param("yesterday", None, "yesterday", False, id="no date at all"),
    ],
)
def test_if_range_compares_strongly(condition, etag, modified, holds):
    assert if_range_holds(condition, etag, modified) is holds


def merged(sets: list[set[int]]) -> list[set[int]]:
    """Return the sets, those that overlap or touch made one, in the order of the first of each."""
    groups = [(index, wanted) for index, wanted in enumerate(sets) if wanted]
    changed = True
    while changed:
        changed = False
        for one, other in itertools.combinations(groups, 2):
            if one[1] & {number + shift for number in other[1] for shift in (-1, 0, 1)}:
                groups = [group for group in groups if group not in (one, other)]
                groups.append((min(one[0], other[0]), one[1] | other[1]))
                changed = True
                break
    return [wanted for _, wanted in sorted(groups, key=lambda group: group[0])]


@examples(300)
@given(st.lists(spec, min_size=1, max_size=6), st.integers(1, 50))
@example(["5-6", "0-4"], 20)  # touch, asked for backwards
@example(["0-1", "10-11", "0-2"], 20)  # the one that grows stays first
@example(["10-11", "0-1", "2-9"], 20)  # one that joins two, the later of them first
def test_merged_spans_come_in_the_order_in_which_they_were_asked_for(elements, size):
    """Ranges that touch are one, from whichever side they come."""
    expected = merged([brute_force(element, size) for element in elements])
    try:
        spans = parse_ranges("bytes=" + ",".join(elements), size, 6)
    except UnsatisfiableRangeError:
        spans = []
    assert [set(span) for span in spans] == expected
