"""What proxies tell of the client: `X-Forwarded-For` and `-Proto`, else `Forwarded`, RFC 7239."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

Headers = list[tuple[str, str]]

PAIR = re.compile(r"""\s*([A-Za-z]+)=(?:"([^"\\]*)"|([^\s;,"]*))\s*""")
SCHEMES = ("http", "https")


def client_of(
    headers: Headers, peer: Any, scheme: str, is_proxy: Callable[[Any], bool]
) -> tuple[Any, str]:
    """The client's address and scheme, as far as those are believed that tell it.

    Each proxy adds the address that it was called from behind those that it was told. So they are
    read from the last to the first, up to the first that is no proxy's: what stands before it,
    anybody may have written.

    Args:
        peer: who is connected.
        scheme: that of the connection.
        is_proxy: whose word is believed.
    """
    if not is_proxy(peer):
        return peer, scheme
    hops = _x_forwarded(headers) or _forwarded(headers)
    for address, said_scheme in reversed(hops):
        if not is_proxy(peer):
            break
        if said_scheme in SCHEMES:
            scheme = said_scheme
        if address is None:
            break  # hidden, or not known to the proxy
        peer = address
    return peer, scheme


def _x_forwarded(headers: Headers) -> list[tuple[Any, str]]:
    addresses = list(_items(headers, "x-forwarded-for"))
    schemes = list(_items(headers, "x-forwarded-proto"))
    if not addresses:
        return [(None, schemes[-1].lower())] if schemes else []
    if len(schemes) != len(addresses):  # proxies replace it, unlike the addresses
        schemes = [""] * (len(addresses) - 1) + (schemes[-1:] or [""])
    return [(_address(a), s.lower()) for a, s in zip(addresses, schemes, strict=True)]


def _forwarded(headers: Headers) -> list[tuple[Any, str]]:
    hops = []
    for item in _items(headers, "forwarded"):
        said = {}
        for name, quoted, bare in PAIR.findall(item):
            said[name.lower()] = quoted or bare
        hops.append((_address(said.get("for", "")), said.get("proto", "").lower()))
    return hops


def _items(headers: Headers, name: str) -> Iterator[str]:
    for key, value in headers:
        if key == name:
            yield from (item.strip() for item in value.split(",") if item.strip())


def _address(text: str) -> tuple[str, int] | None:
    """Host and port, 0 if that was not told; None where it is no address."""
    host, port = text, ""
    if match := re.fullmatch(r"\[([^\]]*)\](?::([0-9]{1,5}))?", text):
        host, port = match[1], match[2] or ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return str(ipaddress.ip_address(host)), int(port or 0)
    except ValueError:
        return None
