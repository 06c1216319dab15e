"""`gtask-ping`: what an answer means."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from gtask.programs import ping


@pytest.fixture
def server(tmp_path):
    """Where a server listens that gives one answer, and closes."""
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def give(answer: bytes) -> str:
            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    assert connection.recv(4096) == ping.REQUEST
                    connection.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            return f"text+unix://{path}"

        yield give


def health(**result) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "result": result, "id": 1}).encode() + b"\n"


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        ("ready", (), 0),
        ("busy", (), 0),
        ("draining", (), 1),
        ("ready", ("--lvs",), 102),
        ("ready", ("--lvs", "--weight", "7"), 9),
        ("busy", ("--lvs",), 27),
        ("busy", ("--lvs", "--weight", "3"), 3),
        ("draining", ("--lvs",), 2),
        (["?"], (), 1),
    ],
)
def test_the_exit_code_tells_the_status(server, status, words, code):
    assert ping.main([server(health(status=status)), *words]) == code


def test_the_answer_for_people_and_for_programs(server, capsys):
    url = server(health(status="ready", running=1, waiting=2))
    assert ping.main([url]) == 0
    assert capsys.readouterr().out.startswith(f"{url}: ready, 1 running, 2 waiting, ")
    assert ping.main([server(health(status="ready")), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["url"], answer["status"]) == (url, "ready")


def test_an_answer_gives_no_orders_to_the_terminal(server, capsys):
    assert ping.main([server(health(status="\x1b[2J\n", running="\x9b", waiting=0)), "--lvs"]) == 2
    assert r": \x1b[2J\n, \x9b running" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request\n", "is not a gtask worker"),
        (b"[]\n", "is not a gtask worker"),
        (b'{"result": {}}\n', "is not a gtask worker"),
        (b"x" * 70_000, "the answer has no end"),
    ],
)
def test_what_is_no_worker(server, capsys, answer, complaint):
    assert ping.main([server(answer)]) == 1
    assert complaint in capsys.readouterr().err


def test_nobody_listens(tmp_path, capsys):
    url = f"text+unix://{tmp_path}/none"
    assert ping.main([url]) == 75
    assert (
        capsys.readouterr().err == f"gtask-ping: {url}: cannot connect: No such file or directory\n"
    )
    assert ping.main([url, "--lvs"]) == 1
    assert ping.main([url, "--json"]) == 75


@pytest.mark.parametrize(
    "words",
    [["h:1"], ["websocket://h:1"], ["text://h:1", "--weight", "0"], ["text://h:1", "--key", "k"]],
)
def test_wrong_usage(words):
    with pytest.raises(SystemExit) as ended:
        ping.main(words)
    assert ended.value.code == 2
