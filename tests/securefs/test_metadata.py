from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from second_decryptor import Rejected, open_format_2
from support.fuzzing import examples
from support.sealing import KEY, PRIMITIVES, RING, read_all, seal, stream_all

from securefs import ConfigurationError, Encryptor, FormatError, Reason
from securefs.metadata import MAX_DEPTH, MAX_NUMBER, MAX_TEXT, decode_metadata, encode_metadata


def nested(levels: int) -> bytes:
    """A text of so many levels, the outermost object among them."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


TAKEN = {
    "empty object": b"{}",
    "white space": b' \t\r\n{ "a" : 1 }\n',
    "escapes": rb'{"a":"\u00e9\n\ud83d\ude00\/"}',
    "an escaped backslash before a u": rb'{"a":"\\ud800"}',
    "non-characters": '{"a":"\uffff\U0010ffff"}'.encode(),
    "brackets in a string": b'{"a":"' + b"[" * 100 + b'\\"]"}',
    "the deepest": nested(MAX_DEPTH),
    "the deepest twice": b'{"a":' + nested(MAX_DEPTH - 1) + b',"b":' + nested(MAX_DEPTH - 1) + b"}",
    "the longest number": b'{"a":' + b"7" * MAX_NUMBER + b"}",
    "the largest number": b'{"a":1.7976931348623157e308,"b":-0,"c":1E-999}',
    "a name in two objects": b'{"a":{"a":1},"b":{"a":2}}',
    "literals": b'{"a":[true,false,null]}',
}
REFUSED = {
    "no bytes": b"",
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32-be"),
    "latin-1": '{"a":"ä"}'.encode("latin-1"),
    "an overlong byte": b'{"a":"\xc0\xaf"}',
    "a surrogate as bytes": b'{"a":"\xed\xa0\x80"}',
    "half a pair": rb'{"a":"\ud800"}',
    "the other half": rb'{"a":"\uDC00"}',
    "halves in the wrong order": rb'{"a":"\ude00\ud83d"}',
    "half a pair in a name": rb'{"\ud800":1}',
    "a list": b"[1]",
    "text": b'"a"',
    "null": b"null",
    "a number": b"1",
    "two objects": b"{}{}",
    "a tail": b"{}\0",
    "another white space": b"\x0b{}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "beyond a double": b'{"a":1e309}',
    "a long integer": b'{"a":' + b"7" * (MAX_NUMBER + 1) + b"}",
    "a long fraction": b'{"a":0.' + b"0" * MAX_NUMBER + b"}",
    "a huge integer": b'{"a":' + b"1" * 60_000 + b"}",
    "a leading zero": b'{"a":01}',
    "a plus": b'{"a":+1}',
    "a name twice": b'{"a":1,"a":1}',
    "a name twice, spelled otherwise": rb'{"a":1,"\u0061":2}',
    "a name twice inside": b'{"b":[{"a":1,"a":1}]}',
    "single quotes": b"{'a':1}",
    "a comma at the end": b'{"a":1,}',
    "a comment": b'{"a":1}/**/',
    "a control character": b'{"a":"\x01"}',
    "a line end in a string": b'{"a":"\n"}',
    "too deep": nested(MAX_DEPTH + 1),
    "too deep behind a string": b'{"b":"\\"]]]]","a":' + nested(MAX_DEPTH) + b"}",
    "as deep as a stack": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "open for ever": b"[" * 60_000,
    "a string without an end": b'{"a":"' + b"[" * 1000,
    "a backslash at the end": b'{"a":"\\',
    # Each took a minute where every quote began a search for the end of its string.
    "escaped quotes without an end": b'{"a":"' + b'\\"' * 32_700,
    "quotes without an end": b'{"a":' + b'"' * 65_001,
    "backslashes without an end": b'{"a":"' + b"\\" * 65_001,
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_what_the_format_allows_is_read_alike_by_all(text):
    expected = json.loads(text)
    assert decode_metadata(text) == expected
    data = seal(b"x", metadata_text=text)
    assert (read_all(data), stream_all(data)) == (b"x", b"x")
    assert open_format_2(data, [KEY]) == (b"x", expected)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_any_other_spelling_is_refused_by_all_though_its_tag_is_good(text):
    with pytest.raises(FormatError, match="not a JSON object") as caught:
        decode_metadata(text)
    assert caught.value.reason is Reason.BAD_HEADER
    if text:  # none is no metadata
        data = seal(b"x", metadata_text=text)
        for reader in (read_all, stream_all):
            with pytest.raises(FormatError, match="not a JSON object"):
                reader(data)
        with pytest.raises(Rejected):
            open_format_2(data, [KEY])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@examples(300)
@given(metadata=st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_written_is_read(metadata):
    assert decode_metadata(encode_metadata(metadata) or b"{}") == metadata


@examples(500)
@given(
    text=st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u dD8c019.eE-+\n', max_size=40).map(str.encode)
)
def test_any_bytes_are_read_or_refused_alike_in_the_second_decryptor(text):
    data = seal(b"x", metadata_text=b" " + text)
    try:
        expected = decode_metadata(b" " + text)
    except FormatError:
        with pytest.raises(Rejected):
            open_format_2(data, [KEY])
    else:
        assert open_format_2(data, [KEY])[1] == expected


def test_metadata_is_compact_utf_8():
    assert encode_metadata({"name": "ä", "n": 1}) == '{"name":"ä","n":1}'.encode()
    assert encode_metadata({}) == b""


def lists(levels: int) -> object:
    inner: object = 0
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param({"a": lists(MAX_DEPTH)}, "32 levels", id="too deep"),
        pytest.param({"a": lists(100_000)}, "JSON values", id="as deep as a stack"),
        pytest.param({"a": 10**MAX_NUMBER}, "64 characters", id="a long integer"),
        pytest.param({"a": float("nan")}, "JSON values", id="NaN"),
        pytest.param({"a": "\ud800"}, "JSON values", id="half a pair"),
        pytest.param({1: "a", "1": "b"}, "occurs twice", id="two names that are one in JSON"),
        pytest.param({"a": b"bytes"}, "JSON values", id="bytes"),
        pytest.param({"a": "x" * MAX_TEXT}, "65528 bytes", id="too long"),
    ],
)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_what_no_reader_would_take_is_not_written(metadata, message, primitives):
    with pytest.raises(ConfigurationError, match=message):
        Encryptor(RING, metadata=metadata, primitives=primitives)


def test_the_longest_and_the_deepest_are_written_and_read():
    for metadata in ({"a": "x" * (MAX_TEXT - 8)}, {"a": lists(MAX_DEPTH - 1)}):
        encryptor = Encryptor(RING, metadata=metadata)
        data = encryptor.update(b"x") + encryptor.finalize()
        assert open_format_2(data, [KEY]) == (b"x", metadata)
