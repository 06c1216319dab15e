"""`Overflow`: what becomes of connections while all processes of a service are full.

They wait in the listen queue for the first that has a turn again, and mostly that is best. But a
health check must not wait, nor may a caller take us for dead. So when somebody has waited there for
a while and no process has room, those that are full take what waits. They read none of it, but see
by its first line what it is: what needs no turn they serve, and a call that has a time limit, which
waits for its turn here. All others go on into the lobby, where the first process that has a turn
again takes them.
"""

from __future__ import annotations

import _socket
import select as flags
from math import ceil
from time import monotonic
from typing import Any, Protocol

from gevent import monkey

from .lobby import Lobby
from .stats import WorkerStats

LOOK_SECONDS = 0.05
QUIET_SECONDS = 1.0  # without a heartbeat, a process with room is as good as full
SILENT_SECONDS = 1.0  # after which a guest that says nothing is a connection as any other
LOOKS = 10  # in which the whole queue is to be taken, however long it is
LINE_BYTES = 4096  # by which a call is known
TCP_INFO_BYTES = 32
UNACKED = 24  # where tcp_info(7) says how many wait in a listen queue

GONE, SILENT, WAITS, ASKS = range(4)  # what a guest does; ASKS: it is to be served here


class Host(Protocol):
    """The process that is full, or not."""

    def is_full(self) -> bool:
        """No connection is to be accepted, be it for want of turns or of connections."""
        ...

    def has_no_turn(self) -> bool:
        """Another connection could be taken, but none of its tasks."""
        ...

    def accept_one(self) -> bool:
        """Accept a connection, whatever the gate says; False if there is none."""
        ...

    def accept(self, client: Any, address: Any) -> None:
        """Serve the connection; or, if `accept_one` has called it, give it to `receive`."""

    def serve_newest(self) -> None:
        """Serve what has come already on that connection."""


class Overflow:
    """Looks at the listen queue while this process is full.

    Args:
        loop: gevent's.
        listener: the listening socket.
        stats: our siblings' counts.
        concurrency: turns of each process.
        lobby: None where connections cannot be passed on, as with TLS; then calls wait here.
        host: this process.
    """

    def __init__(
        self,
        loop: Any,
        listener: Any,
        stats: WorkerStats,
        concurrency: int,
        lobby: Lobby | None,
        host: Host,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._stats = stats
        self._concurrency = concurrency
        self._lobby = lobby
        self._host = host
        self._timer: Any = None
        self._has_waited = False  # somebody did so at the last look
        self._guests: list[tuple[Any, Any, float]] = []  # each with its address, and since when

    @property
    def guests(self) -> int:
        """How many connections are accepted, but neither served nor in the lobby."""
        return len(self._guests)

    def start(self) -> None:
        """This process is full: look, until it is not and nobody waits here."""
        if self._timer is None:
            self._start_timer()

    def stop(self) -> None:
        """Look no more."""
        self._stop_timer()
        self._has_waited = False

    def close(self, *, has_heirs: bool = False) -> None:
        """The process drains: serve all that is here, or leave it to those that go on."""
        self.stop()
        lobby, self._lobby = self._lobby, None
        while self._guests:
            client, address, _ = self._guests.pop(0)
            if not (has_heirs and lobby is not None and lobby.put(client, address)):
                self._host.accept(client, address)
        if lobby is not None:
            while not has_heirs and (found := lobby.take()) is not None:
                self._host.accept(*found)
            lobby.close()

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: leave those who wait to the worker."""
        self.stop()
        for client, _, _ in self._guests:
            client.close()
        self._guests.clear()
        lobby, self._lobby = self._lobby, None
        if lobby is not None:
            lobby.close()

    def resume(self) -> None:
        """There are turns again: take from the lobby. May be called from anywhere."""
        if self._lobby is not None:
            self._loop.run_callback(self.take_from_lobby)

    def take_from_lobby(self) -> None:
        """Serve who has waited longest, as long as there are turns; hub only."""
        while self._lobby is not None and not self._host.is_full():
            found = self._lobby.take()
            if found is None:
                return
            self._host.accept(*found)
            self._host.serve_newest()  # its call is there, and has its turn now

    def look(self) -> None:
        """Take connections that nobody else will take soon; see what those want that were taken."""
        is_full = self._host.has_no_turn()
        if is_full:
            self._take_those_who_wait()
        self._sort_guests()
        if not is_full and not self._guests:
            self.stop()
        elif self._timer is not None:
            self._start_timer()

    def receive(self, client: Any, address: Any) -> bool:
        """Take a connection as a guest, that is to say unread; False if it is to be served."""
        if self._lobby is None or not self._host.has_no_turn():
            return False
        self._guests.append((client, address, monotonic()))
        return True

    def _start_timer(self) -> None:
        self._stop_timer()  # libev would start one that has fired with what was left of its time
        self._timer = self._loop.timer(LOOK_SECONDS)
        self._timer.start(self.look, update=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _take_those_who_wait(self) -> None:
        had_waited, self._has_waited = self._has_waited, self._somebody_waits()
        if not (had_waited and self._has_waited):
            return
        quiet_since = monotonic() - QUIET_SECONDS
        if self._stats.is_next_to_overflow(self._concurrency, quiet_since):
            for _ in range(self._fair_share()):
                if not self._host.has_no_turn() or not self._host.accept_one():
                    break

    def _somebody_waits(self) -> bool:
        ready = monkey.get_original("select", "poll")()
        ready.register(self._listener.fileno(), flags.POLLIN)
        return bool(ready.poll(0))

    def _fair_share(self) -> int:
        """How many to take now, so that the last in the queue waits for about a second."""
        if self._listener.family == _socket.AF_UNIX:
            return 1  # it does not tell
        info = self._listener.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, TCP_INFO_BYTES)
        waiting = int.from_bytes(info[UNACKED : UNACKED + 4], "little")
        return max(1, ceil(waiting / LOOKS))

    def _sort_guests(self) -> None:
        stay = []
        since = monotonic() - SILENT_SECONDS
        for guest in self._guests:
            client, address, came = guest
            wish = what_is_wished(client)
            if wish == GONE:
                client.close()
            elif wish == WAITS and self._lobby is not None and self._lobby.put(client, address):
                pass
            elif wish == ASKS or came < since or not self._host.has_no_turn():
                self._host.accept(client, address)
            else:
                stay.append(guest)
        self._guests = stay
        self.take_from_lobby()


def what_is_wished(client: Any) -> int:
    """What a peer says first, without reading it."""
    try:
        data = client.recv(LINE_BYTES, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
    except BlockingIOError:
        return SILENT
    except OSError:
        return GONE
    if not data:
        return GONE
    line, end, _ = data.partition(b"\n")
    if not end and len(data) < LINE_BYTES:
        return SILENT
    is_builtin = b'"gtask.' in line and b'"gtask.call"' not in line
    return ASKS if is_builtin or b'"timeout"' in line else WAITS
