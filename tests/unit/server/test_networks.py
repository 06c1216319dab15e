"""Who may connect, and who is believed to be a proxy."""

from __future__ import annotations

import ipaddress

import pytest

from gtask.server.networks import Networks

ALLOW = (ipaddress.ip_network("203.0.113.0/24"),)
PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fe80::/10"))


@pytest.mark.parametrize(
    ("address", "is_proxy"),
    [
        (("10.1.2.3", 1), True),
        (("::ffff:10.1.2.3", 1, 0, 0), True),
        (("fe80::1%eth0", 1, 0, 2), True),
        (("11.1.2.3", 1), False),
        ("", True),
        (b"\0abstract", True),
    ],
)
def test_proxies(address, is_proxy):
    assert Networks(ALLOW, PROXIES).is_proxy(address) is is_proxy
    assert not Networks(ALLOW).is_proxy(address)


def test_a_proxy_whose_requests_are_judged_may_connect_in_any_case():
    proxy, client, other = ("10.1.2.3", 1), ("203.0.113.9", 1), ("192.0.2.1", 1)
    strict, by_request = Networks(ALLOW, PROXIES), Networks(ALLOW, PROXIES, judges_requests=True)
    assert [strict.may_connect(each) for each in (proxy, client, other)] == [False, True, False]
    assert [by_request.may_connect(each) for each in (proxy, client, other)] == [True, True, False]
    assert not by_request.is_allowed(proxy)
