"""Odd Content-Types: edits of real ones, and mutations, always the same ones for a seed.

Each is what a server would put into the environ for one request: a type, none, or two of them.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Without letters: a mutation of the case leaves it as it is.
BOUNDARY = "00"

FORMS = [
    f"multipart/form-data; boundary={BOUNDARY}",
    f'multipart/form-data;boundary="{BOUNDARY}"',
    f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
    f"Multipart/Form-Data; BOUNDARY={BOUNDARY}; charset=UTF-8",
]
OTHERS = [
    "text/plain",
    "text/plain; charset=utf-8",
    "application/json",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    'application/soap+xml; charset="utf-8"; action="http://example.com/a,b;c"',
    'application/vnd.api+json; ext="https://example.com/ext"',
    "image/svg+xml",
    "message/http; version=1.1",
    f"multipart/mixed; boundary={BOUNDARY}",
    f'multipart/related; type="text/xml"; boundary={BOUNDARY}',
    f"multipart/x-mixed-replace;boundary={BOUNDARY}",
]
SPACES = [" ", "\t", "\v", "\f", "\r", "\n", "\r\n ", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0"]
MARKS = [*",;\"\\/=*?'()<>@:+.%&#|", "\0", "\x7f", "\xe4", "\xff", "\xad", '\\"', "''", ";;", "/*", "*/"]
PARAMETERS = [
    f"boundary={BOUNDARY}",
    f'boundary="{BOUNDARY}"',
    "boundary=11",
    "boundary",
    "boundary=",
    f"boundary*=utf-8''{BOUNDARY}",
    f"boundary*0={BOUNDARY}",
    "boundary*0=0; boundary*1=0",
    "charset=utf-16",
    "charset=utf-7",
    "charset=iso-8859-1",
    "charset=unknown",
    "charset*=utf-8'en'utf-8",
    "q=0.5",
    "q=1",
    "a=b",
    "A=c",
    'a="b, c"',
    'a="b\\"; c"',
    "name*=utf-8''a",
    'a=",*/form-data;b=c"',
    f'a=", multipart/form-data; boundary={BOUNDARY}"',
    f'a="\\"; boundary={BOUNDARY}; b=", multipart/form-data; c="',
    f'a="=?utf-8?q?=22=2C_multipart/form-data=3B_boundary=3D{BOUNDARY}?="',
    "a=" + "b" * 300,
    "x=y; " * 20 + "z=z",
]
JOINTS = [",", ", ", " , ", ";", "; ", " ", "\r\n", "/", "+"]
# Of these, types are made that are well-formed, or nearly so.
HALVES = ["text", "plain", "application", "json", "multi.part", "form-data", "x-www-form-urlencoded", "a"]
HALVES += [
    "mixed",
    "multipar",
    "x+form-data",
    "!#$%&'^`|~",
    "octet-stream",
    "MULTIPART",
    "multipart",
    "*",
    "**",
]
NAMES = ["a", "A", "b", "charset", "boundary", "Boundary", "boundary*", "q", "version", "type", "boundaryx"]
VALUES = ["b", "utf-8", "utf-16", BOUNDARY, f'"{BOUNDARY}"', '""', "1", "0.5", '"a b"', '"a;b"', '"a, b"']
VALUES += [
    '"multipart/form-data"',
    '", */*"',
    f'"; boundary={BOUNDARY}"',
    '"=?utf-8?q?a?="',
    "multipart",
    "*",
]
VALUES += [f'", multipart/form-data; boundary={BOUNDARY}"', "'b'", '"\\""', '"\t"', '",b/c"', '"=", "=']
AFFIXES = ["+xml", "2", "-x", ".y", "x-", "x/", "multipart", "form-data", "/form-data", "*", "application/x-"]


@dataclass(frozen=True)
class Odd:
    """The environ of one request, as far as it tells a type."""

    environ: dict[str, str]

    def __str__(self) -> str:
        return repr(self.environ)


def odd_types(seed: int, count: int) -> list[Odd]:
    """Return real types, none, every simple edit of a form's type, and ``count`` mutations."""
    chance = Random(seed)
    texts = ["", " ", "\t", *FORMS, *OTHERS, *_edits()]
    return [Odd({}), *(Odd({"CONTENT_TYPE": text}) for text in texts), *(_odd(chance) for _ in range(count))]


def _edits() -> Iterator[str]:
    """Yield each half beside each, each second type, each parameter, and each character at each seam."""
    end = f"; boundary={BOUNDARY}"
    for first, second in product(["multipart", "*", "", "text", "x"], ["form-data", "*", "", "plain", "x"]):
        yield f"{first}/{second}{end}"
    for joint, other in product(JOINTS, ["text/plain", "multipart", "*/form-data", "multipart/form-data"]):
        yield f"text/plain{joint}{other}{end}"
        yield f"{other}{joint}text/plain{end}"
    for parameter, name in product(PARAMETERS, ["text/plain", "multipart/form-data", f"text/plain{end}"]):
        yield f"{name}; {parameter}"
    for mark, seams in product([*SPACES, *MARKS], (("", "", "x"), ("x", "", ""), ("", "x", ""))):
        before, within, behind = (mark if seam else "" for seam in seams)
        yield f"{before}multipart{within}/form-data{behind}{end}"


def _odd(chance: Random) -> Odd:
    if chance.random() < 0.3:
        return Odd({"CONTENT_TYPE": _composed(chance)})
    text = chance.choice(FORMS if chance.random() < 0.5 else OTHERS)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
        text = chance.choice(MUTATIONS)(chance, text)
    if chance.random() < 0.06:
        # A header whose name has an underscore, beside another type or none.
        return Odd({"HTTP_CONTENT_TYPE": text} | chance.choice(({}, {"CONTENT_TYPE": chance.choice(OTHERS)})))
    return Odd({"CONTENT_TYPE": text})


def _composed(chance: Random) -> str:
    """Return a type of odd halves with odd parameters, most of them well-formed."""
    name = chance.choice([f"{chance.choice(HALVES)}/{chance.choice(HALVES)}", "multipart/form-data"])
    count = chance.choice((0, 1, 1, 2, 2, 3))
    parameters = [f"{name}={chance.choice(VALUES)}" for name in chance.sample(NAMES, count)]
    return "".join([name, *(chance.choice(("; ", ";", " ; ", ";;", "\t;\t")) + p for p in parameters)])


def _anywhere(chance: Random, text: str) -> int:
    """Return a position in ``text``: any, or one beside a mark."""
    beside = [n + k for n, character in enumerate(text) if not character.isalnum() for k in (0, 1)]
    return chance.choice(
        [0, len(text), chance.randint(0, len(text)), *chance.sample(beside, min(4, len(beside)))]
    )


def _insert(scraps):
    def mutate(chance: Random, text: str) -> str:
        position = _anywhere(chance, text)
        return text[:position] + chance.choice(scraps) + text[position:]

    return mutate


def _case(chance: Random, text: str) -> str:
    return "".join(chance.choice((c.upper(), c.lower())) for c in text)


def _parameter(chance: Random, text: str) -> str:
    name, semicolon, rest = text.partition(";")
    added = chance.choice(PARAMETERS)
    return f"{name};{added}{semicolon}{rest}" if chance.random() < 0.5 else f"{text}; {added}"


def _join(chance: Random, text: str) -> str:
    both = [text, chance.choice([*FORMS, *OTHERS, "multipart", "*", "*/*", "*/form-data", ""])]
    chance.shuffle(both)
    return chance.choice(JOINTS).join(both)


def _half(chance: Random, text: str) -> str:
    """Exchange the type or the subtype for another, or for nothing."""
    name, semicolon, rest = text.partition(";")
    halves = [*name.split("/", 1), ""][:2]
    halves[chance.randrange(2)] = chance.choice(["*", "", "multipart", "form-data", "x", "Multipart", "**"])
    return chance.choice(["/", "/", "/", "", " / "]).join(halves) + semicolon + rest


def _affix(chance: Random, text: str) -> str:
    name, semicolon, rest = text.partition(";")
    affix = chance.choice(AFFIXES)
    return (affix + name if chance.random() < 0.5 else name + affix) + semicolon + rest


def _cut(chance: Random, text: str) -> str:
    position = _anywhere(chance, text)
    return text[:position] + text[position + chance.randint(1, 4) :]


def _quote(chance: Random, text: str) -> str:
    """Put a piece between quotation marks."""
    start, end = sorted((_anywhere(chance, text), _anywhere(chance, text)))
    return f'{text[:start]}"{text[start:end]}"{text[end:]}'


def _encode(chance: Random, text: str) -> str:
    """Encode a piece: RFC 2047 in its two ways, or percent signs."""
    start, end = chance.choice(
        [(0, len(text)), tuple(sorted((_anywhere(chance, text), _anywhere(chance, text))))]
    )
    piece = text[start:end].encode("latin-1")
    word = "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"={byte:02X}" for byte in piece)
    coded = chance.choice(
        [
            f"=?utf-8?q?{word}?=",
            f"=?iso-8859-1?B?{b64encode(piece).decode()}?=",
            "".join(f"%{byte:02x}" for byte in piece),
        ]
    )
    return text[:start] + coded + text[end:]


def _twice(chance: Random, text: str) -> str:
    return text + chance.choice(JOINTS) + text


MUTATIONS = [
    _case,
    _insert(SPACES),
    _insert(SPACES),
    _insert(MARKS),
    _insert(MARKS),
    _insert(["*", ",", ";", '"', ", multipart/form-data", ",multipart", ",*/*"]),
    _parameter,
    _parameter,
    _join,
    _half,
    _half,
    _affix,
    _cut,
    _quote,
    _encode,
    _twice,
]
