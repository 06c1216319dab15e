from __future__ import annotations

import errno
import json
import math
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gtask.master import control as module
from gtask.master.control import (
    CLIENT_SECONDS,
    MAX_CLIENTS,
    MAX_REQUEST_BYTES,
    Client,
    Control,
    connect,
    peer_pid,
)
from gtask.master.control import ask as ask_on

from ...support.wait import SLOWNESS


def ask(path: str, command: str, timeout: float | None = None, **details: object) -> dict:
    with connect(path, timeout) as connection:
        return ask_on(connection, command, **details)


class Watched:
    """What the master's loop waits for: poll(2) events by descriptor."""

    def __init__(self) -> None:
        self.events: dict[int, int] = {}

    def __call__(self, fd: int, events: int) -> None:
        if events:
            self.events[fd] = events
        else:
            del self.events[fd]

    def poll(self) -> list[tuple[int, int]]:
        poll = select.poll()
        for fd, events in self.events.items():
            poll.register(fd, events)
        return poll.poll(5000 * SLOWNESS)


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def pair(watched: Watched) -> Iterator[tuple[Client, socket.socket]]:
    """A client as the master has it, and its other end."""
    ours, theirs = socket.socketpair()
    client = Client(ours, watched)
    yield client, theirs
    client.close()
    theirs.close()


def test_a_request_may_come_in_pieces(pair):
    client, peer = pair
    assert client.read() is None
    peer.sendall(b'{"command": "sta')
    assert client.read() is None
    peer.sendall(b'tus"}\n')
    assert client.read() == {"command": "status"}


def test_the_connection_closes_when_the_answer_is_taken(pair, watched: Watched):
    client, peer = pair
    client.reply(ok=True, pid=7)
    assert client.is_closed
    assert watched.events == {}
    assert json.loads(peer.makefile().read()) == {"ok": True, "pid": 7}
    client.reply(ok=False)  # too late, and no error


def test_an_answer_that_does_not_fit_is_sent_as_the_peer_reads(pair, watched: Watched):
    client, peer = pair
    text = "x" * 4_000_000
    client.reply(text=text)
    assert watched.events == {client.fileno(): select.POLLOUT}
    taken = b""
    while not client.is_closed:
        taken += peer.recv(65536)
        client.write()
    taken += peer.makefile("rb").read()
    assert json.loads(taken) == {"text": text}


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"[]\n",
        b"{]\n",
        b"\xff\n",
        b"x" * 65537,
        b"[" * 60000 + b"\n",
        b'{"command":' * 5000 + b"\n",
        b'{"command": {}}\n',
        b"1" * 60000 + b"\n",
    ],
)
def test_nonsense_closes_the_connection(pair, request_: bytes):
    client, peer = pair
    peer.sendall(request_)
    for _ in range(2 + len(request_) // MAX_REQUEST_BYTES):
        if not client.is_closed:
            assert client.read() is None
    assert client.is_closed
    answer = json.loads(peer.makefile().readline())
    assert not answer["ok"]
    assert answer["message"].startswith("a request ")


def test_a_peer_that_has_gone(pair):
    client, peer = pair
    peer.close()
    assert client.read() is None
    assert client.is_closed


@pytest.fixture
def control(tmp_path: Path, watched: Watched) -> Iterator[Control]:
    control = Control(str(tmp_path / "c.sock"), watched)
    yield control
    control.close()


def serve_one(control: Control, watched: Watched) -> None:
    """Do what a master's loop does, until a request has come; the answer repeats it."""
    while True:
        for fd, events in watched.poll():
            assert control.owns(fd)
            if asked := control.serve(fd, events):
                client, request = asked
                client.reply(ok=True, asked=request)
                return


def test_asking(control: Control, watched: Watched):
    master = threading.Thread(target=serve_one, args=(control, watched))
    master.start()
    answer = ask(control.path, "reload", 5 * SLOWNESS, why="new code")
    master.join()
    assert answer == {"ok": True, "asked": {"command": "reload", "why": "new code"}}


def test_only_the_owner_may_connect(control: Control):
    assert stat.S_IMODE(os.stat(control.path).st_mode) == 0o600


def test_more_clients_than_allowed_are_turned_away(control: Control, watched: Watched):
    clients = []
    for _ in range(MAX_CLIENTS + 1):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(control.path)
    (listener,) = watched.events
    control.serve(listener, select.POLLIN)
    assert clients[-1].recv(1) == b""
    for client in clients:
        client.close()
    for fd, events in watched.poll():
        control.serve(fd, events)
    with socket.socket(socket.AF_UNIX) as another:
        another.connect(control.path)
        control.serve(listener, select.POLLIN)
        another.setblocking(False)
        with pytest.raises(BlockingIOError):
            another.recv(1)


def test_nobody_answers(control: Control):
    with pytest.raises(TimeoutError):
        ask(control.path, "status", 0.01)
    control.close()
    with pytest.raises(ConnectionRefusedError):
        ask(control.path, "status")
    control.remove()
    with pytest.raises(FileNotFoundError):
        ask(control.path, "status")
    control.remove()  # again, and no error


def test_an_end_without_an_answer(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "c.sock"))
        listener.listen()

        def take_one() -> None:
            with listener.accept()[0] as connection:
                connection.recv(100)

        master = threading.Thread(target=take_one)
        master.start()
        with pytest.raises(EOFError):
            ask(str(tmp_path / "c.sock"), "status", 5 * SLOWNESS)
        master.join()


def test_where_somebody_listens_none_is_made(control: Control, watched: Watched):
    with pytest.raises(OSError, match="in use"):
        Control(control.path, watched)


def test_what_a_killed_master_left_is_replaced(control: Control, tmp_path: Path):
    control.close()  # the file stays, as by a kill
    again = Control(control.path, Watched())
    again.close()


def test_a_client_that_says_nothing_is_closed(control: Control, watched: Watched):
    listener = next(iter(watched.events))
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as asking:
        for client in (silent, asking):
            client.connect(control.path)
        control.serve(listener, select.POLLIN)
        asking.sendall(b'{"command": "stop"}\n')
        for fd, events in watched.poll():
            control.serve(fd, events)
        now = time.monotonic()
        control.tick(now + CLIENT_SECONDS - 1)
        assert len(watched.events) == 3
        control.tick(now + CLIENT_SECONDS + 1)
        assert silent.recv(1) == b""
        assert len(watched.events) == 2, "who waits for us has time"


def test_a_client_that_does_not_read_its_answer_is_closed(pair, watched: Watched):
    client, peer = pair
    peer.sendall(b'{"command": "status"}\n')
    assert client.read() is not None
    assert client.deadline == math.inf
    client.reply(text="x" * 4_000_000)
    assert time.monotonic() < client.deadline < time.monotonic() + CLIENT_SECONDS + 1


def test_one_connection_asks_once(pair):
    client, peer = pair
    peer.sendall(b'{"command": "reload"}\n{"command": "stop"}\n')
    assert client.read() == {"command": "reload"}
    peer.sendall(b'{"command": "stop"}\n')
    assert client.read() is None
    assert not client.is_closed, "it waits for its answer"


def test_without_descriptors_the_loop_is_not_kept_busy(
    control: Control, watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    def refuse(listener: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    listener = next(iter(watched.events))
    with monkeypatch.context() as context:
        context.setattr(module, "accept", refuse)
        control.serve(listener, select.POLLIN)
    assert watched.events == {}
    control.tick(time.monotonic())
    assert watched.events == {}
    control.tick(time.monotonic() + 2)
    assert listener in watched.events


def test_a_client_with_which_something_went_wrong_is_dropped(control: Control, watched: Watched):
    listener = next(iter(watched.events))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(control.path)
        control.serve(listener, select.POLLIN)
        for fd in list(watched.events):
            control.drop(fd)
        assert client.recv(1) == b""
    assert listener in watched.events


def test_who_listens_is_known(control: Control):
    with connect(control.path) as connection:
        assert peer_pid(connection) == os.getpid()
