"""Peers that stand still, on every kind of service: they are ended, and cost a stop no more than that."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from ..support import certificates
from ..support.spawn import is_alive
from ..support.wait import SLOWNESS, wait_until
from ..support.websocket import RawClient

INI = """
[gtask]
control = control.sock
stop_timeout = 20

[worker:Tasks]
listen = {scheme}://127.0.0.1:0
{serves}
send_timeout = 1
handshake_timeout = 1
max_connections = 5
{more}
"""

TASKS = """
import time
from gtask import task

@task
def much():
    return "x" * 8_000_000

@task
def echo(value):
    return value
"""

CALLBACKS = """
def on_message(connection, data):
    if data in ("much", "close"):
        connection.send("x" * 8_000_000)
    else:
        connection.send(data)
    if data == "close":
        connection.close()
"""

KINDS = {
    "tasks": ("text", "tasks = things", b'{"function":"much"}\n', b'{"function":'),
    "callbacks": ("text", "handler = things", b"much\n", b"half"),
    "closed callbacks": ("text", "handler = things", b"close\n", b"half"),
}


@pytest.fixture(params=list(KINDS))
def kind(request, spawn):
    scheme, serves, asks, half = KINDS[request.param]
    things = TASKS if "tasks" in serves else CALLBACKS
    return spawn(INI.format(scheme=scheme, serves=serves, more=""), things=things), asks, half


def connections(worker):
    return worker.status()["services"][0]["connections"]


def reader_of_nothing(address):
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(address)
    return peer


def test_who_takes_nothing_is_dropped(kind):
    worker, asks, _ = kind
    with reader_of_nothing(worker.address()) as peer:
        peer.sendall(asks)
        wait_until(lambda: connections(worker) == 1)
        wait_until(lambda: connections(worker) == 0)
    wait_until(lambda: "took nothing for 1 s" in worker.text)


def test_who_sends_a_byte_now_and_then_is_dropped(kind):
    worker, _, half = kind
    with worker.peer() as peer:
        started = time.monotonic()
        with contextlib.suppress(OSError):  # sooner or later, when it is closed
            for byte in half + b" " * 200:
                peer.send(bytes([byte]))
                time.sleep(0.1)
        assert 0.9 < time.monotonic() - started < 5 * SLOWNESS
    wait_until(lambda: "no more of a frame for 1 s" in worker.text)


def test_who_takes_nothing_costs_a_stop_no_more_than_that(kind):
    worker, asks, _ = kind
    with reader_of_nothing(worker.address()) as peer:
        peer.sendall(asks)
        wait_until(lambda: connections(worker) == 1)
        time.sleep(0.2)
        started = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - started < 6 * SLOWNESS


def test_a_stop_that_is_shorter_cuts_off_no_task(spawn):
    ini = INI.format(scheme="text", serves="tasks = things", more="")
    ini = ini.replace("send_timeout = 1", "send_timeout = 60").replace(
        "stop_timeout = 20", "stop_timeout = 1"
    )
    worker = spawn(ini, things=TASKS)
    with reader_of_nothing(worker.address()) as peer:
        peer.sendall(b'{"function":"much"}\n')
        wait_until(lambda: connections(worker) == 1)
        time.sleep(0.3)
        assert worker.stop() == 0


def test_an_upload_under_way_is_no_idle_connection_to_a_stop(spawn):
    ini = INI.format(scheme="text", serves="tasks = things", more="").replace(
        "send_timeout = 1", ""
    )
    worker = spawn(ini, things=TASKS)
    with worker.peer() as peer:
        peer.send(b'{"function":"echo","args":["')
        time.sleep(0.2)
        worker.process.terminate()
        time.sleep(1.7)
        peer.send(b'late"]}\n')
        assert peer.json() == "late"
    assert worker.process.wait(10 * SLOWNESS) == 0


@pytest.mark.parametrize("serves", ["tasks = things", "handler = things"])
def test_peers_that_never_shake_hands_do_not_shut_a_tls_service(spawn, tmp_path, serves):
    certificate = certificates._folder()
    more = f"certfile = {certificate}/certificate.pem\nkeyfile = {certificate}/key.pem"
    ini = INI.format(scheme="text", serves=serves, more=more)
    worker = spawn(ini, things=TASKS if "tasks" in serves else CALLBACKS)
    silent = [socket.create_connection(worker.address()) for _ in range(5)]
    silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake
    started = time.monotonic()
    plain = socket.create_connection(worker.address(), 10 * SLOWNESS)
    with certificates.trusting().wrap_socket(plain, server_hostname="localhost") as peer:
        peer.sendall(b'{"function":"echo","args":[5]}\n' if "tasks" in serves else b"5\n")
        assert peer.recv(10) == b"5\n"
    assert time.monotonic() - started < 5 * SLOWNESS
    wait_until(lambda: "TLS: no handshake within 1 s" in worker.text)
    for each in silent:
        each.close()


def test_websockets_too(spawn):
    ini = INI.format(scheme="websocket", serves="handler = things", more="")
    worker = spawn(ini, things=CALLBACKS)
    with RawClient(worker.address(), rcvbuf=4096) as stuck, RawClient(worker.address()) as half:
        stuck.upgrade()
        half.upgrade()
        wait_until(lambda: connections(worker) == 2)
        stuck.send(b"\x81\x84\0\0\0\0much")
        half.send(b"\x81\xfe\x01\x00\0\0\0\0half of a message")
        wait_until(lambda: connections(worker) == 0)
    wait_until(lambda: "took nothing for 1 s" in worker.text)
    wait_until(lambda: "no more of a frame for 1 s" in worker.text)


def test_a_forked_child_ends_nobodys_connection(spawn):
    tasks = (
        TASKS
        + """
import os

@task
def fork():
    pid = os.fork()
    if not pid:
        time.sleep(3)
        os._exit(0)
    return pid
"""
    )
    ini = INI.format(scheme="text", serves="tasks = things", more="").replace(
        "send_timeout = 1", "send_timeout = 2"
    )
    worker = spawn(ini, things=tasks)
    with worker.peer() as peer, worker.peer() as other:
        peer.send(b'{"function":"echo","args":["')
        pid = other.bare("fork")
        for _ in range(25):
            time.sleep(0.1)
            peer.send(b"x" * 200)
        peer.send(b'"]}\n')
        assert peer.json() == "x" * 5000
    wait_until(lambda: not is_alive(pid))
