"""Requests whose end, or whose host, is a matter of opinion; each hides ``GET /smuggled``.

Collected from RFC 9112 sections 2.2, 3.2, 5 to 7 and 11, and from what was reported of proxies and
servers. A server that reads any of them otherwise than the proxy before it serves what the proxy
has never seen as a request.
"""

from __future__ import annotations

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"POST /first HTTP/1.1\r\nHost: a\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(NEXT)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(NEXT), NEXT)

HEADERS = {
    # by its length
    "two lengths": b"Content-Length: 0\r\n" + LENGTH,
    "two equal lengths": LENGTH + LENGTH,
    "a list of lengths": b"Content-Length: 0, %d\r\n" % len(NEXT),
    "a list of equal lengths": b"Content-Length: %d, %d\r\n" % (len(NEXT), len(NEXT)),
    "a length with a plus": b"Content-Length: +%d\r\n" % len(NEXT),
    "a length with a minus": b"Content-Length: -%d\r\n" % len(NEXT),
    "a length of minus nothing": b"Content-Length: -0\r\n",
    "a length with an underscore": b"Content-Length: 3_4\r\n",
    "a length with a blank": b"Content-Length: 3 4\r\n",
    "a length with a point": b"Content-Length: 34.0\r\n",
    "a length in hex": b"Content-Length: 0x22\r\n",
    "a length in quotes": b'Content-Length: "34"\r\n',
    "a length of other digits": "Content-Length: ٣٤\r\n".encode(),
    "an empty length": b"Content-Length:\r\n",
    "a length that no number holds": b"Content-Length: 18446744073709551650\r\n",
    "a length with a vertical tab": b"Content-Length: \x0b34\r\n",
    # by its coding
    "a length and a coding": LENGTH + CHUNKED,
    "a coding and a length": CHUNKED + LENGTH,
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked, gzip": b"Transfer-Encoding: chunked, gzip\r\n",
    "chunked twice": CHUNKED + CHUNKED,
    "chunked, chunked": b"Transfer-Encoding: chunked, chunked\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "identity, chunked": b"Transfer-Encoding: identity, chunked\r\n",
    "chunked, identity": b"Transfer-Encoding: chunked, identity\r\n",
    "two headers of codings": b"Transfer-Encoding: identity\r\n" + CHUNKED,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "an unknown coding and a length": b"Transfer-Encoding: xchunked\r\n" + LENGTH,
    "a quoted coding": b'Transfer-Encoding: "chunked"\r\n',
    "a coding with a parameter": b"Transfer-Encoding: chunked;q=1\r\n",
    "a coding with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "a coding with a NUL": b"Transfer-Encoding: chunked\x00\r\n",
    "an empty coding": b"Transfer-Encoding:\r\n",
    "an empty coding in the list": b"Transfer-Encoding: ,chunked\r\n",
    # by lines
    "a line without a colon": b"nonsense\r\n" + LENGTH,
    "a blank before the colon": b"Content-Length : %d\r\n" % len(NEXT),
    "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
    "a blank before the name": b" Content-Length: %d\r\n" % len(NEXT),
    "an empty name": b": a\r\n" + LENGTH,
    "a name with a control": b"Content-Length\x00: %d\r\n" % len(NEXT),
    "a name of other letters": "Content-Lengthé: 3\r\n".encode(),
    "a folded value": b"X: a\r\n b\r\n" + LENGTH,
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n",
    "a folded length": b"Content-Length: 3\r\n 4\r\n",
    "a bare CR": b"X: a\rContent-Length: %d\r\n" % len(NEXT),
    "a bare LF": b"X: a\nContent-Length: %d\r\n" % len(NEXT),
    "a bare LF at the end": b"X: a\r\n\n",
    "two CR": b"X: a\r\r\n" + LENGTH,
    "a NUL": b"X: a\x00b\r\n" + LENGTH,
    "a control": b"X: a\x01b\r\n" + LENGTH,
    # by the host
    "a second host": b"Host: b\r\n",
    "a second, equal host": b"Host: a\r\n",
}
BODIES = {
    "a chunk's size with a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk's size with a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk's size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a chunk's size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk's size with a blank": b"5 \r\nhello\r\n0\r\n\r\n",
    "a chunk's size behind a blank": b" 5\r\nhello\r\n0\r\n\r\n",
    "a chunk without a size": b"\r\nhello\r\n0\r\n\r\n",
    "a chunk with an extension only": b";a=b\r\nhello\r\n0\r\n\r\n",
    "a chunk's size that no number holds": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"4\r\nhello\r\n0\r\n\r\n",
    "a chunk that is shorter than it says": b"6\r\nhello\r\n0\r\n\r\n",
    "a bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare LF behind the chunk": b"5\r\nhello\n0\r\n\r\n",
    "nothing behind the chunk": b"5\r\nhello0\r\n\r\n",
    "a bare LF in an extension": b"5;a\nhello\r\n0\r\n\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a control in an extension": b"5;a\x00\r\nhello\r\n0\r\n\r\n",
    "a bare LF behind the last chunk": b"0\n\r\n",
    "a bare LF behind the trailers": b"0\r\n\n",
    "a bare LF in a trailer": b"0\r\nX: y\n\r\n",
    "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer without a colon": b"0\r\nnonsense\r\n\r\n",
    "a length in the trailers": b"0\r\n" + LENGTH + b"\r\n",
    "a coding in the trailers": b"0\r\n" + CHUNKED + b"\r\n",
}
LINES = {
    "no host": b"GET /first HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a host with a blank": b"GET /first HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a path": b"GET /first HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET /first HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a host with a port of letters": b"GET /first HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "bare LFs": b"GET /first HTTP/1.1\nHost: a\n\n",
    "a bare LF behind the line": b"GET /first HTTP/1.1\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /first\r\n\r\n",
    "HTTP/2.0": b"GET /first HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /first HTTP/1.2\r\nHost: a\r\n\r\n",
    "small letters": b"GET /first http/1.1\r\nHost: a\r\n\r\n",
    "a blank in the target": b"GET /first and HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control in the target": b"GET /fi\x00rst HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without a slash": b"GET first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab behind the method": b"GET\t/first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank behind the version": b"GET /first HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a header before all": b"GET /first HTTP/1.1\r\n Host: a\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /first HTTP/1.0\r\nConnection: keep-alive\r\n" + CHUNKED + b"\r\n" + CHUNKS,
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
}  # fmt: skip

AMBIGUOUS = {
    **{
        name: HEAD + lines + b"\r\n" + (CHUNKS if b"chunked" in lines else NEXT)
        for name, lines in HEADERS.items()
    },
    **{name: HEAD + CHUNKED + b"\r\n" + body + NEXT for name, body in BODIES.items()},
    **{name: request + NEXT for name, request in LINES.items()},
}
