"""What all export formats share."""

from __future__ import annotations

import pytest
from support.exports import CHAIN, NASTY, full, record, version_1

from securefs.audit.exported import address_kind, fact_of, members, rest


def test_a_record_of_each_version_is_the_same_fact():
    new = fact_of(record("file.decrypt", "success", obj={"name": "a", "size": 3}, address="2001:db8::7"))
    old = fact_of(version_1())
    for name in ("host", "pid", "version", "address", "obj", "time", "milliseconds", "place", "size"):
        assert getattr(new, name) == getattr(old, name)
    assert (new.boot, old.boot) == ("1c0f" * 8, "")
    assert new.place == f"{CHAIN}:5"


def test_what_is_not_there_is_empty():
    fact = fact_of(record("file.open", "success"))
    assert (fact.reason, fact.address, fact.actor, fact.status, fact.size, fact.text("name")) == (
        "",
        "",
        "",
        None,
        None,
        "",
    )


def test_half_a_surrogate_pair_can_be_encoded():
    fact = fact_of(full("file.open", "success"))
    assert "\\ud800" in fact.actor
    assert fact.text("name") == "name" + NASTY.replace("\ud800", "\\ud800")
    fact.text("name").encode("utf-8")


def test_lengths_of_cut_strings_and_the_seal_are_kept():
    fact = fact_of(record("file.open", "success", actor="a" * 300, address="b" * 300, request_id="c" * 300))
    assert (fact.more["id_len"], fact.more["addr_len"], fact.more["req_len"]) == (300, 300, 300)
    assert fact_of(record("audit.seal", "success")).more["seal"]["index"] == 3


def test_what_is_left_is_what_was_not_used():
    fact = fact_of(full("file.plain", "success", http={"path": "/" + "x" * 300}))
    assert rest(fact, "name", "size")["obj"] == {"field": fact.text("field")}
    assert rest(fact, "name")["http"] == {"path_len": 301}
    assert rest(fact, http=True)["http"]["path"].startswith("/xxx")


def test_members_that_say_nothing_are_left_out():
    assert members(a=None, b="", c=[], d={}, e=0, f="x") == {"e": 0, "f": "x"}


@pytest.mark.parametrize(
    ("address", "kind"), [("192.0.2.7", 4), ("::1", 6), ("2001:db8::/64", 0), ("", 0), ("unix:", 0)]
)
def test_the_version_of_an_address(address, kind):
    assert address_kind(address) == kind
