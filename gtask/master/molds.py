"""The master's view of a mold: its process, its channel, and its generation's sockets and board."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from logging import ERROR
from typing import Any

from .. import native
from ..config import ServiceSettings, Settings
from ..generation import Generation
from ..logs.loggers import get_logger
from ..scoreboard import Scoreboard
from ..stacks import Stacks
from .exits import describe_exit
from .sockets import Listener

log = get_logger("gtask.master")

MAX_MESSAGE_BYTES = 262144

StartMold = Callable[[Generation], int]


class Mold:
    """A generation, from the fork of its mold to the end of its last worker.

    Attributes:
        pid: the mold's, or 0 after it has ended.
        channel: where it and its workers send messages to us.
        stacks: where its processes leave their stacks when they die of a fault.
        functions: the names that a service's scoreboard holds the numbers of.
    """

    def __init__(self, number: int, settings: Settings, listeners: Mapping[str, Listener]) -> None:
        self.number = number
        self.settings = settings
        self.listeners = listeners
        self.scoreboards = {
            service.name: Scoreboard(max(256, 4 * service.count)) for service in settings.services
        }
        self.stacks = Stacks([service.name for service in settings.services])
        self.functions: dict[str, list[str]] = {}
        self.pid = 0
        self.channel, self._other_end = native.seqpacket_pair()
        self.channel.setblocking(False)

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
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._other_end.close()

    def _be_mold(
        self, master: int, start_mold: StartMold, after_fork_in_child: Callable[[], None], mask: Any
    ) -> None:
        code = 1
        try:
            after_fork_in_child()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self.channel.close()
            code = start_mold(self._generation(master))
        except BaseException:  # the edge: nothing may return into the master's code
            log.exception("the process that loads the code has failed")
        finally:
            os._exit(code)

    def _generation(self, master: int) -> Generation:
        return Generation(
            self.number,
            self.settings,
            {name: listener.socket for name, listener in self.listeners.items()},
            self.scoreboards,
            self._other_end,
            master,
            self.stacks,
        )

    def spawn(self, service: str, worker_id: int, row: int) -> None:
        """Ask for a worker."""
        request = {"event": "spawn", "service": service, "id": worker_id, "row": row}
        with contextlib.suppress(OSError):  # it has died, which we shall hear of
            self.channel.send(json.dumps(request).encode())

    def follow_log(self) -> None:
        """Have the process look where its log file is now."""
        with contextlib.suppress(OSError):
            self.channel.send(b'{"event":"follow_log"}')

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the mold and its workers have sent since."""
        while True:
            try:
                message = self.channel.recv(MAX_MESSAGE_BYTES)
            except OSError:  # nothing more, or nobody left
                return
            if not message:
                return
            with contextlib.suppress(ValueError):
                yield json.loads(message)

    def close(self) -> None:
        """Close what the master has of it."""
        self.channel.close()
        self.stacks.close()

    def dismiss(self) -> None:
        """End the process; its workers live on."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


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


def try_load(settings: Settings, start_mold: StartMold) -> tuple[dict[str, list[str]], list[str]]:
    """Load the user's code in a process made for it; returns function names, and problems."""
    mold = Mold(0, settings, {})
    mold.start(start_mold, lambda: None)
    mold.channel.setblocking(True)
    message = mold.channel.recv(MAX_MESSAGE_BYTES)
    mold.dismiss()
    _, status = native.waitpid(mold.pid, 0)
    if stacks := mold.stacks.take_mold():
        log.log(ERROR, "the process that loads the code: its stacks", stacks=stacks)
    mold.close()
    if not message:
        return {}, [f"the process that loads the code has ended: {describe_exit(status)}"]
    answer = json.loads(message)
    return answer.get("functions", {}), answer.get("problems", [])
