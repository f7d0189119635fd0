"""Content-Dispositions of parts: what might be a file is a file, its name in the one form of current browsers."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fuzzing import examples

from securefs.errors import Reason
from securefs.middleware.disposition import MalformedDispositionError, parse_disposition

FIELD = 'form-data; name="n"'


def names(text):
    found = parse_disposition(text)
    return found.name, found.filename


@pytest.mark.parametrize(
    ("text", "name", "filename"),
    [
        pytest.param('form-data; name="n"', "n", None, id="field"),
        pytest.param('form-data; name="n"; filename="a.txt"', "n", "a.txt", id="file"),
        pytest.param('form-data; name="n"; filename=""', "n", "", id="empty file input"),
        pytest.param("Form-Data;NAME=n;FileName=a.txt", "n", "a.txt", id="upper case, unquoted"),
        pytest.param('attachment; name="n"; filename="a.txt"', "n", "a.txt", id="attachment"),
        pytest.param('form-data; filename="a.txt"; name="n"', "n", "a.txt", id="the other order"),
        pytest.param('form-data; name="n"; size=3; filename="a"', "n", "a", id="another parameter"),
        pytest.param('form-data ; name="n" ;; ; filename="a" ; ', "n", "a", id="semicolons"),
        pytest.param('form-data; name="n"; filename=a  b .txt ; x=y', "n", "a  b .txt", id="spaces"),
        pytest.param("form-data; name=f[0].x; filename=ä,(1).txt", "f[0].x", "ä,(1).txt", id="no tokens"),
        pytest.param(r'form-data; name="n\"1"; filename="a\\b\"c"', "n%221", r"a\b%22c", id="escaped"),
        pytest.param(r'form-data; name="n"; filename="a\\b\c"', "n", r"a\\b\c", id="not escaped"),
    ],
)
def test_names_are_written_as_current_browsers_do(text, name, filename):
    assert names(text) == (name, filename)


@pytest.mark.parametrize(
    ("value", "filename"),
    [
        pytest.param("utf-8''gr%C3%B6%c3%9fe.txt", "größe.txt", id="UTF-8"),
        pytest.param("UTF-8'de'a.txt", "a.txt", id="language"),
        pytest.param("iso-8859-1''%e4.txt", "ä.txt", id="ISO-8859-1"),
        pytest.param("\"UTF-8''a%3Bb\"", "a;b", id="quoted"),
        pytest.param("UTF-8''ä(1),a.txt", "ä(1),a.txt", id="not escaped"),
        pytest.param("UTF-8''%22%5C%22", "%22\\%22", id="quotes"),
        pytest.param("UTF-8''a%5C%5C", "a", id="backslashes last"),
        pytest.param("UTF-8''%80", None, id="not UTF-8"),
        pytest.param("UTF-8''a%0D%0Ab", None, id="line end"),
        pytest.param("UTF-8''a%7F", None, id="control character"),
        pytest.param("UTF-8''a%4", None, id="half an escape"),
        pytest.param("utf-16''%00a", None, id="other charset"),
        pytest.param("UTF-8'a.txt", None, id="one apostrophe"),
        pytest.param("UTF-8''", None, id="empty"),
    ],
)
def test_filename_star_counts_where_it_can_be_read(value, filename):
    assert names(f'{FIELD}; filename="b"; filename*={value}') == ("n", "b" if filename is None else filename)
    if filename is not None:
        assert names(f"{FIELD}; filename*={value}") == ("n", filename)
        return
    with pytest.raises(MalformedDispositionError, match="neither valid UTF-8 nor"):
        parse_disposition(f"{FIELD}; filename*={value}")


@pytest.mark.parametrize(
    ("word", "filename"),
    [
        pytest.param("=?utf-8?B?w6QvYg==?=", "ä/b", id="base64"),
        pytest.param("=?UTF-8?q?=C3=A4_b?=", "ä b", id="quoted-printable"),
        pytest.param("=?ISO-8859-1*de?Q?=E4?=", "ä", id="ISO-8859-1, with a language"),
        pytest.param("=?us-ascii?q?a=22b?=", "a%22b", id="quote"),
        pytest.param("=?utf-8?q?a=5C?=", "a", id="backslash last"),
        pytest.param("=?utf-8?B?w6Q?=", None, id="no padding"),
        pytest.param("=?utf-8?q?=E4?=", None, id="not UTF-8"),
        pytest.param("=?us-ascii?q?=E4?=", None, id="not ASCII"),
        pytest.param("=?utf-8?q?=00?=", None, id="NUL"),
        pytest.param("=?utf-7?q?a?=", None, id="other charset"),
        pytest.param("=?utf-8?q??=", None, id="empty"),
        pytest.param(" =?utf-8?q?a?=", None, id="not the whole name"),
        pytest.param("=?utf-8?q?a?= =?utf-8?q?b?=", None, id="two words"),
    ],
)
def test_a_whole_encoded_word_is_decoded(word, filename):
    assert names(f'{FIELD}; filename="{word}"') == ("n", word if filename is None else filename)
    assert names(f'form-data; name="{word}"') == (word, None), "only a file's name"


@pytest.mark.parametrize(
    ("value", "filename"),
    [
        pytest.param('12" vinyl.jpg', "12%22 vinyl.jpg", id="within"),
        pytest.param('pp.png"', "pp.png", id="behind"),
        pytest.param('pp.png" ', "pp.png", id="behind, with a space"),
        pytest.param('a"b"c', "a%22b%22c", id="two"),
        pytest.param('a"; b', None, id="a semicolon behind"),
        pytest.param('a" ; b', None, id="a space and a semicolon behind"),
        pytest.param('a"b"; x="y', None, id="another parameter"),
    ],
)
def test_a_file_name_that_comes_last_ends_at_the_last_mark(value, filename):
    text = f'{FIELD}; filename="{value}"'
    for end in ("", ";", " ; "):
        if filename is not None:
            assert names(text + end) == ("n", filename)
            continue
        with pytest.raises(MalformedDispositionError):
            parse_disposition(text + end)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "neither form-data nor attachment"),
        ('form-dat; name="n"', "neither form-data nor attachment"),
        ('form-data2; name="n"', "neither form-data nor attachment"),
        ('inline; name="n"; filename="a"', "neither form-data nor attachment"),
        ('attachment; name="n"', "attachment without a file name"),
        ("form-data", "has no name"),
        ('form-data; name=""; filename="a"', "has no name"),
        ('form-data; filename="a"', "has no name"),
        (f"{FIELD}; filename", "unusable or repeated 'filename'"),
        (f'{FIELD}; filename="a"; filename="b"', "unusable or repeated 'filename'"),
        (f'{FIELD}; filename="a"; filename=b"c', "unusable or repeated 'filename'"),
        (f'{FIELD}; filename*0="a"', r"unusable or repeated 'filename\*0'"),
        (f"{FIELD}; filename*0*=UTF-8''a", r"unusable or repeated 'filename\*0\*'"),
        (f"{FIELD}; filename*=UTF-8''a; filename*=UTF-8''b", r"unusable or repeated 'filename\*'"),
        (f'{FIELD}; Name="m"', "unusable or repeated 'name'"),
        ("form-data; name*=UTF-8''n", r"unusable or repeated 'name\*'"),
        (f"{FIELD}; filename=", "malformed"),
        (f'{FIELD}; filename= "a"', "malformed"),
        (f'{FIELD}; filename ="a"', "malformed|unusable"),
        (f'{FIELD} filename="a"', "malformed"),
        (f'{FIELD}, filename="a"', "malformed"),
        ("form-data; name=n filename=a", "malformed"),
        ("form-data; name=n,filename=a", "malformed"),
        ('form-data; name="n"m"', "malformed"),
        (f'{FIELD}; filename="a', "malformed"),
        (f'{FIELD}; filename="a"b', "malformed"),
        (f"{FIELD}; x=a b", "malformed"),
        (f'{FIELD}; filename*=UTF-8\'\'a; filename="b"c"', "malformed"),
        ('form-data; name="n\\"; filename="a"', "ends in a backslash"),
        (f'{FIELD}; filename="a\\"', "ends in a backslash"),
        (f'{FIELD}; filename="a\\\\"', "ends in a backslash"),
    ],
)
def test_what_could_be_a_field_or_a_file_is_refused_and_the_rule_named(text, rule):
    with pytest.raises(MalformedDispositionError, match=rule) as caught:
        parse_disposition(text)
    assert caught.value.reason is Reason.MALFORMED_MULTIPART


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@examples(200)
@given(printable)
@example('"')
@example("\\a\\")
@example("=?utf-8?q?a?=")
def test_what_is_encoded_comes_back_as_a_browser_writes_it(text):
    expected = text.rstrip("\\").replace('"', "%22")
    encoded = quote(text, safe="")
    assert names(f"{FIELD}; filename*=UTF-8''{encoded}") == ("n", expected)
    word = base64.b64encode(text.encode()).decode()
    assert names(f'{FIELD}; filename="=?utf-8?B?{word}?="; x=y') == ("n", expected)


scraps = st.sampled_from(
    [
        '"',
        "\\",
        ";",
        "=",
        " ",
        "*",
        "'",
        "filename",
        "name",
        "a",
        "form-data",
        "=?utf-8?q?",
        "?=",
        "UTF-8''",
        "%22",
    ]
)


@examples(500)
@given(st.lists(scraps | printable, max_size=16).map("".join), st.booleans())
def test_a_name_has_no_quotation_mark_and_no_backslash_at_its_end(text, well_begun):
    with suppress(MalformedDispositionError):
        found = parse_disposition(f"{FIELD}{text}" if well_begun else text)
        for name in (found.name, found.filename or ""):
            assert '"' not in name
            assert not name.endswith("\\")
        if "filename" not in text:
            assert found.filename is None
