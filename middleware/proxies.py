"""Whose address the journal records, if a proxy stands in front of the app.

The server sees the proxy. The proxy names its client in ``X-Forwarded-For``, but any client can
send that header, too, and most proxies add to it. So it is read from its end, and an address counts
only if a proxy that ``SECUREFS_TRUSTED_PROXIES`` (``Policy.trusted_proxies``) lists has written it.
By default none is listed, and the header is ignored.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["UNIX", "TrustedProxies"]

UNIX: Final = "unix"  # a proxy that is connected through a Unix socket, which has no address


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed.

    :param listed: addresses, networks such as ``10.0.0.0/8``, and ``unix``.
    :raises ConfigurationError: one of them is none of these.
    """

    def __init__(self, listed: Iterable[str]) -> None:
        items = frozenset(listed)
        self._unix = UNIX in items
        self._networks = [_network(item) for item in sorted(items - {UNIX})]

    def client_address(self, peer: str, forwarded: str) -> str:
        """Return the address of the client.

        It is the first one, from the end, that is not a trusted proxy's. If what a trusted proxy
        wrote is no address, it is that proxy's.

        :param peer: the other end of the connection, ``REMOTE_ADDR``; "" if it is a Unix socket.
        :param forwarded: the value of ``X-Forwarded-For``, "" if there is none.
        """
        hops = [hop.strip() for hop in forwarded.split(",")]
        while hops and self._trusts(peer) and _address(hops[-1]) is not None:
            peer = hops.pop()
        return peer

    def _trusts(self, peer: str) -> bool:
        if not peer:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ConfigurationError(
            f"trusted_proxies (SECUREFS_TRUSTED_PROXIES): {text!r} is neither an address nor a network: write "
            "127.0.0.1 or 10.0.0.0/8, or unix for a Unix socket"
        ) from None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket for both protocols shows an IPv4 client as ::ffff:192.0.2.7.
    return getattr(address, "ipv4_mapped", None) or address
