"""A listening socket: how it is bound, what its connections inherit, how it stops accepting.

It is non-blocking, as all workers of a service accept from the same one. The master alone binds it
and shuts it down.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket as flags
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..address import Address
from ..native import getaddrinfo, seqpacket_pair, socket
from .holders import holder
from .ownfiles import OwnFile
from .unixsockets import WE, Owner, bind_unix, remove_stale

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module does not name it
PORT_TRIES = 10  # to find a free port that is free on each address of a name
ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}  # on this machine


class CannotListen(Exception):
    """One line that says which address, and why."""


@dataclass(eq=False)
class Listener:
    """The listening sockets of a service: one, or one for each address that a name has.

    Attributes:
        address: as configured; port 0 stays 0.
        sockets: at least one.
        is_ours: we bound them, so we may shut them down and remove their file.
        file: of a unix socket that we bound.
        lobby: where connections wait that were accepted and have no turn; as long as the listener.
    """

    address: Address
    sockets: tuple[socket, ...]
    is_ours: bool
    file: OwnFile | None = None
    lobby: tuple[socket, socket] = field(default_factory=seqpacket_pair)

    @property
    def socket(self) -> socket:
        """The first one."""
        return self.sockets[0]

    @property
    def bound(self) -> Address:
        """The address as it is, with the port that the kernel chose."""
        name = self.socket.getsockname()
        if self.address.is_unix or not isinstance(name, tuple):
            return self.address
        return Address(self.address.protocol, self.address.host, name[1])

    def hold_off(self) -> None:
        """Have the kernel drop new handshakes, so that what is accepted last was the last.

        A connection that is made between the last accept and `refuse` would be reset, with the
        call that its peer has perhaps sent already. So callers that come now get no answer to
        their SYN, and a refusal when they repeat it a second later.
        """
        if self.is_ours and not self.address.is_unix:
            program = struct.pack("HP", 5, ctypes.addressof(_DROP_SYN))
            for each in self.sockets:
                with contextlib.suppress(OSError):
                    each.setsockopt(flags.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def refuse(self) -> None:
        """Have the kernel refuse connections, whichever process still holds the sockets, too."""
        if self.is_ours:
            for each in self.sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(flags.SHUT_RD)
        self.close()

    def close(self) -> None:
        """Close our descriptors, and remove the file of a unix socket that we bound."""
        if self.file is not None and self.socket.fileno() >= 0:
            self.file.remove()
        self.close_in_child()

    def close_in_child(self) -> None:
        """Close this process's descriptors alone."""
        for each in (*self.sockets, *self.lobby):
            each.close()


# Classic BPF, socket(7): drop segments with SYN and without ACK, pass all others.
_DROP_SYN = ctypes.create_string_buffer(
    struct.pack(
        "HBBI" * 5,
        *(0x30, 0, 0, 13),  # load the TCP header's flags
        *(0x54, 0, 0, 0x12),  # of these, SYN and ACK
        *(0x15, 0, 1, 0x02),  # SYN alone?
        *(0x06, 0, 0, 0),  # yes: keep nothing of it
        *(0x06, 0, 0, 0xFFFF),  # no: keep all
    ),
    40,
)


def listen(address: Address, backlog: int, mode: int, owner: Owner = WE) -> Listener:
    """Bind and listen.

    Args:
        mode: permissions of a unix socket's file.
        owner: whose that file is.

    Raises:
        CannotListen: e.g. the port is in use.
    """
    try:
        listener = _bind_unix(address, mode, owner) if address.is_unix else _bind_tcp(address)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(address, error)}") from error
    for each in listener.sockets:
        each.setblocking(False)
        each.listen(backlog)
    return listener


def _reason(address: Address, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE or isinstance(error, flags.gaierror):
        return str(error.strerror)
    whose = holder(address)
    return "address already in use" + (f" by {whose}" if whose else "")


def _bind_unix(address: Address, mode: int, owner: Owner) -> Listener:
    remove_stale(address.path, owner)
    listener = bind_unix(address.path, mode, owner)
    return Listener(address, (listener,), is_ours=True, file=OwnFile(address.path))


def _bind_tcp(address: Address) -> Listener:
    """A socket for each address that the host has, all of them on one port."""
    infos = getaddrinfo(address.host, address.port, type=flags.SOCK_STREAM, flags=flags.AI_PASSIVE)
    places = list(dict.fromkeys((info[0], info[4]) for info in infos))
    for left in reversed(range(PORT_TRIES)):
        try:
            return Listener(address, _bind_all(places), is_ours=True)
        except OSError as error:
            # A port that is free at the first address may be another's at the second.
            if error.errno != errno.EADDRINUSE or address.port or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _bind_all(places: Iterable[tuple[int, Any]]) -> tuple[socket, ...]:
    """Bind those of the addresses that this machine has, at least one."""
    bound: list[socket] = []
    absent: OSError | None = None
    try:
        for family, (host, port, *rest) in places:
            port = bound[0].getsockname()[1] if bound else port
            try:
                bound.append(_bind_one(family, (host, port, *rest)))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
        if absent is not None and not bound:
            raise absent
    except OSError:
        for each in bound:
            each.close()
        raise
    return tuple(bound)


def _bind_one(family: int, sockaddr: tuple[Any, ...]) -> socket:
    listener = socket(family, flags.SOCK_STREAM)
    try:
        listener.setsockopt(flags.SOL_SOCKET, flags.SO_REUSEADDR, 1)
        if family == flags.AF_INET6:  # "any" is any address of either family, as elsewhere
            listener.setsockopt(flags.IPPROTO_IPV6, flags.IPV6_V6ONLY, sockaddr[0] != "::")
        listener.bind(sockaddr)
        set_inherited_options(listener)
    except OSError:
        listener.close()
        raise
    return listener


def set_inherited_options(listener: socket) -> None:
    """Set the options that Linux hands on to the TCP connections a listener accepts."""
    listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_NODELAY, 1)
    listener.setsockopt(flags.SOL_SOCKET, flags.SO_KEEPALIVE, 1)
    # A peer that vanished without a word is noticed after 30 + 3 * 10 seconds of silence.
    listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_KEEPIDLE, 30)
    listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_KEEPINTVL, 10)
    listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_KEEPCNT, 3)
    host = listener.getsockname()[0]
    if host == "::1" or host.startswith("127."):
        # Within the machine nothing is to be paced, as BBR does for 2 % of a task's CPU time. Reno
        # is in every kernel, and open to everybody (tcp(7)).
        listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_CONGESTION, b"reno")
