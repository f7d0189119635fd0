"""Signed notes, keys, checkpoints and cosignatures: C2SP's own examples, and what is refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.notes import COSIGNED, EXAMPLE_NOTE, EXAMPLE_VKEY, POEM

from securefs.audit.note import (
    COSIGNATURE,
    MAX_NOTE,
    MAX_SIGNATURES,
    Checkpoint,
    Note,
    NoteError,
    Signature,
    VerificationKey,
    cosigned_message,
    decode_base64,
    encode_base64,
    parse_checkpoint,
    parse_count,
    parse_note,
    parse_signature_line,
    parse_vkey,
    split_cosignature,
)

SIGNATURE = Signature("log.example/1", b"\x01\x02\x03\x04", b"s" * 64)
names = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zs", "Zl", "Zp"], exclude_characters="+"),
    min_size=1,
    max_size=30,
).filter(lambda name: name.isprintable() and not any(character.isspace() for character in name))


@pytest.mark.parametrize("data", [EXAMPLE_NOTE, POEM, COSIGNED])
def test_published_notes_are_read_and_written_again(data):
    note = parse_note(data)
    assert note.encode() == data
    assert note.text.endswith("\n")


def test_the_published_key():
    key = parse_vkey(EXAMPLE_VKEY)
    assert str(key) == EXAMPLE_VKEY
    assert (key.name, key.kind, key.key_id.hex()) == ("example.com/foo", 1, "530d903a")
    (line,) = parse_note(EXAMPLE_NOTE).signatures
    assert (line.name, line.key_id) == (key.name, key.key_id)


def test_the_published_poem_has_an_empty_line_in_its_text():
    note = parse_note(POEM)
    assert note.text.count("\n\n") == 1
    assert note.text.endswith("sera.\n")


def test_the_published_checkpoint_and_cosignature():
    note = parse_note(COSIGNED)
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() == note.text
    time, signature = split_cosignature(note.signatures[1].value)
    assert (time, len(signature)) == (1679315147, 64)
    assert cosigned_message(time, note.text) == b"cosignature/v1\ntime 1679315147\n" + note.text.encode()


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), min_size=1),
    lines=st.lists(
        st.builds(Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=100)),
        min_size=1,
        max_size=MAX_SIGNATURES,
    ),
)
def test_every_note_is_read_as_it_was_written(text, lines):
    note = Note(f"{text}\n", tuple(lines))
    # A text that is an empty line alone would end where its signatures begin.
    if text.startswith("\n") and not text.strip("\n"):
        return
    assert parse_note(note.encode()) == note


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_note_in_one_spelling_or_none(data):
    for candidate in (data, EXAMPLE_NOTE[:30] + data, EXAMPLE_NOTE + data):
        try:
            note = parse_note(candidate)
        except NoteError:
            continue
        assert note.encode() == candidate


@given(position=st.integers(0, len(COSIGNED) - 1), value=st.integers(0, 255))
def test_a_changed_byte_is_another_note_or_none(position, value):
    changed = COSIGNED[:position] + bytes([value]) + COSIGNED[position + 1 :]
    try:
        note = parse_note(changed)
    except NoteError:
        return
    assert note.encode() == changed
    assert (note == parse_note(COSIGNED)) == (changed == COSIGNED)


LINE = SIGNATURE.line()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "a note is text", id="empty"),
        pytest.param(b"text\n", "a note is text", id="no-signature"),
        pytest.param(b"text\n\n", "a note is text", id="no-signature-after-the-gap"),
        pytest.param(f"\n\n{LINE}".encode(), "a note is text", id="no-text"),
        pytest.param(f"text\n\n{LINE[:-1]}".encode(), "a note is text", id="no-line-end"),
        pytest.param(f"text\n{LINE}".encode(), "a note is text", id="no-gap"),
        pytest.param(f"text\n\n{LINE}x\n".encode(), "em dash", id="other-line"),
        pytest.param(f"text\r\n\n{LINE}".encode(), "control character", id="carriage-return"),
        pytest.param(f"te\0xt\n\n{LINE}".encode(), "control character", id="zero"),
        pytest.param(f"te\xe9xt\n\n{LINE}".encode("latin-1", "replace"), "UTF-8", id="latin-1"),
        pytest.param(f"text\n\n{LINE * (MAX_SIGNATURES + 1)}".encode(), "more than 64 signatures", id="many"),
        pytest.param(b"x" * (MAX_NOTE + 1), "more than 65536 bytes", id="long"),
    ],
)
def test_what_is_no_note(data, message):
    with pytest.raises(NoteError, match=message):
        parse_note(data)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("- log.example/1 AQIDBHM=", "em dash"),
        ("—log.example/1 AQIDBHM=", "em dash"),
        ("— log.example/1", "base64"),
        ("—  AQIDBHM=", "no space"),
        ("— log+1 AQIDBHM=", "no space"),
        ("— log\u00a01 AQIDBHM=", "no space"),
        (f"— {'n' * 256} AQIDBHM=", "1 to 255"),
        ("— log.example/1 AQIDBHM", "base64"),
        ("— log.example/1 AQIDBHN=", "base64"),
        ("— log.example/1 AQID BHM=", "base64"),
        ("— log.example/1 AQIDBH_=", "base64"),
        ("— log.example/1 AQIDBHM= ", "base64"),
        ("— log.example/1 AQIDBA==", "four bytes"),
        ("— log.example/1 \u00e9AQIDBA==", "base64"),
        (f"— log.example/1 {'A' * 8196}", "more than 8192"),
    ],
)
def test_what_is_no_signature_line(line, message):
    with pytest.raises(NoteError, match=message):
        parse_signature_line(line)


def test_sixteen_signatures_of_five_kilobytes_are_read():
    note = Note("text\n", (Signature("w", b"id..", bytes(2500)),) * 16)
    assert parse_note(note.encode()) == note


@given(name=names, public=st.binary(min_size=32, max_size=32), kind=st.sampled_from([1, 4]))
def test_every_key_is_read_as_it_was_written(name, public, kind):
    key = VerificationKey(name, public, kind)
    assert parse_vkey(str(key)) == key


def _vkey(name="log.example/1", kind=1, public=b"p" * 32, key_id=None):
    key = VerificationKey(name, public, kind)
    return f"{name}+{key_id or key.key_id.hex()}+{base64.b64encode(bytes([kind]) + public).decode()}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "NAME", id="empty"),
        pytest.param("log.example/1", "NAME", id="name-alone"),
        pytest.param("log.example/1+01020304", "NAME", id="no-key"),
        pytest.param(_vkey(key_id="0102030"), "NAME", id="short-id"),
        pytest.param(_vkey().upper(), "NAME", id="upper-case-id"),
        pytest.param(_vkey(key_id="00000000"), "key id", id="another-id"),
        pytest.param(_vkey(name=""), "no space", id="no-name"),
        pytest.param(_vkey(name="a b"), "no space", id="space"),
        pytest.param(_vkey(name="a\x1b[31m"), "control", id="escape"),
        pytest.param(_vkey(kind=2), "not an Ed25519", id="kind"),
        pytest.param(_vkey(public=b"p" * 31), "not an Ed25519", id="short-key"),
        pytest.param(_vkey() + "\n", "base64", id="line-end"),
        pytest.param(_vkey(public=b"p" * 9999), "more than 8192", id="long"),
    ],
)
def test_what_is_no_key(text, message):
    with pytest.raises(NoteError, match=message):
        parse_vkey(text)


@given(name=names, size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_as_it_was_written(name, size, root):
    checkpoint = Checkpoint(name, size, root)
    assert parse_checkpoint(checkpoint.text()) == checkpoint


ROOT = encode_base64(bytes(32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "three lines", id="empty"),
        pytest.param(f"log\n1\n{ROOT}", "three lines", id="no-line-end"),
        pytest.param(f"log\n1\n{ROOT}\nextension\n", "three lines", id="extension"),
        pytest.param(f"\n1\n{ROOT}\n", "no space", id="no-origin"),
        pytest.param(f"l\x7fg\n1\n{ROOT}\n", "control", id="control"),
        pytest.param(f"log\n01\n{ROOT}\n", "leading zeros", id="leading-zero"),
        pytest.param(f"log\n-1\n{ROOT}\n", "leading zeros", id="negative"),
        pytest.param(f"log\n\n{ROOT}\n", "leading zeros", id="no-size"),
        pytest.param(f"log\n{2**63}\n{ROOT}\n", "below 2", id="too-large"),
        pytest.param(f"log\n{'9' * 5000}\n{ROOT}\n", "below 2", id="far-too-large"),
        pytest.param(f"log\n\u0661\n{ROOT}\n", "leading zeros", id="other-digits"),
        pytest.param(f"log\n1\n{ROOT[4:]}\n", "32 bytes", id="short-root"),
        pytest.param(f"log\n1\n{ROOT[:-1]}\n", "base64", id="no-padding"),
    ],
)
def test_what_is_no_checkpoint(text, message):
    with pytest.raises(NoteError, match=message):
        parse_checkpoint(text)


def test_a_count_ends_at_two_to_the_63():
    assert parse_count(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize("value", [b"", bytes(71), bytes(73), b"\xff" * 72])
def test_what_is_no_cosignature(value):
    with pytest.raises(NoteError, match="cosignature"):
        split_cosignature(value)


def test_a_cosigners_key_has_another_id():
    assert VerificationKey("w", bytes(32)).key_id != VerificationKey("w", bytes(32), COSIGNATURE).key_id


@given(data=st.binary(min_size=1, max_size=100))
def test_base64_has_one_spelling(data):
    assert decode_base64(encode_base64(data)) == data
