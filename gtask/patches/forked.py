"""A child that user code forks off a worker: a plain process, which has no part in the worker.

It has a copy of all the worker's greenlets, timers and sockets. None of them may go on in it: so it
gets no hub, what it does is native, and when the code that forked it is through, it ends. An `exec`
or an `os._exit`, as `multiprocessing` does it, comes before that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gevent.hub
from gevent._greenlet_primitives import SwitchOutGreenletWithLoop
from gevent._hub_local import get_hub_if_exists, set_hub
from greenlet import getcurrent, greenlet

from . import children
from .leftovers import FORKED, end_process
from .locks import Lock
from .worlds import put

NO_HUB: Any = None

_leave: Callable[[], None] | None = None
_is_registered = False
_one_fork = Lock()
_forking: greenlet | None = None  # who has it


def when_forked(leave: Callable[[], None] | None) -> None:
    """Have `leave` called in children of this process, to give up what is not theirs; None: no more.

    Processes that were forked before it was called are not children of that kind.
    """
    global _leave, _is_registered
    _leave = leave
    if not _is_registered:
        _is_registered = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before() -> None:
    """One fork at a time: the hooks of others, which come next, take locks that greenlets and
    threads must not contend for."""
    global _forking
    _one_fork.acquire()
    _forking = getcurrent()


def _in_parent() -> None:
    global _forking
    if _forking is getcurrent():
        _forking = None
        _one_fork.release()


def _in_child() -> None:
    global _leave
    leave, _leave = _leave, None
    if leave is not None:
        _part_from_hub()
        leave()
        children.forget()
    _one_fork._at_fork_reinit()


def _part_from_hub() -> None:
    """Be without a hub; when this greenlet ends, the process does, instead of the others going on."""
    hub = get_hub_if_exists()
    set_hub(NO_HUB)
    put(gevent.hub, MAIN_THREAD_IDENT=0)  # nor may a new hub have the loop of the old one
    current = getcurrent()
    current.__dict__[FORKED] = True
    if current.parent is not None:
        end = _End(current.parent, None if hub is None else hub.loop)
        greenlet.switch(end, current)  # a started one gets exceptions, too
        current.parent = end


class _End(SwitchOutGreenletWithLoop):
    """Takes the place of a greenlet's parent, which is a hub to gevent, and ends the process."""

    loop: Any

    def __init__(self, parent: greenlet, loop: Any) -> None:
        super().__init__(None, parent)
        self.loop = loop

    def run(self, current: greenlet) -> None:
        error = None
        try:
            current.switch()
        except BaseException as what:
            error = what
        end_process(error)

    def handle_error(self, context: Any, kind: Any, error: BaseException, trace: Any) -> None:
        """What a gevent greenlet has raised."""
        end_process(error.with_traceback(trace))
