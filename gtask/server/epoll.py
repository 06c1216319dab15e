"""epoll_ctl(2), as `select.epoll` keeps the user data of a registration to itself."""

from __future__ import annotations

import ctypes
import platform

ADD, DEL = 1, 2
IN, EXCLUSIVE = 0x001, 1 << 28


class Event(ctypes.Structure):
    """What a descriptor is registered with: the events, and the data they come back with."""

    if platform.machine() == "x86_64":  # the kernel's ABI packs it there, and only there
        _pack_ = 1
        _layout_ = "ms"
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def control(epoll: int, operation: int, fd: int, event: Event) -> bool:
    """Change the registration of `fd`; tells whether that could be done."""
    return bool(_libc.epoll_ctl(epoll, operation, fd, ctypes.byref(event)) == 0)
