"""What people read of `status` and `connections`."""

from __future__ import annotations

import pytest

from gtask.programs.tables import _duration, connections_table, status_table

PROCESS = {
    "pid": 101,
    "id": 0,
    "state": "ready",
    "memory_mb": 12.34,
    "connections": 1,
    "running": 1,
    "done": 20,
    "failed": 3,
    "qps": 1.5,
    "uptime_seconds": 61,
    "silent_seconds": 0.1,
    "generation": 2,
    "function": "",
    "busy_seconds": 0,
}
SERVICE = {
    "name": "Tasks",
    "listen": "text://h:1",
    "count": 2,
    "restarts": {},
    "memory_mb": 12.34,
    "connections": 1,
    "running": 1,
    "done": 20,
    "failed": 3,
    "qps": 1.5,
}


def status(process: dict, **service) -> list[str]:
    return status_table(
        {
            "file": "f.ini",
            "state": "running",
            "pid": 100,
            "uptime_seconds": 7300,
            "generation": 2,
            "services": [{**SERVICE, "processes": [{**PROCESS, **process}], **service}],
        }
    ).splitlines()


def test_a_service_and_its_processes():
    assert status({}) == [
        "gtask-worker f.ini: running, process 100, up 2h01m, generation 2",
        "",
        "Tasks  text://h:1  1 of 2",
        "pid  id  state  memory  connections  running  done  failed  qps     up  busy with",
        "101   0  ready   12.3M            1        1    20       3  1.5  1m01s",
        "         all     12.3M            1        1    20       3  1.5",
    ]


def test_restarts_and_why():
    assert (
        status({}, restarts={"exit 1": 2, "SIGKILL": 1})[-1] == "restarts: 2 × exit 1; 1 × SIGKILL"
    )


@pytest.mark.parametrize(
    ("process", "words"),
    [
        ({"function": "f", "busy_seconds": 2}, ("busy", "f 2.0s")),
        ({"state": "draining", "function": "f", "busy_seconds": 2}, ("draining", "f 2.0s")),
        ({"silent_seconds": 3}, ("stuck 3.0s",)),
        ({"silent_seconds": 3, "state": "booting"}, ("booting",)),
        ({"generation": 1}, ("ready (old)",)),
        ({"stuck_threads": 3}, ("ready", "3 threads stuck")),
        ({"stuck_threads": 3, "function": "f", "busy_seconds": 2}, ("f 2.0s, 3 threads stuck",)),
    ],
)
def test_what_a_process_does(process, words):
    for word in words:
        assert f" {word}" in status(process)[4]


def test_connections_of_several_kinds_stand_in_one_table():
    answer = {
        "connections": [
            {"peer": "h:1", "bytes_read": 5},
            {"peer": "h:20", "waiting": 1},
        ],
        "silent": [{"service": "Tasks", "id": 1, "pid": 102}],
    }
    assert connections_table(answer).splitlines() == [
        "peer  bytes read  waiting",
        "h:1   5",
        "h:20              1",
        "2 connections",
        "no answer from Tasks 1, process 102",
    ]


def test_no_connections():
    assert connections_table({"connections": [], "silent": []}) == "0 connections"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"), (0.25, "0.2s"), (59.9, "59.9s"), (60, "1m00s"), (61, "1m01s"), (3599, "59m59s"),
        (3600, "1h00m"), (7300, "2h01m"), (86399, "23h59m"), (86400, "1d00h"), (200000, "2d07h"),
    ],
)  # fmt: skip
def test_durations_have_two_units(seconds, text):
    assert _duration(seconds) == text


def test_nothing_in_a_table_gives_orders_to_the_terminal():
    told = {"peer": "\0a\nb\x1b[2J", "protocol": "bare"}
    table = connections_table({"connections": [told], "silent": []})
    assert table.splitlines()[1].split() == [r"\x00a\nb\x1b[2J", "bare"]
    lines = status({**PROCESS, "function": "f\x1b"}, restarts={"exit 1: a\nb": 2})
    assert not any("\x1b" in line for line in lines)
    assert any(r"2 × exit 1: a\nb" in line for line in lines)
