"""The client's address behind proxies: PROXY headers of HAProxy and nginx, and forwarded headers."""

from __future__ import annotations

import json
import signal
import ssl
import struct
import subprocess
import time
from contextlib import closing

import pytest

from ..support.http_proxies import Haproxy, Nginx
from ..support.spawn import SpawnedWorker
from ..support.wait import SLOWNESS, wait_until
from ..support.websocket import RawClient

INI = """
[gtask]
control = control.sock
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = app
proxy_protocol = on
proxy_networks = 127.0.0.1
handshake_timeout = 1
{keys}
[worker:Echo]
listen = text://127.0.0.1:0
handler = app
proxy_protocol = on
proxy_networks = 127.0.0.1
handshake_timeout = 1
{keys}
[worker:Web]
listen = websocket://127.0.0.1:0
handler = app
proxy_protocol = on
proxy_networks = 127.0.0.1
handshake_timeout = 1
{keys}
"""
APP = """
from gtask import current_task, task

@task
def whoami(): return current_task().peer

def on_message(connection, data): connection.send(connection.remote_address)

def application(environ, start_response):
    said = "%s %s %s" % (environ["REMOTE_ADDR"], environ["REMOTE_PORT"], environ["wsgi.url_scheme"])
    start_response("200 OK", [("Content-Length", str(len(said)))])
    return [said.encode()]
"""
LINE = b"PROXY TCP4 203.0.113.9 127.0.0.1 51000 12345\r\n"
BINARY = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\x7f\x00\x00\x01"
    + struct.pack("!HH", 51000, 12345)
)  # fmt: skip
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
CLIENT = "203.0.113.9:51000"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n"


@pytest.fixture(scope="module")
def worker(module_spawn) -> SpawnedWorker:
    return module_spawn(INI.format(keys=""), app=APP)


def ask(worker: SpawnedWorker, name: str, header: bytes, address: object = None) -> str:
    """The client's address, as that service has it."""
    with RawClient(address or worker.address(name)) as raw:
        raw.send(header)
        if name == "Web":
            raw.send(GET % b"")
            said = raw.read_answer()[2].decode().split()
            return ":".join(said[:2])
        raw.send(b'{"function": "whoami"}\n')
        line = raw.socket.makefile("rb").readline().decode().strip()
        return line.strip('"')


@pytest.mark.parametrize("name", ["Tasks", "Echo", "Web"])
@pytest.mark.parametrize("header", [LINE, BINARY], ids=["v1", "v2"])
def test_the_client_is_who_the_proxy_says(worker, name, header):
    assert ask(worker, name, header) == CLIENT


@pytest.mark.parametrize("name", ["Tasks", "Echo", "Web"])
@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL], ids=["v1", "v2"])
def test_a_proxy_may_speak_for_itself(worker, name, header):
    assert ask(worker, name, header).startswith("127.0.0.1:")


def test_a_websocket_has_the_address_too(worker):
    with RawClient(worker.address("Web")) as raw:
        raw.send(LINE)
        raw.upgrade()
        raw.send(b"\x81\x80\0\0\0\0")
        assert raw.frame()[1].decode() == CLIENT


def test_headers_in_pieces(worker):
    with worker.peer("Echo") as peer:
        for byte in BINARY:
            peer.send(bytes([byte]))
            time.sleep(0.001)
        peer.send(b"hello\n")
        assert peer.line().decode() == CLIENT


@pytest.mark.parametrize("name", ["Tasks", "Echo", "Web"])
@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4 ", b'{"function": "whoami"}\n', GET % b""])
def test_a_proxy_has_to_say_it_in_time(worker, name, begun):
    began = time.monotonic()
    with RawClient(worker.address(name)) as raw:
        raw.send(begun)
        try:
            assert raw.rest() == b""
        except ConnectionResetError:
            pass
    assert time.monotonic() - began < 5 * SLOWNESS


def test_what_is_turned_away_is_counted_and_leaves_nothing(worker):
    def connections() -> list[int]:
        services = worker.status()["services"]
        return [process["connections"] for each in services for process in each["processes"]]

    with worker.peer("Echo") as peer:
        peer.send(b"hello\n")
        assert peer.is_closed()
    wait_until(lambda: connections() == [0, 0, 0])


def test_connections_and_logs_name_the_client(worker):
    with RawClient(worker.address("Web")) as raw, worker.peer("Echo") as peer:
        peer.send(LINE + b"hello\n")
        assert peer.line().decode() == CLIENT
        raw.send(LINE + GET % b"Upgrade: websocket\r\n")
        assert raw.read_head()[0] == 400
        assert CLIENT in worker.command("connections").stdout
    wait_until(lambda: f"{CLIENT}: 400 Bad Request" in worker.text)


def test_allow_is_of_the_client_and_others_are_not_believed(spawn):
    keys = "allow = 203.0.113.0/24, 127.0.0.2"
    worker = spawn(INI.format(keys=keys), app=APP)
    assert ask(worker, "Echo", LINE) == CLIENT
    for header in (LINE.replace(b"203.0.113.9", b"198.51.100.1"), LOCAL):
        with worker.peer("Echo") as peer:
            peer.send(header + b"hello\n")
            assert peer.is_closed()
    with worker.peer("Web") as peer:
        peer.send(LOCAL + GET % b"")
        assert b" 403 " in peer.line()


def test_others_than_proxies_are_who_they_are(spawn):
    worker = spawn(INI.format(keys="").replace("= 127.0.0.1\n", "= 127.0.0.9\n"), app=APP)
    assert ask(worker, "Tasks", b"").startswith("127.0.0.1:")
    with worker.peer("Tasks") as peer:
        peer.send(LINE)
        assert json.loads(peer.line())["error"]["code"] == -32700
    with worker.peer("Web") as peer:
        peer.send(LINE)
        assert b" 400 " in peer.line()


def test_a_drain_does_not_wait_for_proxies_that_say_nothing(spawn):
    ini = INI.format(keys="").replace("handshake_timeout = 1\n", "handshake_timeout = 60\n")
    worker = spawn(ini, app=APP)
    with worker.peer("Echo") as silent:
        wait_until(lambda: worker.status()["services"][1]["processes"][0]["connections"])
        worker.send_signal(signal.SIGTERM)
        assert silent.is_closed()
        assert worker.stop() == 0


# -- through proxies ------------------------------------------------------------------------------

HAPROXY = """
defaults
    mode tcp
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend in
    bind 127.0.0.1:PORT
    default_backend out
backend out
    server one 127.0.0.1:%d %s check check-send-proxy inter 100ms fall 1 rise 1
"""
NGINX_STREAM = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
stream { server { listen 127.0.0.1:PORT; proxy_pass 127.0.0.1:%d; proxy_protocol on; } }
"""


@pytest.mark.parametrize("name", ["Tasks", "Echo", "Web"])
@pytest.mark.parametrize("way", ["send-proxy", "send-proxy-v2"])
def test_haproxy(worker, tmp_path, name, way):
    config = HAPROXY % (worker.address(name)[1], way)
    with closing(Haproxy(tmp_path, config)) as proxy, RawClient(proxy.address) as raw:
        ours = "{}:{}".format(*raw.socket.getsockname())
        raw.send(GET % b"" if name == "Web" else b'{"function": "whoami"}\n')
        if name == "Web":
            assert ":".join(raw.read_answer()[2].decode().split()[:2]) == ours
        else:
            assert raw.socket.makefile("rb").readline().decode().strip().strip('"') == ours
        time.sleep(0.5)  # its checks, which say LOCAL and go
        assert b"DOWN" not in proxy.log.read_bytes()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate and its key in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        f"-subj /CN=localhost -keyout {file}.key -out {file}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    with open(f"{file}.key") as key, file.open("a") as both:
        both.write(key.read())
    return file


def test_the_header_comes_before_tls(spawn, tmp_path, certificate):
    worker = spawn(INI.format(keys=f"certfile = {certificate}"), app=APP)
    context = ssl._create_unverified_context()
    for name in ("Tasks", "Echo", "Web"):
        folder = tmp_path / name
        folder.mkdir()
        config = HAPROXY % (worker.address(name)[1], "send-proxy-v2")
        with closing(Haproxy(folder, config)) as proxy, RawClient(proxy.address) as raw:
            ours = "{}:{}".format(*raw.socket.getsockname())
            raw.socket = context.wrap_socket(raw.socket)
            if name == "Web":
                raw.send(GET % b"")
                assert raw.read_answer()[2].decode().split() == [*ours.split(":"), "https"]
            else:
                raw.send(b'{"function": "whoami"}\n')
                assert raw.socket.recv(100).decode().strip().strip('"') == ours


NGINX_HTTP = """
http {
    access_log off;
    client_body_temp_path FOLDER;
    proxy_temp_path FOLDER;
    fastcgi_temp_path FOLDER;
    uwsgi_temp_path FOLDER;
    scgi_temp_path FOLDER;
    server {
        listen 127.0.0.1:PORT;
        location / {
            proxy_pass http://%s;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
        }
    }
}
"""
WEB = """
[worker:Web]
listen = {listen}
handler = app
proxy_networks = 127.0.0.0/8, 10.0.0.0/8
"""


@pytest.mark.parametrize("is_unix", [False, True])
def test_nginx_forwards_requests(spawn, tmp_path, is_unix):
    listen = f"websocket+unix://{tmp_path}/sock" if is_unix else "websocket://127.0.0.1:0"
    worker = spawn(WEB.format(listen=listen) + "socket_mode = 666\n", app=APP)
    where = f"unix:{tmp_path}/sock:" if is_unix else "{}:{}".format(*worker.address("Web"))
    with closing(Nginx(tmp_path, NGINX_HTTP % where)) as proxy:
        for header, client in [
            (b"", "127.0.0.1 0 https"),
            (b"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9 0 https"),
            (b"X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.1.2.3\r\n", "198.51.100.7 0 https"),
            (b"Forwarded: for=203.0.113.9;proto=http\r\n", "127.0.0.1 0 https"),
        ]:
            with RawClient(proxy.address) as raw:
                raw.send(GET % header)
                assert raw.read_answer()[2].decode() == client
        with RawClient(proxy.address) as raw:
            raw.upgrade(x_forwarded_for="203.0.113.9")
            raw.send(b"\x81\x80\0\0\0\0")
            assert raw.frame()[1] == b"203.0.113.9:0"


def test_forwarded_headers_of_others_are_theirs(spawn):
    ini = WEB.format(listen="websocket://127.0.0.1:0").replace("127.0.0.0/8, ", "")
    worker = spawn(ini, app=APP)
    with RawClient(worker.address("Web")) as raw:
        port = raw.socket.getsockname()[1]
        raw.send(GET % b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n")
        assert raw.read_answer()[2].decode() == f"127.0.0.1 {port} http"
