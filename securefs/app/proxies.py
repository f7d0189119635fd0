"""Whose address the journal records, if a proxy stands in front of the app.

The server sees the proxy. The proxy names its client in ``X-Forwarded-For``, but any client can
send that header, too, and most proxies add to it. So it is read from its end, and an address counts
only if a proxy that ``SECUREFS_TRUSTED_PROXIES`` lists has written it. By default none is listed,
and the header is ignored.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from securefs import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["PROXIES_VARIABLE", "TrustedProxies"]

PROXIES_VARIABLE: Final = "SECUREFS_TRUSTED_PROXIES"


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed.

    :param text: addresses and networks such as ``10.0.0.0/8``, comma-separated.
    :raises ConfigurationError: one of them is neither.
    """

    def __init__(self, text: str) -> None:
        self._networks = [_network(item.strip()) for item in text.split(",") if item.strip()]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> TrustedProxies:
        """Return the proxies that ``SECUREFS_TRUSTED_PROXIES`` lists."""
        return cls(environ.get(PROXIES_VARIABLE, ""))

    def client_address(self, peer: str, forwarded: str) -> str:
        """Return the address of the client.

        It is the first one, from the end, that is not a trusted proxy's. If what a trusted proxy
        wrote is no address, it is that proxy's.

        :param peer: the other end of the connection, ``REMOTE_ADDR``.
        :param forwarded: the value of ``X-Forwarded-For``, "" if there is none.
        """
        hops = [hop.strip() for hop in forwarded.split(",")]
        while hops and self._trusts(peer) and _is_address(hops[-1]):
            peer = hops.pop()
        return peer

    def _trusts(self, peer: str) -> bool:
        return _is_address(peer) and any(ip_address(peer) in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ConfigurationError(
            f"{PROXIES_VARIABLE}: {text!r} is neither an address nor a network: write 127.0.0.1 or 10.0.0.0/8"
        ) from None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
