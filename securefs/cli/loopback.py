"""Addresses that only this machine can reach."""

from __future__ import annotations

import ipaddress
from typing import Final

from securefs.errors import ConfigurationError

__all__ = ["METRICS_VARIABLE", "is_loopback", "parse_address"]

METRICS_VARIABLE: Final = "SECUREFS_METRICS"
_MAX_PORT: Final = 65_535


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:9464`` or ``[::1]:9464``.

    :raises ConfigurationError: it is no such address, or other machines can reach it.
    """
    host, _, port = text.strip().rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT)) else -1
    address = _ip(host)
    if address is None or not address.is_loopback or not 0 <= number <= _MAX_PORT:
        raise ConfigurationError(
            f"{METRICS_VARIABLE} is {text!a}: it must be a loopback address and a port, such as 127.0.0.1:9464; "
            "metrics are for this machine, and for whom a proxy on it lets in"
        )
    return str(address), number


def is_loopback(host: str) -> bool:
    """Return whether a ``Host`` header names this machine; none at all comes from no browser."""
    if not host:
        return True
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    address = _ip(name)
    return name.lower() == "localhost" if address is None else address.is_loopback


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    return address if bracketed == (address.version == 6) else None  # noqa: PLR2004  # IPv6
