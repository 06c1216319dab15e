"""The operating system without gevent in between, for code that must not wait in an event loop.

The master and the molds block in the kernel and fork; the event loop itself waits on an epoll, and
tells threads apart. In a script that patched itself before `run_all`, the usual names are gevent's;
these are the ones from before, and none makes a hub.
"""

from __future__ import annotations

import _socket
import _thread
import fcntl
import os
import select
import signal as _signal
import sys
import time
from typing import TYPE_CHECKING, Any

SIOCOUTQ = 0x5411  # linux/sockios.h


def _original(module: Any, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module.__name__, name) if monkey else getattr(module, name)


if TYPE_CHECKING:
    import threading
    from _thread import allocate_lock as allocate_lock
    from os import fork as fork
    from os import waitpid as waitpid
    from select import epoll as epoll
    from select import poll as poll
    from signal import getsignal as getsignal
    from signal import signal as signal
    from socket import getaddrinfo as getaddrinfo
    from socket import socket as socket
    from time import sleep as sleep

    local, thread_id, RLock = _thread._local, _thread.get_ident, threading._RLock
    start_thread = _thread.start_new_thread
else:
    import socket as _socket_module

    fork = _original(os, "fork")
    waitpid = _original(os, "waitpid")
    epoll = _original(select, "epoll")
    poll = _original(select, "poll")
    getsignal = _original(_signal, "getsignal")
    signal = _original(_signal, "signal")
    socket = _original(_socket_module, "socket")
    getaddrinfo = _original(_socket_module, "getaddrinfo")
    sleep = _original(time, "sleep")
    local = _original(_thread, "_local")  # of a thread; the patched one is of a greenlet
    allocate_lock = _original(_thread, "allocate_lock")
    start_thread = _original(_thread, "start_new_thread")
    RLock = _original(_thread, "RLock")  # the patched one is a greenlet's
    thread_id = _original(_thread, "get_ident")  # the patched one tells greenlets apart


def accept(listener: socket) -> socket:
    """`listener.accept()`, whose own result would be of the patched class."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    return socket(listener.family, listener.type, listener.proto, fileno=fd)


def unacknowledged_bytes(fd: int) -> int:
    """What the kernel keeps of what was sent on a socket, as its peer has not taken it, tcp(7)."""
    kept = fcntl.ioctl(fd, SIOCOUTQ, bytes(4))
    return int.from_bytes(kept, sys.byteorder)


def seqpacket_pair() -> tuple[socket, socket]:
    """Two connected sockets that keep the bounds of messages."""
    ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    first, second = (
        socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fileno=end.detach()) for end in ends
    )
    return first, second
