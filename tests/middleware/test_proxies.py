"""Behind proxies, the client's address is what a trusted proxy wrote, and never what a client claims."""

from __future__ import annotations

import pytest
from support.journals import all_records
from support.reference_app import Site
from support.wsgi_client import call

from securefs import ConfigurationError
from securefs.middleware import Policy, SecureFS
from securefs.middleware.proxies import TrustedProxies

CLAIM = "203.0.113.9"  # what a client sent itself
TRUSTED = ("127.0.0.1", "::1", "10.0.0.0/8")


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
        pytest.param("::ffff:10.1.2.3", "192.0.2.7", "192.0.2.7", id="a socket for both protocols"),
        pytest.param("127.0.0.1", "::ffff:192.0.2.7", "::ffff:192.0.2.7", id="as the proxy wrote it"),
        pytest.param("::ffff:198.51.100.1", CLAIM, "::ffff:198.51.100.1", id="a stranger there"),
    ],
)
def test_the_address_is_the_last_that_no_trusted_proxy_has(peer, forwarded, address):
    assert TrustedProxies(TRUSTED).client_address(peer, forwarded) == address


def test_by_default_nobody_is_believed():
    assert Policy.from_env({}).trusted_proxies == ()
    for peer in ("127.0.0.1", ""):
        assert TrustedProxies(()).client_address(peer, CLAIM) == peer


def test_a_proxy_on_a_unix_socket_is_named_by_a_word():
    assert TrustedProxies(["unix"]).client_address("", f"{CLAIM}, 192.0.2.7") == "192.0.2.7"
    assert TrustedProxies(["unix", "10.0.0.0/8"]).client_address("", "192.0.2.7, 10.1.1.1") == "192.0.2.7"
    assert TrustedProxies(["unix"]).client_address("127.0.0.1", CLAIM) == "127.0.0.1"


@pytest.mark.parametrize("item", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_what_is_no_address_is_refused_with_the_variable_s_name(item):
    with pytest.raises(
        ConfigurationError, match=r"^trusted_proxies \(SECUREFS_TRUSTED_PROXIES\): .* write 127\.0\.0\.1"
    ):
        Policy.from_env({"SECUREFS_TRUSTED_PROXIES": f"127.0.0.1,{item}"})


@pytest.mark.parametrize(("trusted", "address"), [("127.0.0.1", "192.0.2.7"), ("", "127.0.0.1")])
def test_the_journal_has_the_client_s_address(tmp_path, trusted, address):
    site = Site(tmp_path, SECUREFS_TRUSTED_PROXIES=trusted)
    headers = {**site.alice, "X-Forwarded-For": f"{CLAIM}, 192.0.2.7"}
    site.upload(("a", b"1"), headers=headers, environ_overrides={"REMOTE_ADDR": "127.0.0.1"})
    client = {"addr": address} if address == "127.0.0.1" else {"addr": address, "peer": "127.0.0.1"}
    first, *others = all_records(tmp_path / "journal")
    assert "client" not in first, "no request made it"
    assert [record["client"] for record in others] == [client] * len(others)


def test_so_has_that_of_any_app(keyring, journal):
    def app(environ, start_response):
        start_response("200 OK", [])
        environ["securefs"].record("file.delete", about={"id": "0"})
        assert environ["REMOTE_ADDR"] == "", "the app sees what the server says"
        return [b""]

    wrapped = SecureFS(app, keyring=keyring, journal=journal, policy=Policy(trusted_proxies=("unix",)))
    call(wrapped, headers=[("X-Forwarded-For", "192.0.2.7")], REMOTE_ADDR="")
    call(wrapped, headers=[("X-Forwarded-For", "192.0.2.7, unknown")], REMOTE_ADDR="")
    one, other = journal.records("file.delete")
    assert one["client"] == {"addr": "192.0.2.7"}
    assert "client" not in other, "a Unix socket has no address"
