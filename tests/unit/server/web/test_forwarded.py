"""Who the client is, as far as proxies are believed that tell it."""

from __future__ import annotations

import ipaddress

import pytest

from gtask.server.networks import Networks
from gtask.server.web.forwarded import client_of

PROXIES = Networks(
    proxies=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
)
PEER = ("10.0.0.1", 40000)


def found(headers, peer=PEER):
    return client_of(headers, peer, "http", PROXIES.is_proxy)


def x(addresses="", scheme=""):
    headers = [("x-forwarded-for", addresses)] if addresses else []
    return headers + ([("x-forwarded-proto", scheme)] if scheme else [])


@pytest.mark.parametrize(
    ("headers", "client", "scheme"),
    [
        ([], PEER, "http"),
        (x("203.0.113.9"), ("203.0.113.9", 0), "http"),
        (x("203.0.113.9", "https"), ("203.0.113.9", 0), "https"),
        (x("203.0.113.9:51000", "HTTPS"), ("203.0.113.9", 51000), "https"),
        (x("2001:4860::1"), ("2001:4860::1", 0), "http"),
        (x("[2001:4860::1]:5"), ("2001:4860::1", 5), "http"),
        (x("", "https"), PEER, "https"),
        (x("203.0.113.9", "gopher"), ("203.0.113.9", 0), "http"),
        # what stands before the first that is no proxy, anybody may have written
        (x("198.51.100.7, 203.0.113.9"), ("203.0.113.9", 0), "http"),
        (x("198.51.100.7, 203.0.113.9, 10.0.0.2"), ("203.0.113.9", 0), "http"),
        ([*x("198.51.100.7"), *x("203.0.113.9, 2001:db8::5")], ("203.0.113.9", 0), "http"),
        (x("10.0.0.3, 10.0.0.2"), ("10.0.0.3", 0), "http"),
        (x("203.0.113.9, 10.0.0.2", "https, http"), ("203.0.113.9", 0), "https"),
        (x("203.0.113.9, 10.0.0.2", "https"), ("203.0.113.9", 0), "https"),
        # what is no address ends the search
        (x("203.0.113.9, unknown"), PEER, "http"),
        (x("203.0.113.9, 203.0.113.999, 10.0.0.2"), ("10.0.0.2", 0), "http"),
        (x(" , "), PEER, "http"),
        # RFC 7239
        ([("forwarded", "for=203.0.113.9;proto=https;by=10.0.0.1")], ("203.0.113.9", 0), "https"),
        ([("forwarded", 'For="[2001:4860::1]:51000"')], ("2001:4860::1", 51000), "http"),
        ([("forwarded", "for=1.1.1.1, for=203.0.113.9")], ("203.0.113.9", 0), "http"),
        ([("forwarded", "for=203.0.113.9, for=10.0.0.2;proto=https")], ("203.0.113.9", 0), "https"),
        ([("forwarded", 'for="1.1.1.1, for=203.0.113.9')], ("203.0.113.9", 0), "http"),
        ([("forwarded", "for=_hidden;proto=https")], PEER, "https"),
        ([("forwarded", "nonsense")], PEER, "http"),
        # most proxies set those with X and pass the other one on as it came
        ([*x("203.0.113.9"), ("forwarded", "for=1.1.1.1")], ("203.0.113.9", 0), "http"),
    ],
)
def test_the_client(headers, client, scheme):
    assert found(headers) == (client, scheme)


def test_others_are_not_believed():
    peer = ("192.0.2.1", 5)
    assert found(x("203.0.113.9", "https"), peer) == (peer, "http")


@pytest.mark.parametrize("peer", ["", b"\0abstract"])
def test_a_unix_socket_is_a_proxys_where_proxies_are_named(peer):
    assert found(x("203.0.113.9"), peer) == (("203.0.113.9", 0), "http")
    assert client_of(x("203.0.113.9"), peer, "http", Networks().is_proxy) == (peer, "http")
