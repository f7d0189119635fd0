"""File names: the last component, never hidden, never a path; everything else as it came."""

from __future__ import annotations

import itertools
import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multipart import parse_content_disposition
from support.fuzzing import examples

from securefs.middleware.filename import attachment, decode, normalise, relative, shortened


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        pytest.param("a.txt", "a.txt", id="plain"),
        pytest.param("../../a.txt", "a.txt", id="parent"),
        pytest.param("/a.txt", "a.txt", id="absolute"),
        pytest.param("a/b/", "unnamed", id="folder"),
        pytest.param("C:\\a\\b.txt", "b.txt", id="drive"),
        pytest.param("c:b.txt", "c:b.txt", id="a letter and a colon"),
        pytest.param("Q: and A.txt", "Q: and A.txt", id="a letter, a colon and a space"),
        pytest.param("C:", "C:", id="a letter and a colon alone"),
        pytest.param("C:\\", "unnamed", id="drive alone"),
        pytest.param("\\\\server\\b.txt", "b.txt", id="server"),
        pytest.param("x\\..\\b.txt", "b.txt", id="parent with backslashes"),
        pytest.param("C:\\a/b\\c.txt", "c.txt", id="drive, mixed separators"),
        pytest.param("C:\\a\\b/c.txt", "c.txt", id="drive, a slash last"),
        pytest.param("C:/a\\b.txt", "b.txt", id="drive, a slash first"),
        pytest.param("\\\\server/share\\b.txt", "b.txt", id="server, mixed separators"),
        pytest.param("..\\a/b\\c.txt", "c.txt", id="parent, mixed separators"),
        pytest.param(".C:\\a\\b.txt", "b.txt", id="dots before the drive"),
        pytest.param("9:\\b.txt", "b.txt", id="any character as a drive"),
        pytest.param("%22:\\b.txt", "b.txt", id="a quote as a drive"),
        pytest.param("a/C:\\b\\c.txt", "c.txt", id="a Windows path as the last component"),
        pytest.param("a/b\\c.txt", "b\\c.txt", id="a backslash behind a slash, as browsers on Linux send it"),
        pytest.param("a\\b.txt", "a\\b.txt", id="a backslash as browsers on Linux send it"),
        pytest.param("...", "unnamed", id="dots"),
        pytest.param("", "unnamed", id="nothing"),
        pytest.param("..a..b..", "a..b..", id="hidden"),
        pytest.param(".C:\\.\\..x", "x", id="all at once"),
        pytest.param("C:\\D:\\x", "x", id="two drives"),
        pytest.param("9:30.txt", "9:30.txt", id="a colon that is no drive's"),
        pytest.param(" .a", " .a", id="a space before the dot"),
    ],
)
def test_the_last_component_is_kept(filename, expected):
    assert normalise(filename) == expected


def cut(filename: str) -> str:
    """Return what parsers leave of a Windows path: multipart does so, and Werkzeug did."""
    is_path = filename[1:3] == ":\\" or filename[:2] == "\\\\"
    return filename.rpartition("\\")[2] if is_path else filename


def check(filename: str) -> None:
    """Fail where what must hold of every name does not hold of this one."""
    name = normalise(filename)
    assert name
    assert "/" not in name
    assert not name.startswith((".", "\\"))
    assert "..\\" not in name
    assert not re.match(r"(?:%22|.):\\", name), "a drive"
    assert name == "unnamed" or filename.endswith(name), "a part of what was sent"
    assert normalise(name) == name
    assert normalise(cut(filename)) == name, "it matters whether somebody cut it before"


names = st.text(st.sampled_from("abC:/\\. 9%\"'ä\u202e"), max_size=30) | st.text(max_size=30)


@examples(500)
@given(names)
@example(".C:\\x")
@example("..\\/..\\x")
@example("\n:\\x")
def test_what_is_kept_is_no_path_and_would_be_kept_again(filename):
    check(filename)


def test_every_short_name_of_letters_that_matter():
    for length in range(7):
        for pieces in itertools.product(("/", "\\", ":", ".", "C", "9", "%22"), repeat=length):
            check("".join(pieces))


pieces = st.sampled_from(["/", "\\", ":", ".", "..", "C", "a", "9", " ", "%22", "%0D", "%0A", "%", "'", "ä"])


@examples(500)
@given(st.lists(pieces, min_size=1, max_size=12).map("".join))
@example("C:\\\\Us/ers\\\\a.txt")
@example("%22:\\a")
@example("%0A:\\a/b")
def test_multipart_and_we_find_the_same_name(filename):
    """In front of us it may have cut the name, behind us it must find nothing to cut."""
    name = normalise(filename)
    assert normalise(as_multipart_reads(filename)) == decoded(name)
    assert as_multipart_reads(name) == decoded(name)


def as_multipart_reads(filename: str) -> str:
    return parse_content_disposition(f'form-data; name="f"; filename="{filename}"')[2]


def decoded(filename: str) -> str:
    return filename.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


components = st.text(st.sampled_from('abC. 9"%ä'), min_size=1, max_size=8)
roots = st.sampled_from(["C:\\", "z:/", "\\", "\\\\", "..\\", "9:\\"])


@examples(200)
@given(roots, st.lists(st.tuples(components, st.sampled_from("/\\")), max_size=4), components)
def test_of_a_windows_path_the_last_component_is_kept(root, folders, last):
    path = root + "".join(itertools.chain.from_iterable(folders)) + last
    assert normalise(path) == (last.lstrip(".") or "unnamed")


names_on_linux = st.text(st.sampled_from('bäÖ9 ."%\\'), max_size=12).filter(lambda name: "..\\" not in name)


@examples(200)
@given(st.lists(components | st.just(""), max_size=4), names_on_linux)
def test_of_any_other_path_the_last_component_is_kept_with_its_backslashes(folders, last):
    assert normalise("/".join([*folders, f"a{last}"])) == f"a{last}"


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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("2024/05/a.jpg", "2024/05/a.jpg", id="relative"),
        pytest.param("a.jpg", "a.jpg", id="no path"),
        pytest.param("./a//b.jpg", "a/b.jpg", id="empty components"),
        pytest.param(".git/..a/.b", "git/a/b", id="hidden"),
        pytest.param("a/.../b", "a/unnamed/b", id="dots"),
        pytest.param("a/../b", "b", id="parent"),
        pytest.param("../b", "b", id="parent first"),
        pytest.param("/a/b", "b", id="absolute"),
        pytest.param("a/b/", "unnamed", id="folder"),
        pytest.param("C:\\a\\b", "b", id="drive"),
        pytest.param("./C:/a", "a", id="drive behind a dot"),
        pytest.param("a/C:\\b", "a/b", id="a component with a drive"),
        pytest.param("a/b\\c", "a/b\\c", id="a backslash"),
        pytest.param("", "unnamed", id="nothing"),
    ],
)
def test_a_relative_path_is_kept_without_what_leads_elsewhere(path, expected):
    assert relative(path) == expected


@examples(300)
@given(st.lists(pieces, min_size=1, max_size=12).map("".join))
@example("./././C:/x")
def test_a_kept_path_is_relative_and_would_be_kept_again(path):
    kept = relative(path)
    assert relative(kept) == kept
    assert all(component == normalise(component) for component in kept.split("/"))
    assert normalise(cut(kept)) == normalise(kept)


@examples(300)
@given(st.lists(pieces, min_size=1, max_size=40).map("".join), st.integers(1, 40))
@example("a.", 1)
@example("\U0001f98a.x", 3)
@example("aaa.aaaa.\\x", 7)
def test_a_shortened_name_fits_and_is_no_path(text, size):
    name = normalise(text)
    kept = shortened(name, size)
    assert 0 < len(kept.encode()) <= size
    assert normalise(kept) == kept
    assert kept == name or len(name.encode()) > size
    assert kept == name or not kept.endswith("\\")


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        pytest.param("abcdef.txt", 10, "abcdef.txt", id="reached"),
        pytest.param("abcdef.txt", 9, "abcde.txt", id="suffix kept"),
        pytest.param("äöü.txt", 9, "äö.txt", id="at a character"),
        pytest.param("ab%22c.txt", 8, "ab.txt", id="not within an escape"),
        pytest.param("ab\\cd.txt", 7, "ab.txt", id="not behind a backslash"),
        pytest.param("a" * 30 + "." + "b" * 30, 20, "a" * 20, id="a long suffix is none"),
        pytest.param("abcdef.txt", 4, "abcd", id="no room for the suffix"),
        pytest.param("abcdef", 3, "abc", id="no suffix"),
    ],
)
def test_of_a_long_name_the_beginning_and_the_suffix_are_kept(name, size, expected):
    assert shortened(name, size) == expected
