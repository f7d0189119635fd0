"""Key bytes show themselves nowhere."""

from __future__ import annotations

import copy
import pickle

import pytest
from support.keys import KEY, RETIRED
from support.sealing import LIBRARIES

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
