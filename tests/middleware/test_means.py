"""The middleware and a vault take the same settings, refuse the same ones, and say the same of what is declared."""

from __future__ import annotations

import base64
import copy

import pytest
from support.sealing import KEY, OTHER_KEY
from support.uploads import KEYRING

from securefs import ConfigurationError, Keyring, Suite
from securefs.middleware import Policy, SecureFS, Vault
from securefs.middleware.means import Means, check_bound


def made(journal, **options):
    given = {"stores": None, "keyring": KEYRING, "journal": journal, "policy": Policy(), "on_event": None}
    return Means.of(*{**given, **options}.values())


def test_what_is_not_given_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(OTHER_KEY).decode())
    monkeypatch.setenv("SECUREFS_SUITE", "aes-256-gcm")
    monkeypatch.setenv("SECUREFS_STORES", str(tmp_path))
    means = Means.of(None, None, None, None, None)
    assert means.keyring.key_ids == Keyring(OTHER_KEY).key_ids
    assert (means.policy.suite, means.policy.stores) == (Suite.GCM, (str(tmp_path),))
    assert means.places.has_stores


def test_stores_replace_those_of_the_policy(journal, tmp_path):
    means = made(journal, stores=[tmp_path], policy=Policy(stores=("/nowhere",)))
    assert means.policy.stores == (str(tmp_path),)


BAD = {
    "keyring": KEY,
    "journal": "folder",
    "policy": {},
    "stores": "uploads",
    "on_event": 1,
}


@pytest.mark.parametrize(
    "kind", [lambda **options: SecureFS(lambda *_: [], **options), Vault], ids=["app", "vault"]
)
@pytest.mark.parametrize("name", BAD)
def test_the_same_arguments_are_refused_in_the_same_words(kind, name, journal):
    options = {"keyring": KEYRING, "journal": journal, "policy": Policy(), name: BAD[name]}
    with pytest.raises(ConfigurationError, match=f"^{name} must be "):
        kind(**options)


@pytest.mark.parametrize(
    ("policy", "reads"),
    [
        (Policy(), False),
        (Policy(format=1), True),
        (Policy(format_1_paths=("/old/*",)), True),
    ],
)
def test_format_1_is_read_where_the_policy_says_so(policy, reads, journal):
    means = made(journal, policy=policy)
    assert means.reads_format_1 is reads
    if reads:
        with pytest.raises(ConfigurationError, match=r"^Vault\(context=…\) binds files"):
            check_bound(policy, "Vault(context=…)")
    else:
        check_bound(policy, "Vault(context=…)")


def test_what_is_undeclared_is_told_once(journal, caplog, tmp_path):
    made(journal, stores=[tmp_path]).announce("a warning")
    assert not caplog.records
    made(journal).announce("a warning")
    assert caplog.messages == ["a warning"]
    journal.check()
    assert journal.records("server.start")[0]["obj"]["places"] == "undeclared"


def test_keys_are_not_copied(journal):
    with pytest.raises(TypeError, match=r"Means holds secret keys"):
        copy.copy(made(journal))
