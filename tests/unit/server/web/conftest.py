"""A websocket service, and a client that has become a websocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ....support.websocket import RawClient, ServiceThread


@pytest.fixture
def service() -> Iterator[ServiceThread]:
    with ServiceThread() as running:
        yield running


@pytest.fixture
def client(service: ServiceThread) -> Iterator[RawClient]:
    with RawClient(service.address) as raw:
        raw.upgrade()
        yield raw
