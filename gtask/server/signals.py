"""The signals of a worker: those that the master sends, and those that user code handles itself.

A worker's handlers are Python's own, so that `signal.getsignal` gives them and who saves and puts
them back has changed nothing. They may run between any two instructions, so all they do is to have
the loop call what is to be done: at once where the loop waits, and at its next turn where the signal
came in the moment before it begins to (a beat, then). No wakeup descriptor is needed, whose owner
user code may change.

User code sets its handlers by `signal.signal` as everywhere, with three differences:

- What the master sends is heard in any case, beside what user code does about it.
- A handler of SIGCHLD is called in a greenlet, so that it may wait.
- What a handler raises goes to the task or greenlet that has set it. Python runs handlers in
  whatever is running: the hub, which must not fail, or another caller's task.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import signal
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from .. import native
from ..logs.loggers import get_logger

log = get_logger(__name__)

Handler = Callable[[int, Any], object]

# What a terminal or a manager may send to the whole tree, and is the master's affair. A handler that
# does nothing, where the mold ignores them: programs that a task starts have the default then.
UNHEARD: tuple[int, ...] = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)

NOTHING = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)


class Signals:
    """What a worker does when a signal comes.

    Args:
        loop: the hub's.
        actions: what the hub is to call for each signal.
    """

    def __init__(self, loop: Any, actions: Mapping[int, Callable[[], object]]) -> None:
        self._loop = loop
        self._actions = actions
        self._thread = native.thread_id()

    def start(self) -> None:
        """Listen, in place of whoever did before."""
        global _current
        _current = self
        # By the functions in C: those of `signal` make members of enums, 50 kB of each worker's own.
        for number in UNHEARD:
            if _signal.getsignal(number) == signal.SIG_IGN:  # no module has taken it
                _signal.signal(number, _ignore)
        for number in self._actions:
            _signal.signal(number, self.came)
        self.call_for_children(_handler_of_children)

    def stop(self) -> None:
        """Listen no more; what comes then ends the process."""
        global _current
        if _current is self:
            _current = None
        for number in self._actions:
            native.signal(number, signal.SIG_DFL)
        self.call_for_children(signal.SIG_DFL)

    @property
    def numbers(self) -> Collection[int]:
        """The signals that the master sends."""
        return self._actions.keys()

    def is_in_its_thread(self) -> bool:
        """The thread that runs is the loop's: Python lets no other set handlers."""
        return native.thread_id() == self._thread

    def came(self, number: int, frame: Any = None) -> None:
        """The handler of each of them."""
        self._loop.run_callback(self._actions[number])

    def leave(self) -> None:
        """In a child: leave each signal to the handler of the user's, or to its default."""
        for number in self._actions:
            given = _plain(native.getsignal(number))
            native.signal(number, signal.SIG_DFL if given == self.came else given)
        native.signal(signal.SIGCHLD, _handler_of_children)

    def call_for_children(self, handler: Any) -> None:
        """Have the loop call `handler`, if it is a function, when a child has ended."""
        # Not by a watcher of the loop's: libev would wait for whatever child has ended.
        native.signal(signal.SIGCHLD, signal.SIG_DFL if handler in NOTHING else self.child_ended)

    def child_ended(self, number: int, frame: Any = None) -> None:
        """The handler of SIGCHLD, where user code has set one."""
        self._loop.run_callback(gevent.spawn, _handler_of_children, number, None)


def _ignore(number: int, frame: Any) -> None:
    pass


# -- what user code sets --------------------------------------------------------------------------

_current: Signals | None = None  # the running worker's
_handler_of_children: Any = signal.SIG_DFL
_owner: ContextVar[object] = ContextVar("gtask: who has set a signal handler")


class _UserHandler:
    """A handler that user code has set.

    Attributes:
        given: what it has set: a function, or a constant of `signal`.
    """

    def __init__(self, given: Any, worker: Signals | None) -> None:
        self.given = given
        self._worker = worker  # which is to hear of the signal, too
        self._greenlet = getcurrent()
        self._token = object()
        if self._greenlet.parent is not None:  # a call's own context is forgotten with the call
            _owner.set(self._token)

    def __call__(self, number: int, frame: Any) -> None:
        if self._worker is not None:
            self._worker.came(number)
        if self.given in NOTHING:
            return
        try:
            self.given(number, frame)
        except BaseException as error:  # the edge: user code, called in anybody's stead
            self._raised(number, error)

    def _raised(self, number: int, error: BaseException) -> None:
        if _current is None or (self._worker is None and self._may_raise_here()):
            raise error
        if self._worker is not None or self._greenlet.parent is None:
            _log(number, error)
        else:
            gevent.get_hub().loop.run_callback(self._throw, number, error)

    def _may_raise_here(self) -> bool:
        """It has interrupted who has set it, or some task where a module has done so."""
        running = getcurrent()
        if self._greenlet.parent is None:
            return running.parent is not None and running is not get_hub_if_exists()
        return running is self._greenlet and _owner.get(None) is self._token

    def _throw(self, number: int, error: BaseException) -> None:
        """Raise `error` in who has set the handler, and waits; in the hub."""
        if self._is_still_there():
            self._greenlet.throw(error)
        else:
            _log(number, error)

    def _is_still_there(self) -> bool:
        """What has set it has not ended; its greenlet may be another call's by now."""
        try:
            context = self._greenlet.gr_context
        except ValueError:  # it is parked in compiled code, where there is no Python frame
            return False
        is_its = context is not None and context.get(_owner) is self._token
        return is_its and not self._greenlet.dead


def _log(number: int, error: BaseException) -> None:
    log.error("the handler of signal %d has failed", number, exc_info=error)


def _set(number: int, handler: Any) -> Any:
    """`signal.signal` of user code."""
    global _handler_of_children
    worker = _current
    if number == signal.SIGCHLD:
        before, _handler_of_children = _get(number), handler
        if worker is not None and worker.is_in_its_thread():
            worker.call_for_children(handler)
            return before
    is_valid = callable(handler) or handler in (signal.SIG_DFL, signal.SIG_IGN)
    if worker is not None and number in worker.numbers and is_valid:
        handler = handler if handler == worker.came else _UserHandler(handler, worker)
    elif callable(handler) and handler not in NOTHING:
        handler = _UserHandler(handler, None)
    return _plain(native.signal(number, handler))


def _get(number: int) -> Any:
    """`signal.getsignal` of user code."""
    if _current is not None and number == signal.SIGCHLD:
        return _handler_of_children
    return _plain(native.getsignal(number))


def _plain(handler: Any) -> Any:
    return handler.given if isinstance(handler, _UserHandler) else handler


def share_signals() -> None:
    """Have `signal.signal` and `signal.getsignal` of this process leave a worker what it needs."""
    signal.signal = _set  # type: ignore[assignment]
    signal.getsignal = _get  # type: ignore[assignment]
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


_forking = native.local()  # `mask`: what the thread that forks has blocked


def _before_fork() -> None:
    """A signal for a child shall not find the worker's handlers in it."""
    if _current is not None:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _current.numbers)


def _after_fork_in_parent() -> None:
    if _current is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    """A child that a task has forked is no worker: the signals do there what they do anywhere."""
    global _current
    worker, _current = _current, None
    if worker is not None:
        worker.leave()
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)
