"""The websocket service with clients of other makers: Python's `websockets` and node's `ws`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from websockets.sync.client import connect

from ..support.wait import SLOWNESS, wait_until
from ..support.websocket import ServiceThread

NODE_CLIENT = """
const WebSocket = require('ws');
const ws = new WebSocket(steps.url, steps.protocols || [], steps.options || {});
const seen = {messages: [], pongs: 0};
ws.on('open', () => {
  seen.protocol = ws.protocol;
  seen.extensions = ws.extensions;
  for (const text of steps.send || []) ws.send(text);
  for (const size of steps.binary || []) ws.send(Buffer.alloc(size, 7));
  if (steps.ping) ws.ping('alive?');
  if (steps.close) ws.close(...steps.close);
});
ws.on('pong', (data) => { seen.pongs += String(data) === 'alive?' ? 1 : 0; });
ws.on('message', (data, binary) => {
  seen.messages.push(binary ? data.length : String(data));
  if (seen.messages.length === steps.until) ws.close(...(steps.then || []));
});
ws.on('unexpected-response', (request, response) => {
  seen.status = response.statusCode;
  request.destroy();
  console.log(JSON.stringify(seen));
  process.exit(0);
});
ws.on('error', (error) => { seen.error = String(error); });
ws.on('close', (code, reason) => {
  console.log(JSON.stringify({...seen, code, reason: String(reason)}));
});
"""


def node(**steps: Any) -> Any:
    """Run a client of npm's `ws`, and return what it has seen."""
    command = shutil.which("node")
    assert command, "node is missing: apt-get install -y nodejs npm"
    done = subprocess.run(
        [command, "-"],
        input=f"const steps = {json.dumps(steps)};{NODE_CLIENT}",
        capture_output=True,
        text=True,
        timeout=30 * SLOWNESS,
        check=False,
    )
    assert "Cannot find module 'ws'" not in done.stderr, (
        "npm's ws is missing: npm install --prefix FOLDER ws@8, and NODE_PATH=FOLDER/node_modules"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def service() -> Iterator[ServiceThread]:
    with ServiceThread(worker={"max_frame_bytes": 1 << 20}) as running:
        yield running


@pytest.fixture
def url(service: ServiceThread) -> str:
    return f"ws://127.0.0.1:{service.address[1]}/chat"


# -- websockets -----------------------------------------------------------------------------------


def test_websockets_echo(service, url):
    with connect(url) as client:
        for message in ("작업 완료 🙂", "", "x" * 500_000, b"", b"\xff" * 70_000):
            client.send(message)
            assert client.recv(10) == message
        client.send(["in ", "three ", "fragments"])
        assert client.recv(10) == "in three fragments"
        assert client.ping("alive?").wait(10)
        assert client.protocol.extensions == []  # permessage-deflate was offered


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1000, "done"), (4000, "é"), (1001, "")])
def test_websockets_closes(service, url, code, reason):
    with connect(url) as client:
        connection = service.connection
        client.close(code, reason)
    assert client.protocol.close_rcvd.code == code
    assert client.protocol.close_rcvd_then_sent is False
    service.wait_for("on_close")
    assert connection.peer_close == (code, reason)


def test_websockets_is_closed(service, url):
    service.worker.on_message = lambda connection, data: connection.close_code(4001, "bye é")
    with connect(url) as client:
        client.send("go")
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            client.recv(10)
    assert closed.value.rcvd.code == 4001
    assert closed.value.rcvd.reason == "bye é"
    assert closed.value.rcvd_then_sent


@pytest.mark.parametrize("message", ["x" * (1 << 20) + "x", b"x" * (3 << 20)])
def test_websockets_sends_too_much(service, url, message):
    with connect(url) as client:
        with contextlib.suppress(websockets.ConnectionClosed):
            client.send(message)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == 1009


def test_websockets_is_told_of_the_shutdown(service, url):
    with connect(url) as client:
        assert service.connection
        service.call(service.stop)
        with pytest.raises(websockets.ConnectionClosedOK) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == 1001


def test_websockets_chooses_a_subprotocol(service, url):
    service.worker.choose_subprotocol = lambda offered, request: offered[-1]
    with connect(url, subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"


def test_websockets_from_a_foreign_page(url):
    with pytest.raises(websockets.InvalidStatus) as refused, connect(url, origin="http://evil"):
        pass
    assert refused.value.response.status_code == 403
    with connect(url, origin=url.replace("ws:", "http:").removesuffix("/chat")) as client:
        client.send("welcome")
        assert client.recv(10) == "welcome"


def test_a_hundred_asyncio_clients_at_once(service, url):
    async def one(number: int) -> None:
        async with websockets.connect(url) as client:
            for turn in range(10):
                await client.send(f"{number} {turn}")
                assert await client.recv() == f"{number} {turn}"

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(100)))

    asyncio.run(asyncio.wait_for(all_of_them(), 60 * SLOWNESS))
    service.wait_for("on_close", 100)
    wait_until(lambda: service.stats.connections == 0)


# -- ws -------------------------------------------------------------------------------------------


def test_ws_echo(service, url):
    texts = ["작업 완료 🙂", "", "x" * 500_000]
    seen = node(url=url, send=texts, binary=[0, 70_000], ping=True, until=5, then=[1000, "done"])
    assert seen["messages"] == [*texts, 0, 70_000]
    assert seen["pongs"] == 1
    assert (seen["code"], seen["reason"]) == (1000, "")
    assert seen["extensions"] == ""
    assert "error" not in seen


@pytest.mark.parametrize("close", [[], [1000], [1000, "done"], [4999, "é"]])
def test_ws_closes(service, url, close):
    seen = node(url=url, close=close)
    assert seen["code"] == (close[0] if close else 1005)
    assert "error" not in seen
    service.wait_for("on_close")


def test_ws_is_closed(service, url):
    service.worker.on_connect = lambda connection: connection.close_code(4001, "bye é")
    seen = node(url=url)
    assert (seen["code"], seen["reason"]) == (4001, "bye é")
    assert "error" not in seen


def test_ws_sends_too_much(service, url):
    seen = node(url=url, binary=[3 << 20])
    assert seen["code"] == 1009


def test_ws_sees_a_broken_callback_as_1011(service, url, caplog):
    def fail(connection, data):
        raise RuntimeError("broken callback")

    service.worker.on_message = fail
    seen = node(url=url, send=["go"])
    assert (seen["code"], seen["reason"]) == (1011, "internal error")


def test_ws_chooses_a_subprotocol(service, url):
    service.worker.choose_subprotocol = lambda offered, request: offered[0]
    seen = node(url=url, protocols=["chat.v1", "chat.v2"], close=[1000])
    assert seen["protocol"] == "chat.v1"


def test_ws_from_a_foreign_page(url):
    assert node(url=url, options={"origin": "http://evil.test"})["status"] == 403
