"""Several users in one generation: a mold for each, and this process between them and the master.

It imports nothing of anybody's. What the master asks for goes on to the mold whose service it is;
those answer the master themselves. Only the outcome of the loading is collected here: the code of
all has loaded, or of none.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any

import ujson

from .. import native
from ..generation import Generation
from ..process import die_with, set_title
from .part import FAILED, Part, close_listeners, part_of

MAX_MESSAGE_BYTES = 262144


class Front:
    """Forks the molds, and hands requests on.

    Args:
        owners: the users and groups of the services.
        run: what a mold does; returns its exit code.
    """

    def __init__(
        self,
        generation: Generation,
        owners: Iterable[tuple[str, str]],
        run: Callable[[Part], int],
    ) -> None:
        self._generation = generation
        self._run = run
        self._pids: list[int] = []
        self._ends: list[socket.socket] = []  # of the molds' orders
        self._by_service: dict[str, socket.socket] = {}
        for user, group in sorted(owners):
            self._fork(user, group)

    def run(self) -> int:
        """Serve until the master closes the channel or a mold ends; returns the exit code."""
        whole = Part(self._generation, self._generation.channel, self._generation.master)
        outcomes = [_outcome(end) for end in self._ends]
        problems = [one for outcome in outcomes for one in outcome.get("problems", ())]
        if problems:
            code = max(outcome.get("code", FAILED) for outcome in outcomes if "problems" in outcome)
            whole.tell_not_loaded(problems, code)
            return self._end(code)
        functions = {
            name: known for outcome in outcomes for name, known in outcome["functions"].items()
        }
        whole.tell_loaded(functions)
        self._serve()
        return self._end(0)

    def _fork(self, user: str, group: str) -> None:
        ours, theirs = native.seqpacket_pair()
        front = os.getpid()
        pid = native.fork()
        if pid:
            theirs.close()
            self._pids.append(pid)
            self._ends.append(ours)
            for each in self._generation.settings.services:
                if (each.user, each.group) == (user, group):
                    self._by_service[each.name] = ours
            return
        code = FAILED
        try:
            for end in (ours, *self._ends):
                end.close()
            part = part_of(self._generation, user, group, theirs, front)
            close_listeners(self._generation, part.generation)
            die_with(front)
            set_title(f"gtask: mold {self._generation.number} {user or group}")
            code = self._run(part)
        finally:
            os._exit(code)

    def _serve(self) -> None:
        poll = native.poll()
        channel = self._generation.channel
        for each in (channel, *self._ends):
            poll.register(each, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd != channel.fileno():
                    return  # a mold says nothing more, so it has ended
                request = channel.recv(MAX_MESSAGE_BYTES)
                if not request:
                    return
                self._by_service[ujson.loads(request)["service"]].send(request)

    def _end(self, code: int) -> int:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            native.waitpid(pid, 0)
        return code


def _outcome(end: socket.socket) -> dict[str, Any]:
    """What a mold says of its loading."""
    message = end.recv(MAX_MESSAGE_BYTES)
    if not message:
        return {"problems": ["the process that loads the code has ended"], "code": FAILED}
    outcome: dict[str, Any] = ujson.loads(message)
    return outcome
