"""Addresses that only this machine can reach."""

from __future__ import annotations

import pytest

from securefs import ConfigurationError
from securefs.cli.loopback import is_loopback, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        (" 127.9.9.9:0 ", ("127.9.9.9", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_a_loopback_address_is_taken(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9464",
        ":9464",
        "0.0.0.0:9464",
        "[::]:9464",
        "192.0.2.7:9464",
        "[2001:db8::1]:9464",
        "localhost:9464",
        "metrics.example:9464",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:\u0663",
        "127.0.0.1:9464/metrics",
        "::1:9464",
        "[127.0.0.1]:9464",
        "127.1:9464",
    ],
)
def test_any_other_is_refused(text):
    with pytest.raises(
        ConfigurationError, match=r"^SECUREFS_METRICS is .*: it must be a loopback address and a port"
    ):
        parse_address(text)


@pytest.mark.parametrize(
    "host", ["", "127.0.0.1", "127.0.0.1:9464", "[::1]", "[::1]:9464", "localhost", "LOCALHOST:1"]
)
def test_a_host_header_of_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9464",
        "192.0.2.7",
        "[2001:db8::1]:1",
        "::1",
        "127.0.0.1.evil.example",
        ":",
        "[",
        "localhost.evil.example",
    ],
)
def test_a_host_header_of_another(host):
    assert not is_loopback(host)
