"""What a keyring takes and refuses, and that nothing shows a key of it."""

from __future__ import annotations

import copy
import pickle

import pytest
from support.keys import KEY, PREVIOUS, PRIMARY, RETIRED, b64, traces_of
from support.sealing import keys_of

from securefs import ConfigurationError, Keyring
from securefs.keys import key_id


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31, 33, 64])
def test_keys_of_other_sizes_are_refused(size):
    with pytest.raises(ConfigurationError, match="16 or 24 or 32 are needed"):
        Keyring(bytes(range(size)))
    with pytest.raises(ConfigurationError, match="a previous key"):
        Keyring(KEY, [bytes(range(size))])


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
    environ = {PRIMARY: b64(RETIRED), PREVIOUS: f"{b64(KEY[:16])}, {b64(KEY[:16] + bytes(16))}"}
    with pytest.raises(ConfigurationError, match=r"\(number 2\) .*\(number 1\).* the same but for zeros"):
        Keyring.from_env(environ)


def test_keys_with_zeros_elsewhere_are_different_keys():
    ring = Keyring(bytes(16) + KEY[:16], [KEY[:16], bytes(8) + KEY[:16]])
    assert len(ring.key_ids) == 3


def test_a_key_given_twice_is_held_once_and_the_primary_stays_first():
    ring = Keyring(KEY, [RETIRED, KEY, RETIRED])
    assert keys_of(ring) == [KEY, RETIRED]
    assert ring.primary_id == key_id(KEY)
    assert ring.key_ids == (key_id(KEY), key_id(RETIRED))


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
