"""What the master gives a mold: one generation of code and settings, and the sockets it serves."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .config import Settings
from .scoreboard import Scoreboard
from .stacks import Stacks


@dataclass(frozen=True)
class Generation:
    """Made by the master before it forks the mold.

    Attributes:
        number: 1, 2, 3 …, one more with each reload.
        settings: the whole tree's.
        listeners: the listening sockets of each service, non-blocking; several where its host is a
            name that has several addresses.
        scoreboards: one for each service.
        channel: the mold's end of the socket pair to the master; no worker has it.
        events: the workers' end of another, which all of them write to.
        master: the master's process id.
        lobbies: of each service, the two ends of where connections wait that have no turn; one
            for all generations, so that who is replaced leaves them to its successors.
        stacks: where a process that dies of a fault leaves its stacks; None: on standard error.
    """

    number: int
    settings: Settings
    listeners: Mapping[str, Sequence[socket.socket]]
    scoreboards: Mapping[str, Scoreboard]
    channel: socket.socket
    events: socket.socket
    master: int
    stacks: Stacks | None = None
    lobbies: Mapping[str, tuple[socket.socket, socket.socket]] = field(default_factory=dict)
