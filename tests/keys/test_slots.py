"""Which key opens a slot."""

from __future__ import annotations

import pytest
from support.keys import KEY, RETIRED
from support.sealing import chosen, keys_of, seal, slot_of

from securefs import ConfigurationError, Keyring
from securefs.header import parse_header


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


def test_a_slot_is_opened_by_the_key_that_it_names():
    ring = Keyring(KEY, [RETIRED])
    file = seal(b"x", ring=Keyring(RETIRED))
    (slot,) = parse_header(file).slots
    assert ring.unwrap(slot, file[:48] + slot.head) == chosen().dek
    assert Keyring(KEY).unwrap(slot, file[:48] + slot.head) is None
