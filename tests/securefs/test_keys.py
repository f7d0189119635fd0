from __future__ import annotations

import base64
import copy
import os
import pickle

import pytest
from sealing import LIBRARIES, chosen, keys_of, seal, slot_of

from securefs import ConfigurationError, Keyring
from securefs.header import parse_header
from securefs.keys import MAX_KEY_FILE, FileKey, generate_key, key_id
from securefs.keys.material import KeyMaterial

KEY = bytes(range(32))
RETIRED = bytes(range(50, 82))
PRIMARY, PREVIOUS = "FILE_KEY_BASE64", "FILE_KEY_BASE64_PREVIOUS"


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def traces_of(key: bytes) -> list[str]:
    """How key bytes would look in a text."""
    return [
        b64(key).rstrip("="),
        base64.urlsafe_b64encode(key).decode().rstrip("="),
        key.hex(),
        repr(key)[2:-1],
    ]


def chain(error: BaseException | None):
    """An error and all that led to it, shown or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_tells_no_key(error: BaseException, *secrets: str) -> None:
    for link in chain(error):
        text = f"{link!s} {link!r} {link.args!r} {vars(link)!r}"
        for secret in secrets:
            assert secret not in text


GOOD = b64(KEY)
BAD_PRIMARY = [
    pytest.param("", id="empty"),
    pytest.param("   ", id="blank"),
    pytest.param(b64(KEY[:31]), id="31 bytes"),
    pytest.param(b64(KEY + b"\0"), id="33 bytes"),
    pytest.param(b64(KEY[:16]), id="16 bytes"),
    pytest.param(b64(KEY[:24]), id="24 bytes"),
    pytest.param("correct horse battery staple", id="passphrase"),
    pytest.param(GOOD[:20] + "!" + GOOD[21:], id="wrong character"),
    pytest.param(GOOD[:20] + "\n" + GOOD[20:], id="line break inside"),
    pytest.param(GOOD[:20] + "é" + GOOD[21:], id="not ASCII"),
    pytest.param(GOOD[:-3], id="cut"),
    pytest.param(GOOD + "=", id="too much padding"),
    pytest.param(b64(bytes(32)), id="all zero"),
    pytest.param(b64(b"\x5a" * 32), id="one byte repeated"),
    pytest.param(KEY.hex(), id="hex"),
    pytest.param(f"{GOOD},{GOOD}", id="two keys"),
]


@pytest.mark.parametrize("text", BAD_PRIMARY)
def test_a_bad_primary_key_is_one_line_that_names_variable_and_remedy(text):
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env({PRIMARY: text})
    message = str(caught.value)
    assert PRIMARY in message
    assert "securefs keygen" in message
    assert len(message.splitlines()) == 1
    if len(text) > 20:
        assert_tells_no_key(caught.value, text, text[:20], *traces_of(KEY))


@pytest.mark.parametrize(
    "text",
    [item for item in BAD_PRIMARY if item.id not in {"16 bytes", "24 bytes", "empty", "blank", "two keys"}],
)
def test_a_bad_retired_key_is_one_line_that_says_which_it_is(text):
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env({PRIMARY: b64(RETIRED), PREVIOUS: f"{GOOD},{text}"})
    message = str(caught.value)
    assert f"{PREVIOUS} (key 2)" in message
    assert "securefs keygen" in message
    assert len(message.splitlines()) == 1
    assert_tells_no_key(caught.value, *traces_of(KEY), *traces_of(RETIRED))


def test_no_key_at_all_is_an_error_and_not_plaintext():
    with pytest.raises(
        ConfigurationError, match=r"^FILE_KEY_BASE64 is not set: make a good one with: securefs keygen$"
    ):
        Keyring.from_env({})


@pytest.mark.parametrize("name", [PRIMARY, PREVIOUS])
def test_a_variable_and_its_file_together_are_an_error(name):
    with pytest.raises(ConfigurationError, match=f"^both {name} and {name}_FILE are set: unset one of them$"):
        Keyring.from_env({PRIMARY: GOOD, name: GOOD, f"{name}_FILE": "/run/key"})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD, id="standard"),
        pytest.param(base64.urlsafe_b64encode(bytes([251, 255] * 16)).decode(), id="url-safe"),
        pytest.param(GOOD.rstrip("="), id="no padding"),
        pytest.param(f"  {GOOD}\n", id="white space around"),
    ],
)
def test_base64_is_taken_in_its_usual_shapes(text):
    assert len(keys_of(Keyring.from_env({PRIMARY: text}))[0]) == 32


def test_the_default_environment_is_the_process(monkeypatch):
    monkeypatch.setenv(PRIMARY, GOOD)
    monkeypatch.delenv(PREVIOUS, raising=False)
    assert keys_of(Keyring.from_env()) == [KEY]


def test_retired_keys_are_read_in_order_and_empty_ones_left_out():
    ring = Keyring.from_env({PRIMARY: GOOD, PREVIOUS: f" {b64(RETIRED)}, ,{b64(KEY[:16])},"})
    assert keys_of(ring) == [KEY, RETIRED, KEY[:16]]


def write_key(path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def test_keys_are_read_from_files(tmp_path):
    primary = write_key(tmp_path / "primary", GOOD.encode() + b"\n")
    previous = write_key(tmp_path / "previous", f"{b64(RETIRED)},{b64(KEY[:24])}\n".encode(), 0o640)
    ring = Keyring.from_env({f"{PRIMARY}_FILE": primary, f"{PREVIOUS}_FILE": previous})
    assert keys_of(ring) == [KEY, RETIRED, KEY[:24]]


def file_error(path: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_env({f"{PRIMARY}_FILE": path})
    message = str(caught.value)
    assert f"{PRIMARY}_FILE" in message
    assert len(message.splitlines()) == 1
    assert_tells_no_key(caught.value, *traces_of(KEY))
    return message


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o777])
def test_a_key_file_that_others_can_access_is_refused(tmp_path, mode):
    assert "chmod 600" in file_error(write_key(tmp_path / "key", GOOD.encode(), mode))


def test_a_missing_key_file_is_named(tmp_path):
    message = file_error(str(tmp_path / "no-such-file"))
    assert "no-such-file" in message
    assert "No such file" in message
    assert "securefs keygen" in message


def test_a_path_with_a_line_break_stays_in_one_line(tmp_path):
    assert "\\n" in file_error(str(tmp_path / "a\nb"))


def test_a_path_with_a_nul_byte_is_refused():
    assert "NUL" in file_error("/run/\0key")


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(GOOD, id="base64"),
        pytest.param(b64(bytes([255]) + KEY[1:-1] + b"\xff"), id="with slashes"),
        pytest.param(base64.urlsafe_b64encode(KEY[:16]).decode(), id="short"),
    ],
)
def test_a_key_where_a_path_is_due_is_not_repeated_in_the_message(secret):
    with pytest.raises(ConfigurationError, match="looks like a key") as caught:
        Keyring.from_env({f"{PRIMARY}_FILE": secret})
    assert_tells_no_key(caught.value, secret, secret.rstrip("="))


def test_a_folder_a_device_and_a_fifo_are_no_key_files(tmp_path):
    assert "Is a directory" in file_error(str(tmp_path))
    assert "not a regular file" in file_error("/dev/null")
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in file_error(str(tmp_path / "fifo"))


def test_a_huge_key_file_is_not_read(tmp_path):
    assert f"larger than {MAX_KEY_FILE} bytes" in file_error(
        write_key(tmp_path / "key", bytes(MAX_KEY_FILE + 1))
    )


def test_a_binary_key_file_is_refused_without_showing_it(tmp_path):
    binary = bytes(range(200, 232))
    with pytest.raises(ConfigurationError, match="is not base64 text") as caught:
        Keyring.from_env({f"{PRIMARY}_FILE": write_key(tmp_path / "key", binary)})
    assert_tells_no_key(caught.value, *traces_of(binary))


def test_a_bad_key_in_a_file_names_the_plain_variable(tmp_path):
    with pytest.raises(ConfigurationError, match=f"^{PRIMARY} has 3 bytes where 32 are needed"):
        Keyring.from_env({f"{PRIMARY}_FILE": write_key(tmp_path / "key", b"AAAB")})


def test_a_generated_key_is_a_good_one_and_new_each_time():
    first, second = generate_key(), generate_key()
    assert first != second
    assert len(keys_of(Keyring.from_env({PRIMARY: first}))[0]) == 32


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31, 33, 64])
def test_keys_of_other_sizes_are_refused(size):
    with pytest.raises(ConfigurationError, match="16 or 24 or 32 are needed"):
        Keyring(bytes(range(size)))
    with pytest.raises(ConfigurationError, match="a previous key"):
        Keyring(KEY, [bytes(range(size))])


@pytest.mark.parametrize("size", [16, 24])
def test_short_keys_serve_format_1_only(size):
    ring = Keyring(KEY[:size], [RETIRED])
    assert keys_of(ring)[0] == KEY[:size]
    with pytest.raises(ConfigurationError, match=f"has {size} bytes and can serve Format 1 only"):
        ring.wrapper()
    file = seal(b"x", ring=Keyring(RETIRED))
    named = slot_of(RETIRED, file[:48], chosen().dek)
    (slot,) = parse_header(
        file[:56] + (named[:8] + ring.primary_id + named[24:]).ljust(320, b"\0") + file[376:]
    ).slots
    assert ring.unwrap(slot, file[:48] + slot.head) is None


@pytest.mark.parametrize(
    ("long", "short"),
    [
        pytest.param(KEY[:16] + bytes(16), KEY[:16], id="32 and 16"),
        pytest.param(KEY[:24] + bytes(8), KEY[:24], id="32 and 24"),
        pytest.param(KEY[:16] + bytes(8), KEY[:16], id="24 and 16"),
        pytest.param(KEY[:12] + bytes(20), KEY[:12] + bytes(4), id="zeros in both"),
    ],
)
def test_keys_that_differ_by_zeros_at_the_end_are_refused_together(long, short):
    """HMAC pads with zeros: a file under one has a good tag under the other, and would decrypt to something else."""
    for primary, previous in (
        (long, [short]),
        (short, [long]),
        (RETIRED, [long, short]),
        (RETIRED, [short, RETIRED, long]),
    ):
        with pytest.raises(ConfigurationError, match="the same but for zeros") as caught:
            Keyring(primary, previous)
        for key in (long, short):
            assert key.hex() not in str(caught.value)
            assert repr(key)[2:-1] not in str(caught.value)
    assert len(Keyring(long, [long, RETIRED]).key_ids) == 2


def test_the_environment_s_keys_are_compared_too():
    def text(key):
        return base64.b64encode(key).decode()

    environ = {PRIMARY: text(RETIRED), PREVIOUS: f"{text(KEY[:16])}, {text(KEY[:16] + bytes(16))}"}
    with pytest.raises(ConfigurationError, match=r"\(number 2\) .*\(number 1\).* the same but for zeros"):
        Keyring.from_env(environ)


def test_keys_with_zeros_elsewhere_are_different_keys():
    Keyring(bytes(16) + KEY[:16], [KEY[:16], bytes(8) + KEY[:16]])


def test_a_key_given_twice_is_held_once_and_the_primary_stays_first():
    ring = Keyring(KEY, [RETIRED, KEY, RETIRED])
    assert keys_of(ring) == [KEY, RETIRED]
    assert ring.primary_id == key_id(KEY)
    assert ring.key_ids == (key_id(KEY), key_id(RETIRED))


def test_a_slot_is_opened_by_the_key_that_it_names():
    ring = Keyring(KEY, [RETIRED])
    file = seal(b"x", ring=Keyring(RETIRED))
    (slot,) = parse_header(file).slots
    assert ring.unwrap(slot, file[:48] + slot.head) == chosen().dek
    assert Keyring(KEY).unwrap(slot, file[:48] + slot.head) is None


def test_bytearrays_are_copied():
    key = bytearray(KEY)
    ring = Keyring(key)
    key[:] = bytes(32)
    assert keys_of(ring) == [KEY]


def test_no_text_of_a_keyring_shows_a_key():
    ring = Keyring(KEY, [RETIRED])
    for text in (repr(ring), str(ring), f"{ring}", repr([ring]), repr(vars(type(ring)))):
        for trace in [*traces_of(KEY), *traces_of(RETIRED)]:
            assert trace not in text
    assert key_id(KEY).hex() in repr(ring)
    assert key_id(RETIRED).hex() in repr(ring)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_keyring_refuses_to_be_pickled(protocol):
    with pytest.raises(TypeError, match="refuses to be pickled"):
        pickle.dumps(Keyring(KEY), protocol)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_a_keyring_refuses_to_be_copied(copier):
    with pytest.raises(TypeError, match="refuses to be pickled or copied"):
        copier(Keyring(KEY))


def test_key_material_gives_nothing_away():
    material, same, other = KeyMaterial(KEY), KeyMaterial(KEY), KeyMaterial(RETIRED)
    assert (material == same, material == other, material == KEY) == (True, False, False)
    assert repr(material) == "<KeyMaterial of 32 bytes>"
    key = FileKey(material, LIBRARIES[0])
    assert repr(key) == f"<FileKey {key_id(KEY).hex()}>"
    for thing in (material, key):
        for action in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="refuses to be pickled or copied"):
                action(thing)
    for action in (hash, iter, bytes):
        with pytest.raises(TypeError):
            action(material)


def test_a_key_file_may_have_65536_bytes_and_not_one_more(tmp_path):
    text = GOOD.encode() + b"\n"
    path = write_key(tmp_path / "key", text.ljust(65_536, b"\n"))
    assert Keyring.from_env({f"{PRIMARY}_FILE": path}).primary_id == key_id(KEY)
    assert "larger than 65536 bytes" in file_error(write_key(tmp_path / "more", text.ljust(65_537, b"\n")))
