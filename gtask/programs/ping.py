"""`gtask-ping`: asks a worker how it is, for people, monitoring and load balancers.

Plain blocking sockets and no gevent: keepalived starts this every few seconds for each server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from typing import Any

from ..address import Address, look_up, parse_address
from ..printable import printable
from .arguments import seconds
from .outcome import CANNOT_CONNECT, DONE, FAILED
from .printing import OutputLost, complain, forget_output, open_streams, write
from .tls import add_tls_options, tls_context
from .version import add_version_option

LVS_DOWN, LVS_BASE = 1, 2  # keepalived's MISC_CHECK: 1 is down, 2 and more is a weight plus 2
MAX_WEIGHT = 253
MAX_ANSWER_BYTES = 65536
REQUEST = b'{"jsonrpc":"2.0","method":"gtask.health","id":1}\n'

EPILOG = """exit codes:
  0   it is ready, or busy
  1   it is draining, or answers nothing that makes sense
  2   wrong usage
  75  no connection could be made
with --lvs, for `misc_dynamic` of keepalived:
  1       down
  2       draining: weight 0
  2 + W   ready: weight W; a quarter of that while it is busy
"""


def main(arguments: list[str] | None = None) -> int:
    """Ask; returns the exit code."""
    open_streams()
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        address = parse_address(options.url)
        if address.protocol != "text":
            raise ValueError(f"{options.url}: gtask-ping speaks text:// only")
        context = tls_context(options)
    except ValueError as error:
        parser.error(str(error))
    started = time.monotonic()
    try:
        health = _ask(address, context, options.timeout)
    except (OSError, ValueError) as error:
        return _tell_failure(options, error)
    return _tell(options, {**health, "ms": round((time.monotonic() - started) * 1000, 3)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gtask-ping",
        description="Ask a gtask worker how it is.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("url", metavar="URL", help="e.g. text://127.0.0.1:12345")
    parser.add_argument("--timeout", type=seconds, default=3.0, metavar="S", help="seconds (3)")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    parser.add_argument("--lvs", action="store_true", help="exit codes for keepalived")
    parser.add_argument(
        "--weight",
        type=int,
        default=100,
        metavar="W",
        choices=range(1, MAX_WEIGHT + 1),
        help="with --lvs: the weight of a ready server (100)",
    )
    add_tls_options(parser)
    add_version_option(parser)
    return parser


class _NoConnection(OSError):
    """Nothing could be reached."""


def _ask(address: Address, context: ssl.SSLContext | None, timeout: float) -> dict[str, Any]:
    """The answer of `gtask.health`.

    Raises:
        _NoConnection: nothing could be reached.
        OSError, ValueError: no answer in time, or none that makes sense.
    """
    deadline = time.monotonic() + timeout
    with _connect(address, timeout) as plain:
        plain.settimeout(_left(deadline))
        if context is None:
            return _health(_exchange(plain, deadline))
        with context.wrap_socket(plain, server_hostname=address.server_name or None) as secure:
            return _health(_exchange(secure, deadline))


def _left(deadline: float) -> float:
    """Seconds until `deadline`; never 0, with which a socket would not wait at all."""
    return max(0.001, deadline - time.monotonic())


def _connect(address: Address, timeout: float) -> socket.socket:
    try:
        if address.is_unix:
            return _connect_unix(address.path, timeout)
        return _connect_to_any(_look_up(address, timeout), time.monotonic() + timeout)
    except (OSError, ValueError) as error:  # ValueError: no name can be like that, IDNA says
        why = getattr(error, "strerror", None) or error
        raise _NoConnection(f"cannot connect: {why}") from None


def _look_up(address: Address, timeout: float) -> list[Any]:
    """The name's addresses, in the order to try."""
    found: list[Any] = []
    problems: list[Exception] = []

    def ask() -> None:
        try:
            found.extend(look_up(address, socket.getaddrinfo))
        except (OSError, ValueError) as error:
            problems.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # as nothing else ends it in time
    asking.start()
    asking.join(timeout)
    if problems:
        raise problems[0]
    if not found:
        raise OSError("name look-up timed out")
    return found


def _connect_to_any(found: list[Any], deadline: float) -> socket.socket:
    """A connection to the first address that answers; none has more than its share of the time."""
    problem: OSError = OSError("no address")
    for number, (family, kind, protocol, _, sockaddr) in enumerate(found):
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(_left(deadline) / (len(found) - number))
        try:
            connection.connect(sockaddr)
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    raise problem


def _connect_unix(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _exchange(connection: socket.socket, deadline: float) -> bytes:
    """Ask; returns the line that is the answer."""
    connection.sendall(REQUEST)
    answer = b""
    while b"\n" not in answer:
        connection.settimeout(_left(deadline))
        try:
            data = connection.recv(4096)
        except TimeoutError:
            raise ValueError("connected, but no answer in time") from None
        if not data:
            raise ValueError("closed the connection without an answer")
        answer += data
        if len(answer) > MAX_ANSWER_BYTES:
            raise ValueError("is not a gtask worker: the answer has no end")
    return answer.partition(b"\n")[0]


def _health(answer: bytes) -> dict[str, Any]:
    try:
        health: dict[str, Any] = json.loads(answer)["result"]
        if type(health["status"]) is not str:
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("is not a gtask worker") from None
    return health


def _tell(options: argparse.Namespace, health: dict[str, Any]) -> int:
    status = health["status"]
    is_shown = _show(options, health)
    if options.lvs:  # whether anybody reads what is printed says nothing of the server
        shares = {"ready": options.weight, "busy": max(1, options.weight // 4)}
        return LVS_BASE + int(shares.get(status, 0))
    return DONE if status in ("ready", "busy") and is_shown else FAILED


def _show(options: argparse.Namespace, health: dict[str, Any]) -> bool:
    """Print the answer; False if that cannot be done."""
    shown = [printable(health["status"])]
    shown += [f"{printable(health[key])} {key}" for key in ("running", "waiting") if key in health]
    line = f"{options.url}: {', '.join(shown)}, {health['ms']:.1f} ms"
    try:
        write(json.dumps({"url": options.url, **health}) if options.json else line)
    except BrokenPipeError:
        forget_output()
    except OutputLost as error:
        complain(f"gtask-ping: {error}")
        return False
    return True


def _tell_failure(options: argparse.Namespace, error: Exception) -> int:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if options.json:
        with contextlib.suppress(BrokenPipeError, OutputLost):
            write(json.dumps({"url": options.url, "status": "down", "error": text}))
    else:
        complain(f"gtask-ping: {options.url}: {printable(text)}")
    if options.lvs:
        return LVS_DOWN
    return CANNOT_CONNECT if isinstance(error, _NoConnection) else FAILED


if __name__ == "__main__":
    sys.exit(main())
