"""A worker's life, played through in the mold before it forks any.

What the interpreter notes down when code runs for the first times (inline caches, the method cache,
versions of types) is then on pages that all workers share, instead of on pages that each must copy
to write it: 0.4 MB of each. Nothing of the user's is called.
"""

from __future__ import annotations

import contextlib
import socket

import gevent
from gevent.socket import socket as GeventSocket

from .. import native
from ..logs.loggers import get_logger
from ..patches.forked import when_forked
from ..scoreboard import Scoreboard
from ..tasks import task
from ..worker import Worker
from .boot import WorkerProcess

log = get_logger(__name__)

ROUNDS = 20  # code is adapted to what it is used for from its eighth run on
CALLERS = 3  # at once, as many are served another way than one
SECONDS = 5.0
LINES = (
    b'{"function":"echo","args":{"value":"text"}}\n',
    b'{"function":"echo","args":[{"number":1}]}\n',
    b'{"function":"nap","args":{"seconds":0.0001}}\n',
    b'{"jsonrpc":"2.0","method":"echo","params":{"value":[]},"id":1}\n',
    b'{"jsonrpc":"2.0","method":"nap","params":{"seconds":0.0001},"id":"2"}\n',
    b'{"function":"unknown"}\n',
    b"not JSON\n",
)


@task
def echo(value):  # type: ignore[no-untyped-def]
    return value


@task
def nap(seconds):  # type: ignore[no-untyped-def]
    gevent.sleep(seconds)


def rehearse() -> None:
    """Boot, serve and drain, on a hub and a socket of the rehearsal's own."""
    with contextlib.ExitStack() as stack:
        listener = native.socket(socket.AF_UNIX)
        stack.callback(listener.close)
        listener.bind("")  # a name that no file has, unix(7)
        listener.listen()
        listener.setblocking(False)
        ends = native.seqpacket_pair()
        for end in ends:
            stack.callback(end.close)
        worker = Worker("text+unix:///rehearsal", name="rehearsal", tasks=[echo, nap])
        worker.load()
        process = WorkerProcess(
            worker,
            worker.settings(),
            listener,
            Scoreboard(1),
            ends[1],
            1.0,
            boot_timeout=SECONDS,
        )
        stack.callback(process.reactor.hub.destroy, destroy_loop=True)
        gevent.spawn(_call, process, listener.getsockname())
        process.run(0, 0)
        when_forked(None)
        process.signals.stop()
        for watcher, _ in process.watchers:
            watcher.stop()
            watcher.close()


def _call(process: WorkerProcess, address: bytes) -> None:
    try:
        with gevent.Timeout(SECONDS):
            for _ in range(ROUNDS):
                _call_from_several(address)
                process.next_check = 0.0
                process.beat()
                process.master.tell("ready")
    except BaseException:
        log.exception("the rehearsal of a worker has failed")
    finally:
        process.on_term()


def _call_from_several(address: bytes) -> None:
    with contextlib.ExitStack() as stack:
        files = []
        for _ in range(CALLERS):
            caller = stack.enter_context(GeventSocket(socket.AF_UNIX))
            caller.connect(address)
            files.append(stack.enter_context(caller.makefile("rwb")))
        for line in LINES:
            for file in files:
                file.write(line)
                file.flush()
            for file in files:
                file.readline()
