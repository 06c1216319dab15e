"""The listening sockets that systemd passes to us, sd_listen_fds(3): taken and found by address.

They are systemd's: the master never shuts them down, so that they outlive it.
"""

from __future__ import annotations

import contextlib
import os
import socket as flags
from collections.abc import MutableMapping

from ..address import Address
from ..native import getaddrinfo, socket
from .sockets import Listener, set_inherited_options

FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def take_passed(environ: MutableMapping[str, str]) -> list[tuple[str, socket]]:
    """The sockets systemd passed to this process, with their names; the variables are removed."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    names += [""] * (int(count) - len(names))
    return [(names[index], _take(FIRST_PASSED_FD + index)) for index in range(int(count))]


def _take(fd: int) -> socket:
    os.set_inheritable(fd, False)
    listener = socket(fileno=fd)
    listener.setblocking(False)
    if listener.family != flags.AF_UNIX:
        set_inherited_options(listener)
    return listener


def adopt(passed: list[tuple[str, socket]], service: str, address: Address) -> Listener | None:
    """Take the passed socket that is bound to `address`, or else is named like the service."""
    fitting = [entry for entry in passed if _is_bound_to(entry[1], address)]
    fitting += [entry for entry in passed if entry[0] == service]
    if not fitting:
        return None
    passed.remove(fitting[0])
    return Listener(address, fitting[0][1], is_ours=False)


def _is_bound_to(listener: socket, address: Address) -> bool:
    name = listener.getsockname()
    if listener.family == flags.AF_UNIX:
        return address.is_unix and name == address.path
    if address.is_unix or name[1] != address.port:
        return False
    with contextlib.suppress(OSError):
        infos = getaddrinfo(address.host, address.port, listener.family)
        return any(info[4][0] == name[0] for info in infos)
    return False
