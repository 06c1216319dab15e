from __future__ import annotations

import logging

import gevent
import pytest
from gevent.hub import Hub

from gtask.server import hub


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(Hub, "print_exception", Hub.print_exception)
    hub.watch_hubs()


def fail(word):
    raise ValueError(word)


def test_what_a_greenlet_raises_is_logged(watched, caplog, capfd):
    gevent.spawn(fail, "in a greenlet").join()
    gevent.get_hub().loop.run_callback(fail, "in a callback")
    gevent.sleep(0.01)
    told = [record.getMessage() for record in caplog.records if record.name == "gtask.hub"]
    assert len(told) == 2
    assert all("failed with ValueError" in message for message in told)
    assert "ValueError: in a callback" in caplog.text
    assert capfd.readouterr().err == ""


def test_a_context_that_cannot_be_shown(watched, caplog):
    class Ill:
        def __repr__(self):
            raise SystemExit

    with caplog.at_level(logging.ERROR):
        hub.report(Ill(), None, None, None)
    assert "cannot be shown" in caplog.text
