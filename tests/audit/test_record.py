"""One record as bytes."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefs.audit.events import EVENTS, MEMBERS
from securefs.audit.fields import LAYOUTS, LONGEST_LINE, MAX_INT, MAX_LINE, MAX_RUNS, check
from securefs.audit.record import (
    NO_LINE,
    Entry,
    Position,
    RecordError,
    Source,
    build_line,
    line_hash,
    parse_line,
)
from securefs.audit.verify_chain import ChainVerifier
from securefs.errors import Reason

CHAIN = "0123456789abcdef" * 2
TIME = 1_795_461_300_123_456_789
SOURCE = Source(host="files-1", pid=4711, version="0.1.0", boot="b0071d")
FULL = Entry(
    event="file.integrity_failure",
    outcome="failure",
    reason=Reason.TAG_MISMATCH,
    obj={"id": "ab" * 32, "segment": 3, "size": 70_000, "name": "r\u00e9sum\u00e9\n.pdf"},
    actor="alice",
    request_id="req-1",
    address="192.0.2.7",
    http={"method": "GET", "path": "/f/1", "status": 500},
    peer="192.0.2.1",
    client_request_id="theirs",
)
GOLDEN = (
    b'{"actor":{"id":"alice"},"chain":"0123456789abcdef0123456789abcdef",'
    b'"client":{"addr":"192.0.2.7","peer":"192.0.2.1"},"client_req":"theirs","event":"file.integrity_failure",'
    b'"host":{"boot":"b0071d","name":"files-1","pid":4711,"version":"0.1.0"},'
    b'"http":{"method":"GET","path":"/f/1","status":500},'
    b'"obj":{"id":"abababababababababababababababababababababababababababababababab",'
    b'"name":"r\\u00e9sum\\u00e9\\n.pdf","segment":3,"size":70000},'
    b'"outcome":"failure","prev":"0000000000000000000000000000000000000000000000000000000000000000",'
    b'"reason":"tag_mismatch","req":"req-1","seq":0,"sev":4,'
    b'"time":"2026-11-23T19:15:00.123456789Z","v":2}\n'
)
SEAL = {"index": 0, "key": "ab" * 32, "next": "cd" * 32, "runs": [["0" * 32, 0, 4]], "size": 5}
# As 0.1 wrote it.
VERSION_1 = (
    b'{"actor":{"id":"alice"},"chain":"0123456789abcdef0123456789abcdef","event":"file.integrity_failure",'
    b'"http":{"method":"GET","path":"/f/1","status":500},'
    b'"obj":{"id":"abababababababababababababababababababababababababababababababab",'
    b'"name":"r\\u00e9sum\\u00e9\\n.pdf","segment":3,"size":70000},'
    b'"outcome":"failure","prev":"0000000000000000000000000000000000000000000000000000000000000000",'
    b'"reason":"tag_mismatch","req":"req-1","seq":0,"sev":4,'
    b'"src":{"addr":"192.0.2.7","host":"files-1","pid":4711,"version":"0.1.0"},'
    b'"time":"2026-11-23T19:15:00.123456789Z","v":1}'
)
MINIMAL = build_line(Position(CHAIN), SOURCE, TIME, Entry("key.use"))[:-1]


def build(entry):
    return build_line(Position(CHAIN), SOURCE, TIME, entry)


def changed(**fields):
    """The minimal record with other fields (None: without), spelled canonically."""
    record = {**json.loads(MINIMAL), **fields}
    record = {key: value for key, value in record.items() if value is not None}
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def test_golden_line():
    assert build(FULL) == GOLDEN


def test_golden_hash():
    """The hash is part of the format: SHA-256 over a zero byte and the line without its end."""
    assert line_hash(b"abc") == "609f6e36d2405585188d5cfd761f407c7cc46a7d3f314c88270469dde315fcd1"


def test_optional_fields_are_left_out():
    assert json.loads(MINIMAL).keys() == {
        "v", "time", "seq", "chain", "prev", "event", "outcome", "sev", "host",
    }  # fmt: skip


def test_position_is_written():
    line = build_line(Position(CHAIN, 7, "ef" * 32), SOURCE, TIME, Entry("key.use"))
    assert parse_line(line[:-1])["seq"] == 7
    assert parse_line(line[:-1])["prev"] == "ef" * 32


hostile = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from('\n\r\x00\x1b\x7f\x85\u2028\u2029\u202e"\\'),
        st.integers(0xD800, 0xDFFF).map(chr),  # halves of surrogate pairs, alone and together
    ),
    max_size=600,
)
PRINTABLE = set(string.printable.encode()) - set(b"\t\n\r\x0b\x0c")


def joined_of(text):
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@given(name=hostile, path=hostile, actor=hostile, request=hostile)
def test_hostile_strings_give_one_ascii_line_that_is_accepted(name, path, actor, request):
    line = build(
        Entry(
            "file.encrypt",
            obj={"name": name},
            http={"path": path},
            actor=actor,
            request_id=request,
            address=name,
            client_request_id=path,
        )
    )
    assert line.endswith(b"\n")
    assert set(line[:-1]) <= PRINTABLE
    record = parse_line(line[:-1])
    joined = joined_of(name)
    assert record["obj"]["name"] == joined[:256]
    assert record["obj"].get("name_len", len(joined)) == len(joined)
    assert record["client_req"] == joined_of(path)[:256]
    assert record.keys() <= json.loads(GOLDEN).keys() | {"req_len", "client_req_len"}


@pytest.mark.parametrize(
    ("length", "members"),
    [
        pytest.param(256, {"name": "x" * 256}, id="at-limit"),
        pytest.param(257, {"name": "x" * 256, "name_len": 257}, id="one-over"),
        pytest.param(1_000_000, {"name": "x" * 256, "name_len": 1_000_000}, id="one-megabyte"),
    ],
)
def test_long_strings_are_cut_with_their_length_beside(length, members):
    assert parse_line(build(Entry("file.encrypt", obj={"name": "x" * length}))[:-1])["obj"] == members


@pytest.mark.parametrize(
    ("count", "members"),
    [
        pytest.param(200, {"name": "\U0001f600" * 200}, id="not-cut"),
        pytest.param(300, {"name": "\U0001f600" * 256, "name_len": 300}, id="cut"),
    ],
)
def test_halves_of_a_pair_are_counted_as_the_character_that_a_reader_sees(count, members):
    assert (
        parse_line(build(Entry("file.encrypt", obj={"name": "\ud83d\ude00" * count}))[:-1])["obj"] == members
    )


def test_long_request_id_is_cut():
    record = parse_line(build(Entry("key.use", request_id="r" * 300))[:-1])
    assert (record["req"], record["req_len"]) == ("r" * 256, 300)


@pytest.mark.parametrize("event", EVENTS)
def test_longest_record_fits(event):
    """Every string at its longest and of the widest escape: still shorter than what the verifier takes."""
    wide = "\U0001f600" * 1000
    obj = {member: wide if MEMBERS[member] is str else MAX_INT for member in EVENTS[event].members}
    http = {"method": wide, "path": wide, "status": MAX_INT}
    outcome = min(EVENTS[event].severity)
    reason = Reason.CIPHERTEXT_INJECTION if outcome == "failure" else None
    runs = [[CHAIN, MAX_INT, MAX_INT]] * MAX_RUNS
    entry = Entry(event, outcome, reason, obj, wide, wide, wide, http, wide, wide)
    if event == "audit.seal":  # of no client
        entry = Entry(event, seal=SEAL | {"index": MAX_INT, "runs": runs, "size": MAX_INT})
    line = build_line(Position(CHAIN, MAX_INT, NO_LINE), Source(wide, MAX_INT, wide, wide), TIME, entry)
    assert len(line) <= MAX_LINE
    parse_line(line[:-1])


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(Entry("file.shred"), id="event"),
        pytest.param(Entry(["file.encrypt"]), id="event-type"),
        pytest.param(Entry("key.use", "maybe"), id="outcome"),
        pytest.param(Entry("file.encrypt", ["success"]), id="outcome-type"),
        pytest.param(Entry("file.rejected", "success"), id="outcome-of-another-event"),
        pytest.param(Entry("file.rejected", "failure", obj={"slot": 1}), id="member-of-another-event"),
        pytest.param(Entry("key.use", reason=Reason.LIMIT), id="reason-of-a-success"),
        pytest.param(Entry("key.use", "started", reason=Reason.LIMIT), id="reason-of-a-start"),
        pytest.param(Entry("key.use", "failure", reason="because"), id="reason"),
        pytest.param(Entry("file.encrypt", obj={"password": "x"}), id="unknown-key"),
        pytest.param(Entry("file.encrypt", obj={"x\ny": "x"}), id="hostile-key"),
        pytest.param(Entry("file.encrypt", obj={"size": "1"}), id="string-for-integer"),
        pytest.param(Entry("file.encrypt", obj={"size": True}), id="bool"),
        pytest.param(Entry("file.encrypt", obj={"size": 1.0}), id="float"),
        pytest.param(Entry("file.encrypt", obj={"size": -1}), id="negative"),
        pytest.param(Entry("file.encrypt", obj={"size": MAX_INT + 1}), id="too-large"),
        pytest.param(Entry("file.encrypt", obj={"name": 1}), id="integer-for-string"),
        pytest.param(Entry("file.encrypt", obj={"name": None}), id="none"),
        pytest.param(Entry("file.encrypt", obj={"name": ["x"]}), id="list"),
        pytest.param(Entry("file.encrypt", obj={"name": "x", "name_len": 300}), id="length-without-cut"),
        pytest.param(Entry("file.encrypt", obj={"size_len": 300}), id="length-of-an-integer"),
        pytest.param(Entry("file.encrypt", obj={1: 1}), id="key-not-a-string"),
        pytest.param(Entry("key.use", http={"query": "a=b"}), id="http-key"),
        pytest.param(Entry("key.use", http={1: "a"}), id="http-key-type"),
        pytest.param(Entry("key.use", actor=1), id="actor"),
        pytest.param(Entry("key.use", address=b"::1"), id="address"),
        pytest.param(Entry("key.use", client_request_id=["x"]), id="client-request-id"),
        pytest.param(Entry("key.use", seal=SEAL), id="seal-of-another-event"),
        pytest.param(Entry("audit.seal"), id="no-seal"),
        pytest.param(Entry("audit.seal", seal=SEAL | {"runs": []}), id="seal-without-runs"),
    ],
)
def test_programming_errors_are_refused(entry):
    with pytest.raises(ValueError):
        build(entry)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param(b"", "not_json", id="empty"),
        pytest.param(MINIMAL[:-1], "not_json", id="cut"),
        pytest.param(b"[]", "not_json", id="array"),
        pytest.param(b"[" * 100_000, "not_json", id="deep"),
        pytest.param(b"1" * 100_000, "not_json", id="long-number"),
        pytest.param(MINIMAL.replace(b"files-1", b"files-\xc3\xa9"), "not_json", id="utf-8"),
        pytest.param(MINIMAL.replace(b'"seq":0', b'"seq":0.0'), "not_json", id="float"),
        pytest.param(MINIMAL.replace(b'"seq":0', b'"seq":NaN'), "not_json", id="nan"),
        pytest.param(b"x" * LONGEST_LINE, "too_long", id="long"),
        pytest.param(MINIMAL + b"\r", "not_canonical", id="carriage-return"),
        pytest.param(MINIMAL + b" ", "not_canonical", id="space"),
        pytest.param(MINIMAL.replace(b'"v":2', b'"v":2,"v":2'), "not_canonical", id="doubled-key"),
        pytest.param(
            MINIMAL.replace(b'"files-1"', b'"\\u0066iles-1"'), "not_canonical", id="needless-escape"
        ),
        pytest.param(json.dumps(json.loads(MINIMAL)).encode(), "not_canonical", id="spacing"),
        pytest.param(changed(v=3), "version", id="version"),
        pytest.param(changed(v=None), "version", id="no-version"),
        pytest.param(changed(v=1), "bad_field", id="fields-of-another-version"),
        pytest.param(changed(v=True), "version", id="version-bool"),
        pytest.param(changed(host=None), "bad_field", id="no-host"),
        pytest.param(changed(host=[]), "bad_field", id="host-type"),
        pytest.param(changed(host={"name": "x", "pid": 1}), "bad_field", id="host-without-version"),
        pytest.param(changed(client={}), "bad_field", id="client-without-members"),
        pytest.param(changed(client={"pid": 1}), "bad_field", id="member-of-another-section"),
        pytest.param(changed(seal=SEAL), "bad_field", id="seal-of-another-event"),
        pytest.param(changed(event="audit.seal"), "bad_field", id="no-seal"),
        pytest.param(
            changed(event="audit.seal", seal=SEAL | {"runs": [[CHAIN, 0, 1]] * 900}), "bad_field", id="runs"
        ),
        pytest.param(changed(http={"path": "x" * 63, "path_len": 300}), "bad_field", id="path-not-cut"),
        pytest.param(changed(note="x"), "bad_field", id="unknown-field"),
        pytest.param(changed(time="2026-11-23T19:15:00Z"), "bad_field", id="time-without-nanoseconds"),
        pytest.param(changed(time="2026-13-23T19:15:00.123456789Z"), "bad_field", id="month"),
        pytest.param(changed(chain="AB" * 16), "bad_field", id="chain-upper-case"),
        pytest.param(changed(prev="ab" * 32 + "\n"), "bad_field", id="prev"),
        pytest.param(changed(prev=1), "bad_field", id="prev-type"),
        pytest.param(changed(seq=-1), "bad_field", id="seq"),
        pytest.param(changed(obj={}), "bad_field", id="empty-section"),
        pytest.param(changed(reason="limit"), "bad_field", id="reason-of-a-success"),
        pytest.param(changed(outcome="failure", reason=["limit"]), "bad_field", id="reason-type"),
        pytest.param(changed(req="r", req_len=300), "bad_field", id="length-without-cut"),
        pytest.param(changed(req_len=300), "bad_field", id="length-alone"),
        pytest.param(changed(obj={"name": "x" * 257}), "bad_field", id="not-cut"),
    ],
)
def test_what_is_not_a_record_is_refused(line, code):
    with pytest.raises(RecordError) as caught:
        parse_line(line)
    assert caught.value.code == code


@pytest.mark.parametrize("position", range(0, len(MINIMAL), 3))
def test_no_other_byte_is_the_same_record(position):
    """A record has one spelling: a changed byte is refused, or gives another record with another hash."""
    other = bytearray(MINIMAL)
    other[position] ^= 1
    try:
        record = parse_line(bytes(other))
    except RecordError:
        return
    assert record != parse_line(MINIMAL)


def test_the_limits_are_what_the_format_says():
    """A reader of another language relies on them: docs/journal.md."""
    assert MAX_INT == 9_007_199_254_740_991, "RFC 8259 section 6"
    assert MAX_LINE == 65_535
    assert LONGEST_LINE == 131_072
    assert LAYOUTS[1].max_line == LONGEST_LINE
    for integer in (0, MAX_INT):
        assert parse_line(build(Entry("file.encrypt", obj={"size": integer}))[:-1])["obj"] == {
            "size": integer
        }


def test_a_line_of_one_byte_less_than_too_many_is_looked_at():
    with pytest.raises(RecordError) as caught:
        parse_line(b"x" * (LONGEST_LINE - 1))
    assert caught.value.code == "not_json"


_ODD = [None, True, -1, "", "no such word", [], ["key.use"], {}, {"": {}}, MAX_INT + 1]


_ODD_MEMBERS = {
    # A member of each kind: a string, an integer, the length of a string that was cut.
    "obj": [
        ("name", [None, True, 1, [], {}, "x" * 257]),
        ("size", [None, True, "1", -1, MAX_INT + 1, [], {}]),
    ],
    "actor": [("id", [None, True, 1, [], {}, "x" * 257]), ("size", [1])],
    "http": [("path", [None, 1, [], {}]), ("status", [None, True, "200", -1, MAX_INT + 1, [], {}])],
}


_CUT = {"name": "x" * 256}


_ODD_LENGTHS = [None, True, "300", 256, -1, MAX_INT + 1, [], {}]


_ODD_RUNS = [
    None,
    [],
    [CHAIN, 0],
    [CHAIN, 0, 1, 2],
    ["x", 0, 1],
    [CHAIN, -1, 1],
    [CHAIN, 0, True],
    [CHAIN, 2, 1],
]


def bad_fields():  # noqa: PLR0912  # a table
    """Yield what is wrong, and a record whose spelling alone is right."""
    whole = json.loads(MINIMAL)
    for key in ("time", "chain", "prev", "event", "outcome", "sev", "seq", "host"):
        for value in _ODD:
            yield f"{key} is {value!r}", whole | {key: value}
        yield f"no {key}", {name: value for name, value in whole.items() if name != key}
    for value in (0, 6):
        yield f"sev is {value}", whole | {"sev": value}
    for value in _ODD:
        yield f"reason is {value!r}", whole | {"outcome": "failure", "reason": value}
        for key in ("req", "client_req"):
            yield f"{key} is {value!r}", whole | {key: [value]}
        for section in ("obj", "actor", "http", "client"):
            yield f"{section} is {value!r}", whole | {section: value}
    for section, members in _ODD_MEMBERS.items():
        for member, values in members:
            for value in values:
                yield f"{section}: {member} is {str(value)[:20]!r}", whole | {section: {member: value}}
    for member in ("name", "pid", "version"):
        yield f"host: {member} is a list", whole | {"host": whole["host"] | {member: []}}
        yield f"host: no {member}", whole | {"host": {k: v for k, v in whole["host"].items() if k != member}}
    for member in SEAL:
        for value in _ODD:
            yield (
                f"seal: {member} is {value!r}",
                whole | {"event": "audit.seal", "seal": SEAL | {member: value}},
            )
        seal = {k: v for k, v in SEAL.items() if k != member}
        yield f"seal: no {member}", whole | {"event": "audit.seal", "seal": seal}
    for run in _ODD_RUNS:
        yield f"run {run!r}", whole | {"event": "audit.seal", "seal": SEAL | {"runs": [run]}}
    for value in _ODD_LENGTHS:
        yield f"name_len is {value!r}", whole | {"obj": {**_CUT, "name_len": value}}
    for cut in ({"name_len": 300}, {"name": "x" * 255, "name_len": 300}, {"size": 1, "size_len": 300}):
        yield f"{sorted(cut)}", whole | {"obj": cut}


@pytest.mark.parametrize(("why", "record"), [pytest.param(*case, id=case[0][:40]) for case in bad_fields()])
def test_a_bad_field_is_a_finding_and_the_lines_around_it_are_still_read(why, record):
    """Whatever stands in a field, the verifier ends in findings: a crash would hide the rest."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    first = build(Entry("server.start"))
    last = build_line(Position(CHAIN, 2, line_hash(text)), SOURCE, TIME, Entry("key.use"))
    verifier = ChainVerifier("file", CHAIN)
    verifier.feed(first + text + b"\n" + last)
    summary = verifier.finish()
    assert [(found.code, found.seq, found.offset) for found in verifier.findings] == [
        ("bad_field", None, len(first))
    ], why
    assert (summary.records, summary.head) == (3, line_hash(last[:-1]))


def test_records_of_version_1_are_read():
    """Files that one release wrote, every later release reads."""
    record = parse_line(VERSION_1)
    assert (record["v"], record["src"]["addr"], record["req"]) == (1, "192.0.2.7", "req-1")
    assert line_hash(VERSION_1) == "0b83dfe95d6a77c8b7f9dd27543a248f2a77f1cc439dc2f6b6dcb32b04e5a83e"


@pytest.mark.parametrize(
    "change", [{"host": {"name": "x", "pid": 1, "version": "v"}}, {"client_req": "x"}, {"src": {}}]
)
def test_a_record_of_version_1_has_no_later_field(change):
    record = json.loads(VERSION_1) | change
    with pytest.raises(RecordError) as caught:
        check(record)
    assert caught.value.code == "bad_field"


def test_a_record_of_version_1_may_be_longer():
    """Only its length tells: 131,071 bytes hold no more than version 1 wrote."""
    wide = "\U0001f600" * 256
    obj = {member: wide for member, kind in MEMBERS.items() if kind is str}
    old = json.loads(VERSION_1) | {"obj": obj, "actor": {"id": wide}}
    assert MAX_LINE < len(spelled(old)) < LONGEST_LINE
    assert parse_line(spelled(old)) == old
    new = {key: value for key, value in old.items() if key != "src"} | {
        "v": 2,
        "host": {"name": "x", "pid": 1, "version": "v"},
    }
    with pytest.raises(RecordError) as caught:
        parse_line(spelled(new))
    assert caught.value.code == "too_long"


def spelled(record):
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("size", [64, 65, 256, 257, 5000])
def test_the_path_in_a_record_that_anyone_can_cause_is_short(size):
    for event, longest in (("auth.denied", 64), ("file.rejected", 64), ("file.encrypt", 256)):
        outcome = "failure" if longest == 64 else "success"
        http = parse_line(build(Entry(event, outcome, http={"path": "/" * size}))[:-1])["http"]
        assert http == (
            {"path": "/" * size} if size <= longest else {"path": "/" * longest, "path_len": size}
        )


def test_a_line_that_is_too_long_is_not_built(monkeypatch):
    """No entry is: test_longest_record_fits. So the limit is lowered."""
    monkeypatch.setattr("securefs.audit.record.MAX_LINE", 100)
    with pytest.raises(ValueError, match=r"^key\.use: a line of \d+ bytes; at most 100 are allowed$"):
        build(Entry("key.use"))


def test_the_seal_is_written_as_it_is():
    assert parse_line(build(Entry("audit.seal", seal=SEAL))[:-1])["seal"] == SEAL
