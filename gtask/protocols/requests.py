"""The calling side of the wire: calls as lines, in both dialects.

Lines are joined from parts that are encoded once, which is about three times as fast as encoding
an object for each call.
"""

from __future__ import annotations

from functools import lru_cache

from .jsontext import dumps

PING_ID = 0  # calls are numbered from 1


def encode_rpc(
    id: int, function: str, args: bytes, timeout: float | None = None, wants_progress: bool = False
) -> bytes:
    """A JSON-RPC request with its LF: plain, or as `gtask.call` where it has options.

    Args:
        args: the arguments as JSON, or empty for none.
        timeout: seconds the server may take, or None.
    """
    if timeout is None and not wants_progress:
        if not args:
            return b'%b,"id":%d}\n' % (_plain_head(function), id)
        return b'%b,"params":%b,"id":%d}\n' % (_plain_head(function), args, id)
    options = []
    if timeout is not None:
        options.append(b'"timeout":%.6g' % timeout)
    if wants_progress:
        options.append(b'"progress":true')
    return b'%b,"args":%b,"options":{%b}},"id":%d}\n' % (
        _call_head(function),
        args or b"[]",
        b",".join(options),
        id,
    )


def encode_bare(function: str, args: bytes, timeout: float | None = None) -> bytes:
    """A bare task with its LF."""
    limit = b"" if timeout is None else b',"timeout":%.6g' % timeout
    return b'{"function":%b,"args":%b%b}\n' % (dumps(function), args or b"[]", limit)


def encode_cancel(id: int) -> bytes:
    """The notification that cancels a call, with its LF."""
    return b'{"jsonrpc":"2.0","method":"gtask.cancel","params":{"id":%d}}\n' % id


def encode_ping() -> bytes:
    """A call of `gtask.ping` under an id that no other call has, with its LF."""
    return encode_rpc(PING_ID, "gtask.ping", b"")


@lru_cache(maxsize=1024)
def _plain_head(function: str) -> bytes:
    return b'{"jsonrpc":"2.0","method":%b' % dumps(function)


@lru_cache(maxsize=1024)
def _call_head(function: str) -> bytes:
    return b'{"jsonrpc":"2.0","method":"gtask.call","params":{"function":%b' % dumps(function)
