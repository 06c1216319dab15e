"""A listening socket: how it is bound, what its connections inherit, how it stops accepting.

It is non-blocking, as all workers of a service accept from the same one. The master alone binds it
and shuts it down.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket as flags
import stat
import struct
from dataclasses import dataclass

from ..address import Address
from ..native import getaddrinfo, socket
from .holders import holder

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module does not name it


class CannotListen(Exception):
    """One line that says which address, and why."""


@dataclass(eq=False)
class Listener:
    """A listening socket.

    Attributes:
        address: as configured; port 0 stays 0.
        is_ours: we bound it, so we may shut it down and remove its file.
    """

    address: Address
    socket: socket
    is_ours: bool

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
            with contextlib.suppress(OSError):
                self.socket.setsockopt(flags.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def refuse(self) -> None:
        """Have the kernel refuse connections, whichever process still holds the socket, too."""
        if self.is_ours:
            with contextlib.suppress(OSError):
                self.socket.shutdown(flags.SHUT_RD)
        self.close()

    def close(self) -> None:
        """Close our descriptor, and remove the file of a unix socket that we bound."""
        if self.is_ours and self.address.is_unix and self.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)
        self.socket.close()


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


def listen(address: Address, backlog: int, mode: int) -> Listener:
    """Bind and listen.

    Args:
        mode: permissions of a unix socket's file.

    Raises:
        CannotListen: e.g. the port is in use.
    """
    try:
        listener = _bind(address, mode)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(address, error)}") from error
    listener.setblocking(False)
    listener.listen(backlog)
    return Listener(address, listener, is_ours=True)


def _reason(address: Address, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE or isinstance(error, flags.gaierror):
        return str(error.strerror)
    whose = holder(address)
    return "address already in use" + (f" by {whose}" if whose else "")


def _bind(address: Address, mode: int) -> socket:
    if not address.is_unix:
        return _bind_tcp(address)
    remove_stale(address.path)
    return bind_unix(address.path, mode)


def _bind_tcp(address: Address) -> socket:
    infos = getaddrinfo(address.host, address.port, type=flags.SOCK_STREAM, flags=flags.AI_PASSIVE)
    family, kind, protocol, _, sockaddr = infos[0]
    listener = socket(family, kind, protocol)
    try:
        listener.setsockopt(flags.SOL_SOCKET, flags.SO_REUSEADDR, 1)
        if family == flags.AF_INET6:
            listener.setsockopt(flags.IPPROTO_IPV6, flags.IPV6_V6ONLY, 1)
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


def bind_unix(path: str, mode: int) -> socket:
    """A unix socket at `path`, whose file has `mode` from the start."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    listener = socket(flags.AF_UNIX, flags.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def remove_stale(path: str) -> None:
    """Remove the socket file that a killed process left.

    Raises:
        OSError: EADDRINUSE if somebody listens there, EEXIST if it is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a socket", path)
    except FileNotFoundError:
        return
    if _is_listened_to(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def _is_listened_to(path: str) -> bool:
    with socket(flags.AF_UNIX, flags.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # e.g. the queue of a listener is full
    return True
