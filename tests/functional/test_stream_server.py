"""A worker is a gevent `StreamServer`: of a text service, and of the websocket front end."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

import pytest

from ..support.spawn import SpawnedWorker
from ..support.wait import wait_until

INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
count = {count}

[worker:Callbacks]
listen = text://127.0.0.1:0
handler = callbacks
count = {count}

[worker:Web]
listen = websocket://127.0.0.1:0
handler = web
count = {count}
"""

# What is started in this process, and an error on the way of each connection while a file is there.
SERVERS = """
import gc
import os
from gevent.server import StreamServer
from gtask.server.callbacks import CallbackService
from gtask.server.service import TaskService
from gtask.server.web.service import WebSocketService

def started():
    return [
        [type(each).__name__, each.server_port]
        for each in gc.get_objects()
        if isinstance(each, StreamServer) and each.started
    ]

def unless_broken(accept):
    def take(service, socket, address, tls=None):
        if os.path.exists("broken"):
            raise RuntimeError("on the way of a new connection")
        accept(service, socket, address, tls)
    return take

for kind in (CallbackService, TaskService, WebSocketService):
    kind.accept = unless_broken(kind.accept)
"""
TASKS = """
from gtask import task
from servers import started

@task
def servers():
    return started()
"""
CALLBACKS = """
import json
from servers import started

def on_message(connection, data):
    connection.send(json.dumps(started()))
"""
WEB = """
import json
from servers import started

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(started()).encode()]
"""
MODULES = {"servers": SERVERS, "tasks": TASKS, "callbacks": CALLBACKS, "web": WEB}


def ask(worker: SpawnedWorker, service: str) -> list[list[object]]:
    """The servers that are started in a process of the service."""
    if service == "Web":
        host, port = worker.address(service)
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
            return json.load(answer)
    with worker.peer(service) as peer:
        return peer.bare("servers")


@pytest.mark.parametrize(
    ("service", "kind"),
    [("Tasks", "TextServer"), ("Callbacks", "TextServer"), ("Web", "WebServer")],
)
def test_the_server_on_the_port_of_the_service_is_gevents(
    module_spawn: Callable[..., SpawnedWorker], service: str, kind: str
) -> None:
    worker = module_spawn(INI.format(count=2), **MODULES)
    assert ask(worker, service) == [[kind, worker.address(service)[1]]]


@pytest.mark.parametrize("service", ["Tasks", "Callbacks", "Web"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_on_the_way_of_a_connection_does_not_end_accepting(
    spawn: Callable[..., SpawnedWorker], service: str, count: int
) -> None:
    worker = spawn(INI.format(count=count), **MODULES)
    worker.expects_traceback = True
    broken = worker.folder / "broken"
    with worker.unharmed():
        broken.touch()
        for _ in range(5 * count):
            with worker.peer(service) as peer:
                peer.send(b"{}\n")
                assert peer.is_closed()
        wait_until(lambda: "on the way of a new connection" in worker.text)
        broken.unlink()
        for _ in range(5 * count):
            assert len(ask(worker, service)) == 1
