"""Scripted peers, clients and worlds, which are closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gtask.client import TaskClient

from .peers import ScriptedPeer, echo
from .world import World


@pytest.fixture
def peer() -> Iterator[Callable[..., ScriptedPeer]]:
    peers: list[ScriptedPeer] = []

    def start(script: Callable[[Any], Any] = echo, **options: Any) -> ScriptedPeer:
        peers.append(ScriptedPeer(script, **options))
        return peers[-1]

    yield start
    for started in peers:
        started.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., TaskClient]]:
    clients: list[TaskClient] = []

    def start(*endpoints: Any, **options: Any) -> TaskClient:
        urls = [getattr(endpoint, "url", endpoint) for endpoint in endpoints]
        clients.append(TaskClient(urls, **options))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(hosts: int = 1, **options: Any) -> World:
        worlds.append(World(hosts, **options))
        return worlds[-1]

    yield make
    for made in worlds:
        made.close()
