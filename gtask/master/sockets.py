"""Listening sockets: bound by us, or handed over by systemd; the master owns them all.

They are non-blocking, as all workers of a service accept from the same one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket as flags
import stat
import struct
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from ..address import Address
from ..config import ServiceSettings
from ..native import getaddrinfo, socket

FIRST_PASSED_FD = 3  # sd_listen_fds(3)
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

    def serves(self, service: ServiceSettings, present: Listener | None) -> bool:
        """It is what the service wants: its own, or another's at the same fixed address."""
        is_fixed = service.listen.port != 0 or service.listen.is_unix
        return self.address == service.listen and (is_fixed or self is present)

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
        """Have the kernel refuse connections, whoever else still holds the socket."""
        if self.is_ours:
            with contextlib.suppress(OSError):
                self.socket.shutdown(flags.SHUT_RD)
        self.close()

    def close(self) -> None:
        if self.is_ours and self.address.is_unix and self.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)
        self.socket.close()


def listen(address: Address, backlog: int, mode: int) -> Listener:
    """Bind and listen.

    Args:
        mode: permissions of a unix socket's file.

    Raises:
        CannotListen: e.g. the port is in use.
    """
    try:
        listener = _listen_unix(address, mode) if address.is_unix else _listen_tcp(address)
    except OSError as error:
        raise CannotListen(_complaint(address, error)) from error
    listener.setblocking(False)
    listener.listen(backlog)
    return Listener(address, listener, is_ours=True)


def take_passed(environ: MutableMapping[str, str]) -> list[tuple[str, socket]]:
    """The sockets systemd passed to this process, with their names; the variables are removed."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    passed = []
    for index in range(int(count)):
        fd = FIRST_PASSED_FD + index
        os.set_inheritable(fd, False)
        listener = socket(fileno=fd)
        listener.setblocking(False)
        if listener.family != flags.AF_UNIX:
            _for_children(listener)
        passed.append((names[index] if index < len(names) else "", listener))
    return passed


def adopt(passed: list[tuple[str, socket]], service: str, address: Address) -> Listener | None:
    """Take the passed socket that is bound to `address`, or else is named like the service."""
    fitting = [entry for entry in passed if _is_bound_to(entry[1], address)]
    fitting += [entry for entry in passed if entry[0] == service]
    if not fitting:
        return None
    passed.remove(fitting[0])
    return Listener(address, fitting[0][1], is_ours=False)


class Listeners:
    """All listening sockets of the master, over its reloads.

    Args:
        environ: where systemd says which sockets it passes.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._all: list[Listener] = []
        self.passed = take_passed(environ)

    def provide(
        self, services: Iterable[ServiceSettings], present: Mapping[str, Listener]
    ) -> dict[str, Listener]:
        """A listener for each service, one that we have where the address is the same.

        Args:
            present: what the services have now.

        Raises:
            CannotListen: for one of them; those opened for the others are closed again.
        """
        free = list(self._all)
        found: dict[str, Listener] = {}
        opened: list[Listener] = []
        try:
            for service in services:
                same = next(
                    (each for each in free if each.serves(service, present.get(service.name))), None
                )
                if same is not None:
                    free.remove(same)
                    found[service.name] = same
                    continue
                listener = adopt(self.passed, service.name, service.listen) or listen(
                    service.listen, service.backlog, service.socket_mode
                )
                opened.append(listener)
                found[service.name] = listener
        except CannotListen:
            for listener in opened:
                listener.close()
            raise
        self._all += opened
        return found

    def keep(self, used: Mapping[str, Listener]) -> None:
        """Refuse connections on all but these."""
        for listener in [each for each in self._all if each not in used.values()]:
            self._all.remove(listener)
            listener.refuse()

    def hold_off(self) -> None:
        """Let no new connections begin, before all are refused."""
        for listener in self._all:
            listener.hold_off()

    def leave(self, used: Mapping[str, Listener]) -> None:
        """In a child: close all but these, without a trace."""
        for listener in self._all:
            if listener not in used.values():
                listener.socket.close()


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


def _listen_tcp(address: Address) -> socket:
    infos = getaddrinfo(address.host, address.port, type=flags.SOCK_STREAM, flags=flags.AI_PASSIVE)
    family, kind, protocol, _, sockaddr = infos[0]
    listener = socket(family, kind, protocol)
    try:
        listener.setsockopt(flags.SOL_SOCKET, flags.SO_REUSEADDR, 1)
        if family == flags.AF_INET6:
            listener.setsockopt(flags.IPPROTO_IPV6, flags.IPV6_V6ONLY, 1)
        listener.bind(sockaddr)
        _for_children(listener)
    except OSError:
        listener.close()
        raise
    return listener


def _for_children(listener: socket) -> None:
    """Options that Linux hands on to the connections accepted."""
    listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_NODELAY, 1)
    listener.setsockopt(flags.SOL_SOCKET, flags.SO_KEEPALIVE, 1)
    host = listener.getsockname()[0]
    if host == "::1" or host.startswith("127."):
        # Within the machine nothing is to be paced, as BBR does for 2 % of a task's CPU time. Reno
        # is in every kernel, and open to everybody (tcp(7)).
        listener.setsockopt(flags.IPPROTO_TCP, flags.TCP_CONGESTION, b"reno")


def _listen_unix(address: Address, mode: int) -> socket:
    remove_stale(address.path)
    return bind_unix(address.path, mode)


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
    with socket(flags.AF_UNIX, flags.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # a full queue is somebody too
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _is_bound_to(listener: socket, address: Address) -> bool:
    name = listener.getsockname()
    if listener.family == flags.AF_UNIX:
        return address.is_unix and name == address.path
    if address.is_unix or name[1] != address.port:
        return False
    with contextlib.suppress(OSError):
        for info in getaddrinfo(address.host, address.port, listener.family):
            if info[4][0] == name[0]:
                return True
    return False


def _complaint(address: Address, error: OSError) -> str:
    if isinstance(error, flags.gaierror):
        return f"cannot listen on {address}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {address}: address already in use{_by_whom(address)}"
    return f"cannot listen on {address}: {error.strerror}"


def _by_whom(address: Address) -> str:
    """The process that listens there, if /proc shows it to us."""
    inodes = _inodes(address)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in wanted:
                    with open(f"/proc/{pid}/comm") as comm:
                        return f" by process {pid} ({comm.read().strip()})"
    return ""


def _inodes(address: Address) -> set[str]:
    """The sockets that listen there, as proc_net(5) lists them."""
    inodes = set()
    for table in ("unix",) if address.is_unix else ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}") as lines:
            for line in lines:
                words = line.split()
                if address.is_unix:
                    if words[-1] == address.path:
                        inodes.add(words[6])
                elif words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == address.port:
                    inodes.add(words[9])
    return inodes
