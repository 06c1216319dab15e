"""What is heard from molds and workers: who may say what, and whom it is passed on to.

The mold alone has its channel, so it is the mold who speaks there. On the channel of the workers the
kernel says which process has sent a message, and that process speaks for itself alone. What is
neither is logged and dropped.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .actions import Action
from .arrivals import Arrivals
from .change import Change
from .complaints import Complaints
from .messages import (
    BadMessage,
    CannotBoot,
    Connections,
    Loaded,
    MoldMessage,
    NotLoaded,
    NotSpawned,
    Ready,
    Recycle,
    Spawned,
    in_one_line,
    read_mold_message,
    read_worker_message,
)
from .molds import Letter, Mold, Molds
from .operators import Operators
from .roster import Roster
from .slots import Process


@dataclass(frozen=True)
class Heard:
    """A message, and the generation that it has come from; of a worker if it is a letter."""

    mold: Mold
    message: bytes | Letter


class Hearing:
    """Reads messages and tells roster, change and operators what they say."""

    def __init__(
        self,
        molds: Molds,
        roster: Roster,
        change: Change,
        operators: Operators,
        complaints: Complaints,
    ) -> None:
        self._molds = molds
        self._roster = roster
        self._change = change
        self._operators = operators
        self._complaints = complaints
        self._arrivals = Arrivals()

    def wake_at(self, now: float) -> float:
        """When `welcome` is due."""
        return self._arrivals.wake_at(now)

    def read(self) -> tuple[list[Heard], list[Heard]]:
        """All that molds have said since, and all that workers have.

        Workers are read first: whatever one of them has said, its mold has told of it before. So
        that is among what is read of the mold afterwards.
        """
        letters = [Heard(mold, one) for mold in self._molds.values() for one in mold.letters()]
        messages = [Heard(mold, one) for mold in self._molds.values() for one in mold.messages()]
        return messages, letters

    def take(self, heard: Heard, now: float) -> list[Action]:
        """What is to be done about a message."""
        try:
            if isinstance(heard.message, Letter):
                self._take_letter(heard.message, heard.mold, now)
                return []
            return self._take_message(read_mold_message(heard.message), heard.mold, now)
        except BadMessage as error:
            self._complain(heard, str(error), now)
            return []

    def welcome(self, dead: Collection[int], now: float) -> None:
        """Take on the workers that have become our children.

        Args:
            dead: those of our children that have ended just now.
        """
        here, lost = self._arrivals.take(dead, now)
        for one in here:
            worker = one.worker
            place = one.generation, worker.service, worker.row
            is_mold = any(mold.pid == worker.pid for mold in self._molds.values())
            if is_mold or not self._roster.spawned(*place, worker.pid, now):
                text = f"mold {one.generation} speaks of process {worker.pid}, which is another's"
                self._complaints.add(text, now)
        for one in lost:
            worker = one.worker
            reason = f"process {worker.pid} has not become a child of the master"
            self._roster.not_spawned(one.generation, worker.service, worker.row, reason, now)

    def _take_message(self, message: MoldMessage, mold: Mold, now: float) -> list[Action]:
        match message:
            case Loaded(functions):
                mold.functions = functions
                return self._change.loaded(mold.number)
            case NotLoaded(problems, code):
                return self._change.failed(mold.number, problems, code, now)
            case Spawned():
                self._arrivals.add(mold.number, message, now)
            case NotSpawned(service, row, reason):
                self._roster.not_spawned(mold.number, service, row, reason, now)
        return []

    def _take_letter(self, letter: Letter, mold: Mold, now: float) -> None:
        process = self._sender(letter, mold)
        message = read_worker_message(letter.data)
        if (message.pid, message.row) != (process.pid, process.row):
            raise BadMessage("it speaks for another")
        match message:
            case Ready():
                self._roster.ready(process.pid, now)
            case CannotBoot(reason=reason):
                self._roster.failed(process.pid, reason)
            case Recycle(reason=reason):
                self._roster.recycle(process.pid, reason)
            case Connections():
                self._operators.add_connections(message, now)

    def _sender(self, letter: Letter, mold: Mold) -> Process:
        process = self._roster.find(letter.pid)
        if process is None or process.generation != mold.number:
            raise BadMessage("it is no worker of this generation")
        return process

    def _complain(self, heard: Heard, what: str, now: float) -> None:
        message, data, who = heard.message, b"", f"mold {heard.mold.number}"
        if isinstance(message, Letter):
            who, data = f"process {message.pid} of user {message.user}", message.data
        else:
            data = message
        said = in_one_line(data[:100].decode(errors="replace"))
        self._complaints.add(f"a message of {who} is dropped, {what}: {said}", now)
