"""Addresses as users write them."""

from __future__ import annotations

import pytest

from gtask.address import Address, format_address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("text://127.0.0.1:12345", Address("text", "127.0.0.1", 12345)),
        ("Text://0.0.0.0:0", Address("text", "0.0.0.0", 0)),
        ("TEXT://host.example:1/", Address("text", "host.example", 1)),
        ("text://[::1]:5", Address("text", "::1", 5)),
        ("text+unix:///run/a.sock", Address("text", path="/run/a.sock")),
        ("websocket://127.0.0.1:80", Address("websocket", "127.0.0.1", 80)),
        ("websocket+unix:///run/w", Address("websocket", path="/run/w")),
        (" text://[fe80::1%eth0]:1 ", Address("text", "fe80::1%eth0", 1)),
    ],
)
def test_what_is_read(url, address):
    assert parse_address(url) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:1", "http://h:1", "text://", "text://h", "text://h:", "text://:1", "text://h:x",
        "text://h:65536", "text://h:-1", "text://::1:5", "text+unix://x", "text+unix:///", "text+tls://h:1",
        "text://h:１", "text://a b:1", "text://h/path:1", "text://user@h:1", "text://[::1:1", "text://h]:1", "text://[]:1",
    ],
)  # fmt: skip
def test_what_is_refused(url):
    with pytest.raises(ValueError, match=r"."):
        parse_address(url)


def test_what_a_socket_takes():
    assert parse_address("text://h:1").sockaddr == ("h", 1)
    assert parse_address("text+unix:///p").sockaddr == "/p"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (("::ffff:0", 80, 0, 0), "[::ffff:0]:80"),
        ("/run/gtask.sock", "/run/gtask.sock"),
        (b"\0abstract", "\0abstract"),
        (b"\0\xff", "\0\\xff"),
        ("", ""),
    ],
)
def test_what_people_read(address, text):
    assert format_address(address) == text


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("text://Host.example.:1", "Host.example"),
        ("text://[fe80::1%eth0]:1", "fe80::1"),
        ("text://10.0.0.1:1", "10.0.0.1"),
        ("text+unix:///run/x", ""),
    ],
)
def test_the_name_in_certificates_has_neither_final_dot_nor_scope(url, name):
    assert parse_address(url).server_name == name
