"""The master's view of a mold: its process, its channel, and its generation's sockets and board."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from .. import native
from ..config import Settings
from ..generation import Generation
from ..scoreboard import Scoreboard
from .exits import describe_exit
from .sockets import Listener

MAX_MESSAGE_BYTES = 262144

StartMold = Callable[[Generation], int]


class Mold:
    """A generation, from the fork of its mold to the end of its last worker.

    Attributes:
        pid: the mold's, or 0 after it has ended.
        is_dismissed: we ended it, or will.
        functions: the names that a service's scoreboard holds the numbers of.
    """

    def __init__(self, number: int, settings: Settings, listeners: dict[str, Listener]) -> None:
        self.number = number
        self.settings = settings
        self.listeners = listeners
        self.scoreboards = {
            service.name: Scoreboard(max(256, 4 * service.count)) for service in settings.services
        }
        self.functions: dict[str, list[str]] = {}
        self.is_dismissed = False
        self.pid = 0
        self.channel, self._other_end = native.seqpacket_pair()
        self.channel.setblocking(False)

    def start(self, start_mold: StartMold, leave_master: Callable[[], None]) -> None:
        """Fork the process.

        Args:
            leave_master: closes, in the child, what is the master's alone.

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
                self._be_mold(master, start_mold, leave_master, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._other_end.close()

    def _be_mold(
        self, master: int, start_mold: StartMold, leave_master: Callable[[], None], mask: Any
    ) -> None:
        code = 1
        try:
            leave_master()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self.channel.close()
            generation = Generation(
                self.number,
                self.settings,
                {name: listener.socket for name, listener in self.listeners.items()},
                self.scoreboards,
                self._other_end,
                master,
            )
            code = start_mold(generation)
        except BaseException:  # the edge: nothing may return into the master's code
            traceback.print_exc()
        finally:
            os._exit(code)

    def spawn(self, service: str, worker_id: int, row: int) -> None:
        """Ask for a worker."""
        request = {"event": "spawn", "service": service, "id": worker_id, "row": row}
        with contextlib.suppress(OSError):  # it has died, which we shall hear of
            self.channel.send(json.dumps(request).encode())

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the mold and its workers have said since."""
        while True:
            try:
                message = self.channel.recv(MAX_MESSAGE_BYTES)
            except OSError:  # nothing more, or nobody left
                return
            if not message:
                return
            with contextlib.suppress(ValueError):
                yield json.loads(message)

    def dismiss(self) -> None:
        """End the process; its workers live on."""
        self.is_dismissed = True
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def try_load(settings: Settings, start_mold: StartMold) -> tuple[dict[str, list[str]], list[str]]:
    """Load the user's code in a process made for it; returns function names, and problems."""
    mold = Mold(0, settings, {})
    mold.start(start_mold, lambda: None)
    mold.channel.setblocking(True)
    message = mold.channel.recv(MAX_MESSAGE_BYTES)
    mold.dismiss()
    _, status = native.waitpid(mold.pid, 0)
    if not message:
        return {}, [f"the process that loads the code has ended: {describe_exit(status)}"]
    said = json.loads(message)
    return said.get("functions", {}), said.get("problems", [])
