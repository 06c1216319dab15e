"""How the program stops: in stages, each with less patience, and with an exit code that says how.

As in change.py, facts come in by methods which return what the master is to do, and every moment is
an argument, in seconds of a monotonic clock.

| stage    | entered by                                      | the workers                      |
|----------|-------------------------------------------------|----------------------------------|
| RUNNING  |                                                 | serve                            |
| DRAINING | TERM, QUIT, `stop`, a closed terminal           | finish what runs                 |
| HURRYING | INT, a start that fails, or asked a second time | end, and finish nothing          |
| KILLING  | asked once more                                 | are killed                       |

With the first stage no new connection is made any more; when all workers have closed their copies
of the listening sockets, or are late, connections are refused: one that was made before either is
taken by a worker or was none. The end is when no process is left.
"""

from __future__ import annotations

import math
import signal
from enum import IntEnum

from .actions import Action, Asker, End, Reply, Say, StopAccepting, StopServing, StopWorkers
from .slots import CLOSING_SECONDS, WATCH_SECONDS

CUT_OFF = 1  # the exit code when tasks were


class Stage(IntEnum):
    """How far the stop has gone."""

    RUNNING = 0
    DRAINING = 1
    HURRYING = 2
    KILLING = 3


_IN_WORDS = {
    Stage.DRAINING: "draining",
    Stage.HURRYING: "stopping now",
    Stage.KILLING: "killing",
}


class Stop:
    """The end of the program, which has begun when its stage is not RUNNING.

    Args:
        pid: of the master, for whose end a client of the control socket waits.

    Attributes:
        exit_code: the program's, so far.
    """

    def __init__(self, pid: int) -> None:
        self.stage = Stage.RUNNING
        self.exit_code = 0
        self._pid = pid
        self._clients: list[Asker] = []
        self._refuse_at = math.inf

    @property
    def is_under_way(self) -> bool:
        return self.stage is not Stage.RUNNING

    def wake_at(self, now: float) -> float:
        """When `progressed` is due; infinite if only a process's end can change anything."""
        return now + WATCH_SECONDS if self._refuse_at < math.inf else math.inf

    def wanted(self, number: int, now: float, *clients: Asker) -> list[Action]:
        """A signal asks for it, or a client, as by TERM; asked again, with less patience."""
        self._clients += clients
        least = Stage.HURRYING if number == signal.SIGINT else Stage.DRAINING
        stage = Stage(min(max(self.stage + 1, least), Stage.KILLING))
        text = f"{signal.Signals(number).name}: {_IN_WORDS[stage]}"
        return [Say(text), *self._enter(stage, now)]

    def given_up(self, code: int, now: float) -> list[Action]:
        """The start has failed, and the exit code says why."""
        self.exit_code = code
        return self._enter(max(self.stage, Stage.HURRYING), now)

    def _enter(self, stage: Stage, now: float) -> list[Action]:
        actions: list[Action] = []
        if self.stage is Stage.RUNNING:
            self._refuse_at = now + CLOSING_SECONDS
            actions.append(StopServing())
        self.stage = stage
        return [*actions, StopWorkers(stage)]

    def progressed(
        self, now: float, *, is_drainer_accepting: bool, is_anybody_left: bool, was_cut_off: bool
    ) -> list[Action]:
        """How far the processes are.

        Args:
            is_drainer_accepting: a worker has not closed its listening socket yet.
            is_anybody_left: a worker or a mold lives.
            was_cut_off: a worker was killed before its tasks had finished.
        """
        actions: list[Action] = []
        is_closed = self._refuse_at < math.inf and not is_drainer_accepting
        if is_closed or now >= self._refuse_at:
            self._refuse_at = math.inf
            actions.append(StopAccepting())
        if self.is_under_way and not is_anybody_left:
            actions += self._end(was_cut_off)
        return actions

    def _end(self, was_cut_off: bool) -> list[Action]:
        actions: list[Action] = []
        if was_cut_off:
            text = "tasks were cut off: they did not finish within stop_timeout"
            actions.append(Say(text, is_trouble=True))
            self.exit_code = self.exit_code or CUT_OFF
        if not self.exit_code:
            actions.append(Say("stopped"))
        answer = {"ok": not was_cut_off, "pid": self._pid}
        return [*actions, *(Reply(client, answer) for client in self._clients), End()]
