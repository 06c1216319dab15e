"""The process that owns a store: the only one that writes to the file while it lives.

Forked by the master, it loads nothing of the user's. It holds the store's lock, listens at FILE.sock, and ends
when the master says so, after the workers. If another tree's process holds the lock, it waits for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from gevent._hub_local import get_hub_if_exists
from gevent.event import Event

from .. import native
from ..errors import StoreUnavailable, TaskError
from ..logs.loggers import get_logger
from ..net.reactor import Reactor, current_reactor
from ..protocols.messages import Call, InvalidCall, read_message
from ..store_board import END_SIGNAL, StoreBoard
from .committer import Committer
from .dealer import Dealer
from .desk import Desk
from .line import Line
from .notices import Notices
from .operations import Counts, Upkeep
from .owner import Owner
from .owners import peer_pid
from .records import Applied
from .sqlite.files import StoreLock
from .sqlite.store import SqliteStore, wall_ms, write_copy

log = get_logger("gtask.store")

BEAT_SECONDS = 0.5
LOCK_SECONDS = 0.2  # between two tries to get the lock
LOOK_SECONDS = 1.0  # between two looks at what is due by itself
CLOSE_SECONDS = 5.0  # that a stop waits for what is being written down
MOVED = 75  # the exit code when another file has the store's name; the next process opens that one
BACKLOG = 1024
READ = 1

# What a terminal or a manager may send to the whole tree; it is the master's affair.
IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGPIPE,
)


class StoreSettings(Protocol):
    """What the master says of a store.

    Attributes:
        path: of the file.
        url: the store's, for the log.
        mode: of the files that are made.
        crons: the sections of what is put by the clock.
    """

    @property
    def path(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def crons(self) -> Sequence[Any]: ...


def run_process(
    settings: StoreSettings, board: StoreBoard, look_after_log: Callable[[], None]
) -> int:
    """Own the store until told to end; returns the exit code.

    Args:
        board: where the master sees how it goes.
        look_after_log: to be called now and then.
    """
    for number in IGNORED:
        native.signal(number, signal.SIG_IGN)
    if (hub := get_hub_if_exists()) is not None:
        hub.destroy(destroy_loop=True)  # a script's own, from before the fork
    return StoreProcess(settings, board, look_after_log).run()


class StoreProcess:
    """Takes the lock, serves callers and workers, and lets go in order.

    The arguments are those of `run_process`.
    """

    def __init__(
        self, settings: StoreSettings, board: StoreBoard, look_after_log: Callable[[], None]
    ) -> None:
        self._path = os.path.realpath(settings.path)
        self._mode = settings.mode
        self._board = board
        self._look_after_log = look_after_log
        self._crons = settings.crons
        self._clock: Any = None
        self._reactor: Reactor = current_reactor()
        self._loop = self._reactor.loop
        self._notices = Notices(log, settings.url)
        self._lock = StoreLock(self._path, self._mode)
        self._listener: Any = None
        self._lines: set[Line] = set()
        self._told_to_end = Event()
        self._code = 0
        self._next_at: int | None = None
        self._look_at = 0.0
        self._is_looking = False
        self._watchers: list[Any] = []

    def run(self) -> int:
        """The whole life of the process."""
        self._watch(self._loop.signal(END_SIGNAL), self._told_to_end.set)
        self._watch(self._loop.timer(0, BEAT_SECONDS), self._beat)
        while not self._take_hold():
            if self._told_to_end.wait(LOCK_SECONDS):
                return 0
        self._watch(self._loop.io(self._listener.fileno(), READ), self._accept)
        self._dealer.begin()
        self._look()
        self._told_to_end.wait()
        self._let_go()
        return self._code

    def _watch(self, watcher: Any, action: Any) -> None:
        watcher.start(action)
        self._watchers.append(watcher)

    # -- the beginning and the end ------------------------------------------------------------

    def _take_hold(self) -> bool:
        """Take the lock and listen; false if that cannot be yet."""
        try:
            if not self._lock.take():
                self._board.state = "waiting for the lock"
                return False
            self._listener = self._listen()
        except StoreUnavailable as error:
            self._is_in_trouble(error)
        except OSError as error:
            self._lock.release()
            self._board.state = "unreachable"
            self._notices.trouble("socket", f"cannot listen at {self._path}.sock: {error.strerror}")
        else:
            self._committer = Committer(self._loop, self._open_store, self)
            self._dealer = Dealer(self._loop, self._committer)
            self._desk = Desk(self._loop, self._committer, self._dealer.stop_run, self._back_up)
            self._dealer.on_progress = self._desk.progress
            if self._crons:
                from .clock import Clock  # for the few that have such sections

                self._clock = Clock(self._crons, self._committer, wall_ms)
            return True
        return False

    def _open_store(self) -> SqliteStore:
        return SqliteStore(self._path, mode=self._mode)

    def _back_up(self, path: str, answer: Any) -> None:
        """Write a copy in a thread of its own: it may take long, and puts go on."""

        def write() -> None:
            self._loop.run_callback_threadsafe(answer, write_copy(self._path, path))

        native.start_thread(write, ())

    def _listen(self) -> Any:
        path = self._path + ".sock"
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(errno.EEXIST, "exists and is not a socket")
            os.unlink(path)  # whoever listened there held the lock before us, and has ended
        listener = native.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777 & ~self._mode)
        try:
            listener.bind(path)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        return listener

    def _let_go(self) -> None:
        """Take no more calls, finish what is being written down, let the next one have the lock."""
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        native.signal(END_SIGNAL, signal.SIG_IGN)  # it has been heard
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path + ".sock")
        deadline = monotonic() + CLOSE_SECONDS
        self._told_to_end.clear()
        while not self._committer.is_idle and monotonic() < deadline:
            self._told_to_end.wait(0.01)
        for line in list(self._lines):
            line.flush()
            line.close()
        self._committer.close()
        self._lock.release()

    # -- how it goes --------------------------------------------------------------------------

    def _beat(self) -> None:
        """Tell that the loop turns, and have done what is due by itself."""
        now = monotonic()
        self._board.heartbeat = now
        self._look_after_log()
        if self._listener is None or self._told_to_end.is_set():
            return
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._dealer.look_after(now)
            if self._clock is not None:
                self._clock.tick()
            self._look()
            self._board.tell({"workers": self._dealer.workers})

    def _look(self) -> None:
        """Have the store do what is due, and tell its counts."""
        if not self._is_looking:
            self._is_looking = True
            self._committer.submit(Counts(), self._tell_counts)

    def _tell_counts(self, counts: Any) -> None:
        self._is_looking = False
        if isinstance(counts, TaskError):
            return
        figures = ("ready", "delayed", "running", "dead", "done_total")
        queues = counts.values()
        self._board.tell({name: sum(each[name] for each in queues) for name in figures})
        ages = [each["oldest_ready"] for each in queues if each["oldest_ready"] is not None]
        self._board.oldest_ready = max(ages, default=-1.0)

    def applied(self, applied: Applied, has_news: bool) -> None:
        """A batch is safe: tell those who wait for it, and deal what is ready."""
        self._board.state = "ok"
        self._notices.well()
        self._desk.finished(applied.finished)
        self._dealer.applied(applied.ready, has_news)
        self._wake_at(applied.next_at)

    def failed(self, error: StoreUnavailable) -> None:
        """A batch could not be applied; those who asked have been told."""
        self._is_in_trouble(error)
        if error.data["reason"] == "moved":
            self._code = MOVED
            self._told_to_end.set()

    def _is_in_trouble(self, error: StoreUnavailable) -> None:
        self._board.state = error.data["reason"]
        self._notices.trouble(error.data["reason"], error.message)

    def _wake_at(self, moment: int | None) -> None:
        """Something is due at that moment of the unix clock; what is later is seen by the beat."""
        if moment is None:
            return
        seconds = max(0.0, (moment - wall_ms()) / 1000)
        if seconds < BEAT_SECONDS and moment != self._next_at:
            self._next_at = moment
            timer = self._loop.timer(seconds + 0.001)

            def run() -> None:
                timer.close()
                self._next_at = None
                self._committer.submit(Upkeep(), lambda _: None)

            timer.start(run)

    # -- connections --------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            while True:
                connection = native.accept(self._listener)
                line = Line(self._reactor, self._received, self._left)
                line.open(connection)
                self._lines.add(line)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                log.error("cannot accept: %s", error.strerror)

    def _received(self, line: Line, message: Any) -> None:
        owner: Owner | None = line.context
        method = message.get("method") if type(message) is dict else None
        if owner is not None and method == "store.end":
            self._dealer.ended(owner, message["params"]["ends"])
        elif owner is not None and method == "store.capacity":
            self._dealer.set_capacity(owner, message["params"]["capacity"])
        elif owner is not None and method == "store.progress":
            params = message["params"]
            self._dealer.progress(owner, params["fence"], params["report"])
        elif owner is not None and method == "store.drain":
            self._dealer.drains(owner, message["params"]["loss"])
        else:
            self._take_call(line, message)

    def _take_call(self, line: Line, message: Any) -> None:
        call = read_message(message)
        if isinstance(call, InvalidCall):
            line.send(call.error(call.problem) + b"\n")
        elif not isinstance(call, Call):  # a batch, which no caller of ours sends
            line.close()
        elif call.function == "store.join":
            self._join(line, call)
        else:
            self._desk.take(line, call)

    def _join(self, line: Line, call: Call) -> None:
        def answer(value: Any) -> None:
            is_error = isinstance(value, TaskError)
            line.send((call.error(value) if is_error else call.result(value)) + b"\n")

        params: Any = call.args
        pid = peer_pid(line.peer_socket())
        if pid and params["identity"][2] != pid:
            log.error("a process says that it is %s, but is %d", params["identity"][2], pid)
            line.close()
            return
        self._dealer.join(line, params, answer)

    def _left(self, line: Line) -> None:
        self._lines.discard(line)
        if line.context is not None:
            self._dealer.disconnected(line.context)
        self._desk.left(line)
