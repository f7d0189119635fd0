"""Tokens and sessions: what is stored can sign nobody in."""

from __future__ import annotations

import hashlib

import pytest

from securefs import ConfigurationError
from securefs.app.database import open_database, transaction
from securefs.app.tokens import SESSION_LIFETIME, Tokens


@pytest.fixture
def tokens(tmp_path):
    return Tokens(open_database(tmp_path))


def test_a_token_signs_in_whom_it_was_made_for(tokens):
    token = tokens.issue("alice")
    found = tokens.authenticate(token.secret)
    assert (found.id, found.principal, found.created) == (token.id, "alice", token.created)
    assert found.secret == ""


def test_tokens_are_256_bits_and_never_the_same(tokens):
    secrets = {tokens.issue("alice").secret.rpartition("_")[2] for _ in range(20)}
    assert len(secrets) == 20
    assert {len(bytes.fromhex(secret)) for secret in secrets} == {32}


def test_only_a_hash_is_stored_and_no_repr_shows_the_secret(tokens, tmp_path):
    token = tokens.issue("alice")
    secret = token.secret.rpartition("_")[2]
    raw = (tmp_path / "securefs.sqlite3").read_bytes()
    assert secret.encode() not in raw
    assert bytes.fromhex(secret) not in raw
    assert hashlib.sha256(token.secret.encode()).digest() in raw
    assert secret not in repr(token)
    assert secret not in repr(tokens.list())


@pytest.mark.parametrize("change", ["id", "secret", "short", "long", "upper", "line end", "empty"])
def test_a_token_that_differs_in_anything_is_nobody(tokens, change):
    good = tokens.issue("alice").secret
    bad = {
        "id": good[:4] + ("0" if good[4] != "0" else "1") + good[5:],
        "secret": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "short": good[:-1],
        "long": good + "0",
        "upper": good.upper(),
        "line end": good + "\n",
        "empty": "",
    }[change]
    assert tokens.authenticate(bad) is None


def test_a_session_ends_with_its_time_its_logout_or_its_token(tokens, tmp_path):
    token = tokens.issue("alice")
    one, two, three = (tokens.open_session(token) for _ in range(3))
    assert one.expires == one.created + SESSION_LIFETIME
    for session in (one, two, three):
        assert tokens.authenticate(session.secret, session=True).principal == "alice"
        assert tokens.authenticate(session.secret) is None
    tokens.close_session(one)
    assert tokens.authenticate(one.secret, session=True) is None
    with transaction(tmp_path / "securefs.sqlite3") as database:
        database.execute("UPDATE tokens SET expires = 1 WHERE id = ?", (two.id,))
    assert tokens.authenticate(two.secret, session=True) is None
    assert tokens.revoke(token.id) == 1
    assert tokens.authenticate(three.secret, session=True) is None


def test_expired_sessions_do_not_pile_up(tokens, tmp_path):
    token = tokens.issue("alice")
    tokens.open_session(token)
    with transaction(tmp_path / "securefs.sqlite3") as database:
        database.execute("UPDATE tokens SET expires = 1 WHERE parent IS NOT NULL")
    tokens.open_session(token)
    with transaction(tmp_path / "securefs.sqlite3", write=False) as database:
        assert database.execute("SELECT count(*) FROM tokens").fetchone() == (2,)


def test_closing_a_session_never_ends_a_token(tokens):
    token = tokens.issue("alice")
    tokens.close_session(token)
    assert tokens.authenticate(token.secret) is not None


def test_revoking_by_id_ends_one_and_by_name_all(tokens):
    first, second, third = tokens.issue("alice"), tokens.issue("alice"), tokens.issue("alice")
    other = tokens.issue("bob")
    session = tokens.open_session(first)
    assert tokens.revoke(session.id) == 0
    assert tokens.revoke(first.id) == 1
    assert tokens.revoke("alice") == 2
    assert tokens.revoke("alice") == 0
    assert [tokens.authenticate(token.secret) for token in (first, second, third)] == [None] * 3
    assert [token.principal for token in tokens.list()] == ["bob"]
    assert tokens.authenticate(other.secret) is not None


@pytest.mark.parametrize(
    "name", ["", " ", "a" * 65, "a\nb", "\x1b[2J", "\u202e", "anonymous", "0123456789abcdef", "\udc80"]
)
def test_names_that_could_deceive_are_refused(tokens, name):
    with pytest.raises(ConfigurationError) as caught:
        tokens.issue(name)
    assert str(caught.value).isprintable()
    assert tokens.list() == []
