"""Sockets and pipes that may be used in any thread, whichever has made them.

gevent's belong to the hub of the thread that made them. Here one that was made in a thread without a
hub belongs to none; whoever waits for one waits in the way of its own thread: on the hub of that, or
natively.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent._fileobjectposix
import gevent._socket3
import gevent._socketcommon
import gevent.select
import gevent.selectors
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent._hub_primitives import wait_on_socket, wait_on_watcher
from gevent.hub import Hub

from .. import native
from .worlds import by_thread, original, put

_POLL_EVENTS = {1: select.POLLIN, 2: select.POLLOUT, 3: select.POLLIN | select.POLLOUT}
_READ_WRITE = 3  # libev has flags of its own beside them
_RESOLVING = ("gethostbyname", "gethostbyname_ex", "getaddrinfo", "gethostbyaddr", "getnameinfo")


class Interest:
    """In place of a watcher: what a wait for a descriptor would be for."""

    callback = None
    ref = True

    def __init__(self, fd: int, events: int) -> None:
        self.fd = fd
        self.events = events

    def stop(self) -> None:
        """Nothing was started."""

    close = stop


class NoLoop:
    """In place of a loop."""

    def io(self, fd: int, events: int, ref: bool = True, priority: Any = None) -> Interest:
        """What will be waited for, natively or on the hub of whoever does.

        Raises:
            OSError: the descriptor is not open.
        """
        os.fstat(fd)
        return Interest(fd, events)

    def closing_fd(self, fd: int) -> bool:
        """No wait must end before it is closed."""
        return False


class NoHub:
    """In place of a hub, where there is none."""

    def __init__(self) -> None:
        self.loop = NoLoop()
        self.resolver = _Resolver()

    def cancel_wait(self, *_: Any, **__: Any) -> None:
        """What is waited for natively ends by itself, by shutdown(2)."""

    def cancel_waits_close_and_then(
        self, watchers: Any, exc: Any, then: Callable[..., Any], *args: Any
    ) -> None:
        """Close at once."""
        then(*args)


class _Resolver:
    """Asks the system for names, in the thread that asks."""

    def __init__(self) -> None:
        for name in _RESOLVING:
            setattr(self, name, original("socket", name))


_no_hub = NoHub()


class TimeoutHere:
    """In place of `gevent.Timeout`: none without a hub, as the waits keep the socket's timeout."""

    @staticmethod
    def _start_new_or_dummy(*args: Any, **kwargs: Any) -> Any:
        if get_hub_if_exists() is None:
            return contextlib.nullcontext()
        return _start_timeout(*args, **kwargs)


_start_timeout: Any = vars(gevent.Timeout)["_start_new_or_dummy"].__get__(None, gevent.Timeout)


def hub_here() -> Any:
    """The hub of this thread, or what stands in for it."""
    hub = get_hub_if_exists()
    return _no_hub if hub is None else hub


def wait_for_socket(socket: Any, watcher: Any, timeout_exc: Any = None) -> None:
    """`SocketMixin._wait`: wait until the socket is what the watcher is for, within its timeout."""
    here = get_hub_if_exists()
    if socket is None or watcher is None or socket.hub is here:
        wait_on_socket(socket, watcher, timeout_exc)
    else:
        error = TimeoutError("timed out") if timeout_exc is None else timeout_exc
        _wait_here(here, watcher, socket.timeout, error)


def wait_for_file(watcher: Any, timeout: Any = None, exc: Any = None, hub: Any = None) -> None:
    """The same for a pipe."""
    here = get_hub_if_exists()
    if watcher is None or hub is here:
        wait_on_watcher(watcher, timeout, exc, hub)
    else:
        _wait_here(here, watcher, timeout, exc)


def _wait_here(here: Any, watcher: Any, timeout: float | None, error: Any) -> None:
    """Wait for the descriptor of a watcher that is not of this thread's hub, `here`."""
    events = watcher.events & _READ_WRITE
    if here is None:
        poll = native.poll()
        poll.register(watcher.fd, _POLL_EVENTS[events])
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise error
        return
    own = here.loop.io(watcher.fd, events)
    try:
        wait_on_watcher(own, timeout, error, here)
    finally:
        own.close()


def _close_in_its_thread(
    self: Any, watchers: Any, exc: Any, then: Callable[..., Any], *args: Any
) -> None:
    """`Hub.cancel_waits_close_and_then`, also of another thread's hub."""
    if self is get_hub_if_exists():
        _close_here(self, watchers, exc, then, *args)
    elif self.loop is None:  # its thread has ended
        then(*args)
    else:
        self.loop.run_callback_threadsafe(_close_here, self, watchers, exc, then, *args)


def _cancel_in_its_thread(self: Any, watcher: Any, error: Any, close_watcher: bool = False) -> None:
    """`Hub.cancel_wait`, also of another thread's hub."""
    if self is get_hub_if_exists():
        _cancel_here(self, watcher, error, close_watcher)
    elif self.loop is not None:
        self.loop.run_callback_threadsafe(_cancel_here, self, watcher, error, close_watcher)


def _close_socket(self: Any, sock: Any) -> None:
    """`socket._drop_ref_on_close`, also where the loop has gone."""
    if self.hub.loop is None:
        sock.close()
    else:
        _close_with_loop(self, sock)


_close_here: Any = Hub.cancel_waits_close_and_then
_cancel_here: Any = Hub.cancel_wait
_close_with_loop: Any = gevent._socket3.socket._drop_ref_on_close


def _install_sockets() -> None:
    put(gevent._socketcommon, get_hub=hub_here, Timeout=TimeoutHere)
    put(gevent._socketcommon.SocketMixin, _wait=wait_for_socket)
    put(gevent._socket3, get_hub=hub_here)
    put(gevent._socket3.socket, _drop_ref_on_close=_close_socket)
    put(gevent._fileobjectposix, get_hub=hub_here, wait_on_watcher=wait_for_file)
    put(Hub, cancel_waits_close_and_then=_close_in_its_thread, cancel_wait=_cancel_in_its_thread)


def _install_select() -> None:
    native_poll: Any = original("select", "poll")
    poll = by_thread(gevent.select.poll, native_poll)

    class NativeSelector(selectors.PollSelector):
        """What `selectors` has where there is no hub."""

        _selector_cls = native_poll

    put(select, select=by_thread(gevent.select.select, original("select", "select")), poll=poll)
    put(selectors.SelectSelector, _select=staticmethod(select.select))
    put(selectors.PollSelector, _selector_cls=staticmethod(poll))
    put(selectors, DefaultSelector=by_thread(gevent.selectors.GeventSelector, NativeSelector))


def install() -> None:
    """Change what was patched."""
    if monkey.is_module_patched("socket"):
        _install_sockets()
    if monkey.is_module_patched("select"):
        _install_select()
    if monkey.is_module_patched("time"):
        put(time, sleep=by_thread(gevent.sleep, native.sleep))
