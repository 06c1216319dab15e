"""The master's view of a mold: its process, its channels, and its generation's sockets and board."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import native
from ..config import ServiceSettings, Settings
from ..generation import Generation
from ..logs.loggers import get_logger
from ..scoreboard import Scoreboard, rows_for
from ..stacks import Stacks
from .children import send_signal
from .messages import MAX_BYTES
from .plans import Plan
from .sockets import Listener

log = get_logger("gtask.master")

# What is read of one channel before the loop looks at all else.
MOST_MESSAGES = 1000
MOST_BYTES = 4 * 1024 * 1024
_CREDENTIALS = struct.Struct("3i")  # ucred: process, user and group, unix(7)

StartMold = Callable[[Generation], int]


@dataclass(frozen=True)
class Letter:
    """A message of a worker, and who has sent it, as the kernel tells."""

    data: bytes
    pid: int
    user: int


class Mold:
    """A generation, from the fork of its mold to the end of its last worker.

    Attributes:
        pid: the mold's, or 0 after it has ended.
        channel: where it hears us and we hear it; no worker has its other end.
        events: where its workers send messages to us.
        stacks: where its processes leave their stacks when they die of a fault.
        functions: the names that a service's scoreboard holds the numbers of.
        requests: those that the channel had no room for yet.
        is_connected: the channel has another end.
        deaf_since: when the workers' channel had no other end any more; of the monotonic clock, in
            seconds, and infinite as long as it has.
    """

    def __init__(self, number: int, settings: Settings, listeners: Mapping[str, Listener]) -> None:
        self.number = number
        self.settings = settings
        self.listeners = listeners
        self.scoreboards = {
            service.name: Scoreboard(rows_for(service.count)) for service in settings.services
        }
        self.stacks = Stacks([service.name for service in settings.services])
        self.functions: Mapping[str, list[str]] = {}
        self.pid = 0
        self.requests: deque[bytes] = deque()
        self.is_connected = True
        self.deaf_since = math.inf
        self.channel, self._other_end = native.seqpacket_pair()
        self.events, self._workers_end = native.seqpacket_pair()
        self.events.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        for ours in (self.channel, self.events):
            ours.setblocking(False)

    def plans(self) -> dict[str, Plan]:
        """What its services should be."""
        return {each.name: self._plan(each) for each in self.settings.services}

    def _plan(self, service: ServiceSettings) -> Plan:
        listener = self.listeners.get(service.name)
        place = "" if listener is None else str(listener.bound)
        return Plan(service.count, service.hard_timeout, place, rows_for(service.count))

    def place(self, service: ServiceSettings) -> str:
        """Where a service listens, with the port that the kernel chose, and its stores."""
        listener = self.listeners.get(service.name)
        bound = () if listener is None else (listener.bound,)
        return ", ".join(map(str, (*bound, *service.stores)))

    def start(self, start_mold: StartMold, after_fork_in_child: Callable[[], None]) -> None:
        """Fork the process.

        Args:
            after_fork_in_child: closes what is the master's alone.

        Raises:
            OSError: it cannot be forked.
        """
        master = os.getpid()
        # What we have stays on pages that the mold and all workers share: a collection, ours or
        # theirs, would write to each object.
        gc.collect()
        gc.freeze()
        # A signal must not find the master's handlers in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = native.fork()
            if self.pid == 0:
                self._be_mold(master, start_mold, after_fork_in_child, before)
        except OSError:
            self.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._other_end.close()
            self._workers_end.close()

    def _be_mold(
        self, master: int, start_mold: StartMold, after_fork_in_child: Callable[[], None], mask: Any
    ) -> None:
        code = 1
        try:
            after_fork_in_child()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._close_channels()
            code = start_mold(self._generation(master))
        except BaseException:  # the edge: nothing may return into the master's code
            log.exception("the process that loads the code has failed")
        finally:
            os._exit(code)

    def _generation(self, master: int) -> Generation:
        return Generation(
            self.number,
            self.settings,
            {name: listener.sockets for name, listener in self.listeners.items()},
            self.scoreboards,
            self._other_end,
            self._workers_end,
            master,
            self.stacks,
            {name: listener.lobby for name, listener in self.listeners.items()},
        )

    def close(self) -> None:
        """Close what the master has of it."""
        self._close_channels()
        self.stacks.close()

    def _close_channels(self) -> None:
        self.channel.close()
        self.events.close()

    def spawn(self, service: str, worker_id: int, row: int) -> None:
        """Ask for a worker; the request waits until the channel has room for it."""
        self._request(event="spawn", service=service, id=worker_id, row=row)

    def follow_log(self) -> None:
        """Have the process look where its log file is now."""
        if self.pid:
            self._request(event="follow_log")

    def _request(self, **request: Any) -> None:
        self.requests.append(json.dumps(request).encode())
        self.send_requests()

    def send_requests(self) -> None:
        """Send the requests that wait, as far as there is room."""
        try:
            while self.requests:
                self.channel.send(self.requests[0])
                self.requests.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it has died, which we shall hear of
            self.requests.clear()

    def messages(self) -> Iterator[bytes]:
        """What the mold has sent since."""
        for _ in range(MOST_MESSAGES):
            try:
                message = self.channel.recv(MAX_BYTES)
            except OSError:  # nothing more
                return
            if not message:
                return  # its end
            yield message

    def letters(self) -> Iterator[Letter]:
        """What its workers have sent since."""
        size = 0
        for _ in range(MOST_MESSAGES):
            try:
                data, extra, _, _ = self.events.recvmsg(
                    MAX_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except OSError:  # nothing more
                return
            if not extra:
                return  # the end: an empty message would have a sender
            pid, user, _ = _CREDENTIALS.unpack(extra[0][2][: _CREDENTIALS.size])
            yield Letter(data, pid, user)
            size += len(data)
            if size > MOST_BYTES:
                return

    def abort(self) -> None:
        """Have the process write its stacks to the log and end, if it can."""
        send_signal(self.pid, signal.SIGABRT)

    def dismiss(self) -> None:
        """End the process; its workers live on."""
        if self.pid:
            send_signal(self.pid, signal.SIGKILL)


class Molds(Mapping[int, Mold]):
    """The generations of which a mold or a worker lives, by number, the oldest first."""

    def __init__(self) -> None:
        self._molds: dict[int, Mold] = {}
        self._newest = 0

    def __getitem__(self, number: int) -> Mold:
        return self._molds[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._molds)

    def __len__(self) -> int:
        return len(self._molds)

    @property
    def is_any_alive(self) -> bool:
        """The process of a mold has not ended."""
        return any(mold.pid for mold in self.values())

    def fork(
        self,
        settings: Settings,
        listeners: Mapping[str, Listener],
        start_mold: StartMold,
        after_fork_in_child: Callable[[Mold], None],
    ) -> Mold:
        """Begin a new generation; its number is one more with each.

        Args:
            after_fork_in_child: gets the new mold, and closes what is the master's alone.

        Raises:
            OSError: its mold cannot be forked.
        """
        self._newest += 1
        mold = Mold(self._newest, settings, listeners)
        mold.start(start_mold, lambda: self._after_fork_in_child(mold, after_fork_in_child))
        self._molds[mold.number] = mold
        return mold

    def _after_fork_in_child(self, mold: Mold, close: Callable[[Mold], None]) -> None:
        for other in self.values():
            other.close()
        close(mold)

    def dismiss(self, number: int) -> None:
        """End the generation's mold, if it has not ended and been forgotten."""
        if number in self._molds:
            self._molds[number].dismiss()

    def follow_log(self) -> None:
        """Have every mold look where its log file is now."""
        for mold in self.values():
            mold.follow_log()

    def dismiss_all(self) -> None:
        """End every mold."""
        for mold in self.values():
            mold.dismiss()

    def ended(self, pid: int) -> Mold | None:
        """A process has ended: the mold that it was, if it was one."""
        for mold in self.values():
            if mold.pid == pid:
                mold.pid = 0
                return mold
        return None

    def remove_ended(self, needed: set[int]) -> list[Mold]:
        """Forget the generations whose mold has ended, but for those needed; returns them."""
        ended = [each for each in self.values() if not each.pid and each.number not in needed]
        for mold in ended:
            del self._molds[mold.number]
        return ended
