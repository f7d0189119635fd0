from __future__ import annotations

import base64
import os

import pytest
from support.keys import KEY, PREVIOUS, PRIMARY, RETIRED, assert_tells_no_key, b64, traces_of, write_key
from support.sealing import keys_of

from securefs import ConfigurationError, Keyring
from securefs.keys import MAX_KEY_FILE, generate_key, key_id

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


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
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


def test_a_key_file_may_have_65536_bytes_and_not_one_more(tmp_path):
    text = GOOD.encode() + b"\n"
    path = write_key(tmp_path / "key", text.ljust(65_536, b"\n"))
    assert Keyring.from_env({f"{PRIMARY}_FILE": path}).primary_id == key_id(KEY)
    assert "larger than 65536 bytes" in file_error(write_key(tmp_path / "more", text.ljust(65_537, b"\n")))
