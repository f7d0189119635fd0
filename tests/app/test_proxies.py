"""Behind proxies, the client's address is what a trusted proxy wrote, and never what a client claims."""

from __future__ import annotations

import pytest
from support.journals import all_records
from support.reference_app import Site

from securefs import ConfigurationError
from securefs.app.proxies import TrustedProxies

CLAIM = "203.0.113.9"  # what a client sent itself
TRUSTED = "127.0.0.1, ::1,10.0.0.0/8,"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        pytest.param("127.0.0.1", "192.0.2.7", "192.0.2.7", id="a proxy"),
        pytest.param("::1", "2001:db8::7", "2001:db8::7", id="version 6"),
        pytest.param("127.0.0.1", f"{CLAIM}, 192.0.2.7", "192.0.2.7", id="a claim before it"),
        pytest.param("127.0.0.1", f"{CLAIM}, 192.0.2.7 , 10.1.2.3", "192.0.2.7", id="two proxies"),
        pytest.param("127.0.0.1", "10.1.2.3", "10.1.2.3", id="a proxy's own request"),
        pytest.param("127.0.0.1", "", "127.0.0.1", id="no header"),
        pytest.param("127.0.0.1", f"{CLAIM}, unknown", "127.0.0.1", id="no address"),
        pytest.param("127.0.0.1", f"{CLAIM}, 192.0.2.7:80", "127.0.0.1", id="a port"),
        pytest.param("127.0.0.1", f"{CLAIM},", "127.0.0.1", id="nothing at the end"),
        pytest.param("198.51.100.1", CLAIM, "198.51.100.1", id="a stranger"),
        pytest.param("", CLAIM, "", id="a Unix socket"),
    ],
)
def test_the_address_is_the_last_that_no_trusted_proxy_has(peer, forwarded, address):
    assert TrustedProxies(TRUSTED).client_address(peer, forwarded) == address


def test_by_default_nobody_is_believed():
    assert TrustedProxies.from_env({}).client_address("127.0.0.1", CLAIM) == "127.0.0.1"


@pytest.mark.parametrize("item", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_what_is_no_address_is_refused_with_the_variable_s_name(item):
    with pytest.raises(ConfigurationError, match=r"^SECUREFS_TRUSTED_PROXIES: .* write 127\.0\.0\.1"):
        TrustedProxies(f"127.0.0.1,{item}")


@pytest.mark.parametrize(("trusted", "address"), [("127.0.0.1", "192.0.2.7"), ("", "127.0.0.1")])
def test_the_journal_has_the_client_s_address(tmp_path, trusted, address):
    site = Site(tmp_path, SECUREFS_TRUSTED_PROXIES=trusted)
    headers = {**site.alice, "X-Forwarded-For": f"{CLAIM}, 192.0.2.7"}
    site.upload(("a", b"1"), headers=headers, environ_overrides={"REMOTE_ADDR": "127.0.0.1"})
    found = {record["src"].get("addr") for record in all_records(tmp_path / "journal")}
    assert found == {None, address}  # no request made the first record
