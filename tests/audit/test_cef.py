"""CEF: a reader that knows only the escaping rules gets back what the record says."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exports import CHAIN, NASTY, full, kinds, leaves, odd_records, record, version_1

from securefs.audit.cef import SEVERITIES, to_cef
from securefs.audit.events import EVENTS
from securefs.errors import Reason

# Of the CEF dictionary: what is used here, and the greatest length where it has one.
KEYS = {
    "rt": None,
    "outcome": 63,
    "reason": 1023,
    "externalId": 40 + 20,
    "dvchost": 300,
    "dvcpid": None,
    "suser": 1023,
    "src": 15,
    "shost": 1023,
    "c6a2": 45,
    "requestMethod": 1023,
    "request": 1023,
    "fileId": 1023,
    "fname": 1023,
    "fsize": None,
    "out": None,
    "cn1": None,
    **{f"cs{number}": 4000 for number in range(1, 7)},
}
LABELS = re.compile(r"(?:cs[1-6]|cn1|c6a2)Label")


def read(line: str) -> tuple[list[str], dict[str, str]]:
    """Read a line by the rules of the format: an unescaped bar ends a field of the header."""
    header, rest = [], line
    for _ in range(7):
        match = re.match(r"((?:[^\\|]|\\.)*)\|", rest)
        header.append(re.sub(r"\\(.)", r"\1", match[1]))
        rest = rest[match.end() :]
    fields = {}
    escapes = {"n": "\n", "r": "\r"}
    for match in re.finditer(r"([a-zA-Z0-9]+)=((?:[^\\=]|\\.)*?)(?= [a-zA-Z0-9]+=|$)", rest):
        fields[match[1]] = re.sub(r"\\(.)", lambda each: escapes.get(each[1], each[1]), match[2])
    assert " ".join(f"{key}=" for key in fields) == " ".join(re.findall(r"(?:^|(?<= ))[a-zA-Z0-9]+=", rest))
    return header, fields


def check(line: str):
    assert line.isprintable()
    assert line.encode("utf-8").splitlines() == [line.encode("utf-8")]
    header, fields = read(line)
    assert len(header) == 7
    assert header[:3] == ["CEF:0", "securefs", "securefs"]
    assert 0 <= int(header[6]) <= 10
    for key, value in fields.items():
        assert key in KEYS or LABELS.fullmatch(key), key
        assert KEYS.get(key) is None or len(value) <= KEYS[key] or key == "cs6", key
    return header, fields


@pytest.mark.parametrize("event", EVENTS)
def test_every_outcome_and_reason_is_a_line(event):
    for kind in kinds():
        if kind[0] == event:
            header, fields = check(to_cef(full(*kind)))
            assert header[4:6] == [event, f"{event} {kind[1]}"]
            assert fields["outcome"] == kind[1]
            assert fields.get("reason") == (None if kind[2] is None else kind[2].value)
            check(to_cef(record(*kind)))


def test_records_with_odd_fields_are_lines():
    for each in odd_records():
        check(to_cef(each))


def visible(text):
    return "".join(c if c.isprintable() or c in "\n\r" else f"\\u{ord(c):04x}" for c in text)


def test_nothing_is_lost():
    for each in [*(full(*kind) for kind in kinds()), *odd_records()]:
        _, fields = read(to_cef(each))
        found = set(fields.values()) | {visible(text) for text in leaves(json.loads(fields["cs6"]))}
        told = {
            visible(text)
            for text in leaves({key: each[key] for key in each if key not in ("time", "chain", "seq")})
        }
        assert told - found - {"0.1.0", each["event"]} == set(), each["event"]
        assert (fields["externalId"], fields["rt"]) == (f"{CHAIN}:5", "1770000000123")


def test_severities_rise_as_ours_do():
    assert sorted(SEVERITIES) == [1, 2, 3, 4, 5]
    assert sorted(SEVERITIES.values()) == list(SEVERITIES.values())


def test_special_characters_are_escaped():
    line = to_cef(record("file.open", "success", obj={"name": NASTY}, actor="a=b|c\\d\ne"))
    assert r"suser=a\=b|c\\d\ne " in line
    assert r"\\u202e" in line
    _, fields = check(line)
    assert fields["suser"] == "a=b|c\\d\ne"
    assert fields["fname"].startswith('r\u00e9sum\u00e9 =|\\ "\n\r\\u0009\\u202e\\u2028\\u001b[31m\\ud800')


def test_the_header_has_no_line_end():
    odd = version_1() | {"host": {"name": "h", "pid": 1, "version": "1|2\\3\n=4"}}
    line = to_cef(odd)
    assert r"|1\|2\\3\\u000a=4|" in line
    header, _ = check(line)
    assert header[3] == r"1|2\3\u000a=4"


def test_addresses_have_a_key_of_their_version():
    assert (
        check(to_cef(full("auth.denied", "failure", Reason.LIMIT, address="192.0.2.7")))[1]["src"]
        == "192.0.2.7"
    )
    fields = check(to_cef(version_1()))[1]
    assert (fields["c6a2"], fields["c6a2Label"]) == ("2001:db8::7", "Source IPv6 Address")
    assert (
        check(to_cef(full("auth.denied", "failure", address="2001:db8::/64")))[1]["shost"] == "2001:db8::/64"
    )


@given(name=st.text(max_size=200), actor=st.text(max_size=200), path=st.text(max_size=60))
def test_any_text_can_be_read_back(name, actor, path):
    http = {"method": "GET", "path": "/" + path}
    line = to_cef(record("file.open", "success", obj={"name": name or "-"}, actor=actor or "-", http=http))
    _, fields = check(line)
    assert fields["fname"] == visible(name or "-")
    assert fields["suser"] == visible(actor or "-")
    assert fields["request"] == visible("/" + path)
