"""The listening sockets that systemd passes to us, sd_listen_fds(3): taken and found by address.

They are systemd's: the master never shuts them down, so that they outlive it.
"""

from __future__ import annotations

import contextlib
import os
import socket as flags
from collections.abc import MutableMapping

from ..address import Address, format_address
from ..logs.loggers import get_logger
from ..native import getaddrinfo, socket
from .sockets import Listener, set_inherited_options

FIRST_PASSED_FD = 3  # sd_listen_fds(3)

log = get_logger("gtask.master")


def take_passed(environ: MutableMapping[str, str]) -> list[tuple[str, socket]]:
    """The sockets systemd passed to this process, with their names; the variables are removed."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    names += [""] * (int(count) - len(names))
    passed: list[tuple[str, socket]] = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)):
        try:
            passed.append((names[fd - FIRST_PASSED_FD], _take(fd)))
        except OSError as error:
            log.warning("systemd passes descriptor %d, which is no socket: %s", fd, error.strerror)
    return passed


def _take(fd: int) -> socket:
    os.set_inheritable(fd, False)
    listener = socket(fileno=fd)
    listener.setblocking(False)
    if listener.family != flags.AF_UNIX and listener.type == flags.SOCK_STREAM:
        set_inherited_options(listener)
    return listener


def adopt(passed: list[tuple[str, socket]], service: str, address: Address) -> Listener | None:
    """Take the passed sockets that are bound to `address`, or else one that is named as the service.

    A name, as `localhost`, may have several addresses, and so several sockets.
    """
    streams = [entry for entry in passed if entry[1].type == flags.SOCK_STREAM]
    fitting = [entry for entry in streams if _is_bound_to(entry[1], address)]
    fitting = fitting or [entry for entry in streams if entry[0] == service][:1]
    if not fitting:
        return None
    for entry in fitting:
        passed.remove(entry)
    return Listener(address, tuple(entry[1] for entry in fitting), is_ours=False)


def in_the_way(passed: list[tuple[str, socket]], address: Address) -> str:
    """The socket on the port of `address` that systemd passes, as it is bound; empty if none is."""
    for _, listener in passed:
        if listener.family == flags.AF_UNIX or address.is_unix:
            continue
        if listener.getsockname()[1] == address.port:
            return format_address(listener.getsockname())
    return ""


def _is_bound_to(listener: socket, address: Address) -> bool:
    name = listener.getsockname()
    if listener.family == flags.AF_UNIX:
        return address.is_unix and name == address.path
    if address.is_unix or name[1] != address.port:
        return False
    if name[0] == "::" and address.host == "0.0.0.0" and _takes_both(listener):
        return True  # what `ListenStream=PORT` makes
    with contextlib.suppress(OSError):
        infos = getaddrinfo(address.host, address.port, listener.family)
        return any(info[4][0] == name[0] for info in infos)
    return False


def _takes_both(listener: socket) -> bool:
    """An IPv6 socket for IPv4, too."""
    return not listener.getsockopt(flags.IPPROTO_IPV6, flags.IPV6_V6ONLY)
