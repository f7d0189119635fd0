"""Metadata texts: what the format allows, what it does not, and random ones from a grammar.

The format allows one RFC 8259 object in UTF-8 without byte order mark, with distinct names in each
object, no NaN or Infinity, surrogate escapes only in pairs, at most 32 levels of nesting, and
numbers of at most 64 characters that are finite as IEEE doubles.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torture.dice import Dice


def nested(levels: int, inner: str = "", opening: str = "[") -> bytes:
    """Return an object that is nested ``levels`` deep, the object itself included."""
    if opening == "[":
        return ('{"a":' + "[" * (levels - 1) + inner + "]" * (levels - 1) + "}").encode()
    return ('{"a":' * (levels - 1) + "{" + inner + "}" * levels).encode()


_GOOD = (
    b"{}",
    b" {}",
    b"{}\n",
    b"\t{ \r\n} ",
    b'{"name":"a","type":"b/c"}',
    b'{"":""}',
    '{"name":"Übersicht 😀.pdf"}'.encode(),
    b'{"name":"\\ud83d\\ude00","\\uD83D\\uDE00":1}',
    b'{"a":"\\u0000\\u001f\\"\\\\\\/\\b\\f\\n\\r\\t"}',
    b'{"a":"\x7f"}',
    '{"a":"\ufeff\u2028\u00a0","\ufdd0":"\U0010ffff\uffff"}'.encode(),
    b'{"a":"\\ufeff\\uffff"}',
    b'{"a":1,"A":2,"\\u00e4":3,"a\\u0308":4}',
    b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}',
    b'{"a":[0,-0,-0.0,0.0,0e0,0E+0,-0e-9,1,-1,1.5,1e5,1E+5,1e-5]}',
    b'{"a":[true,false,null]}',
    b'{"a":1.7976931348623157e308,"b":-1.7976931348623157e308,"c":5e-324,"d":1e-400}',
    b'{"a":9007199254740993,"b":18446744073709551616}',
    b'{"a":' + b"9" * 64 + b"}",
    b'{"a":-' + b"9" * 63 + b"}",
    b'{"a":0.' + b"1" * 62 + b"}",
    b'{"a":1' + b"0" * 59 + b"E248}",  # 10 to the power of 307
    b'{"a":"' + b"9" * 65 + b'"}',
    b'{"a":"' + b"[" * 40 + b'"}',
    b'{"a":"\\"' + b"{" * 40 + b'\\\\"}',
    b'{"' + b"[" * 40 + b'":[]}',
    b'{"a":"NaN","Infinity":"-Infinity"}',
    nested(32),
    nested(32, "1"),
    nested(32, opening="{"),
    b'{"a":' + nested(31) + b',"b":' + nested(31, opening="{") + b"}",
    b'{"a":"' + b"x" * 65_512 + b'"}',
    b'{"a":[' + b"[]," * 2000 + b"[]]}",
)
GOOD = tuple((text, json.loads(text)) for text in _GOOD)

_OBJECT = '{"name":"a\u00fc"}'
BAD = (
    # Encodings.
    b"\xef\xbb\xbf{}",
    b"{}\xef\xbb\xbf",
    *(_OBJECT.encode(name) for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")),
    *('{"name":"a"}'.encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")),
    _OBJECT.encode("latin-1"),
    b"\xfe\xff{}",
    b'{"a":"\xc0\x80"}',
    b'{"a":"\xc1\xbf"}',
    b'{"a":"\xe0\x80\xaf"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}',
    b'{"a":"\xf4\x90\x80\x80"}',
    b'{"a":"\xf8\x88\x80\x80\x80"}',
    b'{"a":"\xff"}',
    b'{"a":"\xc3"}',
    b'{"a":"\x80"}',
    # Surrogates.
    b'{"a":"\\ud800"}',
    b'{"a":"\\udfff"}',
    b'{"\\ud83d":1}',
    b'{"a":"\\ude00\\ud83d"}',
    b'{"a":"\\ud83d\\ud83d\\ude00"}',
    b'{"a":"\\ud83d\\ude00\\ude00"}',
    b'{"a":"\\ud83dx\\ude00"}',
    b'{"a":"\\ud83d\\\\ude00"}',
    b'{"a":["\\uDBFF"]}',
    # Names.
    b'{"a":1,"a":1}',
    b'{"a":1,"b":2,"a":3}',
    b'{"a":1,"\\u0061":2}',
    b'{"":1,"":2}',
    b'{"a":{"b":1,"b":2}}',
    b'{"a":[{"b":1,"b":2}]}',
    b'{"/":1,"\\/":2}',
    '{"ü":1,"\\u00fc":2}'.encode(),
    b'{"a":{},"a":{}}',
    # Numbers.
    *(b'{"a":' + text + b"}" for text in (b"NaN", b"Infinity", b"-Infinity", b"-NaN", b"nan", b"inf", b"1e999", b"-1e999")),
    *(b'{"a":' + text + b"}" for text in (b"01", b"-01", b"+1", b".5", b"5.", b"1.e5", b"1e", b"1e+", b"-", b"0x10", b"1_000")),
    *(b'{"a":' + text + b"}" for text in (b"1.7976931348623159e308", b"1e309", b"00", b"--1", b"1 2", b"1e1.5", b"\xd9\xa1")),
    b'{"a":' + b"9" * 65 + b"}",
    b'{"a":-' + b"9" * 64 + b"}",
    b'{"a":' + b"9" * 400 + b"}",
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":0.' + b"1" * 63 + b"}",
    b'{"a":1e' + b"0" * 62 + b"1}",
    b'{"a":1' + b"0" * 60 + b"E249}",
    # Nesting.
    nested(33),
    nested(33, "1"),
    nested(33, opening="{"),
    nested(34),
    nested(1000),
    nested(32_000),
    nested(10_000, opening="{"),
    b'{"a":' + b"[" * 65_000,
    b'{"a":"' + b'\\"' * 32_700,
    b'{"a":"' + b"\\" * 65_001,
    b'"' * 65_001,
    b'{"a":"]]]]","b":' + nested(32) + b"}",
    # Not an object, or more than one.
    *(b"[]", b"[{}]", b"1", b'"a"', b"null", b"true", b"NaN", b" ", b"\0", b"{", b"}", b"a", b"[" * 60_000, b"{}{}", b"{},", b"{};"),
    *(b"{}\0", b"\0{}", b"{}a", b"{} //", b"/**/{}", b"{}\x0b", b"\x0c{}", b"\xc2\xa0{}", b"{}\xe2\x80\xa8", b"{}\x1a", b"({})"),
    # Spelled otherwise.
    *(b"{'a':1}", b"{a:1}", b'{"a":1,}', b'{,"a":1}', b'{"a":[1,]}', b'{"a":[,1]}', b'{"a" 1}', b'{"a":}', b'{"a"}', b"{1:2}"),
    *(b'{"a":1 "b":2}', b'{"a":1;"b":2}', b'{"a"=1}', b"{null:1}", b'{"a":True}', b'{"a":None}', b'{"a":undefined}', b'{"a":TRUE}'),
    *(b'{"a":"\x00"}', b'{"a":"\x1f"}', b'{"a":"\n"}', b'{"a":"\t"}', b'{"a":"\\x41"}', b'{"a":"\\\'"}', b'{"a":"\\u12"}'),
    *(b'{"a":"\\u12G4"}', b'{"a":"\\u+123"}', b'{"a":"\\u 123"}', b'{"a":"\\u0x1"}', b'{"a":"\\U0041"}', b'{"a":"\\"}', b'{"a":"b}'),
    *(b'{"a":"\\\n"}', b'{"a":"\\0"}', b'{"a":"\\v"}', b'{"a":"\\u1_23"}', b'{"a":`b`}', b'{"a":1/*b*/}', b"{\"a\":'b'}"),
)  # fmt: skip


def any_text(dice: Dice) -> bytes:
    """Return a JSON object or something close to one."""
    text = _object(dice, dice.pick([1, 2, 3, 4])).encode("utf-8", "surrogatepass")
    if dice.one_in(8):
        levels = dice.between(28, 36)
        text = nested(levels, "", dice.pick(["[", "{"]))[:-1] + b',"b":' + text + b"}"
    for _ in range(dice.pick([0, 0, 1, 1, 2])):
        text = _damaged(dice, text)
    return text[:65_520] or b"{"


def _object(dice: Dice, depth: int) -> str:
    members = (f"{_string(dice)}{_space(dice)}:{_value(dice, depth - 1)}" for _ in range(dice.below(4)))
    return f"{_space(dice)}{{{_space(dice)}{','.join(members)}}}{_space(dice)}"


def _value(dice: Dice, depth: int) -> str:
    kind = dice.below(8)
    if kind < 2 and depth > 0:
        return _object(dice, depth)
    if kind < 4 and depth > 0:
        return f"[{','.join(_value(dice, depth - 1) for _ in range(dice.below(4)))}]"
    if kind < 6:
        return _number(dice)
    return (
        _string(dice)
        if kind == 6
        else dice.pick(["true", "false", "null", "NaN", "-Infinity"] if dice.one_in(6) else ["true", "null"])
    )


def _space(dice: Dice) -> str:
    return dice.pick(["", "", "", "", " ", "\n", "\t", "\r\n", "\u00a0" if dice.one_in(8) else ""])


def _number(dice: Dice) -> str:
    digits = str(dice.below(10 ** dice.between(1, 9)))
    whole = digits if dice.below(5) else digits * dice.between(1, 8)
    sign = dice.pick(["", "", "-", "+" if dice.one_in(9) else ""])
    fraction = dice.pick(["", "", "", f".{digits}", f".{digits * 8}", "." if dice.one_in(9) else ""])
    exponent = dice.pick(["", "", "", f"e{dice.below(20)}", f"E+{dice.below(400)}", f"e-{dice.below(400)}"])
    return f"{sign}{whole if dice.below(12) else '0' + whole}{fraction}{exponent}"


PIECES = (
    *"abz09 _./{}[]:,'",
    *(
        "a",
        "name",
        "type",
        "\\u0061",
        "\\n",
        '\\"',
        "\\\\",
        "\\/",
        "\\ud83d\\ude00",
        "\\u00e4",
        "ä",
        "😀",
        "\\u0000",
        "\u2028",
        "\x7f",
    ),
)
ODD_PIECES = ("\\ud83d", "\\ude00", "\ud83d", "\\x41", "\\u12", "\n", "\x00", '"', "\\", "\ufeff")


def _string(dice: Dice) -> str:
    if dice.below(3):
        return dice.pick(['"a"', '"b"', '"name"', '"\\u0061"', '""'])
    pieces = [dice.pick(ODD_PIECES if dice.one_in(20) else PIECES) for _ in range(dice.below(6))]
    return f'"{"".join(pieces)}"'


def _damaged(dice: Dice, text: bytes) -> bytes:
    at, other = dice.below(len(text) + 1), dice.below(len(text) + 1)
    token = dice.pick([*(bytes([byte]) for byte in b'{}[]"\\,:0e-.\0'), b"\xef\xbb\xbf", dice.bytes(1)])
    changed = bytes([text[at - 1] ^ 1 << dice.below(8)]) if at else b""
    ways = (
        text[:at],
        text[:at] + text[at + 1 :],
        text[:at] + text[other:],
        text[:at] + token + text[at:],
        text[: at - 1] + changed + text[at:] if at else token + text,
        text + dice.pick([b"{}", b"\n", b" ", b"\0", b"x"]),
        dice.pick([b"\xef\xbb\xbf", b" ", b"\0", b"["]) + text,
    )
    return dice.pick(ways)
