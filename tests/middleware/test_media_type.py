"""The type of a request: a form with one boundary, a type that no framework takes for a form, or refused."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import examples

from securefs.errors import Reason
from securefs.middleware.media_type import (
    MAX_CONTENT_TYPE,
    MAX_MEDIA_TYPE,
    MalformedTypeError,
    charset_of,
    is_media_type,
    parse_boundary,
    type_of_field,
    type_of_file,
)

FORM = "multipart/form-data; boundary="


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        pytest.param(FORM + "XX", b"XX", id="token"),
        pytest.param('multipart/form-data;boundary="X X"', b"X X", id="quoted"),
        pytest.param(
            " Multipart/Form-Data ; charset=utf-8; BOUNDARY=----=_a/b\t", b"----=_a/b", id="case and space"
        ),
        pytest.param("multipart/form-data\t;\tboundary=XX", b"XX", id="tabs around a semicolon"),
        pytest.param(FORM + "x" * 200, b"x" * 200, id="200"),
        pytest.param(FORM + "*****", b"*****", id="asterisks"),
        pytest.param(
            'multipart/form-data; x="boundary=Y"; boundary="\'()+_,-./:=?"',
            b"'()+_,-./:=?",
            id="all characters of RFC 2046",
        ),
        pytest.param(FORM + "!#$%&'*+-.^_`|~", b"!#$%&'*+-.^_`|~", id="all characters of tokens"),
        pytest.param(FORM + "XX;", b"XX", id="semicolon at the end"),
        pytest.param("multipart/form-data;; ;boundary=XX ; ", b"XX", id="empty parameters"),
        pytest.param('multipart/form-data; charset="UTF-8"; boundary=XX', b"XX", id="UTF-8"),
        pytest.param("multipart/form-data; charset=us-ascii; boundary=XX", b"XX", id="ASCII"),
        pytest.param("multipart/form-data; charset=ISO-8859-1; boundary=XX", b"XX", id="Latin-1"),
        pytest.param('multipart/form-data; a=""; boundary=XX', b"XX", id="empty value"),
    ],
)
def test_a_boundary_is_found(text, boundary):
    assert parse_boundary(text) == boundary


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("multipart/form-data", id="no parameter"),
        pytest.param("multipart/form-data; charset=utf-8", id="no boundary"),
        pytest.param(FORM + "x" * 201, id="201"),
        pytest.param(FORM + '""', id="empty"),
        pytest.param(FORM + '"x "', id="space at the end"),
        pytest.param(FORM + '"x\n"', id="line end"),
        pytest.param(FORM + "x\n", id="line end behind"),
        pytest.param(FORM + "x; boundary=x", id="twice"),
        pytest.param(FORM + "x; Boundary=x", id="twice in other case"),
        pytest.param(FORM + "x; boundary", id="bare"),
        pytest.param("multipart/form-data; boundary*=x", id="star"),
        pytest.param(FORM + "x; boundary*0=y", id="continuation"),
        pytest.param(FORM + "x y", id="two words"),
        pytest.param(FORM + "x, multipart/form-data; boundary=y", id="two fields"),
        pytest.param(FORM + '"x\\y"', id="backslash"),
        pytest.param(FORM + '"x', id="quotation mark left open"),
        pytest.param(FORM + '"x"y', id="text behind a quotation mark"),
        pytest.param("multipart/form-data, boundary=x", id="comma in place of a semicolon"),
        pytest.param(FORM + "x; a=\xe4", id="another value that is not ASCII"),
        pytest.param(FORM + "x; a=b/c", id="another value that is no token"),
        pytest.param(FORM + 'x; a="\t"', id="tab between quotation marks"),
        *(
            pytest.param(FORM + "x; charset=" + charset, id=charset)
            for charset in ("utf-16", "utf-7", "idna", "iso-8859-12", '"utf-8,utf-16"', '""')
        ),
    ],
)
def test_no_boundary_is_guessed(text):
    with pytest.raises(MalformedTypeError, match="Content-Type"):
        parse_boundary(text)


@pytest.mark.parametrize("text", ["", " ", "\t \t"])
def test_a_body_without_a_type_is_no_form(text):
    assert parse_boundary(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "text/plain",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        'application/soap+xml; charset="utf-8"; action="http://example.com/a?b=c,d"',
        'application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"',
        'image/png; name="a; b.png"',
        "Text/Plain;Charset=UTF-8;",
        "application/vnd.a_b-c.d!e#f$g&h^i+json;v='1'",
    ],
)
def test_types_that_no_framework_takes_for_a_form_pass(text):
    assert parse_boundary(text) is None
    assert parse_boundary(text + " " * 8) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("text", "begin with one type/subtype"),
        ("/plain", "begin with one type/subtype"),
        ("text/", "begin with one type/subtype"),
        (";text/plain", "begin with one type/subtype"),
        ("text /plain", "begin with one type/subtype"),
        ("*/form-data", "begin with one type/subtype"),
        ("*", "begin with one type/subtype"),
        ("\xa0text/plain", "begin with one type/subtype"),
        ("text/*", "begin with one type/subtype"),
        ("text/plain*", "well-formed parameters"),
        ("text/plain/x", "well-formed parameters"),
        ("text/plain, text/html", "well-formed parameters"),
        ("text/plain text/html", "well-formed parameters"),
        ("text/plain;charset", "well-formed parameters"),
        ("text/plain;charset=", "well-formed parameters"),
        ("text/plain;charset =utf-8", "well-formed parameters"),
        ("text/plain;=utf-8", "well-formed parameters"),
        ("text/plain;name*=utf-8''a", "well-formed parameters"),
        ("text/plain;a=b,c", "well-formed parameters"),
        ('text/plain;a="b', "well-formed parameters"),
        ('text/plain;a="\x7f"', "well-formed parameters"),
        ('text/plain;a="\xe4"', "well-formed parameters"),
        ("text/plain\x00", "well-formed parameters"),
        ("text/plain\r\n;a=b", "well-formed parameters"),
        ("text/plain\x0b;a=b", "well-formed parameters"),
        ("text/pl\xe4in", "well-formed parameters"),
        ("text/plain;a=(b)", "no token"),
        ("text/plain;a=1;A=2", "twice"),
        ("text/plain;boundary=XX", "and is not multipart"),
        ("multipart/mixed;boundary=XX", "other than form-data"),
        ("MultiPart/byteranges", "other than form-data"),
        ("multipart-x/y", "other than form-data"),
        ("multipart/form-data2;boundary=XX", "other than form-data"),
        ('text/plain;a="b, Multipart/form-data"', "in its parameters"),
        ('text/plain;a="b, */form-data"', "in its parameters"),
        ("text/plain;a=*", "in its parameters"),
        ('text/plain;a="=?utf-8?q?b?="', "in its parameters"),
        ("x/multipart+form-data", "in its parameters"),
        ("text/plain;a=" + "b" * (MAX_CONTENT_TYPE - 12), "longer than 1024"),
        ("text/plain" + " " * 1015, "longer than 1024"),
    ],
)
def test_other_types_are_refused_and_the_rule_is_named(text, rule):
    with pytest.raises(MalformedTypeError, match=rule) as caught:
        parse_boundary(text)
    assert caught.value.reason is Reason.MALFORMED_MULTIPART


def test_a_type_may_be_as_long_as_the_limit():
    assert parse_boundary("text/plain;a=" + "b" * (MAX_CONTENT_TYPE - 13)) is None


@pytest.mark.parametrize(
    "text",
    [
        "a/b" + ";" * 1021,
        "a/b" + " ;" * 510 + "!",
        "a/b" + "; " * 510 + '"',
        "a/b;" + " " * 1019 + "=",
        "a/b" + ";a=b" * 255,
        'a/b;a="' + '"' * 1017,
    ],
)
def test_the_worst_types_take_microseconds(text):
    start = time.process_time()
    for _ in range(20):
        with suppress(MalformedTypeError):
            parse_boundary(text)
    assert time.process_time() - start < 1


@examples(300)
@given(st.text(st.characters(max_codepoint=0x100), max_size=40), st.booleans())
def test_no_text_raises_anything_else(text, well_begun):
    with suppress(MalformedTypeError):
        parse_boundary(f"text/plain{text}" if well_begun else text)


def test_the_error_quotes_nothing_of_the_client_s():
    """It goes to a log."""
    with pytest.raises(MalformedTypeError) as caught:
        parse_boundary("text/plain; hunter2=1; hunter2=2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image/png", "image/png"),
        ('text/plain; charset="utf-8"', 'text/plain; charset="utf-8"'),
        ('application/pdf; name="\xfc.pdf"', "application/pdf"),
        ("application/pdf ; name", "application/pdf"),
        ("a/b; c=" + "d" * 121, "a/b"),
        ("a/" + "b" * 126, "application/octet-stream"),
        ("; a=b", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_of_a_file_s_type_malformed_parameters_are_left_out(text, expected):
    assert type_of_file(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/json", "application/json"),
        ("text/plain; charset=ISO-8859-1", "text/plain; charset=ISO-8859-1"),
        ('text/plain;charset="koi8-r"; a=b', 'text/plain;charset="koi8-r"; a=b'),
        ('text/plain; charset=""', "text/plain"),
        *((f"text/plain; charset={name}", "text/plain") for name in ("rot13", "punycode", "utf-7", "utf-16")),
        ("Application/X-WWW-Form-URLencoded", ""),
        ("multipart/form-data; boundary=B", ""),
        ("multipart/mixed", ""),
        ("text/plain; boundary=B", ""),
        ("text/plain, text/html", ""),
        ("text/*", ""),
        ("text/plain; a", ""),
        ("text", ""),
        ("", ""),
    ],
)
def test_a_field_is_handed_on_with_a_type_that_no_framework_takes_for_a_form(text, expected):
    assert type_of_field(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("text/plain", None),
        ("text/plain; a=charset", None),
        ('text/plain;a="; charset=b"', None),
        ("text/plain; Charset=KOI8-R; a=b", "koi8-r"),
        (' multipart/form-data\t; boundary="a;b"; charset="UTF-8" ', "utf-8"),
    ],
)
def test_the_charset_of_a_type_is_told(text, expected):
    assert charset_of(text) == expected


def test_the_type_of_a_file_may_be_as_long_as_its_limit():
    assert MAX_MEDIA_TYPE == 127
    assert is_media_type("a/" + "b" * 125)
    assert not is_media_type("a/" + "b" * 126)
    assert not is_media_type(None)
    assert not is_media_type("a")
