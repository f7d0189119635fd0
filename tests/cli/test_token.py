"""``securefs token``."""

from __future__ import annotations

import json


def test_tokens_are_added_listed_and_revoked(run, monkeypatch):
    monkeypatch.setenv("SECUREFS_DATA_DIR", "data")
    added = run("token", "add", "zoë")
    assert added.code == 0
    assert added.out.startswith(b"sfs_")
    assert "only now" in added.line
    token_id = added.out.split(b"_")[1].decode()
    assert run("token", "add", "bob", "--data-dir", "data").code == 0
    listed = run("token", "list")
    assert listed.out.decode().count("\n") == 2
    assert f"{token_id}  " in listed.out.decode()
    assert "zoë" in listed.out.decode()
    assert added.out.strip().split(b"_")[2] not in listed.out
    document = json.loads(run("token", "list", "--json").out)
    assert {token["name"] for token in document["tokens"]} == {"zoë", "bob"}
    assert run("token", "revoke", token_id).out == b"revoked: 1\n"
    assert run("token", "revoke", "bob").out == b"revoked: 1\n"
    assert run("token", "list").out == b""
