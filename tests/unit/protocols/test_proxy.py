"""PROXY headers of both versions: who is named, what is refused, and that nothing more is taken."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from gtask.protocols.proxy import LOCAL, PROXY, SIGNATURE, TCP4, TCP6, ProxyError, ProxyHeader

BEHIND = b"\x16\x03\x01 what the client says"


def binary(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", size) + rest


def addresses(source: str, port: int) -> bytes:
    packed = ipaddress.ip_address(source).packed
    return packed + packed + struct.pack("!HH", port, 12345)


def read(data: bytes, step: int) -> tuple[object, int]:
    """The source, and how much was taken, fed in pieces."""
    header, taken = ProxyHeader(), 0
    for start in range(0, len(data), step):
        taken += header.feed(data[start : start + step])
        if header.is_complete:
            return header.source, taken
    return "not complete", taken


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 51000 12345\r\n", ("203.0.113.9", 51000)),
        (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", ("2001:db8::1", 65535)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (binary(PROXY, TCP4, addresses("203.0.113.9", 51000)), ("203.0.113.9", 51000)),
        (binary(PROXY, TCP6, addresses("2001:db8::1", 1)), ("2001:db8::1", 1)),
        (binary(PROXY, TCP4, addresses("203.0.113.9", 7) + b"\x04\x00\x03abc"), ("203.0.113.9", 7)),
        (binary(PROXY, TCP4, addresses("203.0.113.9", 7) + bytes(3000)), ("203.0.113.9", 7)),
        (binary(LOCAL, 0, b""), None),
        (binary(LOCAL, TCP4, addresses("203.0.113.9", 7)), None),
        (binary(PROXY, 0x00, b""), None),
        (binary(PROXY, 0x31, b"/run/a".ljust(108, b"\0") * 2), None),
    ],
)
@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_who_is_named_and_where_it_ends(header, source, step):
    assert read(header + BEHIND, step) == (source, len(header))


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 203.0.113.9 127.0.0.1 51000", SIGNATURE, b"", b"P"]
)
def test_half_a_header(header):
    assert read(header, 100) == ("not complete", len(header))


@pytest.mark.parametrize(
    "data",
    [
        b'{"function": "echo"}\n',
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"PROXY TCP4 203.0.113.9 127.0.0.1 51000 12345 6\r\n",
        b"PROXY TCP4 203.0.113.9 127.0.0.1 51000\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 51000 12345\r\n",
        b"PROXY TCP6 203.0.113.9 127.0.0.1 51000 12345\r\n",
        b"PROXY TCP4 203.0.113.999 127.0.0.1 51000 12345\r\n",
        b"PROXY TCP4 203.0.113.9 127.0.0.1 65536 12345\r\n",
        b"PROXY TCP4 203.0.113.9 127.0.0.1 +5 12345\r\n",
        b"PROXY  TCP4 203.0.113.9 127.0.0.1 51000 12345\r\n",
        b"PROXY UDP4 203.0.113.9 127.0.0.1 51000 12345\r\n",
        b"proxy TCP4 203.0.113.9 127.0.0.1 51000 12345\r\n",
        b"PROXY TCP4 " + b"1" * 100,
        b"PROXY UNKNOWN " + b"1" * 100 + b"\r\n",
        binary(0x22, TCP4, addresses("203.0.113.9", 7)),
        binary(0x11, TCP4, addresses("203.0.113.9", 7)),
        binary(PROXY, 0x12, addresses("203.0.113.9", 7)),
        binary(PROXY, TCP4, bytes(11)),
        binary(PROXY, TCP6, addresses("203.0.113.9", 7)),
        SIGNATURE[:-1] + b"\r",
    ],
)
def test_what_is_no_such_header(data):
    with pytest.raises(ProxyError):
        read(data + BEHIND, 100_000)
