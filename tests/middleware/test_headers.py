"""Header fields: reading one, leaving some out, and what is a length."""

from __future__ import annotations

import pytest

from securefs.middleware.headers import length_in, value_of, values_of, without

HEADERS = [("ETag", '"a"'), ("content-type", "a/b"), ("Content-Type", "c/d")]


def test_a_header_is_found_whatever_its_letter_case():
    assert value_of(HEADERS, "etag") == '"a"'
    assert value_of(HEADERS, "content-type") == "a/b", "the first of several"
    assert values_of(HEADERS, "content-type") == ["a/b", "c/d"]
    assert value_of(HEADERS, "date") is None
    assert values_of(HEADERS, "date") == []


def test_all_headers_of_a_name_are_left_out():
    assert without(HEADERS, {"content-type", "date"}) == [("ETag", '"a"')]


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", 0),
        ("007", 7),
        ("9" * 19, 10**19 - 1),
        ("9" * 20, None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1_0", None),
        ("1.0", None),
        ("1, 1", None),
        ("\u0661", None),
        ("\u00b2", None),
        (None, None),
        (1, None),
    ],
)
def test_a_length_is_up_to_nineteen_ascii_digits(text, length):
    assert length_in(text) == length
