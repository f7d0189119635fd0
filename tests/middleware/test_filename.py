"""File names: the last component, never hidden, never a path; everything else as it came."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from fuzzing import examples
from hypothesis import example, given
from hypothesis import strategies as st

from securefs.middleware.filename import attachment, decode, normalise


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        pytest.param("a.txt", "a.txt", id="plain"),
        pytest.param("../../a.txt", "a.txt", id="parent"),
        pytest.param("/a.txt", "a.txt", id="absolute"),
        pytest.param("a/b/", "unnamed", id="folder"),
        pytest.param("C:\\a\\b.txt", "b.txt", id="drive"),
        pytest.param("c:b.txt", "b.txt", id="drive without folder"),
        pytest.param("\\\\server\\b.txt", "b.txt", id="server"),
        pytest.param("x\\..\\b.txt", "b.txt", id="parent with backslashes"),
        pytest.param("a\\b.txt", "a\\b.txt", id="a backslash as browsers on Linux send it"),
        pytest.param("...", "unnamed", id="dots"),
        pytest.param("", "unnamed", id="nothing"),
        pytest.param("..a..b..", "a..b..", id="hidden"),
        pytest.param(".C:\\.\\..x", "x", id="all at once"),
        pytest.param("C:D:x", "x", id="two drives"),
        pytest.param("C:", "unnamed", id="drive alone"),
        pytest.param("9:30.txt", "9:30.txt", id="a colon that is no drive's"),
        pytest.param(" .a", " .a", id="a space before the dot"),
    ],
)
def test_the_last_component_is_kept(filename, expected):
    assert normalise(filename) == expected


names = st.text(st.sampled_from('abC:/\\. %"ä\u202e'), max_size=30) | st.text(max_size=30)


@examples(500)
@given(names)
@example(".C:\\x")
@example("..\\/..\\x")
def test_what_is_kept_is_no_path_and_would_be_kept_again(filename):
    name = normalise(filename)
    assert name
    assert "/" not in name
    assert not name.startswith((".", "\\"))
    assert "..\\" not in name
    assert not (name[:1].isascii() and name[:1].isalpha() and name[1:2] == ":")
    assert normalise(name) == name
    assert name == "unnamed" or filename.endswith(name), "a part of what was sent"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        pytest.param("a%22b", 'a"b', id="quote"),
        pytest.param("100%41%0D%00", "100%41%0D%00", id="other percent signs"),
    ],
)
def test_a_quote_is_all_that_is_decoded(filename, expected):
    assert decode(filename) == expected


@examples(200)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
@example('a"; filename="b\\')
@example("a\r\nSet-Cookie: x")
def test_an_attachment_header_gives_the_name_back_and_nothing_else(name):
    header = attachment(name)
    assert header.isascii()
    assert header.isprintable()
    plain, _, encoded = header.partition("; filename*=UTF-8''")
    assert re.fullmatch(r'attachment; filename="[^"\\%]*"', plain)
    assert re.fullmatch(r"[A-Za-z0-9!#$&+.^_`|~%-]*", encoded)
    assert unquote(encoded) == name


def test_a_name_that_is_no_unicode_can_be_offered():
    assert attachment("\ud800a") == "attachment; filename=\"_a\"; filename*=UTF-8''%3Fa"
