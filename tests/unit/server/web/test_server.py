"""The edge to pywsgi: whatever happens in a handler, it is counted and the process goes on."""

from __future__ import annotations

import logging

import pytest

from gtask.server.web.http import Handler

from ....support.wait import wait_until
from ....support.websocket import RawClient, request


@pytest.mark.parametrize(
    ("error", "level"), [(RuntimeError("met something new"), "ERROR"), (OSError("gone"), "DEBUG")]
)
def test_a_handler_that_fails_costs_its_own_connection(service, monkeypatch, caplog, error, level):
    def fail(handler: Handler) -> None:
        raise error

    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
        patch.setattr(Handler, "handle_one_request", fail)
        with RawClient(service.address) as raw:
            raw.send(request())
            assert b"HTTP" not in raw.rest()
        wait_until(lambda: service.stats.connections == 0)
    told = [record for record in caplog.records if record.name == "gtask.server.web.server"]
    assert [record.levelname for record in told] == [level]
    assert str(error) in caplog.text
    assert caplog.text.count("Traceback") == (1 if level == "ERROR" else 0)
    with RawClient(service.address) as raw:
        raw.upgrade()
        assert raw.echo("still served")


def test_what_applications_are_told_of_the_server(service):
    with RawClient(service.address) as raw:
        raw.upgrade()
        environ = service.connection.request
        host, port = service.address
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (host, str(port))
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["wsgi.multiprocess"] is True
