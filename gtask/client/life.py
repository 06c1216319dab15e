"""What becomes of a client's pools when the client, its thread, its process or the program ends.

Nothing stays behind, and nothing vanishes: calls that end here reach the callback that was promised
for it, or else are counted in one warning.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from ..logs.loggers import get_logger
from ..net.reactor import Reactor, current_reactor
from .calls import Call
from .pool import ConnectionPool

log = get_logger("gtask.client")

A_MOMENT = 0.005  # seconds; enough for the loop to look at everything once
ADVICE = "wait for calls (`Call.get`, `gtask.wait`), or give them an on_error"

native_thread = monkey.get_original("_thread", "get_ident")  # the patched one tells greenlets


class Client(Protocol):
    """What is known here of a `TaskClient`.

    Attributes:
        _pools: by native thread.
    """

    _pools: dict[int, ConnectionPool]


def reactor() -> Reactor:
    """That of this native thread, which is cleaned up after."""
    if not hasattr(_threads, "end"):
        _threads.end = _ThreadEnd()
    return current_reactor()


def enter(client: Client, pool: ConnectionPool) -> None:
    """The client has made a pool for this native thread."""
    _threads.end.add(client, pool)
    client._pools[native_thread()] = pool


def part(pools: Iterable[ConnectionPool]) -> None:
    """The client of these pools is garbage: they close when their last call has ended.

    The garbage collector may call this anywhere, in the middle of anything.
    """
    if sys.is_finalizing():
        return
    hub = get_hub_if_exists()
    for pool in pools:
        if pool.reactor.hub is hub and getcurrent() is not hub and not pool.calls:
            pool.close()
        else:
            with contextlib.suppress(Exception):  # its loop has ended, and so has the pool
                pool.reactor.loop.run_callback_threadsafe(pool.retire)


def close(client: Client) -> None:
    """Close the pools of all threads; in this one, callbacks are called before this returns."""
    here, forgotten, is_told = get_hub_if_exists(), 0, False
    for pool in list(client._pools.values()):
        if pool.reactor.hub is not here:
            with contextlib.suppress(Exception):  # its loop has ended, and so has the pool
                pool.reactor.loop.run_callback_threadsafe(pool.close)
            continue
        told, lost = _sort(pool.calls.values())
        is_told, forgotten = is_told or bool(told), forgotten + len(lost)
        pool.close()
    if forgotten:
        log.warning(
            "%r: closed with %d calls that nobody is told of; %s", client, forgotten, ADVICE
        )
    if is_told and getcurrent() is not here:
        gevent.sleep(0)  # a plain program may never run its loop again


def _sort(calls: Iterable[Call]) -> tuple[list[Call], list[Call]]:
    """Unfinished calls whose error a callback is to be told of, and those that nobody waits for."""
    told, lost = [], []
    for call in calls:
        if call._on_error is not None:
            told.append(call)
        elif not call._links:
            lost.append(call)
    return told, lost


class _ThreadEnd:
    """Lives in a thread's local data, hence as long as the thread, and cleans up after it.

    gevent leaves the hub of a thread that ends behind, with its descriptors; a program that makes
    a thread for each request would run out of them.
    """

    def __init__(self) -> None:
        owns_hub = get_hub_if_exists() is None
        self._thread = native_thread()
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pools: list[ConnectionPool] = []  # not yet closed when they were seen last
        self._reactor = current_reactor()
        self._hub = gevent.get_hub() if owns_hub else None

    def add(self, client: Client, pool: ConnectionPool) -> None:
        self._clients.add(client)
        self._pools = [each for each in self._pools if not each.is_closed]
        self._pools.append(pool)

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        for client in list(self._clients):
            client._pools.pop(self._thread, None)
        lost = sum(_leave(pool) for pool in self._pools)
        for lingering in list(self._reactor.lingering):
            lingering.end()
        if self._hub is not None:
            self._hub.destroy(destroy_loop=True)
        if lost:
            log.warning("a thread has ended with %d calls open; %s", lost, ADVICE)


def _leave(pool: ConnectionPool) -> int:
    """Abandon a pool whose thread has ended; returns how many calls were open."""
    calls = list(pool.calls.values())
    pool.abandon()
    return len(calls)


_threads = monkey.get_original("_thread", "_local")()
clients: weakref.WeakSet[Any] = weakref.WeakSet()
"""Every `TaskClient` that there is."""


def _after_fork_in_child() -> None:
    """The connections are the parent's, so leave them alone."""
    for client in list(clients):
        for pool in client._pools.values():
            pool.abandon()
        client._pools.clear()


def _at_exit() -> None:
    """The program ends: tell the callbacks, and count what nobody will hear of."""
    pools = [pool for client in list(clients) for pool in client._pools.values() if pool.calls]
    if not pools:
        return
    here = get_hub_if_exists()
    with contextlib.suppress(Exception):  # the hub may have ended already
        if here is not None and getcurrent() is not here:
            gevent.sleep(A_MOMENT)  # answers that are there are taken
    lost = unsent = 0
    for pool in pools:
        told, forgotten = _sort(pool.calls.values())
        lost += len(forgotten)
        unsent += sum(not pool.was_sent(call) for call in forgotten)
        if pool.reactor.hub is here:
            pool.dismiss(told)
    with contextlib.suppress(Exception):
        if here is not None and getcurrent() is not here:
            gevent.sleep(A_MOMENT)
    if lost:
        log.warning(
            "the program ends with %d calls open, of which %d were never sent; %s",
            lost,
            unsent,
            ADVICE,
        )


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
