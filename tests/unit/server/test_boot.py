"""A worker process from within: its life on this process's hub, what it tells the master, its limits."""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import socket

import gevent
import gevent.socket
import greenlet
import pytest
import ujson
from greenlet import GreenletExit

from gtask import scoreboard as board
from gtask import task
from gtask.net.timer import Timer
from gtask.patches import leftovers
from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server import boot as module
from gtask.server.boot import FAILED_TO_BOOT, REPORT_CONNECTIONS, WorkerProcess
from gtask.worker import Worker

from ...support.served import until


@task
def echo(value=None):
    return value


@task
def sleep(seconds):
    gevent.sleep(seconds)


class Running:
    """A worker process that was made; `run` has it live.

    Attributes:
        told: messages to the master, by `listen`.
    """

    def __init__(self, stop_timeout=5.0, tasks=(echo, sleep), **options):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("")  # a name that no file has, unix(7)
        self.listener.listen(16)
        self.listener.setblocking(False)
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.theirs = theirs
        self.board = Scoreboard(2)
        self.worker = Worker("text+unix:///unused", name="W", tasks=list(tasks), **options)
        self.worker.load()
        self.process = WorkerProcess(
            self.worker, self.worker.settings(), self.listener, self.board, theirs, stop_timeout
        )

    def told(self):
        """The messages since the last look."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(ujson.loads(self.ours.recv(1 << 16)))
        return messages

    def events(self):
        return [message["event"] for message in self.told()]

    def state(self):
        return self.board.ints[board.CELLS + board.STATE]

    def live(self, *script):
        """Run it as worker 0 on row 1, while each of the script is called in turn when it serves."""

        def play():
            until(lambda: self.state() == WorkerState.READY)
            for step in script:
                step()

        player = gevent.spawn(play)
        try:
            return self.process.run(0, 1)
        finally:
            player.get(timeout=5)

    def connect(self):
        peer = gevent.socket.socket(socket.AF_UNIX)
        peer.connect(self.listener.getsockname())
        return peer

    def close(self):
        self.process.signals.stop()
        for watcher, _ in self.process.watchers:
            watcher.stop()
            watcher.close()
        for each in (self.listener, self.ours, self.theirs):
            each.close()


@pytest.fixture
def make():
    made = []
    handlers = {
        number: signal.getsignal(number)
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGURG,
            signal.SIGUSR2,
        )
    }

    def make(**options):
        made.append(Running(**options))
        return made[-1]

    yield make
    for running in made:
        running.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)  # libev leaves the default one


# -- its life -------------------------------------------------------------------------------------


def test_it_boots_serves_drains_and_ends(make):
    running = make()
    lines = []

    def call():
        with running.connect() as peer:
            peer.sendall(b'{"function":"echo","args":[7]}\n')
            lines.append(peer.recv(100))

    assert running.live(call, lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    assert lines == [b"7\n"]
    (ready,) = running.told()
    assert ready == {"event": "ready", "row": 1, "pid": os.getpid()}
    assert running.state() == WorkerState.DRAINING
    assert running.board.loads[1] == board.ABSENT
    assert running.board.ints[board.CELLS + board.PID] == os.getpid()
    assert running.board.ints[board.CELLS + board.ACCEPTED] == 1
    assert running.process.stats.connections == 0


def test_the_callbacks_of_its_life_are_called_in_order(make):
    running = make()
    calls = []

    def note(name, breaks=False):
        def callback(worker):
            calls.append((name, worker.id))
            if breaks:
                raise RuntimeError("a callback of the user's")

        return callback

    running.worker.on_worker_start = note("start")
    running.worker.on_worker_reload = note("reload", breaks=True)
    running.worker.on_worker_stop = note("stop", breaks=True)
    assert running.live(running.process.on_hup, running.process.on_term) == 0
    assert calls == [("start", 0), ("reload", 0), ("stop", 0)]


def test_one_that_cannot_start_says_why(make):
    running = make()

    def fail(worker):
        raise KeyError("MAIL_HOST")

    running.worker.on_worker_start = fail
    assert running.process.run(0, 1) == FAILED_TO_BOOT
    (failed,) = running.told()
    assert failed["event"] == "failed"
    assert failed["reason"].startswith("KeyError: 'MAIL_HOST'")
    assert running.state() == WorkerState.BOOTING


def test_a_drain_that_takes_too_long_is_cut_off_and_told_by_its_code(make):
    running = make(stop_timeout=0.05)

    def call():
        running.peer = running.connect()
        running.peer.sendall(b'{"function":"sleep","args":[60]}\n')
        until(lambda: running.process.stats.running)

    assert running.live(call, running.process.on_term) == 1
    assert running.peer.recv(1) == b""
    running.peer.close()


def test_one_with_heirs_leaves_what_nobody_has_accepted_to_them(make):
    running = make(concurrency=1)
    listener = running.listener.dup()  # as its heirs have it
    peers = []

    def call():
        peers.append(running.connect())
        peers[0].sendall(b'{"function":"sleep","args":[0.2]}\n')
        until(lambda: running.process.stats.running)
        peers.append(running.connect())
        peers[1].sendall(b'{"function":"echo","args":[1]}\n')

    assert running.live(call, running.process.on_heirs, running.process.on_term) == 0
    assert peers[0].recv(10) == b"null\n"
    left, _ = listener.accept()
    assert left.recv(100) == b'{"function":"echo","args":[1]}\n'
    for each in (left, listener, *peers):
        each.close()


def test_a_call_that_is_half_here_is_waited_for_in_a_drain(make):
    running = make()
    peers = []

    def begin():
        peers.append(running.connect())
        peers[0].sendall(b'{"function":"echo",')
        until(lambda: running.process.stats.connections)
        gevent.spawn_later(module.DRAIN_IDLE_SECONDS + 0.3, peers[0].sendall, b'"args":[3]}\n')

    assert running.live(begin, running.process.on_term) == 0
    assert peers[0].recv(10) == b"3\n"
    peers[0].close()


def test_a_peer_that_does_not_read_is_no_task_that_was_cut_off(make):
    def big():
        return "x" * 5_000_000

    running = make(stop_timeout=0.2, tasks=(big,))
    peers = []

    def call():
        peers.append(running.connect())
        peers[0].sendall(b'{"function":"big"}\n')
        until(lambda: running.process.stats.done)

    assert running.live(call, running.process.on_term) == 0
    peers[0].close()


def test_what_is_told_to_stop_while_it_boots_ends_at_once(make):
    running = make()

    def start(worker):
        os.kill(os.getpid(), signal.SIGTERM)
        gevent.sleep(60)

    running.worker.on_worker_start = start
    child = os.fork()
    if child == 0:
        os._exit(running.process.run(0, 1) + 10)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_in_a_hurry_it_waits_for_nothing(make):
    running = make(stop_timeout=60.0)

    def call():
        running.peer = running.connect()
        running.peer.sendall(b'{"function":"sleep","args":[60]}\n')
        until(lambda: running.process.stats.running)

    assert running.live(call, running.process.on_int) == 0
    running.peer.close()


def test_at_the_end_no_timer_of_the_users_is_left(make):
    running = make()
    running.worker.on_worker_start = lambda worker: Timer.add(3600, print)
    running.live(running.process.on_term)
    assert not Timer._watchers


# -- what it tells the master ---------------------------------------------------------------------


def beat(running):
    """A heartbeat that looks at the limits, too."""
    running.process.next_check = 0.0
    running.process.beat()


def test_it_asks_to_go_after_max_tasks_once(make):
    running = make()
    running.process.max_tasks = 10.0
    running.process.stats.done = 9
    beat(running)
    assert running.told() == []
    running.process.stats.done = 12
    beat(running)
    beat(running)
    (message,) = running.told()
    assert (message["event"], message["reason"]) == ("recycle", "max_tasks: 12 tasks done")


def test_it_asks_to_go_when_it_has_grown_too_big(make):
    running = make()
    running.process.max_rss = 1e12
    beat(running)
    assert running.told() == []
    running.process.max_rss = 1e6
    beat(running)
    (message,) = running.told()
    assert message["reason"].startswith("max_rss_mb: ")
    assert message["reason"].endswith(" MB resident")


def test_it_asks_to_go_when_a_task_cannot_be_ended(make):
    running = make()
    running.process.service.engine.limits.on_abandoned("stubborn")
    (message,) = running.told()
    assert message["reason"] == "task stubborn ignores its time limit"


def test_a_request_that_the_master_could_not_take_is_made_again(make):
    running = make()
    running.process.max_tasks = 1.0
    running.process.stats.done = 1
    filled = fill(running.theirs)
    beat(running)
    assert len(running.told()) == filled
    beat(running)
    assert running.events() == ["recycle"]
    beat(running)
    assert running.events() == []


def test_that_it_is_ready_is_told_until_the_master_takes_it(make):
    running = make()
    fill(running.theirs)

    def look():
        assert set(running.events()) == {"filling"}
        beat(running)
        assert running.events() == ["ready"]
        beat(running)
        assert running.events() == []

    assert running.live(look, running.process.on_term) == 0


def fill(end):
    """Send until no more goes in; returns how many messages that were."""
    for number in range(1_000_000):
        try:
            end.send(b'{"event":"filling"}', socket.MSG_DONTWAIT)
        except BlockingIOError:
            return number
    raise AssertionError("it takes anything")


def test_limits_are_looked_at_now_and_then_and_not_in_a_drain(make):
    running = make()
    running.process.max_tasks = 1.0
    running.process.stats.done = 5
    running.process.next_check = float("inf")
    running.process.beat()
    running.process.signalled.set()
    beat(running)
    assert running.told() == []


def test_connections_are_reported_in_parts_of_which_the_last_says_so(make):
    running = make()
    running.process.on_report()
    (empty,) = running.told()
    assert (empty["connections"], empty["first"], empty["last"]) == ([], True, True)
    ends = [socket.socketpair() for _ in range(REPORT_CONNECTIONS + 1)]
    for _, client in ends:
        running.process.entrance.accept(_socket.socket(fileno=client.detach()), ("10.1.2.3", 1))
    running.process.on_report()
    parts = running.told()
    assert [(len(part["connections"]), part["first"], part["last"]) for part in parts] == [
        (REPORT_CONNECTIONS, True, False),
        (1, False, True),
    ]
    running.process.service.abort()
    for peer, _ in ends:
        peer.close()


def test_a_master_that_has_gone_is_no_error(make):
    running = make()
    running.ours.close()
    running.process.master.tell("ready")


def test_a_heartbeat_tells_what_has_run_longest(make):
    running = make()
    running.process.next_check = float("inf")
    running.process.beat()
    assert running.board.ints[board.OLDEST] == 0
    assert running.board.floats[board.HEARTBEAT] > 0


def test_limits_have_up_to_a_tenth_of_jitter():
    limits = {module._with_jitter(100.0) for _ in range(200)}
    assert all(90.0 <= limit <= 100.0 for limit in limits)
    assert len(limits) > 1
    assert module._with_jitter(0.0) == 0.0


# -- a child that a task has forked ---------------------------------------------------------------


def test_it_gives_up_all_that_is_the_workers(make):
    running = make()
    running.process.stats.boot(1, os.getpid())
    connected = 3
    ends = [socket.socketpair() for _ in range(connected)]
    for _, client in ends:
        running.process.entrance.accept(_socket.socket(fileno=client.detach()), ("10.1.2.3", 1))
    running.process.after_fork_in_child()
    for peer, _ in ends:
        assert peer.recv(1) == b""
        peer.close()
    running.process.stats.failed()
    running.process.beat()
    row = {
        cell: running.board.ints[board.CELLS + cell] for cell in (board.FAILED, board.CONNECTIONS)
    }
    assert row == {board.FAILED: 0, board.CONNECTIONS: connected}  # as the worker left it
    running.process.master.tell("ready")
    assert running.ours.recv(1) == b""
    assert running.listener.fileno() == -1


@pytest.mark.parametrize("raises", [False, True])
def test_one_of_on_worker_start_ends_there(make, monkeypatch, raises):
    ended = []

    def end(error):
        ended.append(error)
        raise GreenletExit

    monkeypatch.setattr(leftovers, "end_process", end)
    running = make()

    def start(worker):
        greenlet.getcurrent().__dict__[leftovers.FORKED] = True
        if raises:
            raise ValueError

    running.worker.on_worker_start = start
    with pytest.raises(GreenletExit):
        running.process.run(0, 1)
    del greenlet.getcurrent().__dict__[leftovers.FORKED]
    assert isinstance(ended[-1], ValueError) == raises or ended[0] is None


def test_stuck_threads_are_a_reason_to_be_replaced(make):
    running = make()
    running.process.service.engine.threads.on_stuck(5)
    (told,) = running.told()
    assert (told["event"], told["reason"]) == ("recycle", "5 threads of blocking tasks are stuck")
