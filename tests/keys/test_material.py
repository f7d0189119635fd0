"""Key bytes show themselves nowhere."""

from __future__ import annotations

import base64
import copy
import pickle

import pytest
from support.keys import KEY, RETIRED
from support.sealing import LIBRARIES

from securefs import ConfigurationError, Keyring
from securefs.keys import FileKey, key_id
from securefs.keys.material import KeyMaterial


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


@pytest.mark.parametrize(
    ("text", "how"),
    [
        pytest.param(base64.b64encode(bytes(range(32))), "if it is base64, decode it", id="base64"),
        pytest.param(bytes(range(32)).hex().encode(), "if it is hex, decode it", id="hex"),
        pytest.param(bytes(range(31)), "make a good one with: securefs keygen", id="another size"),
    ],
)
def test_whoever_did_not_decode_a_key_is_not_told_to_make_another(text, how):
    with pytest.raises(ConfigurationError, match=f"^the primary key has {len(text)} bytes where .*: {how}$"):
        Keyring(text)
