"""Which peers may connect, and which are proxies whose word is believed."""

from __future__ import annotations

import ipaddress
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """The keys `allow` and `proxy_networks` of a service.

    The peers of a unix socket have no network: the socket's mode says who may connect, and where
    proxies are named, it is one.

    Args:
        judges_requests: a proxy may connect in any case, as each request tells who its client is.
    """

    def __init__(
        self,
        allow: tuple[Network, ...] = (),
        proxies: tuple[Network, ...] = (),
        *,
        judges_requests: bool = False,
    ) -> None:
        self._allow = allow
        self._proxies = proxies
        self._judges_requests = judges_requests

    def may_connect(self, address: Any) -> bool:
        """Whether a connection from there is taken up."""
        return self.is_allowed(address) or (self._judges_requests and self.is_proxy(address))

    def is_allowed(self, address: Any) -> bool:
        """Whether the client at `address` may be served."""
        return not self._allow or not isinstance(address, tuple) or _is_in(address, self._allow)

    def is_proxy(self, address: Any) -> bool:
        """Whether the peer there may tell for whom it has come."""
        if not self._proxies:
            return False
        return not isinstance(address, tuple) or _is_in(address, self._proxies)


def _is_in(address: tuple[Any, ...], networks: tuple[Network, ...]) -> bool:
    host = ipaddress.ip_address(address[0].partition("%")[0])
    host = getattr(host, "ipv4_mapped", None) or host
    return any(host in network for network in networks)
